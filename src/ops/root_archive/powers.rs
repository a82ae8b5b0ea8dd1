//! What the containers of an archive may do to the host that it is loaded on, once Docker starts: an archive of a stranger's is a
//! program that somebody lets run as root.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde_json::Value;

use super::contents::Item;
use crate::engine::docker_objects::{Container, Fields};
use crate::ops::rescue::label;
use crate::ops::volumes_of_docker::{Entries, Entry, Stop};

/// No container's record is longer; of longer ones it is told that they were not looked at.
const LONGEST: u64 = 1 << 20;
/// What opens a part of the host to a container (api/types/container/host_config.go).
const LISTS: [&str; 3] = ["CapAdd", "Devices", "DeviceCgroupRules"];
const MODES: [&str; 5] = ["PidMode", "IpcMode", "NetworkMode", "UTSMode", "UsernsMode"];

/// What each container may, by its name.
#[derive(Debug, Default)]
pub(super) struct Powers {
    of: BTreeMap<String, BTreeSet<String>>,
}

impl Powers {
    /// Looks at the containers of a root.
    pub(super) fn of_all(containers: &[Container]) -> Self {
        let mut powers = Self::default();
        for container in containers {
            let label = label(container);
            powers.add(&label, of_config(&container.config));
            powers.add(&label, of_host_config(&container.host_config));
        }
        powers
    }

    fn add(&mut self, label: &str, found: Vec<String>) {
        if !found.is_empty() {
            self.of.entry(label.to_owned()).or_default().extend(found);
        }
    }

    /// Looks at an entry of an archive, when it is one of a container's records.
    pub(super) fn look<R: Read>(&mut self, item: &Item, entry: &Entry, from: &mut Entries<R>) -> Result<(), Stop> {
        let Item::Container { id, name } = item else { return Ok(()) };
        let file = entry.path.strip_prefix(item.place()).ok().and_then(|file| file.to_str());
        let of: fn(&Value) -> Vec<String> = match file {
            Some("config.v2.json") => of_config,
            Some("hostconfig.json") => of_host_config,
            _ => return Ok(()),
        };
        let label = name.as_deref().unwrap_or(id);
        if entry.status.size > LONGEST {
            self.add(label, vec!["has records so long that they were not looked at".to_owned()]);
            return Ok(());
        }
        let record: Value = serde_json::from_slice(&from.whole(LONGEST)?).unwrap_or_default();
        self.add(label, of(&record));
        Ok(())
    }

    /// Returns a line for each container that may more than others, or that Docker starts.
    pub(super) fn lines(self) -> Vec<String> {
        let line = |(label, found): (String, BTreeSet<String>)| {
            format!("container {label} {}", found.into_iter().collect::<Vec<_>>().join(", "))
        };
        self.of.into_iter().map(line).collect()
    }
}

fn mounts(source: &str) -> String {
    format!("has {source} of the host mounted")
}

fn of_config(config: &Value) -> Vec<String> {
    let points = config.entries(&["MountPoints"]).map(|(_, point)| point);
    let binds = points.filter(|point| point.text(&["Name"]).is_none()).filter_map(|point| point.text(&["Source"]));
    binds.map(mounts).collect()
}

fn of_host_config(host: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if host.flag(&["Privileged"]) {
        found.push("is privileged".to_owned());
    }
    let policy = host.text(&["RestartPolicy", "Name"]).filter(|policy| *policy != "no");
    found.extend(policy.map(|policy| format!("is started with Docker (restart={policy})")));
    let binds = host.texts(&["Binds"]).into_iter().filter(|bind| bind.starts_with('/'));
    found.extend(binds.filter_map(|bind| bind.split(':').next()).map(mounts));
    let binds = host.items(&["Mounts"]).iter().filter(|mount| mount.text(&["Type"]) == Some("bind"));
    found.extend(binds.filter_map(|mount| mount.text(&["Source"])).map(mounts));
    let lists = LISTS.iter().filter(|key| !host.items(&[key]).is_empty());
    found.extend(lists.map(|key| format!("has {key}")));
    let modes = MODES.iter().filter(|key| host.text(&[key]) == Some("host"));
    found.extend(modes.map(|key| format!("has {key}=host")));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_as_good_as_root_is_named() {
        let none = json!({"Privileged": false, "RestartPolicy": {"Name": "no"}, "Binds": ["data:/data"], "CapAdd": null,
            "NetworkMode": "default", "Mounts": [{"Type": "volume", "Source": "v"}]});
        assert_eq!(of_host_config(&none), Vec::<String>::new());
        let all = json!({"Privileged": true, "RestartPolicy": {"Name": "always"}, "Binds": ["/etc:/x:ro"], "CapAdd": ["ALL"],
            "PidMode": "host", "Mounts": [{"Type": "bind", "Source": "/root"}]});
        assert_eq!(
            of_host_config(&all),
            [
                "is privileged",
                "is started with Docker (restart=always)",
                "has /etc of the host mounted",
                "has /root of the host mounted",
                "has CapAdd",
                "has PidMode=host"
            ]
        );
        let points = json!({"MountPoints": {"/v": {"Name": "v", "Source": "/var/lib/docker/volumes/v/_data"},
            "/h": {"Name": "", "Source": "/srv"}}});
        assert_eq!(of_config(&points), ["has /srv of the host mounted"]);
    }
}
