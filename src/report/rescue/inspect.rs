//! Containers and images as `docker inspect` prints them, as far as files tell.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};

use crate::engine::docker_objects::{Container, Fields, Image, Objects, State, Store, Time};
use crate::engine::driver::Driver;
use crate::ops::rescue::{self, Object};
use crate::report::json::plain;

/// Docker puts no more than 125 layers above each other.
const DEEPEST: usize = 200;

/// Returns all of them as one JSON array, in Docker's order and with its indent.
pub fn text(objects: &Objects, wanted: &[Object<'_>]) -> String {
    let all: Vec<Value> = wanted
        .iter()
        .map(|object| match object {
            Object::Container(found) => container(objects, found),
            Object::Image(store, found) => image(objects, store, found),
        })
        .collect();
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    // A vector takes all that is written, and a JSON value has a JSON form.
    let _ = all.serialize(&mut serializer);
    bytes.push(b'\n');
    plain(String::from_utf8_lossy(&bytes).into_owned())
}

/// The fields of a container that Docker keeps under the name that it prints, in the order in which it prints them
/// (`ContainerJSONBase`, api/types/types.go).
fn container(objects: &Objects, container: &Container) -> Value {
    let config = &container.config;
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
    let kept = |key: &str| config.at(&[key]).clone();
    put("Id", json!(container.id));
    put("Created", kept("Created"));
    put("Path", kept("Path"));
    put("Args", kept("Args"));
    put("State", state(container));
    for key in ["Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name", "RestartCount", "Driver"] {
        put(key, kept(key));
    }
    put("Platform", kept("OS"));
    for key in ["MountLabel", "ProcessLabel", "AppArmorProfile"] {
        put(key, kept(key));
    }
    put("ExecIDs", Value::Null);
    put("HostConfig", host_config(objects, container));
    let data = objects.store_of(container).and_then(|store| of_mount(objects, store, container));
    put("GraphDriver", json!({"Data": data, "Name": config.at(&["Driver"])}));
    put("Mounts", mounts(objects, container));
    put("Config", kept("Config"));
    put("NetworkSettings", network(config));
    Value::Object(all)
}

fn state(container: &Container) -> Value {
    let state = container.config.at(&["State"]);
    let mut all = Map::new();
    let word = match container.state() {
        State::Unknown => Value::Null,
        known => json!(known.word()),
    };
    all.insert("Status".to_owned(), word);
    let keys =
        ["Running", "Paused", "Restarting", "OOMKilled", "Dead", "Pid", "ExitCode", "Error", "StartedAt", "FinishedAt"];
    for key in keys {
        all.insert(key.to_owned(), state.at(&[key]).clone());
    }
    if let Some(mut health) = state.get("Health").filter(|health| health.is_object()).cloned() {
        if let Some(log) = health.get_mut("Log").filter(|log| log.is_null()) {
            *log = json!([]);
        }
        all.insert("Health".to_owned(), health);
    }
    Value::Object(all)
}

/// Links stand there as Docker keeps them in memory, with the names of both containers (`getInspectData`, daemon/inspect.go).
fn host_config(objects: &Objects, container: &Container) -> Value {
    let mut config = container.host_config.clone();
    let own = container.name().unwrap_or_default();
    let named = |(to, alias): (&str, &str)| {
        let name = rescue::container(objects, to).ok().and_then(Container::name)?;
        Some(format!("/{name}:/{own}/{alias}"))
    };
    let links: Vec<String> = container.links().into_iter().filter_map(named).collect();
    if let Some(kept) = config.get_mut("Links") {
        *kept = if links.is_empty() { Value::Null } else { json!(links) };
    }
    config
}

fn mounts(objects: &Objects, container: &Container) -> Value {
    let of = |point: &crate::engine::docker_objects::MountPoint<'_>| {
        let kept = container.config.at(&["MountPoints", point.destination]);
        let mut all = Map::new();
        let kind = kept.text(&["Type"]).unwrap_or(if point.volume.is_some() { "volume" } else { "bind" });
        all.insert("Type".to_owned(), json!(kind));
        all.extend(point.volume.map(|name| ("Name".to_owned(), json!(name))));
        let of_volume = || {
            let name = point.volume.filter(|_| point.driver == Some("local"))?;
            Some(objects.path.join("volumes").join(name).join("_data").display().to_string())
        };
        let source = point.source.map(str::to_owned).or_else(of_volume);
        all.insert("Source".to_owned(), json!(source.unwrap_or_default()));
        all.insert("Destination".to_owned(), json!(point.destination));
        all.extend(point.driver.map(|driver| ("Driver".to_owned(), json!(driver))));
        // It was `Relabel` once, and still is in the file (volume/mounts/mounts.go).
        all.insert("Mode".to_owned(), json!(kept.text(&["Relabel"]).unwrap_or_default()));
        all.insert("RW".to_owned(), json!(point.writable));
        all.insert("Propagation".to_owned(), json!(kept.text(&["Propagation"]).unwrap_or_default()));
        Value::Object(all)
    };
    Value::Array(container.mount_points().iter().map(of).collect())
}

/// As `NetworkSettings` is printed: what Docker keeps for itself is left out, and the default network's values stand beside.
fn network(config: &Value) -> Value {
    let kept = config.at(&["NetworkSettings"]);
    let mut all = Map::new();
    let keys = ["Bridge", "SandboxID", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "Ports"];
    for key in keys.into_iter().chain(["SandboxKey", "SecondaryIPAddresses", "SecondaryIPv6Addresses"]) {
        all.insert(key.to_owned(), kept.at(&[key]).clone());
    }
    if let Some(ports) = all.get_mut("Ports").filter(|ports| ports.is_null()) {
        *ports = json!({});
    }
    let texts = ["EndpointID", "Gateway", "GlobalIPv6Address"];
    let last = ["IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"];
    for key in texts.into_iter().chain(["GlobalIPv6PrefixLen"]).chain(last) {
        let nothing = if key.ends_with("Len") { json!(0) } else { json!("") };
        // Before Docker 1.9 there was one network, and these stood here.
        let value = kept.at(&["Networks", "bridge"]).get(key).or_else(|| kept.get(key));
        all.insert(key.to_owned(), value.cloned().unwrap_or(nothing));
    }
    let networks = kept.entries(&["Networks"]).map(|(name, network)| {
        let mut network = network.clone();
        if let Some(fields) = network.as_object_mut() {
            fields.retain(|key, _| key != "IPAMOperational");
        }
        (name.to_owned(), network)
    });
    all.insert("Networks".to_owned(), Value::Object(networks.collect()));
    Value::Object(all)
}

/// What a driver tells of a container's layer (`GetMetadata` of daemon/graphdriver/devmapper and overlay2); the others tell nothing.
fn of_mount(objects: &Objects, store: &Store, container: &Container) -> Option<Value> {
    let mount = container.mount.as_ref()?;
    let below = mount.init_id.iter().cloned().chain(mount.parent.iter().flat_map(|top| chain(store, top)));
    graph_data(objects, store, mount.mount_id.as_ref()?, &below.collect::<Vec<_>>())
}

fn of_layer(objects: &Objects, store: &Store, top: &str) -> Option<Value> {
    let names = chain(store, top);
    let (own, below) = names.split_first()?;
    graph_data(objects, store, own, below)
}

/// The driver's names of a layer and of those below it, the uppermost first.
fn chain(store: &Store, top: &str) -> Vec<String> {
    let above = std::iter::successors(store.layers.get(top), |layer| store.layers.get(layer.parent.as_ref()?));
    above.take(DEEPEST).filter_map(|layer| layer.cache_id.clone()).collect()
}

fn graph_data(objects: &Objects, store: &Store, name: &str, below: &[String]) -> Option<Value> {
    match Driver::named(&store.driver)? {
        Driver::Devicemapper => {
            let device = store.devices.get(name)?;
            let device_name = format!("{}-{name}", objects.device_prefix.as_ref()?);
            let (id, size) = (device.id.to_string(), device.size.get().to_string());
            Some(json!({"DeviceId": id, "DeviceName": device_name, "DeviceSize": size}))
        }
        Driver::Overlay2 => {
            let place =
                |name: &str, part: &str| objects.path.join("overlay2").join(name).join(part).display().to_string();
            let mut all = Map::new();
            if !below.is_empty() {
                let lower: Vec<_> = below.iter().map(|name| place(name, "diff")).collect();
                all.insert("LowerDir".to_owned(), json!(lower.join(":")));
            }
            for (key, part) in [("MergedDir", "merged"), ("UpperDir", "diff"), ("WorkDir", "work")] {
                all.insert(key.to_owned(), json!(place(name, part)));
            }
            Some(Value::Object(all))
        }
        _ => None,
    }
}

/// As Go prints a time, without zeros at its end.
fn short(time: Time) -> String {
    let text = time.with_nanoseconds();
    format!("{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'))
}

/// As `ImageInspect` (api/types/types.go).
fn image(objects: &Objects, store: &Store, image: &Image) -> Value {
    let config = &image.config;
    let text = |key: &str| json!(config.text(&[key]).unwrap_or_default());
    let size = image.size(&store.layers);
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
    put("Id", json!(image.id));
    put("RepoTags", json!(image.tags));
    put("RepoDigests", json!(image.digests));
    put("Parent", json!(image.parent.as_deref().unwrap_or_default()));
    let of_history = || config.items(&["history"]).last().and_then(|last| last.text(&["comment"]));
    put("Comment", json!(config.text(&["comment"]).or_else(of_history).unwrap_or_default()));
    put("Created", text("created"));
    put("Container", text("container"));
    put("ContainerConfig", config.at(&["container_config"]).clone());
    put("DockerVersion", text("docker_version"));
    put("Author", text("author"));
    put("Config", config.at(&["config"]).clone());
    put("Architecture", text("architecture"));
    if let Some(variant) = config.text(&["variant"]) {
        put("Variant", json!(variant));
    }
    put("Os", text("os"));
    put("Size", json!(size));
    put("VirtualSize", json!(size));
    let data = image.top().and_then(|top| of_layer(objects, store, top));
    put("GraphDriver", json!({"Data": data, "Name": store.driver}));
    if !store.legacy {
        put(
            "RootFS",
            json!({"Type": "layers", "Layers": image.layers.iter().map(|part| &part.diff).collect::<Vec<_>>()}),
        );
    }
    put("Metadata", json!({"LastTagTime": image.last_tagged.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), short)}));
    Value::Object(all)
}
