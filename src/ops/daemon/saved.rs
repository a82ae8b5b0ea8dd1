//! What a container of `--rm` is saved as: an image of its files, and a container of that image with all that it was told.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::containers::name_of;
use crate::process::quote;

/// The label that says which container, by its id, something was saved from.
pub const LABEL: &str = "dmpool.saved-from";
/// How much of a container's name is in the new one: an image's has an end (`NameTotalLengthMax`, reference/reference.go).
const LONGEST: usize = 200;
/// What Docker has without anybody having made it, and takes no settings of an endpoint for.
const OWN_NETWORKS: [&str; 4] = ["default", "bridge", "host", "none"];

/// A container of `--rm`, and what it was saved as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of the image and of the container that it is saved as.
    pub as_name: String,
    /// Its volumes that nobody has named: they are the new container's now.
    pub volumes: Vec<String>,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, is) = (&self.name, quote(&self.as_name));
        write!(f, "the container `{name}` was saved as `{}`:  docker start {is}    # runs it again\n  ", self.as_name)?;
        write!(f, "to remove it:  docker rm {is}; docker rmi {is}")?;
        match self.volumes.as_slice() {
            [] => Ok(()),
            volumes => write!(f, "; docker volume rm {}", volumes.join(" ")),
        }
    }
}

/// Returns the id of the container that one was saved from.
pub fn from(inspected: &Value) -> Option<&str> {
    inspected.pointer("/Config/Labels")?.get(LABEL)?.as_str()
}

/// Returns a name for what a container is saved as, that an image may have too, and that is not `taken`.
pub fn name(of: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let lower = of.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let text: String = words.collect::<Vec<_>>().join("-").chars().take(LONGEST).collect();
    let first = format!("saved-{}", text.trim_end_matches('-'));
    let numbered = (2_u64..).map(|number| format!("{first}-{number}"));
    std::iter::once(first.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(first)
}

/// What Docker is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The container.
    pub container: Value,
    /// The networks that it is connected to afterwards: id (the name, where Docker says none), and settings.
    pub networks: Vec<(String, Value)>,
}

/// Returns what Docker is asked for, to have a container again that `docker inspect` says this of: `name` is that of its image, and `renamed`
/// returns the new name of another container that is saved, by its name or id.
pub fn asked(inspected: &Value, name: &str, renamed: &dyn Fn(&str) -> Option<String>) -> Asked {
    let part = |key: &str| inspected.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let id = inspected.get("Id").and_then(Value::as_str).unwrap_or_default();
    let (mut config, mut host) = (part("Config"), part("HostConfig"));
    config.insert("Image".to_owned(), json!(name));
    let labels = config.entry("Labels").or_insert_with(|| json!({}));
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[LABEL] = json!(id);
    host.insert("AutoRemove".to_owned(), json!(false));
    for key in ["NetworkMode", "IpcMode", "PidMode"] {
        let other = host.get(key).and_then(Value::as_str).and_then(|mode| renamed(mode.strip_prefix("container:")?));
        if let Some(other) = other {
            host.insert(key.to_owned(), json!(format!("container:{other}")));
        }
    }
    relinked(host.get_mut("Links"), "/", renamed);
    bind(inspected, &mut host);
    // What Docker has filled in itself, and takes from nobody then (`validateNetMode`, runconfig/hostconfig_unix.go).
    let is =
        |key: &str, prefix: &str| host.get(key).and_then(Value::as_str).is_some_and(|mode| mode.starts_with(prefix));
    if is("NetworkMode", "container:") || is("UTSMode", "host") {
        config.insert("Hostname".to_owned(), json!(""));
    }
    if is("NetworkMode", "container:") {
        for key in ["ExposedPorts", "MacAddress"] {
            config.remove(key);
        }
    }
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (first, networks) = networks(inspected, id, &mode, renamed);
    config.insert("HostConfig".to_owned(), Value::Object(host));
    config.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": first }));
    Asked { container: Value::Object(config), networks }
}

/// Has every volume bound by its name, where the container has it: an anonymous one would be another, empty one. None is filled
/// from the image: it is as full as it shall be.
fn bind(inspected: &Value, host: &mut Map<String, Value>) {
    let list =
        |host: &Map<String, Value>, key: &str| host.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let binds = list(host, "Binds");
    let mut placed = tmpfs(inspected);
    let mut all = Vec::new();
    for bind in &binds {
        let mut parts = bind.as_str().unwrap_or_default().splitn(3, ':');
        let (source, place, mode) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        // A place alone is a volume that nobody has named.
        let Some(place) = place else { continue };
        placed.push(cleaned(place));
        all.push(match source.starts_with('/') {
            false => json!(format!("{source}:{place}:{}", unfilled(mode.unwrap_or_default()))),
            true => bind.clone(),
        });
    }
    let mounts = inspected.get("Mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut asked = list(host, "Mounts");
    for mount in &mut asked {
        let place = cleaned(&text(mount, "Target"));
        placed.push(place.clone());
        if text(mount, "Type") != "volume" {
            continue;
        }
        let there = mounts.iter().find(|it| cleaned(&text(it, "Destination")) == place);
        if let Some(name) = there.map(|it| text(it, "Name")).filter(|name| !name.is_empty()) {
            mount["Source"] = json!(name);
        }
        let mut options = mount.get("VolumeOptions").and_then(Value::as_object).cloned().unwrap_or_default();
        options.insert("NoCopy".to_owned(), json!(true));
        mount["VolumeOptions"] = Value::Object(options);
    }
    for mount in &mounts {
        let place = text(mount, "Destination");
        if placed.contains(&cleaned(&place)) {
            continue;
        }
        let ro = if mount.get("RW").and_then(Value::as_bool) == Some(false) { "ro" } else { "" };
        // Docker's own is private, and is not said.
        let spread = text(mount, "Propagation");
        let words = [ro, if spread == "rprivate" { "" } else { &spread }].into_iter().filter(|word| !word.is_empty());
        let words = words.collect::<Vec<_>>().join(",");
        match text(mount, "Type").as_str() {
            "volume" => all.push(json!(format!("{}:{place}:{}", text(mount, "Name"), unfilled(ro)))),
            "bind" if words.is_empty() => all.push(json!(format!("{}:{place}", text(mount, "Source")))),
            "bind" => all.push(json!(format!("{}:{place}:{words}", text(mount, "Source")))),
            _ => {}
        }
    }
    let set = |host: &mut Map<String, Value>, key: &str, list: Vec<Value>| {
        if !list.is_empty() {
            host.insert(key.to_owned(), Value::Array(list));
        }
    };
    set(host, "Binds", all);
    set(host, "Mounts", asked);
    // They may be gone by then, and what they have is bound here.
    host.insert("VolumesFrom".to_owned(), Value::Null);
}

/// Returns a place in a container as Docker compares it (filepath.Clean).
fn cleaned(place: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in place.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns where a container has a tmpfs that it was told of (`--tmpfs`): Docker binds nothing there.
fn tmpfs(inspected: &Value) -> Vec<String> {
    let all = inspected.pointer("/HostConfig/Tmpfs").and_then(Value::as_object);
    all.into_iter().flat_map(Map::keys).map(|place| cleaned(place)).collect()
}

/// Has links name what the containers are saved as; `before` is what stands before a name in such a list.
fn relinked(links: Option<&mut Value>, before: &str, renamed: &dyn Fn(&str) -> Option<String>) {
    for entry in links.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(link) = entry.as_str() else { continue };
        let (to, alias) = link.split_once(':').unwrap_or((link, link));
        if let Some(is) = renamed(to.trim_start_matches('/')) {
            *entry = json!(format!("{before}{is}:{alias}"));
        }
    }
}

fn unfilled(mode: &str) -> String {
    let mut words: Vec<&str> = mode.split(',').filter(|word| !word.is_empty() && *word != "nocopy").collect();
    words.push("nocopy");
    words.join(",")
}

/// Returns the endpoint that it is made with, and those that it gets afterwards: Docker takes one when it makes it.
fn networks(
    inspected: &Value,
    id: &str,
    mode: &str,
    renamed: &dyn Fn(&str) -> Option<String>,
) -> (Map<String, Value>, Vec<(String, Value)>) {
    let all = inspected.pointer("/NetworkSettings/Networks").and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut first, mut others) = (Map::new(), Vec::new());
    let old = name_of(inspected);
    for (name, is) in all {
        let network = is.get("NetworkID").and_then(Value::as_str).filter(|id| !id.is_empty()).unwrap_or(&name);
        let is_first = name == mode || network == mode;
        let network = network.to_owned();
        if OWN_NETWORKS.contains(&name.as_str()) {
            // Without a mode of its own Docker connects it to this one itself.
            if !OWN_NETWORKS.contains(&mode) && !mode.is_empty() && !mode.starts_with("container:") {
                others.push((network, json!({})));
            }
            continue;
        }
        let mut endpoint = Map::new();
        for key in ["IPAMConfig", "Links", "DriverOpts"] {
            endpoint.extend(is.get(key).filter(|value| !value.is_null()).map(|value| (key.to_owned(), value.clone())));
        }
        relinked(endpoint.get_mut("Links"), "", renamed);
        // Docker adds the first digits of the id itself, and finds it by its name.
        let aliases = is.get("Aliases").and_then(Value::as_array).into_iter().flatten();
        let mut aliases: Vec<_> = aliases.filter_map(Value::as_str).filter(|alias| !id.starts_with(alias)).collect();
        if !aliases.contains(&old.as_str()) {
            aliases.push(&old);
        }
        endpoint.insert("Aliases".to_owned(), json!(aliases));
        match is_first {
            true => _ = first.insert(name, Value::Object(endpoint)),
            false => others.push((network, Value::Object(endpoint))),
        }
    }
    (first, others)
}

/// Returns what a container has mounted, to be compared: what it is, where, and whether it may be written. What a tmpfs hides is not.
pub fn mounted(inspected: &Value) -> Vec<[String; 3]> {
    let mounts = inspected.get("Mounts").and_then(Value::as_array).into_iter().flatten();
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let of = |mount: &Value| {
        let name = text(mount, "Name");
        let what = if name.is_empty() { text(mount, "Source") } else { name };
        [text(mount, "Destination"), what, mount.get("RW").cloned().unwrap_or_default().to_string()]
    };
    let hidden = tmpfs(inspected);
    let mut all: Vec<_> = mounts.map(of).filter(|[place, ..]| !hidden.contains(&cleaned(place))).collect();
    all.sort();
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn job() -> Value {
        let volume = |name: &str, place: &str, rw: bool| json!({"Type": "volume", "Name": name, "Source": format!("/v/{name}"), "Destination": place, "RW": rw});
        json!({
            "Id": "abcdef0123456789", "Name": "/Job_1",
            "Config": {"Hostname": "abcdef012345", "Image": "busybox", "Cmd": ["sh"], "Labels": {"a": "b"}, "Volumes": {"/x": {}}},
            "HostConfig": {
                "AutoRemove": true, "NetworkMode": "net1", "Links": ["/db:/Job_1/db", "/web:/Job_1/w"], "Memory": 7,
                "Binds": ["/srv:/srv:ro", "data:/data", "z:/z:rw,z"], "VolumesFrom": ["web"],
                "Mounts": [{"Type": "volume", "Target": "/m"}, {"Type": "tmpfs", "Target": "/t"}],
                "RestartPolicy": {"Name": "no"}, "PidMode": "container:db",
            },
            "Mounts": [
                volume("anon", "/x", true), volume("data", "/data", true), volume("z", "/z", true), volume("mm", "/m", true),
                volume("of-web", "/w", false),
                {"Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": false},
                {"Type": "bind", "Source": "/etc/x", "Destination": "/etc/x", "RW": false},
            ],
            "NetworkSettings": {"Networks": {
                "net1": {"NetworkID": "n1", "IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": ["abcdef012345", "j"], "IPAddress": "10.0.0.2"},
                "net2": {"NetworkID": "n2", "Aliases": null, "Links": ["db:d", "web", "db"]},
                "bridge": {"NetworkID": "n3"},
            }},
        })
    }

    #[test]
    fn a_saved_container_has_all_that_it_was_told_and_every_volume_by_name() {
        let renamed = |name: &str| (name == "db").then(|| "saved-db".to_owned());
        let Asked { container, networks } = asked(&job(), "saved-job-1", &renamed);
        assert_eq!(container["Image"], "saved-job-1");
        assert_eq!(container["Labels"], json!({"a": "b", LABEL: "abcdef0123456789"}));
        assert_eq!((&container["Hostname"], &container["Cmd"]), (&json!("abcdef012345"), &json!(["sh"])));
        let host = &container["HostConfig"];
        assert_eq!(
            (&host["AutoRemove"], &host["Memory"], &host["VolumesFrom"]),
            (&json!(false), &json!(7), &Value::Null)
        );
        assert_eq!(host["PidMode"], "container:saved-db");
        assert_eq!(host["Links"], json!(["/saved-db:/Job_1/db", "/web:/Job_1/w"]));
        assert_eq!(
            host["Binds"],
            json!([
                "/srv:/srv:ro",
                "data:/data:nocopy",
                "z:/z:rw,z,nocopy",
                "anon:/x:nocopy",
                "of-web:/w:ro,nocopy",
                "/etc/x:/etc/x:ro"
            ])
        );
        assert_eq!(
            host["Mounts"],
            json!([{"Type": "volume", "Target": "/m", "Source": "mm", "VolumeOptions": {"NoCopy": true}}, {"Type": "tmpfs", "Target": "/t"}])
        );
        assert_eq!(
            container["NetworkingConfig"],
            json!({"EndpointsConfig": {"net1": {"IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": ["j", "Job_1"]}}})
        );
        let linked = json!({"Links": ["saved-db:d", "web", "saved-db:db"], "Aliases": ["Job_1"]});
        assert_eq!(
            networks.into_iter().collect::<BTreeMap<_, _>>(),
            [("n2".to_owned(), linked), ("n3".to_owned(), json!({}))].into()
        );
    }

    #[test]
    fn a_place_is_bound_once_however_it_was_written() {
        let volume =
            |name: &str, place: &str| json!({"Type": "volume", "Name": name, "Destination": place, "RW": true});
        let bind = |place: &str, propagation: &str| json!({"Type": "bind", "Source": place, "Destination": place, "RW": false, "Propagation": propagation});
        let job = json!({
            "Id": "abc", "Name": "/job",
            "HostConfig": {
                "Binds": ["/srv/x:/data/", "named://b/./c/../", "/word"], "Tmpfs": {"/t/": ""},
                "Mounts": [{"Type": "volume", "Target": "/m/", "Source": "m"}],
            },
            "Mounts": [
                bind("/data", "rprivate"), volume("named", "/b"), volume("anon", "/word"), volume("hidden", "/t"), volume("m", "/m"),
                bind("/of-web", "rslave"), bind("/of-db", "rprivate"),
            ],
        });
        let asked = asked(&job, "saved-job", &|_| None).container;
        assert_eq!(
            asked["HostConfig"]["Binds"],
            json!([
                "/srv/x:/data/",
                "named://b/./c/../:nocopy",
                "anon:/word:nocopy",
                "/of-web:/of-web:ro,rslave",
                "/of-db:/of-db:ro"
            ])
        );
        assert_eq!(asked["HostConfig"]["Mounts"][0]["VolumeOptions"], json!({"NoCopy": true}));
        assert!(mounted(&job).iter().all(|[place, ..]| place != "/t"), "{:?}", mounted(&job));
    }

    #[test]
    fn what_docker_has_filled_in_of_a_shared_network_is_not_asked_for() {
        let mut beside = job();
        *beside.pointer_mut("/HostConfig/NetworkMode").unwrap() = json!("container:db");
        beside["Config"]["ExposedPorts"] = json!({"80/tcp": {}});
        beside["NetworkSettings"] = json!({"Networks": {}});
        let Asked { container, networks } = asked(&beside, "s", &|name| Some(format!("saved-{name}")));
        assert_eq!((&container["Hostname"], container.get("ExposedPorts")), (&json!(""), None));
        assert_eq!((&container["HostConfig"]["NetworkMode"], networks.len()), (&json!("container:saved-db"), 0));
    }

    #[test]
    fn a_name_is_one_that_an_image_may_have_and_nobodys() {
        let free = |name: &str| super::name(name, &|_| false);
        assert_eq!(free("job"), "saved-job");
        assert_eq!(free("My__Job..1_"), "saved-my-job-1");
        assert_eq!(free(&"a".repeat(300)).len(), "saved-".len() + LONGEST);
        assert_eq!(name("job", &|name| ["saved-job", "saved-job-2"].contains(&name)), "saved-job-3");
    }
}
