//! Where dmpool keeps what must outlive a command: the registry, the journals, the locks.

use std::path::{Path, PathBuf};

/// The directories of dmpool's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// One file per registered pool.
    pub registry: PathBuf,
    /// One file per registered pool that has volumes.
    pub volumes: PathBuf,
    /// One file per open journal.
    pub journals: PathBuf,
    /// One file per lock: the same for every state directory, since two dmpools may mean the same pool.
    pub locks: PathBuf,
    /// What was seen of pools earlier.
    pub history: PathBuf,
    /// What was on devices before dmpool wrote there.
    pub saved: PathBuf,
    /// The signs that keep an engine from starting.
    pub hold: PathBuf,
    /// Where `create` makes a pool's directory when none is named.
    pub pools: PathBuf,
    /// The directory that was named with `--state-dir`.
    pub directory: Option<PathBuf>,
    /// The Docker root that was named with `--root`: it is looked at beside those that are found, and is what `docker` means.
    pub docker_root: Option<PathBuf>,
}

/// Where locks are, on a tmpfs.
const LOCKS: &str = "/run/dmpool/lock";

impl Default for State {
    fn default() -> Self {
        Self {
            registry: "/etc/dmpool/pools".into(),
            volumes: "/etc/dmpool/volumes".into(),
            journals: "/var/lib/dmpool/journal".into(),
            locks: LOCKS.into(),
            history: "/var/lib/dmpool/history.json".into(),
            saved: "/var/lib/dmpool/saved".into(),
            hold: "/var/lib/dmpool/hold".into(),
            pools: "/var/lib/dmpool/pools".into(),
            directory: None,
            docker_root: None,
        }
    }
}

impl State {
    /// Returns the directories for `--state-dir`: everything below it but the locks.
    pub fn below(directory: &Path) -> Self {
        Self {
            registry: directory.join("registry"),
            volumes: directory.join("volumes"),
            journals: directory.join("journal"),
            locks: LOCKS.into(),
            history: directory.join("history.json"),
            saved: directory.join("saved"),
            hold: directory.join("hold"),
            pools: directory.join("pools"),
            directory: Some(directory.to_owned()),
            docker_root: None,
        }
    }

    /// Returns the same with a Docker root that was named.
    #[must_use]
    pub fn with_docker_root(self, docker_root: Option<PathBuf>) -> Self {
        Self { docker_root, ..self }
    }
}
