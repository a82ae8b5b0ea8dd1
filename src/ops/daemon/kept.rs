//! What Docker says of all that it has, and what of that is another afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::containers::{inspected, name_of};
use crate::engine::api::{Api, SOON};
use crate::process;

/// What else says how Docker is started, and is kept.
pub const SOURCES: [&str; 8] = [
    "/etc/docker",
    "/etc/sysconfig/docker",
    "/etc/sysconfig/docker-storage",
    "/etc/sysconfig/docker-storage-setup",
    "/etc/default/docker",
    "/etc/systemd/system/docker.service",
    "/etc/systemd/system/docker.service.d",
    "/etc/systemd/system/docker.socket.d",
];

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
}

impl Kept {
    /// Asks Docker for all of it, and tries the ports.
    ///
    /// # Errors
    /// When Docker does not say it.
    pub fn ask(api: &Api) -> Result<Self> {
        let mut kept = Self::objects(api)?;
        kept.listening = published(&kept.containers).into_iter().filter(listens).collect();
        kept.firewall = firewall();
        Ok(kept)
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

    /// Asks Docker again, and returns what is not as it was, each a sentence. Waits for servers to listen.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn differences_now(&self, api: &Api) -> Result<Vec<String>> {
        let mut found = self.differences(&Self::objects(api)?);
        let until = Instant::now() + LISTENS;
        for port in &self.listening {
            while !listens(port) {
                if Instant::now() >= until {
                    let Port { container, address } = port;
                    found
                        .push(format!("nobody answers any more at {address}, the port of the container `{container}`"));
                    break;
                }
                std::thread::sleep(BETWEEN_TRIES);
            }
        }
        let after = firewall();
        let after: BTreeSet<_> = chains(&after).collect();
        let missing = chains(&self.firewall).filter(|chain| !after.contains(chain));
        found.extend(missing.map(|chain| format!("the firewall had a chain {chain} and has none now")));
        Ok(found)
    }

    /// Returns what another answer of Docker's says otherwise, each a sentence. What a start changes is left out.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = of_containers(&self.containers, &after.containers);
        found.extend(by_key(&self.images, &after.images, "image", "Id", &["RepoTags", "RepoDigests"]));
        found.extend(by_key(&self.networks, &after.networks, "network", "Name", &["Driver", "Options", "Labels"]));
        found.extend(of_subnets(&self.networks, &after.networks));
        found.extend(by_key(&self.volumes, &after.volumes, "volume", "Name", &["Driver", "Options", "Labels"]));
        found
    }
}

fn of_containers(before: &[Value], after: &[Value]) -> Vec<String> {
    let id = |it: &Value| it.get("Id").and_then(Value::as_str).map(str::to_owned);
    let after: BTreeMap<_, _> = after.iter().filter_map(|it| Some((id(it)?, it))).collect();
    let mut found = Vec::new();
    for was in before {
        // Docker removes it when it stops; whether it did is said where that was.
        if was.pointer("/HostConfig/AutoRemove").and_then(Value::as_bool) == Some(true) {
            continue;
        }
        let name = name_of(was);
        let Some(is) = id(was).and_then(|id| after.get(&id)) else {
            found.push(format!("the container `{name}` is gone"));
            continue;
        };
        let mut keys: Vec<String> = ["Name", "Image", "Created", "Path", "Args"]
            .into_iter()
            .filter(|key| was.get(*key) != is.get(*key))
            .map(str::to_owned)
            .collect();
        for part in ["Config", "HostConfig"] {
            keys.extend(unlike(was.get(part), is.get(part)).into_iter().map(|key| format!("{part}.{key}")));
        }
        if !keys.is_empty() {
            found.push(format!("the container `{name}` has another {}", keys.join(", ")));
        }
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
fn of_subnets(before: &[Value], after: &[Value]) -> Vec<String> {
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
            found.push(format!("the network {} has other addresses", name_of(was)));
        }
    }
    found
}

/// Compares objects that have a key of their own: which are gone, and which say something else under these others.
fn by_key(before: &[Value], after: &[Value], what: &str, key: &str, others: &[&str]) -> Vec<String> {
    let name = |it: &Value| it.get(key).and_then(Value::as_str).map(str::to_owned);
    let after: BTreeMap<_, _> = after.iter().filter_map(|it| Some((name(it)?, it))).collect();
    let mut found = Vec::new();
    for was in before {
        let Some(name) = name(was) else { continue };
        match after.get(&name) {
            None => found.push(format!("the {what} {name} is gone")),
            Some(is) => {
                let other: Vec<_> =
                    others.iter().filter(|key| sorted(was.get(**key)) != sorted(is.get(**key))).collect();
                found.extend(other.into_iter().map(|key| format!("the {what} {name} has another {key}")));
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
pub fn published(containers: &[Value]) -> Vec<Port> {
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
    let printed = process::run_within::<&str>("iptables-save", &[], Duration::from_secs(30), LONGEST_RULES);
    String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned()
}

/// Returns the chains that Docker makes, of such a text.
fn chains(rules: &str) -> impl Iterator<Item = &str> {
    let names = rules.lines().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next());
    names.filter(|name| name.starts_with("DOCKER"))
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
        let before = Kept {
            containers: vec![
                container.clone(),
                json!({"Id": "2", "Name": "/gone"}),
                json!({"Id": "3", "Name": "/job", "HostConfig": {"AutoRemove": true}}),
            ],
            images: vec![json!({"Id": "a", "RepoTags": ["x:1", "y:1"], "Size": 1})],
            networks: vec![json!({
                "Name": "bridge", "Id": "n1", "Driver": "bridge",
                "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "172.17.0.0/16"}]},
            })],
            volumes: vec![json!({"Name": "v", "Driver": "local"})],
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
        assert_eq!(before.differences(&same), Vec::<String>::new());
        let mut other = same;
        other.containers[0]["HostConfig"]["Memory"] = json!(6);
        other.containers[0]["Config"]["Tty"] = json!(true);
        other.containers.pop();
        other.images[0]["RepoTags"] = json!(["x:1"]);
        other.networks[0]["IPAM"]["Config"][0]["Subnet"] = json!("172.18.0.0/16");
        other.volumes.clear();
        assert_eq!(
            before.differences(&other),
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
    fn dockers_chains_are_found_among_others() {
        let rules =
            "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\n:DOCKER-USER - [0:0]\n";
        assert_eq!(chains(rules).collect::<Vec<_>>(), ["DOCKER", "DOCKER-USER"]);
    }
}
