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

mod loop_files;
mod records;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use loop_files::{LeadsTo, LoopLink};
pub use records::DeviceCounts;

use loop_files::loop_file;
use records::{RECORDS, missing, record};

use super::bookkeeping::{self, Device, DeviceSet, Transaction};
use super::configuration::{Configuration, Twice};
use super::dockerd::Dockerd;
use super::driver::{self, Driver};
use super::libdm;
use super::options::{DIRECT_LVM_POOL, StorageOptions};
use super::small_file::{Directory, Kind};
use super::start::Starter;
use super::version::{self, Known};
use crate::process::quote;

/// Where Docker keeps everything when nobody told it otherwise.
pub const DEFAULT_ROOT: &str = "/var/lib/docker";

/// The driver's home in the root, and the name of the directory in it that holds the loop files.
const DRIVER: &str = "devicemapper";
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
    /// What starts the daemon; nothing when somebody does by hand.
    pub starter: Option<Starter>,
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
        starter: next.as_ref().unwrap_or(&configuration).starter.clone(),
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
pub(super) fn folder(home: Option<&Directory>, name: &str, problems: &mut Vec<Problem>) -> Option<Directory> {
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

/// Returns `docker-MAJOR:MINOR-INODE` of the driver's home, its numbers taken apart as Docker does
/// (`major` and `minor`, daemon/graphdriver/devmapper/deviceset.go).
pub(super) fn device_prefix((device, inode): (u64, u64)) -> String {
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

    /// Whether this machine's Docker runs on it, or will.
    pub const fn is_this_machines(&self) -> bool {
        matches!(self.standing, Standing::Running | Standing::Configured)
    }

    /// Returns the root as a command takes it: `docker`, or its path.
    pub fn as_typed(&self) -> String {
        if self.is_this_machines() { "docker".to_owned() } else { quote(&self.path.to_string_lossy()) }
    }

    /// Reads which package of Docker is installed, for a root that this machine's Docker uses. One that is older than
    /// what has run on the root is not the Docker that runs there.
    #[must_use]
    pub fn with_installed_version(self) -> Self {
        if !self.is_this_machines() {
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
