//! containerd's devmapper snapshotter: its configuration, and the database of its devices, both only read.

mod config;
mod daemon;
mod glob;
mod owners;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use config::{BadConfig, Config, File, Section, parse};
pub use daemon::Flags;
pub use owners::{Container, Owner, containers_in, others_in, snapshots_in};
use serde::Deserialize;

use config::PLUGIN;

use super::bolt::{self, BadBolt, Bolt, Item};
use super::docker_root::Problem;
use super::small_file;
use super::start::below;

/// The snapshotter's database of snapshots, in its `root_path`, and containerd's own database, in its `root`.
const SNAPSHOTS: &str = "metadata.db";
const METADATA: &str = "io.containerd.metadata.v1.bolt/meta.db";
/// What containerd calls the snapshotter.
const NAME: &str = "devmapper";
/// `root` when the configuration has none.
const ROOT: &str = "/var/lib/containerd";
/// The database of a hundred thousand devices has some 50 MB.
const LARGEST_DATABASE: u64 = 256 << 20;
/// How often a database is read again that was written meanwhile.
const ATTEMPTS: u32 = 5;
/// The bytes that hold both meta pages, whatever the size of pages.
const METAS: u64 = 2 * 65536;

/// The snapshotter as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshotter {
    /// The configuration that says so.
    pub config: PathBuf,
    /// `pool_name`: the pool's dm name.
    pub pool: String,
    /// `root_path`: where its databases are.
    pub root_path: PathBuf,
    /// `root`: where containerd keeps everything else.
    pub root: PathBuf,
}

/// One thin device as containerd knows it (`DeviceInfo`, snapshots/devmapper/device_info.go).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Device {
    /// Its dm name.
    pub name: String,
    /// Its id in the pool.
    #[serde(rename = "device_id")]
    pub id: u32,
    /// Its virtual size in bytes.
    pub size: u64,
    /// The device that it is a snapshot of; empty for none.
    #[serde(default, rename = "parent_name")]
    pub parent: String,
    /// Its state, by number.
    pub state: u8,
    /// What went wrong with it last; empty for nothing.
    #[serde(default)]
    pub error: String,
}

/// The names of states, in order (`DeviceState`).
const STATES: [&str; 14] = [
    "Unknown",
    "Creating",
    "Created",
    "Activating",
    "Activated",
    "Suspending",
    "Suspended",
    "Resuming",
    "Resumed",
    "Deactivating",
    "Deactivated",
    "Removing",
    "Removed",
    "Faulty",
];

impl Device {
    /// Returns containerd's name for its state.
    pub fn state_name(&self) -> &'static str {
        STATES.get(usize::from(self.state)).copied().unwrap_or("Unknown")
    }
}

/// The snapshotters of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshotters {
    /// Those that a configuration gives a pool, of daemons that run first.
    pub found: Vec<Snapshotter>,
    /// What could not be read, and may have named others.
    pub problems: Vec<Problem>,
}

/// A containerd of this machine that is not Docker's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The configuration that it reads.
    pub config: PathBuf,
    /// Its `--root`, if it has one.
    pub root: Option<PathBuf>,
    /// The unit that starts it with that configuration.
    pub unit: Option<&'static str>,
    /// Whether one runs.
    pub runs: bool,
}

/// Where Docker keeps the configuration of the containerd that it starts for itself (libcontainerd/supervisor).
const OF_DOCKER: [&str; 2] = ["/run/docker", "/var/run/docker"];

/// Returns the containerds of the machine whose root directory that is (`/`), each configuration once, the one of its
/// unit first; with none at all, the one that reads the usual file.
pub fn daemons(base: &Path) -> (Vec<Daemon>, Vec<Problem>) {
    daemons_of(base, daemon::running())
}

fn daemons_of(base: &Path, mut running: Vec<Flags>) -> (Vec<Daemon>, Vec<Problem>) {
    let mut problems = Vec::new();
    running.retain(|flags| !OF_DOCKER.iter().any(|dir| flags.config.starts_with(dir)));
    let of_units = daemon::of_units(base, &mut problems).into_iter().map(|(unit, flags)| {
        let runs = running.contains(&flags);
        Daemon { config: flags.config, root: flags.root, unit: Some(unit), runs }
    });
    let mut found: Vec<Daemon> = of_units.collect();
    for flags in running {
        if found.iter().all(|daemon| daemon.config != flags.config) {
            found.push(Daemon { config: flags.config, root: flags.root, unit: None, runs: true });
        }
    }
    if found.is_empty() {
        found.push(Daemon { config: PathBuf::from(daemon::CONFIG), root: None, unit: None, runs: false });
    }
    (found, problems)
}

/// Returns the snapshotters of this machine: of each containerd that runs, and of the one that its unit will start.
pub fn find() -> Snapshotters {
    of(Path::new("/"), daemon::running())
}

fn of(base: &Path, running: Vec<daemon::Flags>) -> Snapshotters {
    let mut all = Snapshotters::default();
    let mut seen = Vec::new();
    for flags in running.into_iter().chain(daemon::next(base, &mut all.problems)) {
        if seen.contains(&flags) {
            continue;
        }
        let config = Config::load(base, &flags.config);
        all.found.extend(snapshotter(base, &flags, &config));
        let fresh = config.problems.into_iter().filter(|problem| !all.problems.contains(problem));
        let fresh: Vec<_> = fresh.collect();
        all.problems.extend(fresh);
        seen.push(flags);
    }
    all
}

/// Returns the snapshotter that a configuration makes; where containerds of different ages read it differently, the one that
/// has a database.
fn snapshotter(base: &Path, flags: &daemon::Flags, config: &Config) -> Option<Snapshotter> {
    let root = flags.root.as_ref().or(config.root.as_ref()).cloned().unwrap_or_else(|| PathBuf::from(ROOT));
    let of = |section: &Section| {
        Some(Snapshotter {
            config: flags.config.clone(),
            pool: section.pool.clone()?,
            root_path: below(base, &section.root_path.clone().unwrap_or_else(|| root.join(PLUGIN))),
            root: below(base, &root),
        })
    };
    if config.disabled {
        return None;
    }
    let [before, since] = [of(&config.last), of(&config.merged)];
    match (before, since) {
        // Where they agree nothing is looked at: a directory may be on what hangs.
        (Some(before), Some(since)) if before != since && !before.database().exists() && since.database().exists() => {
            Some(since)
        }
        (Some(before), _) => Some(before),
        (None, since) => since,
    }
}

/// Returns where a daemon's snapshotter keeps its databases, by its one file; nothing when that has no section for it.
pub fn root_path(file: &File, daemon: &Daemon) -> Option<PathBuf> {
    let root = daemon.root.as_ref().or(file.root.as_ref()).cloned().unwrap_or_else(|| PathBuf::from(ROOT));
    Some(file.section.as_ref()?.root_path.clone().unwrap_or_else(|| root.join(PLUGIN)))
}

impl Snapshotter {
    /// Returns where the database of its devices is.
    pub fn database(&self) -> PathBuf {
        self.root_path.join(format!("{}.db", self.pool))
    }

    /// Returns the databases of what is on the pool, the snapshotter's own and containerd's: they mean nothing when the pool is
    /// another one. containerd's is not among them where it names snapshots of other snapshotters, or cannot be read:
    /// without it containerd would remove these.
    pub fn databases(&self) -> Vec<PathBuf> {
        let mut all = vec![self.database(), self.root_path.join(SNAPSHOTS)];
        let metadata = self.root.join(METADATA);
        let others = read_database(&metadata, |bytes| others_in(bytes, NAME).map_err(|bad| bad.to_string()));
        if others.is_ok_and(|others| !others) {
            all.push(metadata);
        }
        all
    }

    /// Returns containerd's own database.
    pub fn metadata(&self) -> PathBuf {
        self.root.join(METADATA)
    }

    /// Returns the devices that containerd knows, by name.
    ///
    /// # Errors
    /// When the database is not there, cannot be read, is damaged, or is written all the time.
    pub fn devices(&self) -> Result<Vec<Device>, Problem> {
        read_database(&self.database(), devices_in)
    }

    /// Returns whose the snapshots are, by their ids, and what of it could not be read. The device of one has
    /// [`Snapshotter::device`] for its name.
    pub fn owners(&self) -> (BTreeMap<u64, Owner>, Vec<Problem>) {
        let mut problems = Vec::new();
        let words = |bad: BadBolt| bad.to_string();
        let snapshots = read_database(&self.root_path.join(SNAPSHOTS), |bytes| snapshots_in(bytes).map_err(words));
        let mut snapshots = snapshots.unwrap_or_else(|problem| {
            problems.push(problem);
            BTreeMap::new()
        });
        let containers = |bytes: &[u8]| containers_in(bytes, NAME).map_err(words);
        match read_database(&self.root.join(METADATA), containers) {
            Ok(containers) => {
                for owner in snapshots.values_mut() {
                    owner.container = containers.get(&(owner.namespace.clone(), owner.key.clone())).cloned();
                }
            }
            Err(problem) => problems.push(problem),
        }
        (snapshots, problems)
    }

    /// Returns the dm name of a snapshot's device (snapshots/devmapper/snapshotter.go, `getDeviceName`).
    pub fn device(&self, snapshot: u64) -> String {
        format!("{}-snap-{snapshot}", self.pool)
    }
}

/// Returns what is in a database. containerd's file lock is not taken: it is held for as long as containerd runs, and a file
/// that is written while it is read is read again.
fn read_database<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, Problem> {
    let problem = |why: String| Problem { path: path.to_owned(), why };
    for _ in 0..ATTEMPTS {
        let bytes = small_file::read_at(path, LARGEST_DATABASE).map_err(|e| problem(e.to_string()))?;
        let found = parse(&bytes);
        let now = newest(path).map_err(|e| problem(e.to_string()))?;
        if Bolt::parse(&bytes).ok().map(|bolt| bolt.transaction()) == now {
            return found.map_err(problem);
        }
    }
    Err(problem("it was written each time that it was read".to_owned()))
}

/// Returns whether a database of the snapshotter may hold something: a device, or a snapshot (`v1/snapshots`,
/// snapshots/storage/bolt.go). containerd makes both when its plugin starts, with nothing in them.
pub fn holds_something(database: &Path) -> bool {
    let count = |bytes: &[u8]| -> Result<usize, BadBolt> {
        let root = Bolt::parse(bytes)?.root();
        let snapshots = root.bucket("v1")?.map_or(Ok(None), |v1| v1.bucket("snapshots"))?;
        let of = |bucket: Option<bolt::Bucket<'_>>| bucket.map_or(Ok(0), |bucket| Ok(bucket.items()?.len()));
        Ok(of(root.bucket("devices")?)? + of(snapshots)?)
    };
    match small_file::read_at(database, LARGEST_DATABASE) {
        Ok(bytes) => count(&bytes).map_or(true, |count| count > 0),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Returns the last transaction in a database as it is now.
fn newest(path: &Path) -> io::Result<Option<u64>> {
    use std::io::Read;
    let mut metas = Vec::new();
    std::fs::File::open(path)?.take(METAS).read_to_end(&mut metas)?;
    Ok(Bolt::parse(&metas).ok().map(|bolt| bolt.transaction()))
}

/// Returns the devices in a database's bytes; what is wrong otherwise.
pub(crate) fn devices_in(bytes: &[u8]) -> Result<Vec<Device>, String> {
    let read = || -> Result<Vec<_>, BadBolt> {
        match Bolt::parse(bytes)?.root().bucket("devices")? {
            Some(bucket) => bucket.items(),
            None => Ok(Vec::new()),
        }
    };
    let items = read().map_err(|bad| bad.to_string())?;
    let device = |(key, item): (&[u8], Item<'_>)| match item {
        Item::Value(json) => serde_json::from_slice(json)
            .map_err(|error| format!("the device `{}` in it: {error}", String::from_utf8_lossy(key))),
        Item::Bucket(_) => Err("its devices are not what containerd writes".to_owned()),
    };
    items.into_iter().map(device).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn dockers_own_containerd_is_not_among_the_machines() {
        let temp = tempfile::tempdir().unwrap();
        let flags = |config: &str| Flags { config: PathBuf::from(config), root: None };
        let docker = flags("/var/run/docker/containerd/containerd.toml");
        let told = |running: &[Flags]| {
            let daemons = daemons_of(temp.path(), running.to_vec()).0.into_iter();
            daemons.map(|d| (d.config.to_str().unwrap().to_owned(), d.unit, d.runs)).collect::<Vec<_>>()
        };
        let usual = "/etc/containerd/config.toml".to_owned();
        assert_eq!(told(std::slice::from_ref(&docker)), [(usual.clone(), None, false)]);
        let unit = temp.path().join("lib/systemd/system/containerd.service");
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(unit, "[Service]\nExecStart=/usr/bin/containerd\n").unwrap();
        let service = Some("containerd.service");
        assert_eq!(told(&[]), [(usual.clone(), service, false)]);
        let both = told(&[flags("/srv/c.toml"), docker, flags(&usual)]);
        assert_eq!(both, [(usual, service, true), ("/srv/c.toml".to_owned(), None, true)]);
    }

    #[test]
    fn a_machine_with_a_snapshotter_and_its_devices() {
        let temp = tempfile::tempdir().unwrap();
        let find = || of(temp.path(), Vec::new());
        assert_eq!(find(), Snapshotters::default());
        let config = temp.path().join("etc/containerd/config.toml");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        let root = temp.path().join("dm");
        fs::write(&config, "[plugins.devmapper]\npool_name='cpool'\nroot_path='/dm'").unwrap();
        let found = find().found.remove(0);
        assert_eq!((found.pool.as_str(), found.config.to_str()), ("cpool", Some("/etc/containerd/config.toml")));
        assert_eq!((&found.root_path, &found.root), (&root, &temp.path().join("var/lib/containerd")));
        assert!(found.devices().unwrap_err().why.contains("No such file"));
        fs::create_dir(&root).unwrap();
        let json = br#"{"device_id":1,"size":1073741824,"name":"cpool-snap-1","parent_name":"","state":4,"error":""}"#;
        fs::write(found.database(), bolt::tests::database("devices", &[("cpool-snap-1", json)])).unwrap();
        let devices = found.devices().unwrap();
        assert_eq!((devices[0].id, devices[0].state_name()), (1, "Activated"));
        assert!(holds_something(&found.database()) && !holds_something(&root.join("none")));
        fs::write(found.database(), bolt::tests::database("devices", &[])).unwrap();
        assert!(!holds_something(&found.database()));
        fs::write(found.database(), bolt::tests::database("devices", &[("x", b"{}")])).unwrap();
        assert!(found.devices().unwrap_err().why.contains("the device `x`"));
        fs::write(found.database(), b"").unwrap();
        assert!(found.devices().unwrap_err().why.contains("no bolt database"));
        fs::write(&config, [0xff]).unwrap();
        assert_eq!(find().problems[0].why, "it is no text");
    }
}
