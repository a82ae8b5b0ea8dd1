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

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bookkeeping::{self, Device, DeviceSet, Transaction};
use super::configuration::{Configuration, Twice};
use super::dockerd::Dockerd;
use super::driver::{self, Driver};
use super::libdm;
use super::options::{DIRECT_LVM_POOL, StorageOptions};
use super::small_file::{Directory, Kind};
use super::version::{self, Known};

/// Where Docker keeps everything when nobody told it otherwise.
pub const DEFAULT_ROOT: &str = "/var/lib/docker";

/// The driver's home in the root, and the name of the directory in it that holds the loop files.
const DRIVER: &str = "devicemapper";
/// The directory in it with a file for every thin device.
const RECORDS: &str = "metadata";
/// Docker's files are some hundred bytes long.
const LARGEST_RECORD: u64 = 64 << 10;
/// What Docker writes in the driver's home when it made an LVM pool itself (`dm.directlvm_device`).
const SETUP: &str = "setup-config.json";

/// Which storage options a root's daemon has, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// A daemon runs on the root: its command line and its configuration file are all it was given.
    Running(StorageOptions),
    /// No daemon runs, and these are what the next one will be given: by its unit or init script, and `daemon.json`.
    Configured(StorageOptions),
    /// No daemon runs, and nothing that was read says what the next one will be given.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// How a root comes to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A daemon runs on it.
    Running,
    /// The next daemon will run on it.
    Configured,
    /// Somebody named it; no daemon runs on it, and none will by itself.
    Named,
    /// A driver once ran on it: Docker's own place, or where the files of a live pool are. Docker runs elsewhere now.
    Left,
}

/// A symbolic link in the place of a loop file. Docker opens what it leads to; nothing here does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopLink {
    /// What is written in it.
    pub target: PathBuf,
    /// What it leads to now.
    pub leads_to: LeadsTo,
}

/// What a path leads to when it is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeadsTo {
    /// A regular file.
    File,
    /// A block device, by its number (`st_rdev`).
    Device(u64),
    /// Nothing that can carry a pool; why not.
    Nothing(String),
}

/// What Docker made an LVM pool of (`directLVMConfig`, daemon/graphdriver/devmapper/device_setup.go).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DirectLvm {
    /// The disk, as it was named.
    pub device: String,
}

impl DirectLvm {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, bookkeeping::BadFile> {
        bookkeeping::from_json(bytes)
    }
}

/// One Docker root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerRoot {
    /// The root, free of symbolic links, as Docker itself takes it.
    pub path: PathBuf,
    /// How it comes to be looked at.
    pub standing: Standing,
    /// The daemon that runs on it, if one does.
    pub daemon: Option<Dockerd>,
    /// Its storage options.
    pub options: Options,
    /// Those that the next daemon on it will have: others than now when somebody has changed the configuration since.
    pub next_options: Options,
    /// The storage driver that the daemon is told to use, by name. Without, Docker takes the one that has run here.
    pub storage_driver: Option<String>,
    /// The unit that starts it, without its suffix: `docker`; nothing when no unit does.
    pub unit: Option<String>,
    /// Options that are set on the command line and in `daemon.json`: the next daemon refuses to start.
    pub twice: Vec<Twice>,
    /// The drivers that have made layers here.
    pub drivers: Vec<Driver>,
    /// Which Docker it belongs to; by marks in the root until [`Self::with_installed_version`].
    pub version: Option<Known>,
    /// What the names of the pool and of all thin devices begin with: `docker-8:1-131073`.
    pub device_prefix: String,
    /// The loop file of the data, or a symbolic link in its place, when one of these is there.
    pub data_file: Option<PathBuf>,
    /// The same of the metadata.
    pub metadata_file: Option<PathBuf>,
    /// Where the data's loop file leads to, when it is a symbolic link.
    pub data_link: Option<LoopLink>,
    /// The same of the metadata.
    pub metadata_link: Option<LoopLink>,
    /// What Docker made an LVM pool of, when it did.
    pub direct_lvm: Option<DirectLvm>,
    /// The base device; `None` when there is none, or its file could not be read (then there is a problem).
    pub base: Option<Device>,
    /// What is kept about the whole set; as above.
    pub device_set: Option<DeviceSet>,
    /// The transaction opened last; as above.
    pub transaction: Option<Transaction>,
    /// The libdevmapper of the running daemon, `1.02.185 (2022-05-18)`; only after [`Self::with_library_version`].
    pub library_version: Option<String>,
    /// Files that could not be read, or made no sense.
    pub problems: Vec<Problem>,
}

/// How many devices Docker's bookkeeping names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// All of them, the base included.
    pub all: u64,
    /// Those to be deleted once nobody uses them.
    pub deleted: u64,
    /// Files that could not be read; with one of these `deleted` is a lower bound.
    pub problems: Vec<Problem>,
    /// Files whose device id another file has too: Docker would mount one container's device for the other.
    pub duplicates: Vec<Problem>,
}

/// What is known of a root before it is read.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(super) standing: Standing,
    pub(super) daemon: Option<Dockerd>,
    pub(super) configuration: Configuration,
    pub(super) next: Option<Configuration>,
}

impl About {
    /// Of a root of which nothing is known but that it is there.
    pub(crate) fn only(standing: Standing) -> Self {
        Self { standing, daemon: None, configuration: Configuration::default(), next: None }
    }
}

/// Reads a root; nothing when the path is not there, or no devicemapper driver ever ran on it.
///
/// # Errors
/// When the path cannot be opened, or the driver's home in it cannot.
pub(crate) fn read_if_there(path: &Path, about: About) -> io::Result<Option<DockerRoot>> {
    let directory = match Directory::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = path.canonicalize()?;
    let About { standing, daemon, configuration, next } = about;
    let mut problems = configuration.problems.clone();
    let (home, identity) = match directory.kind(DRIVER)? {
        None => return Ok(None),
        Some(Kind::Link(target)) => {
            // Docker follows it, and takes the numbers of what it leads to; what is in there is not read.
            let why = format!("it is a symbolic link to {}, which is not followed", target.display());
            problems.push(Problem { path: path.join(DRIVER), why });
            (None, numbers_of_directory(&path.join(DRIVER))?)
        }
        Some(_) => {
            let home = directory.enter(DRIVER)?;
            let chosen = configuration.driver() == Some(DRIVER);
            if !chosen && home.names().is_ok_and(|names| names.is_empty()) && !driver::of_root(&directory).is_empty() {
                // An empty folder beside another driver's layers.
                return Ok(None);
            }
            let identity = home.identity()?;
            (Some(home), identity)
        }
    };
    let files = folder(home.as_ref(), DRIVER, &mut problems);
    let (data_file, data_link) = loop_file(files.as_ref(), &path, "data", &mut problems);
    let (metadata_file, metadata_link) = loop_file(files.as_ref(), &path, "metadata", &mut problems);
    let records = folder(home.as_ref(), RECORDS, &mut problems);
    missing(records.as_ref(), &mut problems);
    let options = configuration.options();
    Ok(Some(DockerRoot {
        standing,
        daemon,
        next_options: next.as_ref().map_or_else(|| options.clone(), Configuration::options),
        options,
        storage_driver: configuration.driver().map(str::to_owned),
        unit: next.as_ref().unwrap_or(&configuration).unit(),
        twice: next.unwrap_or(configuration).twice,
        drivers: driver::of_root(&directory),
        version: version::of_marks(&directory),
        device_prefix: device_prefix(identity),
        data_file,
        metadata_file,
        data_link,
        metadata_link,
        direct_lvm: record(home.as_ref(), SETUP, DirectLvm::parse, &mut problems),
        base: record(records.as_ref(), bookkeeping::BASE, Device::parse, &mut problems),
        device_set: record(records.as_ref(), bookkeeping::DEVICE_SET, DeviceSet::parse, &mut problems),
        transaction: record(records.as_ref(), bookkeeping::TRANSACTION, Transaction::parse, &mut problems),
        library_version: None,
        problems,
        path,
    }))
}

/// Returns device and inode number of the directory that a path leads to, without opening it.
fn numbers_of_directory(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = path.metadata()?;
    if !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it leads to no directory"));
    }
    Ok((found.dev(), found.ino()))
}

/// Enters a folder of the driver's home; one that is not there is nothing, one that cannot be entered is nothing and a
/// problem.
fn folder(home: Option<&Directory>, name: &str, problems: &mut Vec<Problem>) -> Option<Directory> {
    let home = home?;
    match home.enter(name) {
        Ok(folder) => return Some(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(Problem { path: home.path().join(name), why: not_entered(home, name, &error) }),
    }
    None
}

/// Says why a folder was not entered: the kernel calls a symbolic link in its place no directory.
fn not_entered(home: &Directory, name: &str, error: &io::Error) -> String {
    match home.kind(name) {
        Ok(Some(Kind::Link(target))) => format!("it is a symbolic link to {}, which is not followed", target.display()),
        Ok(Some(Kind::File | Kind::Other)) => "it is not a directory".to_owned(),
        Ok(Some(Kind::Directory) | None) | Err(_) => error.to_string(),
    }
}

/// Returns the path of a loop file that is there, and where it leads when it is a link.
fn loop_file(
    files: Option<&Directory>,
    root: &Path,
    name: &str,
    problems: &mut Vec<Problem>,
) -> (Option<PathBuf>, Option<LoopLink>) {
    let path = root.join(DRIVER).join(DRIVER).join(name);
    match files.map(|files| files.kind(name)) {
        None | Some(Ok(None)) => (None, None),
        Some(Ok(Some(Kind::File))) => (Some(path), None),
        Some(Ok(Some(Kind::Link(target)))) => {
            let leads_to = leads_to(&path);
            if let LeadsTo::Nothing(why) = &leads_to {
                let why = format!("it is a symbolic link to {}: {why}", target.display());
                problems.push(Problem { path: path.clone(), why });
            }
            (Some(path), Some(LoopLink { target, leads_to }))
        }
        Some(Ok(Some(Kind::Directory | Kind::Other))) => {
            problems.push(Problem { path, why: "it is not a regular file".to_owned() });
            (None, None)
        }
        Some(Err(error)) => {
            problems.push(Problem { path, why: error.to_string() });
            (None, None)
        }
    }
}

/// Looks at what a path leads to, as Docker will when it starts; opens nothing.
fn leads_to(path: &Path) -> LeadsTo {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match path.metadata() {
        Ok(found) if found.is_file() => LeadsTo::File,
        Ok(found) if found.file_type().is_block_device() => LeadsTo::Device(found.rdev()),
        Ok(_) => LeadsTo::Nothing("it leads to no file and no disk".to_owned()),
        Err(error) => LeadsTo::Nothing(error.to_string()),
    }
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

/// Names the records that a folder with devices must have and has not: Docker writes all three before or with its first
/// device, and without `base` it makes a new base device.
fn missing(records: Option<&Directory>, problems: &mut Vec<Problem>) {
    let Some(records) = records else { return };
    let wanted = [bookkeeping::BASE, bookkeeping::DEVICE_SET, bookkeeping::TRANSACTION];
    let gone: Vec<_> = wanted.into_iter().filter(|name| matches!(records.kind(name), Ok(None))).collect();
    if gone.is_empty() {
        return;
    }
    let is_device = |name: &str| name != bookkeeping::BASE && bookkeeping::is_device_file(name);
    if records.names().is_ok_and(|names| names.iter().filter_map(|name| name.to_str()).any(is_device)) {
        let why = "it is missing, and there are devices";
        problems.extend(gone.iter().map(|name| Problem { path: records.path().join(name), why: why.to_owned() }));
    }
}

/// Returns `docker-MAJOR:MINOR-INODE` of the driver's home, its numbers taken apart as Docker does
/// (`major` and `minor`, daemon/graphdriver/devmapper/deviceset.go).
fn device_prefix((device, inode): (u64, u64)) -> String {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    format!("docker-{major}:{minor}-{inode}")
}

impl DockerRoot {
    /// Returns the storage driver that Docker uses here, when that is another than devicemapper: the one that it is told to
    /// use, or else the only one that has run here.
    pub fn other_driver(&self) -> Option<&str> {
        let only = || match self.drivers.as_slice() {
            [only] => Some(only.name()),
            _ => None,
        };
        self.storage_driver.as_deref().or_else(only).filter(|driver| *driver != DRIVER)
    }

    /// Returns the name of the pool that Docker makes for itself on this root.
    pub fn own_pool(&self) -> String {
        format!("{}-pool", self.device_prefix)
    }

    /// Returns the name of this root's pool: the one its options name, else its own. Nothing when the options are unknown
    /// and no file speaks for one.
    pub fn pool(&self) -> Option<String> {
        match self.options.known() {
            Some(options) => Some(options.named_pool().map_or_else(|| self.own_pool(), str::to_owned)),
            None if self.direct_lvm.is_some() => Some(DIRECT_LVM_POOL.to_owned()),
            None => (self.data_file.is_some() || self.metadata_file.is_some()).then(|| self.own_pool()),
        }
    }

    /// Reads which package of Docker is installed, for a root that this machine's Docker uses. One that is older than
    /// what has run on the root is not the Docker that runs there.
    #[must_use]
    pub fn with_installed_version(self) -> Self {
        if !matches!(self.standing, Standing::Running | Standing::Configured) {
            return self;
        }
        let installed = version::installed(Path::new("/"));
        let older = |known: &Known| self.version.as_ref().is_some_and(|marked| known.version < marked.version);
        let version = installed.filter(|known| !older(known)).or(self.version);
        Self { version, ..self }
    }

    /// Reads which libdevmapper the daemon has mapped, a file of half a megabyte: for what shows it, not for what only
    /// looks for a pool's root.
    #[must_use]
    pub fn with_library_version(self) -> Self {
        let library_version = self.daemon.as_ref().and_then(|daemon| libdm::version_in_process(daemon.pid));
        Self { library_version, ..self }
    }

    /// Counts the devices in Docker's bookkeeping; one small file is read for each.
    ///
    /// # Errors
    /// What keeps the bookkeeping from being listed: then nobody knows how many there are.
    pub fn count_devices(&self) -> Result<DeviceCounts, Problem> {
        let mut counts = DeviceCounts::default();
        let home = Directory::open(&self.path).and_then(|root| root.enter(DRIVER));
        let records = home.and_then(|home| home.enter(RECORDS));
        let listed = records.and_then(|records| Ok((records.names()?, records)));
        let (names, records) = match listed {
            Ok(listed) => listed,
            // Docker makes it with its first device.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(counts),
            Err(error) => {
                let path = self.path.join(DRIVER).join(RECORDS);
                return Err(Problem { path, why: error.to_string() });
            }
        };
        let mut owners = BTreeMap::new();
        for name in &names {
            let Some(name) = name.to_str() else {
                let why = "its name is none of a device".to_owned();
                counts.problems.push(Problem { path: records.path().join(name), why });
                continue;
            };
            if !bookkeeping::is_device_file(name) {
                continue;
            }
            counts.all += 1;
            let Some(device) = record(Some(&records), name, Device::parse, &mut counts.problems) else { continue };
            counts.deleted += u64::from(device.deleted);
            if let Some(other) = owners.insert(device.id, name) {
                let why = format!("its device id {} is that of {other} too", device.id);
                counts.duplicates.push(Problem { path: records.path().join(name), why });
            }
        }
        Ok(counts)
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
        read_if_there(path, About::only(Standing::Named)).unwrap().unwrap()
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
        assert_eq!(found.count_devices(), Ok(DeviceCounts { all: 3, deleted: 1, ..DeviceCounts::default() }));
    }

    #[test]
    fn damage_is_named_and_the_rest_is_still_read() {
        let temp = root();
        let records = temp.path().join("devicemapper/metadata");
        fs::write(records.join("base"), b"").unwrap();
        fs::write(records.join("deviceset-metadata"), b"{\"next_device_id\":").unwrap();
        fs::remove_file(records.join("transaction-metadata")).unwrap();
        assert_eq!(read(temp.path()).problems[0].why, "it is missing, and there are devices");
        symlink("/etc/shadow", records.join("transaction-metadata")).unwrap();
        fs::write(records.join("huge"), vec![b' '; 70_000]).unwrap();
        let found = read(temp.path());
        assert_eq!((&found.base, &found.device_set, &found.transaction), (&None, &None, &None));
        let said: Vec<_> =
            found.problems.iter().map(|p| (p.path.file_name().unwrap().to_str().unwrap(), &p.why)).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].0 == "base" && said[0].1.contains("empty"), "{said:?}");
        assert!(said[1].1.contains("not what Docker writes"), "{said:?}");
        let counts = found.count_devices().unwrap();
        assert_eq!((counts.all, counts.deleted, counts.problems.len()), (4, 1, 2));
        assert!(counts.problems.iter().any(|p| p.why == "it is longer than 65536 bytes"));
    }

    #[test]
    fn bookkeeping_that_cannot_be_listed_is_unknown_and_none_is_none() {
        let temp = root();
        let records = temp.path().join("devicemapper/metadata");
        fs::remove_dir_all(&records).unwrap();
        assert_eq!(read(temp.path()).count_devices(), Ok(DeviceCounts::default()));
        fs::write(&records, "no folder").unwrap();
        let problem = read(temp.path()).count_devices().unwrap_err();
        assert_eq!(problem.path, records);
    }

    #[test]
    fn two_files_with_one_device_id_are_told() {
        let temp = root();
        let records = temp.path().join("devicemapper/metadata");
        fs::copy(records.join("aa"), records.join("bb")).unwrap();
        fs::write(records.join("cc"), r#"{"device_id":16777216,"size":1,"transaction_id":1}"#).unwrap();
        let counts = read(temp.path()).count_devices().unwrap();
        assert_eq!((counts.all, counts.deleted), (5, 2));
        assert_eq!(counts.duplicates[0].why, "its device id 2 is that of aa too");
        assert_eq!(counts.problems[0].why, "its device id 16777216 is larger than 16777215");
    }

    #[test]
    fn roots_that_are_half_written_or_hostile_are_read_as_far_as_they_go() {
        for (make, is_there) in [
            (&["devicemapper"][..], true),
            (&["devicemapper/metadata"], true),
            (&["devicemapper/devicemapper/data/sub"], true),
            (&["devicemapper/metadata/base"], true),
            (&["image"], false),
        ] {
            let temp = tempfile::tempdir().unwrap();
            make.iter().for_each(|dir| fs::create_dir_all(temp.path().join(dir)).unwrap());
            let found = read_if_there(temp.path(), About::only(Standing::Named)).unwrap();
            assert_eq!(found.is_some(), is_there, "{make:?}");
            if let Some(found) = found {
                assert_eq!((&found.base, found.pool()), (&None, None), "{make:?}");
                let _ = found.count_devices();
            }
        }
        // A file in the driver's place is no root, and no panic.
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("devicemapper"), "").unwrap();
        assert!(read_if_there(temp.path(), About::only(Standing::Named)).is_err());
    }

    #[test]
    fn another_driver_is_known_by_what_it_is_told_to_use_or_by_its_layers() {
        let temp = root();
        let mut found = read(temp.path());
        assert_eq!(found.other_driver(), None);
        found.storage_driver = Some("overlay2".to_owned());
        assert_eq!(found.other_driver(), Some("overlay2"));
        found.storage_driver = Some(DRIVER.to_owned());
        assert_eq!(found.other_driver(), None);

        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(DRIVER)).unwrap();
        let there = || read_if_there(temp.path(), About::only(Standing::Left)).unwrap().is_some();
        assert!(there(), "as Docker makes it");
        fs::create_dir_all(temp.path().join("overlay2/l")).unwrap();
        assert!(!there(), "an empty folder beside another driver's layers");
    }

    #[test]
    fn a_folder_that_is_something_else_is_told_and_counts_nothing() {
        let other = root();
        for (is_link, why) in [(true, "is a symbolic link to"), (false, "it is not a directory")] {
            for name in ["devicemapper", "metadata"] {
                let temp = root();
                let folder = temp.path().join("devicemapper").join(name);
                fs::remove_dir_all(&folder).unwrap();
                if is_link {
                    symlink(other.path(), &folder).unwrap();
                } else {
                    fs::write(&folder, "").unwrap();
                }
                let found = read(temp.path());
                assert_eq!((found.problems.len(), &found.problems[0].path), (1, &folder));
                assert!(found.problems[0].why.contains(why), "{:?}", found.problems);
                let uncounted = found.count_devices().err().map(|problem| problem.path);
                assert_eq!(uncounted, (name == "metadata").then_some(folder));
            }
        }
    }

    #[test]
    fn a_root_without_the_driver_is_none_and_a_missing_one_too() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(read_if_there(temp.path(), About::only(Standing::Named)).unwrap(), None);
        assert_eq!(read_if_there(&temp.path().join("no"), About::only(Standing::Named)).unwrap(), None);
    }

    #[test]
    fn a_link_in_a_loop_files_place_is_told_and_not_opened() {
        let temp = root();
        let files = temp.path().join("devicemapper/devicemapper");
        fs::rename(files.join("data"), temp.path().join("elsewhere")).unwrap();
        symlink("../../elsewhere", files.join("data")).unwrap();
        fs::remove_file(files.join("metadata")).unwrap();
        symlink("/dev/no-such-disk", files.join("metadata")).unwrap();
        let found = read(temp.path());
        let link = found.data_link.as_ref().unwrap();
        assert_eq!((link.target.as_path(), &link.leads_to), (Path::new("../../elsewhere"), &LeadsTo::File));
        assert!(matches!(found.metadata_link.as_ref().unwrap().leads_to, LeadsTo::Nothing(_)));
        assert!(found.data_file.is_some() && found.metadata_file.is_some());
        assert_eq!(found.problems.len(), 1);
        assert!(found.problems[0].why.contains("/dev/no-such-disk"), "{:?}", found.problems);
        fs::remove_file(files.join("metadata")).unwrap();
        fs::create_dir(files.join("metadata")).unwrap();
        let found = read(temp.path());
        assert_eq!((found.metadata_file, found.problems[0].why.as_str()), (None, "it is not a regular file"));
    }

    #[test]
    fn a_home_that_is_a_link_gives_its_numbers_and_is_not_read() {
        let (temp, other) = (tempfile::tempdir().unwrap(), root());
        symlink(other.path().join("devicemapper"), temp.path().join("devicemapper")).unwrap();
        let found = read(temp.path());
        assert_eq!(found.device_prefix, read(other.path()).device_prefix, "as Docker takes it");
        assert_eq!((&found.base, &found.data_file), (&None, &None));
        assert!(found.problems[0].why.contains("symbolic link"), "{:?}", found.problems);
    }

    #[test]
    fn an_lvm_pool_of_dockers_own_making_is_told_by_its_file() {
        let temp = root();
        let setup = temp.path().join("devicemapper").join(SETUP);
        fs::write(&setup, r#"{"Device":"/dev/sdb","ThinpPercent":95,"AutoExtendThreshold":80}"#).unwrap();
        let found = read(temp.path());
        assert_eq!(found.direct_lvm.as_ref().unwrap().device, "/dev/sdb");
        assert_eq!(found.pool().as_deref(), Some("docker-thinpool"));
        fs::write(&setup, "").unwrap();
        assert!(read(temp.path()).problems[0].why.contains("empty"));
    }

    #[test]
    fn the_prefix_takes_device_numbers_apart_as_docker_does() {
        assert_eq!(device_prefix((0xfe00, 13_785)), "docker-254:0-13785");
        assert_eq!(device_prefix((0x1000_1034, 7)), "docker-16:65588-7");
    }
}
