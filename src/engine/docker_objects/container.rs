//! A container: `containers/ID/config.v2.json` and `hostconfig.json` beside it (container/container.go, `toDisk`); before
//! Docker 1.10 `config.json`, with the same keys where they are read here.

use serde_json::Value;

use super::fields::Fields;
use super::layer::Mount;
use super::reader::{Reader, is_id};
use super::time::Time;
use crate::engine::docker_root::Problem;
use crate::engine::small_file::Directory;

/// The folder in the root that has one of every container.
pub const CONTAINERS: &str = "containers";

/// One container, as far as its files tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its id: its folder's name.
    pub id: String,
    /// `config.v2.json` whole, with what dmpool does not know of; null when it could not be read.
    pub config: Value,
    /// `hostconfig.json` whole; null when there is none.
    pub host_config: Value,
    /// Whether its files are those of a Docker before 1.10.
    pub legacy: bool,
    /// Its own layer.
    pub mount: Option<Mount>,
    /// What could not be read of it, or is missing.
    pub problems: Vec<Problem>,
}

/// What a container was doing, by the last word of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was never started.
    Created,
    /// It ran; whether it still does, only its Docker knows.
    Running,
    /// It was paused.
    Paused,
    /// It had ended and was to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// Docker had begun to remove it.
    Removing,
    /// Docker could not remove it whole.
    Dead,
    /// Nothing says it.
    Unknown,
}

impl State {
    /// Returns Docker's word (`StateString`, container/state.go), or `unknown`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a container sees a volume or a directory of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint<'a> {
    /// The path in the container.
    pub destination: &'a str,
    /// The volume's name; nothing for a directory of the host.
    pub volume: Option<&'a str>,
    /// The volume's driver.
    pub driver: Option<&'a str>,
    /// Where the files are on the host, as Docker wrote it.
    pub source: Option<&'a str>,
    /// Whether the container may write there.
    pub writable: bool,
}

impl Container {
    /// Returns its name, without the slash that Docker keeps before it.
    pub fn name(&self) -> Option<&str> {
        self.config.text(&["Name"]).map(|name| name.strip_prefix('/').unwrap_or(name)).filter(|name| !name.is_empty())
    }

    /// Returns when it was made.
    pub fn created(&self) -> Option<Time> {
        Time::parse(self.config.text(&["Created"])?)
    }

    /// Returns the id of its image.
    pub fn image_id(&self) -> Option<&str> {
        self.config.text(&["Image"])
    }

    /// Returns its image as it was named when the container was made.
    pub fn image_name(&self) -> Option<&str> {
        self.config.text(&["Config", "Image"])
    }

    /// Returns the storage driver that has its layer.
    pub fn driver(&self) -> Option<&str> {
        self.config.text(&["Driver"])
    }

    /// Returns what it runs: its path, then its arguments, those with blanks in quotes (`transform`, container/view.go).
    pub fn command(&self) -> String {
        let quoted = |word: &str| if word.contains(' ') { format!("'{word}'") } else { word.to_owned() };
        let path = self.config.text(&["Path"]).unwrap_or_default().to_owned();
        std::iter::once(path).chain(self.config.texts(&["Args"]).into_iter().map(quoted)).collect::<Vec<_>>().join(" ")
    }

    /// Returns what it was doing (`StateString`, container/state.go).
    pub fn state(&self) -> State {
        let is = |key: &str| self.config.flag(&["State", key]);
        match () {
            () if !self.config.at(&["State"]).is_object() => State::Unknown,
            () if is("Running") && is("Paused") => State::Paused,
            () if is("Running") && is("Restarting") => State::Restarting,
            () if is("Running") => State::Running,
            () if is("RemovalInProgress") => State::Removing,
            () if is("Dead") => State::Dead,
            () if self.started().is_none() => State::Created,
            () => State::Exited,
        }
    }

    /// Returns when it was last started.
    pub fn started(&self) -> Option<Time> {
        Time::parse(self.config.text(&["State", "StartedAt"])?)
    }

    /// Returns when it last ended.
    pub fn finished(&self) -> Option<Time> {
        Time::parse(self.config.text(&["State", "FinishedAt"])?)
    }

    /// Returns the log driver; `json-file` is what Docker takes when nothing was said, unless its daemon was told otherwise.
    pub fn log_driver(&self) -> Option<&str> {
        self.host_config.text(&["LogConfig", "Type"])
    }

    /// Returns the containers that it is linked to, each by name or id and by what it calls it. Docker has written both forms:
    /// `db:alias`, and `/db:/web/alias` before 1.10.
    pub fn links(&self) -> Vec<(&str, &str)> {
        let links = self.host_config.texts(&["Links"]).into_iter();
        links
            .map(|link| link.split_once(':').unwrap_or((link, link)))
            .map(|(name, alias)| (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias)))
            .collect()
    }

    /// Returns its mount points, by the path in the container: `MountPoints` from Docker 1.7 on, and `Volumes` before.
    pub fn mount_points(&self) -> Vec<MountPoint<'_>> {
        let points = self.config.entries(&["MountPoints"]).map(|(destination, point)| MountPoint {
            destination,
            volume: point.text(&["Name"]),
            driver: point.text(&["Driver"]),
            source: point.text(&["Source"]),
            writable: point.flag(&["RW"]),
        });
        let mut found: Vec<_> = points.collect();
        for (destination, path) in self.config.entries(&["Volumes"]) {
            let Some(path) = path.as_str().filter(|_| found.iter().all(|point| point.destination != destination))
            else {
                continue;
            };
            found.push(MountPoint {
                destination,
                volume: id_in(path),
                driver: None,
                source: Some(path),
                writable: self.config.flag(&["VolumesRW", destination]),
            });
        }
        found
    }
}

/// Returns the id of the volume that a path of Docker before 1.9 means: `…/vfs/dir/ID` or `…/volumes/ID/_data`.
fn id_in(path: &str) -> Option<&str> {
    let path = path.strip_suffix("/_data").unwrap_or(path);
    path.rsplit_once('/').map(|(_, last)| last).filter(|last| is_id(last))
}

/// Reads every container that has a folder.
pub(super) fn read(root: &Directory, reader: &mut Reader) -> Vec<Container> {
    let Some(containers) = reader.folder(root, CONTAINERS) else { return Vec::new() };
    let names = reader.names(&containers);
    names.into_iter().map(|id| one(&containers, id, reader)).collect()
}

fn one(containers: &Directory, id: String, reader: &mut Reader) -> Container {
    let (found, problems) = reader.apart(|reader| {
        let folder = reader.folder(containers, &id)?;
        let is_old =
            matches!(folder.kind("config.v2.json"), Ok(None)) && matches!(folder.kind("config.json"), Ok(Some(_)));
        let config = reader.wanted_json(&folder, if is_old { "config.json" } else { "config.v2.json" });
        let host_config = reader.json(&folder, "hostconfig.json");
        if let Some(other) = config.as_ref().and_then(|c| c.text(&["ID"])).filter(|other| *other != id) {
            reader.problem(&folder, None, format!("it says that it is the container {other}"));
        }
        Some((config, host_config, is_old))
    });
    let (config, host_config, legacy) = found.unwrap_or_default();
    Container {
        id,
        config: config.unwrap_or_default(),
        host_config: host_config.unwrap_or_default(),
        legacy,
        mount: None,
        problems,
    }
}
