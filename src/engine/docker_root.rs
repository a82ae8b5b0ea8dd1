//! A Docker root whose driver is devicemapper, read from its files with no daemon's help.
//!
//! Layout (daemon/graphdriver/devmapper/deviceset.go), with the two `devicemapper` levels that Docker's own resize recipe
//! gets wrong:
//!
//! ```text
//! /var/lib/docker/                    the root
//!   devicemapper/                     the driver's home: its device and inode numbers are in the pool's name
//!     devicemapper/data, metadata     the loop files, when there are any
//!     metadata/base, <hash>…          one file for every thin device
//!     metadata/deviceset-metadata, transaction-metadata
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::bookkeeping::{self, Device, DeviceSet, Transaction};
use super::daemon_json::{self, DaemonJson};
use super::dockerd::{self, Dockerd};
use super::libdm;
use super::options::StorageOptions;
use super::small_file::{self, Directory};

/// Where Docker keeps everything when nobody told it otherwise.
pub const DEFAULT_ROOT: &str = "/var/lib/docker";

/// The driver's home in the root, and the name of the directory in it that holds the loop files.
const DRIVER: &str = "devicemapper";
/// Docker's files are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;
/// No daemon.json in use comes near this.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Which storage options a root's daemon has, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// A daemon runs on the root: its command line and its configuration file are all it was given.
    Running(StorageOptions),
    /// No daemon runs, and `daemon.json` gives options; a daemon that has them takes none from its command line.
    Configured(StorageOptions),
    /// No daemon runs, and what the next one will be started with is written elsewhere (a unit, a sysconfig file).
    Unknown,
}

impl Options {
    /// Returns the options, when they are known.
    pub const fn known(&self) -> Option<&StorageOptions> {
        match self {
            Self::Running(options) | Self::Configured(options) => Some(options),
            Self::Unknown => None,
        }
    }
}

/// Something that should have been read and could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// One Docker root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerRoot {
    /// The root, free of symbolic links, as Docker itself takes it.
    pub path: PathBuf,
    /// The daemon that runs on it, if one does.
    pub daemon: Option<Dockerd>,
    /// Its storage options.
    pub options: Options,
    /// What the names of the pool and of all thin devices begin with: `docker-8:1-131073`.
    pub device_prefix: String,
    /// The loop file of the data, when it is there.
    pub data_file: Option<PathBuf>,
    /// The loop file of the metadata, when it is there.
    pub metadata_file: Option<PathBuf>,
    /// The base device; `None` when there is none, or its file could not be read (then there is a problem).
    pub base: Option<Device>,
    /// What is kept about the whole set; as above.
    pub device_set: Option<DeviceSet>,
    /// The transaction opened last; as above.
    pub transaction: Option<Transaction>,
    /// Whether Docker 18.06 or later has run on it: those make `<root>/buildkit`.
    pub has_buildkit: bool,
    /// The libdevmapper of the running daemon, `1.02.185 (2022-05-18)`; only after [`Self::with_library_version`].
    pub library_version: Option<String>,
    /// Files that could not be read, or made no sense.
    pub problems: Vec<Problem>,
}

/// How many devices Docker's bookkeeping names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All of them, the base included.
    pub all: u64,
    /// Those to be deleted once nobody uses them.
    pub deleted: u64,
    /// Files that could not be read; with one of these `deleted` is a lower bound.
    pub problems: Vec<Problem>,
}

/// The Docker roots of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Those that use devicemapper.
    pub found: Vec<DockerRoot>,
    /// Those that are there and cannot be opened.
    pub unreadable: Vec<Problem>,
}

impl Roots {
    fn take(&mut self, path: &Path, read: io::Result<Option<DockerRoot>>) {
        match read {
            Ok(Some(root)) if self.found.iter().all(|r| r.path != root.path) => self.found.push(root),
            Ok(_) => {}
            Err(error) => self.unreadable.push(Problem { path: path.to_owned(), why: error.to_string() }),
        }
    }
}

/// Returns the Docker roots of this machine that use devicemapper: those of the running daemons, or, when none runs, the
/// one that `daemon.json` names, or the default. A daemon in a container is passed over: its root is not ours.
pub fn find() -> Roots {
    let mut roots = Roots::default();
    let daemons = dockerd::running();
    if daemons.is_empty() {
        let config = DaemonConfig::read(Path::new(daemon_json::DEFAULT_PATH));
        let root = PathBuf::from(config.json.root().unwrap_or(DEFAULT_ROOT));
        roots.take(&root, read_if_there(&root, None, config));
    }
    for daemon in daemons {
        let config = DaemonConfig::of(&daemon);
        let root = daemon_root(&daemon, &config);
        if !seen_by_both(&daemon, &root) {
            continue;
        }
        roots.take(&root, read_if_there(&root, Some(daemon), config));
    }
    roots
}

/// Returns the Docker root at a path that somebody named, with its daemon if one runs on it; nothing when no
/// devicemapper driver ever ran there.
///
/// # Errors
/// When the path cannot be opened, or what is below it cannot.
pub fn at(path: &Path) -> io::Result<Option<DockerRoot>> {
    let identity = Directory::open(path)?.identity()?;
    for daemon in dockerd::running() {
        let config = DaemonConfig::of(&daemon);
        let root = daemon_root(&daemon, &config);
        let same = Directory::open(&root).and_then(|d| d.identity()).is_ok_and(|other| other == identity);
        if same && seen_by_both(&daemon, &root) {
            return read_if_there(path, Some(daemon), config);
        }
    }
    let config = DaemonConfig::read(Path::new(daemon_json::DEFAULT_PATH));
    let is_configured = Directory::open(Path::new(config.json.root().unwrap_or(DEFAULT_ROOT)))
        .and_then(|d| d.identity())
        .is_ok_and(|other| other == identity);
    read_if_there(path, None, if is_configured { config } else { DaemonConfig::default() })
}

/// What a configuration file says, and what was wrong with it.
#[derive(Debug, Default)]
struct DaemonConfig {
    json: DaemonJson,
    problem: Option<Problem>,
}

impl DaemonConfig {
    fn read(path: &Path) -> Self {
        let problem =
            |why: String| Self { json: DaemonJson::default(), problem: Some(Problem { path: path.to_owned(), why }) };
        match small_file::read_at(path, LARGEST_CONFIG) {
            Ok(bytes) => match DaemonJson::parse(&bytes) {
                Ok(json) => Self { json, problem: None },
                Err(error) => problem(format!("it is not what Docker reads: {error}")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => problem(error.to_string()),
        }
    }

    fn of(daemon: &Dockerd) -> Self {
        Self::read(daemon.flags.config_file.as_deref().unwrap_or(Path::new(daemon_json::DEFAULT_PATH)))
    }

    /// Returns the storage options that this file and a daemon's command line give together.
    fn options(&self, daemon: Option<&Dockerd>) -> Options {
        let given = self.json.storage_options.as_deref();
        match (daemon, given) {
            (None, None) => Options::Unknown,
            // An unreadable file may give options; a running daemon that has its own would have refused to start.
            (Some(daemon), None) if self.problem.is_some() && daemon.flags.storage_options.is_empty() => {
                Options::Unknown
            }
            (Some(daemon), given) => Options::Running(StorageOptions::parse(
                given.unwrap_or_default().iter().chain(&daemon.flags.storage_options).map(String::as_str),
            )),
            (None, Some(given)) => Options::Configured(StorageOptions::parse(given.iter().map(String::as_str))),
        }
    }
}

fn daemon_root(daemon: &Dockerd, config: &DaemonConfig) -> PathBuf {
    let configured = || config.json.root().map(PathBuf::from);
    daemon.flags.root.clone().or_else(configured).unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT))
}

/// Whether a path is the same directory to the daemon and to us; not so for a daemon in a container. A daemon with a mount
/// namespace of its own (`MountFlags=slave` on CentOS 7) is no different from one without.
fn seen_by_both(daemon: &Dockerd, root: &Path) -> bool {
    let Ok(relative) = root.strip_prefix("/") else {
        return false;
    };
    let theirs = PathBuf::from(format!("/proc/{}/root", daemon.pid)).join(relative);
    let identity = |path: &Path| Directory::open(path).and_then(|d| d.identity()).ok();
    identity(root).is_some_and(|ours| identity(&theirs) == Some(ours))
}

fn read_if_there(path: &Path, daemon: Option<Dockerd>, config: DaemonConfig) -> io::Result<Option<DockerRoot>> {
    let (directory, home) = match Directory::open(path).and_then(|d| Ok((d.enter(DRIVER)?, d))) {
        Ok((home, directory)) => (directory, home),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = path.canonicalize()?;
    let options = config.options(daemon.as_ref());
    let mut problems: Vec<Problem> = config.problem.into_iter().collect();

    let files = home.enter(DRIVER).ok();
    let loop_file = |name: &str| {
        let there = files.as_ref().is_some_and(|f| f.has_file(name).unwrap_or(false));
        there.then(|| path.join(DRIVER).join(DRIVER).join(name))
    };
    let records = home.enter("metadata").ok();
    Ok(Some(DockerRoot {
        daemon,
        options,
        device_prefix: device_prefix(home.identity()?),
        data_file: loop_file("data"),
        metadata_file: loop_file("metadata"),
        base: record(records.as_ref(), bookkeeping::BASE, Device::parse, &mut problems),
        device_set: record(records.as_ref(), bookkeeping::DEVICE_SET, DeviceSet::parse, &mut problems),
        transaction: record(records.as_ref(), bookkeeping::TRANSACTION, Transaction::parse, &mut problems),
        has_buildkit: directory.enter("buildkit").is_ok(),
        library_version: None,
        problems,
        path,
    }))
}

/// Reads one record; one that is not there is nothing, one that cannot be read is nothing and a problem.
fn record<T>(
    records: Option<&Directory>,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<T, bookkeeping::BadFile>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let records = records?;
    let why = match records.read(name, LARGEST_RECORD) {
        Ok(bytes) => match parse(&bytes) {
            Ok(value) => return Some(value),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    problems.push(Problem { path: records.path().join(name), why });
    None
}

/// Returns `docker-MAJOR:MINOR-INODE` of the driver's home, its numbers taken apart as Docker does
/// (`major` and `minor`, daemon/graphdriver/devmapper/deviceset.go).
fn device_prefix((device, inode): (u64, u64)) -> String {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    format!("docker-{major}:{minor}-{inode}")
}

impl DockerRoot {
    /// Returns the name of the pool that Docker makes for itself on this root.
    pub fn own_pool(&self) -> String {
        format!("{}-pool", self.device_prefix)
    }

    /// Returns the name of this root's pool: the one its options name, else its own. Nothing when the options are unknown
    /// and no loop files speak for its own.
    pub fn pool(&self) -> Option<String> {
        match self.options.known() {
            Some(options) => Some(options.named_pool().map_or_else(|| self.own_pool(), str::to_owned)),
            None => (self.data_file.is_some() || self.metadata_file.is_some()).then(|| self.own_pool()),
        }
    }

    /// Reads which libdevmapper the daemon has mapped, a file of half a megabyte: for what shows it, not for what only
    /// looks for a pool's root.
    #[must_use]
    pub fn with_library_version(self) -> Self {
        let library_version = self.daemon.as_ref().and_then(|daemon| libdm::version_in_process(daemon.pid));
        Self { library_version, ..self }
    }

    /// Counts the devices in Docker's bookkeeping; one small file is read for each.
    pub fn count_devices(&self) -> DeviceCounts {
        let mut counts = DeviceCounts::default();
        let home = Directory::open(&self.path).and_then(|root| root.enter(DRIVER));
        let Ok(records) = home.and_then(|home| home.enter("metadata")) else {
            return counts;
        };
        let names = match records.names() {
            Ok(names) => names,
            Err(error) => {
                counts.problems.push(Problem { path: records.path().to_owned(), why: error.to_string() });
                return counts;
            }
        };
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| bookkeeping::is_device_file(name)) {
            counts.all += 1;
            if record(Some(&records), name, Device::parse, &mut counts.problems).is_some_and(|device| device.deleted) {
                counts.deleted += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::units::Bytes;

    /// Lays out a root as Docker 20.10 leaves it, with sparse loop files of no length.
    fn root() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("devicemapper");
        fs::create_dir_all(home.join("devicemapper")).unwrap();
        fs::create_dir_all(home.join("metadata")).unwrap();
        fs::write(home.join("devicemapper/data"), b"").unwrap();
        fs::write(home.join("devicemapper/metadata"), b"").unwrap();
        for (name, json) in [
            ("base", r#"{"device_id":1,"size":10737418240,"transaction_id":1,"initialized":true,"deleted":false}"#),
            ("aa", r#"{"device_id":2,"size":10737418240,"transaction_id":2,"initialized":false,"deleted":true}"#),
            ("aa-init", r#"{"device_id":3,"size":10737418240,"transaction_id":3,"initialized":false,"deleted":false}"#),
            ("deviceset-metadata", r#"{"next_device_id":3,"BaseDeviceUUID":"24cb","BaseDeviceFilesystem":"xfs"}"#),
            ("transaction-metadata", r#"{"open_transaction_id":3,"device_hash":"aa-init","device_id":3}"#),
            (".tmp1234", ""),
        ] {
            fs::write(home.join("metadata").join(name), json).unwrap();
        }
        temp
    }

    fn read(path: &Path) -> DockerRoot {
        read_if_there(path, None, DaemonConfig::default()).unwrap().unwrap()
    }

    #[test]
    fn a_root_of_docker_20_10_is_read_whole() {
        let temp = root();
        let found = read(temp.path());
        assert_eq!(found.problems, []);
        assert_eq!(found.base.as_ref().unwrap().size, Bytes::new(10 << 30));
        assert_eq!(found.device_set.as_ref().unwrap().base_filesystem, "xfs");
        assert_eq!(found.transaction.as_ref().unwrap().id, 3);
        assert!(found.data_file.as_ref().unwrap().ends_with("devicemapper/devicemapper/data"));
        assert_eq!(found.options, Options::Unknown);
        assert_eq!(found.pool().unwrap(), found.own_pool());
        assert_eq!(found.count_devices(), DeviceCounts { all: 3, deleted: 1, problems: vec![] });
    }

    #[test]
    fn damage_is_named_and_the_rest_is_still_read() {
        let temp = root();
        let records = temp.path().join("devicemapper/metadata");
        fs::write(records.join("base"), b"").unwrap();
        fs::write(records.join("deviceset-metadata"), b"{\"next_device_id\":").unwrap();
        fs::remove_file(records.join("transaction-metadata")).unwrap();
        symlink("/etc/shadow", records.join("transaction-metadata")).unwrap();
        fs::write(records.join("huge"), vec![b' '; 70_000]).unwrap();
        let found = read(temp.path());
        assert_eq!((&found.base, &found.device_set, &found.transaction), (&None, &None, &None));
        let said: Vec<_> =
            found.problems.iter().map(|p| (p.path.file_name().unwrap().to_str().unwrap(), &p.why)).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].0 == "base" && said[0].1.contains("empty"), "{said:?}");
        assert!(said[1].1.contains("not what Docker writes"), "{said:?}");
        let counts = found.count_devices();
        assert_eq!((counts.all, counts.deleted, counts.problems.len()), (4, 1, 2));
        assert!(counts.problems.iter().any(|p| p.why == "it is longer than 65536 bytes"));
    }

    #[test]
    fn a_root_without_the_driver_is_none_and_a_missing_one_too() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(read_if_there(temp.path(), None, DaemonConfig::default()).unwrap(), None);
        assert_eq!(read_if_there(&temp.path().join("no"), None, DaemonConfig::default()).unwrap(), None);
        assert!(at(&temp.path().join("no")).is_err());
    }

    #[test]
    fn options_are_known_only_when_all_of_them_are() {
        let given = |json: &str| DaemonConfig { json: DaemonJson::parse(json.as_bytes()).unwrap(), problem: None };
        let dockerd = |line: &[u8]| Dockerd { pid: 1, flags: dockerd::Flags::parse(line).unwrap() };
        let nothing = given("{}");
        assert_eq!(nothing.options(None), Options::Unknown);
        assert_eq!(nothing.options(Some(&dockerd(b"dockerd\0"))), Options::Running(StorageOptions::default()));
        let five = given(r#"{"storage-opts":["dm.min_free_space=5%"]}"#);
        assert_eq!(five.options(None).known().unwrap().min_free_space_percent, Some(5));
        let thin = dockerd(b"dockerd\0--storage-opt\0dm.thinpooldev=/dev/mapper/tp\0");
        assert_eq!(nothing.options(Some(&thin)).known().unwrap().named_pool(), Some("tp"));
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("daemon.json"), "[").unwrap();
        let broken = DaemonConfig::read(&temp.path().join("daemon.json"));
        assert!(broken.problem.is_some());
        assert_eq!(broken.options(Some(&dockerd(b"dockerd\0"))), Options::Unknown);
    }

    #[test]
    fn the_prefix_takes_device_numbers_apart_as_docker_does() {
        assert_eq!(device_prefix((0xfe00, 13_785)), "docker-254:0-13785");
        assert_eq!(device_prefix((0x1000_1034, 7)), "docker-16:65588-7");
    }
}
