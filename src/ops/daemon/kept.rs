//! What Docker says of all that it has, and what of that is another afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::containers::{inspected, name_of};
use super::vanishing;
use crate::engine::api::{Api, SOON};
use crate::engine::start;
use crate::process;

/// What says how Docker is started, and is kept. Beside it: what [`start::read`] has read.
pub const SOURCES: [&str; 21] = [
    "/etc/docker",
    "/etc/sysconfig/docker",
    "/etc/sysconfig/docker-network",
    "/etc/sysconfig/docker-storage",
    "/etc/sysconfig/docker-storage-setup",
    "/etc/sysconfig/docker-latest",
    "/etc/sysconfig/docker-latest-network",
    "/etc/sysconfig/docker-latest-storage",
    "/etc/sysconfig/docker-latest-storage-setup",
    "/etc/default/docker",
    "/etc/init.d/docker",
    "/etc/init/docker.conf",
    "/etc/init/docker.override",
    "/etc/systemd/system/docker.service",
    "/etc/systemd/system/docker.service.d",
    "/etc/systemd/system/docker.socket",
    "/etc/systemd/system/docker.socket.d",
    "/etc/systemd/system/docker-latest.service",
    "/etc/systemd/system/docker-latest.service.d",
    "/run/systemd/system/docker.service.d",
    "/run/systemd/system/docker.socket.d",
];

/// Returns all that says on this machine how Docker is started: also the vendor's unit, and files that a unit names.
pub fn sources() -> Vec<PathBuf> {
    let read = start::read(Path::new("/")).sources.into_iter().map(|source| source.path);
    SOURCES.iter().map(PathBuf::from).chain(read).collect()
}

/// A port of this machine takes a connection at once, or nobody listens.
const CONNECTS: Duration = Duration::from_secs(1);
/// How long a server may take to listen again.
const LISTENS: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// More than any firewall has.
const LONGEST_RULES: usize = 16 << 20;

/// A published port that somebody listens at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The container's name.
    pub container: String,
    /// Where it is published.
    pub address: SocketAddr,
}

/// What Docker says of what it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// `docker version`.
    pub version: Value,
    /// `docker info`.
    pub info: Value,
    /// `docker inspect` of every container.
    pub containers: Vec<Value>,
    /// `docker images`.
    pub images: Vec<Value>,
    /// `docker network ls`.
    pub networks: Vec<Value>,
    /// `docker volume ls`.
    pub volumes: Vec<Value>,
    /// The published TCP ports of running containers at which a connection was taken.
    pub listening: Vec<Port>,
    /// What `iptables-save` printed; empty where there is none.
    pub firewall: String,
    /// What `ip6tables-save` printed; empty where there is none.
    #[serde(default)]
    pub firewall6: String,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What, in a sentence.
    pub what: String,
    /// The keys under which Docker says something else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Change>,
}

/// What Docker said, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Before.
    pub was: Value,
    /// Afterwards.
    pub is: Value,
}

impl Change {
    fn of(was: Option<&Value>, is: Option<&Value>, key: &str) -> Self {
        let value = |of: Option<&Value>| of.and_then(|of| of.get(key)).cloned().unwrap_or_default();
        Self { was: value(was), is: value(is) }
    }
}

impl From<String> for Difference {
    fn from(what: String) -> Self {
        Self { what, keys: BTreeMap::new() }
    }
}

impl Difference {
    fn of(subject: &str, keys: BTreeMap<String, Change>) -> Option<Self> {
        let names: Vec<_> = keys.keys().map(String::as_str).collect();
        let what = (!names.is_empty()).then(|| format!("{subject} has another {}", names.join(", ")))?;
        Some(Self { what, keys })
    }
}

impl Kept {
    /// Asks Docker for all of it, and tries the ports.
    ///
    /// # Errors
    /// When Docker does not say it.
    pub fn ask(api: &Api) -> Result<Self> {
        let mut kept = Self::objects(api)?;
        // Who goes with Docker answers nobody afterwards.
        let stay = kept.containers.iter().filter(|it| !vanishing::is(it));
        kept.listening = published(stay).into_iter().filter(listens).collect();
        kept.read_firewall();
        Ok(kept)
    }

    fn read_firewall(&mut self) {
        self.firewall = firewall();
        self.firewall6 = rules_of("ip6tables-save");
    }

    /// Asks Docker for all that it knows itself.
    fn objects(api: &Api) -> Result<Self> {
        let get = |path: &str| api.get(path, SOON).with_context(|| format!("asking Docker for {path}"));
        let list = |value: Value| value.as_array().cloned().unwrap_or_default();
        Ok(Self {
            version: get("/version")?,
            info: get("/info")?,
            containers: inspected(api)?,
            images: list(get("/images/json")?),
            networks: list(get("/networks")?),
            volumes: get("/volumes")?.get("Volumes").cloned().map(list).unwrap_or_default(),
            ..Self::default()
        })
    }

    /// Asks Docker again. Returns what it says, and what is not as it was. Waits for servers to listen.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn differences_now(&self, api: &Api) -> Result<(Self, Vec<Difference>)> {
        let mut after = Self::objects(api)?;
        let mut found = self.differences(&after);
        let until = Instant::now() + LISTENS;
        for port in &self.listening {
            while !listens(port) && Instant::now() < until {
                std::thread::sleep(BETWEEN_TRIES);
            }
            if listens(port) {
                after.listening.push(port.clone());
                continue;
            }
            let Port { container, address } = port;
            found.push(format!("nobody answers any more at {address}, the port of the container `{container}`").into());
        }
        after.read_firewall();
        let both = [("", &self.firewall, &after.firewall), (" for IPv6", &self.firewall6, &after.firewall6)];
        for (which, before, after) in both {
            let there = chains(after);
            let missing = chains(before).into_iter().filter(|chain| !there.contains(chain));
            found.extend(missing.map(|(table, chain)| {
                format!("the firewall{which} had a chain {chain} (table {table}) and has none now").into()
            }));
        }
        Ok((after, found))
    }

    /// Returns how much there is to compare, by what it is.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let chains = chains(&self.firewall).len() + chains(&self.firewall6).len();
        BTreeMap::from([
            ("containers", self.containers.len()),
            ("images", self.images.len()),
            ("networks", self.networks.len()),
            ("volumes", self.volumes.len()),
            ("ports", self.listening.len()),
            ("firewall_chains", chains),
        ])
    }

    /// Returns what another answer of Docker's says otherwise. What a start changes is left out, and what goes with a container of `--rm`.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let vanishing = vanishing::all(&self.containers);
        let gone: BTreeSet<_> =
            vanishing.iter().flat_map(|of| &of.volumes).map(|volume| volume.name.as_str()).collect();
        let stays =
            |volume: &&Value| volume.get("Name").and_then(Value::as_str).is_none_or(|name| !gone.contains(name));
        let volumes: Vec<_> = self.volumes.iter().filter(stays).cloned().collect();
        let mut found = of_containers(&self.containers, &after.containers);
        found.extend(by_key(&self.images, &after.images, "image", "Id", &["RepoTags", "RepoDigests"]));
        found.extend(by_key(&self.networks, &after.networks, "network", "Name", &["Driver", "Options", "Labels"]));
        found.extend(of_subnets(&self.networks, &after.networks));
        found.extend(by_key(&volumes, &after.volumes, "volume", "Name", &["Driver", "Options", "Labels"]));
        found
    }
}

fn of_containers(before: &[Value], after: &[Value]) -> Vec<Difference> {
    let id = |it: &Value| it.get("Id").and_then(Value::as_str).map(str::to_owned);
    let after: BTreeMap<_, _> = after.iter().filter_map(|it| Some((id(it)?, it))).collect();
    let mut found = Vec::new();
    for was in before {
        // It was agreed that it goes.
        if vanishing::is(was) {
            continue;
        }
        let name = name_of(was);
        let Some(is) = id(was).and_then(|id| after.get(&id)) else {
            found.push(format!("the container `{name}` is gone").into());
            continue;
        };
        let mut keys: BTreeMap<String, Change> = ["Name", "Image", "Created", "Path", "Args"]
            .into_iter()
            .filter(|key| was.get(*key) != is.get(*key))
            .map(|key| (key.to_owned(), Change::of(Some(was), Some(is), key)))
            .collect();
        for part in ["Config", "HostConfig"] {
            let (was, is) = (was.get(part), is.get(part));
            keys.extend(unlike(was, is).into_iter().map(|key| (format!("{part}.{key}"), Change::of(was, is, &key))));
        }
        found.extend(Difference::of(&format!("the container `{name}`"), keys));
    }
    found
}

/// Returns the keys under which two objects say something else. What is null, false, or not there is one to Docker.
fn unlike(before: Option<&Value>, after: Option<&Value>) -> BTreeSet<String> {
    let value = |of: Option<&Value>, key: &str| {
        let value = of.and_then(|of| of.get(key)).filter(|value| !matches!(value, Value::Null | Value::Bool(false)));
        // Docker keeps links without an order.
        if key == "Links" { value.map(|links| sorted(Some(links))) } else { value.cloned() }
    };
    let objects = [before, after].into_iter().flatten().filter_map(Value::as_object);
    objects.flat_map(|of| of.keys().cloned()).filter(|key| value(before, key) != value(after, key)).collect()
}

/// Compares where networks have their addresses. Docker tells more of them once it has started anew (the gateway that it has chosen,
/// options that are none): what is told only then, or only before, is no difference.
fn of_subnets(before: &[Value], after: &[Value]) -> Vec<Difference> {
    let find = |name: Option<&Value>| after.iter().find(|network| network.get("Name") == name);
    let subnets = |network: &Value| -> BTreeMap<String, Value> {
        let all = network.pointer("/IPAM/Config").and_then(Value::as_array).into_iter().flatten();
        let subnet = |entry: &Value| Some((entry.get("Subnet")?.as_str()?.to_owned(), entry.clone()));
        all.filter_map(subnet).collect()
    };
    let is_other = |was: &Value, is: &Value| {
        let [was, is] = [was, is].map(|entry| entry.as_object().cloned().unwrap_or_default());
        was.iter().any(|(key, value)| is.get(key).is_some_and(|other| other != value))
    };
    let mut found = Vec::new();
    for was in before {
        let Some(is) = find(was.get("Name")) else { continue };
        let (old, new) = (subnets(was), subnets(is));
        let is_same = was.pointer("/IPAM/Driver") == is.pointer("/IPAM/Driver")
            && old.len() == new.len()
            && old.iter().all(|(subnet, entry)| new.get(subnet).is_some_and(|other| !is_other(entry, other)));
        if !is_same {
            let keys = BTreeMap::from([("IPAM".to_owned(), Change::of(Some(was), Some(is), "IPAM"))]);
            found.push(Difference { what: format!("the network {} has other addresses", name_of(was)), keys });
        }
    }
    found
}

/// Compares objects that have a key of their own: which are gone, and which say something else under these others.
fn by_key(before: &[Value], after: &[Value], what: &str, key: &str, others: &[&str]) -> Vec<Difference> {
    let name = |it: &Value| it.get(key).and_then(Value::as_str).map(str::to_owned);
    let after: BTreeMap<_, _> = after.iter().filter_map(|it| Some((name(it)?, it))).collect();
    let mut found = Vec::new();
    for was in before {
        let Some(name) = name(was) else { continue };
        match after.get(&name) {
            None => found.push(format!("the {what} {name} is gone").into()),
            Some(is) => {
                let others = others.iter().filter(|key| sorted(was.get(**key)) != sorted(is.get(**key)));
                let keys = others.map(|key| ((*key).to_owned(), Change::of(Some(was), Some(is), key))).collect();
                found.extend(Difference::of(&format!("the {what} {name}"), keys));
            }
        }
    }
    found
}

/// Returns a value whose order says nothing in one order.
fn sorted(value: Option<&Value>) -> Value {
    match value {
        Some(Value::Array(items)) => {
            let mut items = items.clone();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        other => other.cloned().unwrap_or_default(),
    }
}

/// Returns the TCP ports that running containers have published, each address once.
pub fn published<'c>(containers: impl IntoIterator<Item = &'c Value>) -> Vec<Port> {
    let mut found = BTreeSet::new();
    for container in containers {
        let ports = container.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
        for (inside, bindings) in ports.into_iter().flatten() {
            for binding in bindings.as_array().into_iter().flatten().filter(|_| inside.ends_with("/tcp")) {
                let text = |key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default();
                let Ok(port) = text("HostPort").parse() else { continue };
                let address = match text("HostIp").parse() {
                    Ok(IpAddr::V6(any)) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    Ok(ip) if !ip.is_unspecified() => ip,
                    _ => Ipv4Addr::LOCALHOST.into(),
                };
                found.insert(Port { container: name_of(container), address: SocketAddr::new(address, port) });
            }
        }
    }
    found.into_iter().collect()
}

fn listens(port: &Port) -> bool {
    TcpStream::connect_timeout(&port.address, CONNECTS).is_ok()
}

/// Returns what `iptables-save` prints; empty where it cannot be had.
pub fn firewall() -> String {
    rules_of("iptables-save")
}

/// Returns what a program prints that shows the firewall; empty where it cannot be had.
fn rules_of(program: &str) -> String {
    let printed = process::run_within::<&str>(program, &[], Duration::from_secs(30), LONGEST_RULES);
    String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned()
}

/// Returns the chains that Docker makes, of such a text, each with its table.
fn chains(rules: &str) -> BTreeSet<(&str, &str)> {
    let mut table = "";
    let mut found = BTreeSet::new();
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        }
        let chain = line.strip_prefix(':').and_then(|line| line.split_whitespace().next());
        found.extend(chain.filter(|name| name.starts_with("DOCKER")).map(|name| (table, name)));
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_start_changes_is_no_difference_and_all_else_is() {
        let container = json!({
            "Id": "1", "Name": "/web", "Image": "sha256:a", "State": {"Pid": 7}, "GraphDriver": {"Name": "devicemapper"},
            "Config": {"Cmd": ["x"], "Env": null}, "HostConfig": {"OomKillDisable": null, "Memory": 5, "Links": ["/a:/web/a", "/b:/web/b"]},
        });
        let of_job = "ab".repeat(32);
        let before = Kept {
            containers: vec![
                container.clone(),
                json!({"Id": "2", "Name": "/gone"}),
                json!({"Id": "3", "Name": "/job", "HostConfig": {"AutoRemove": true},
                    "Mounts": [{"Type": "volume", "Name": of_job, "Destination": "/x"}]}),
            ],
            images: vec![json!({"Id": "a", "RepoTags": ["x:1", "y:1"], "Size": 1})],
            networks: vec![json!({
                "Name": "bridge", "Id": "n1", "Driver": "bridge",
                "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "172.17.0.0/16"}]},
            })],
            volumes: vec![json!({"Name": "v", "Driver": "local"}), json!({"Name": of_job, "Driver": "local"})],
            ..Kept::default()
        };
        let mut same = before.clone();
        same.containers[0]["State"]["Pid"] = json!(8);
        same.containers[0]["GraphDriver"]["Name"] = json!("overlay2");
        same.containers[0]["HostConfig"]["OomKillDisable"] = json!(false);
        same.containers[0]["HostConfig"]["Links"] = json!(["/b:/web/b", "/a:/web/a"]);
        same.images[0]["RepoTags"] = json!(["y:1", "x:1"]);
        same.networks[0]["Id"] = json!("n2");
        same.networks[0]["IPAM"]["Options"] = json!({});
        same.networks[0]["IPAM"]["Config"][0]["Gateway"] = json!("172.17.0.1");
        same.containers.pop();
        same.volumes.pop();
        assert_eq!(before.differences(&same), Vec::new());
        let mut other = same;
        other.containers[0]["HostConfig"]["Memory"] = json!(6);
        other.containers[0]["Config"]["Tty"] = json!(true);
        other.containers.pop();
        other.images[0]["RepoTags"] = json!(["x:1"]);
        other.networks[0]["IPAM"]["Config"][0]["Subnet"] = json!("172.18.0.0/16");
        other.volumes.clear();
        let found = before.differences(&other);
        assert_eq!(found[0].keys["HostConfig.Memory"], Change { was: json!(5), is: json!(6) });
        assert_eq!(
            found.into_iter().map(|difference| difference.what).collect::<Vec<_>>(),
            [
                "the container `web` has another Config.Tty, HostConfig.Memory",
                "the container `gone` is gone",
                "the image a has another RepoTags",
                "the network bridge has other addresses",
                "the volume v is gone",
            ]
        );
    }

    #[test]
    fn published_ports_are_tried_where_they_are_published() {
        let ports = json!({
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
            "81/tcp": null, "82/tcp": [{"HostIp": "127.0.0.9", "HostPort": "82"}, {"HostPort": "no"}],
        });
        let container = json!({"Name": "/web", "NetworkSettings": {"Ports": ports}});
        let found: Vec<_> = published(&[container]).iter().map(|port| port.address.to_string()).collect();
        assert_eq!(found, ["127.0.0.1:8080", "127.0.0.9:82", "[::1]:8080"]);
    }

    #[test]
    fn dockers_chains_are_found_among_others_in_each_table() {
        let rules = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\nCOMMIT\n\
            *filter\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n";
        let found: Vec<_> = chains(rules).into_iter().collect();
        assert_eq!(found, [("filter", "DOCKER"), ("filter", "DOCKER-USER"), ("nat", "DOCKER")]);
    }
}
