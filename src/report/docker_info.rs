//! The storage block of `docker info`, key for key, for any pool.
//!
//! Keys, their order and their values: `Driver.Status` in daemon/graphdriver/devmapper/driver.go and
//! `DeviceSet.Status` in deviceset.go of Docker; indentation: cli/command/system/info.go of its command line.
//! Where Docker would print zeros because it could not read a value, this prints `unknown`.

use std::path::Path;

use super::human::{Spacing, docker_size};
use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::engine::minimum_free;
use crate::engine::options::StorageOptions;
pub use crate::engine::version::Version;
use crate::pool::{Backing, Carrier, PoolReport, PoolStatus, Space};
use crate::units::{Bytes, Sectors};

/// What stands for a value that could not be read.
pub const UNKNOWN: &str = "unknown";

/// Which Docker's way of printing.
///
/// Checked at the tags 1.7.1, 1.8.2, 1.9.1, 1.11.2, 1.12.6, 1.13.1, 17.03.2, 17.05.0, 17.06.2, 17.09.1, 17.12.1, 18.06.3,
/// 18.09.9 and 19.03.15 of its sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// 1.7 and 1.8: the file system is the one under Docker's root; neither the base device nor deferred deletion is told.
    Docker1_7,
    /// 1.9 to 1.11: the file system on the base device, and its size.
    Docker1_9,
    /// 1.12 to 17.03: the minimum free space is told too. The loop files come last, a space stands before units.
    Docker1_12,
    /// 17.05 to 17.11: the same without the space.
    Docker17_05,
    /// 17.12 to 18.09: the order of today.
    Docker17_12,
    /// 19.03 and later: the same, one space further in, since all is under `Server:`.
    #[default]
    Docker19_03,
}

/// The first version of every layout; 17.04, which nobody looked at, is taken for 17.05.
const LAYOUTS: [(Version, Layout); 6] = [
    (Version::new(19, 0), Layout::Docker19_03),
    (Version::new(17, 12), Layout::Docker17_12),
    (Version::new(17, 4), Layout::Docker17_05),
    (Version::new(1, 12), Layout::Docker1_12),
    (Version::new(1, 9), Layout::Docker1_9),
    (Version::new(0, 0), Layout::Docker1_7),
];

impl Layout {
    /// Returns the layout of a version.
    pub fn of(version: Version) -> Self {
        LAYOUTS.iter().find(|(first, _)| version >= *first).map_or(Self::Docker1_7, |(_, layout)| *layout)
    }

    /// Returns the layout of the Docker that a root belongs to; today's when nothing tells which that is.
    pub fn of_root(root: Option<&DockerRoot>) -> Self {
        match root.and_then(|root| root.version.as_ref()) {
            // With the order of today it can be any later one, which differs by its indentation alone.
            Some(known) if !known.exact && known.version >= Version::new(17, 12) => Self::default(),
            Some(known) => Self::of(known.version),
            None => Self::default(),
        }
    }

    /// Returns the first version that prints so.
    pub const fn since(self) -> &'static str {
        match self {
            Self::Docker1_7 => "1.7",
            Self::Docker1_9 => "1.9",
            Self::Docker1_12 => "1.12",
            Self::Docker17_05 => "17.05",
            Self::Docker17_12 => "17.12",
            Self::Docker19_03 => "19.03",
        }
    }

    /// Whether it has the order of today, in which what is not there is left out.
    fn is_new(self) -> bool {
        self >= Self::Docker17_12
    }

    fn spacing(self) -> Spacing {
        if self >= Self::Docker17_05 { Spacing::None } else { Spacing::Space }
    }

    fn indent(self) -> &'static str {
        if self == Self::Docker19_03 { " " } else { "" }
    }
}

/// What Docker's files say beside the pool itself; empty for a pool of somebody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct DockerView<'a> {
    /// The root that uses the pool.
    pub root: Option<&'a DockerRoot>,
    /// Its devices, counted.
    pub devices: Option<&'a DeviceCounts>,
    /// The version of the kernel's device-mapper driver, major and minor.
    pub driver_version: Option<(u32, u32)>,
    /// Which Docker's way of printing.
    pub layout: Layout,
}

/// One line: key and value.
pub type Pair = (&'static str, String);

/// Returns the block with its heading, as the terminal shows it, each line ended.
pub fn block(pool: &PoolReport, docker: DockerView<'_>) -> String {
    let indent = docker.layout.indent();
    let mut text = format!("{indent}Storage Driver: devicemapper\n");
    for (key, value) in pairs(pool, docker) {
        text.push_str(&format!("{indent} {key}: {value}\n"));
    }
    text
}

/// Returns the lines of the block in the layout's order (`DriverStatus` of the API).
///
/// A pool that no Docker root uses has only the lines that the pool itself answers.
pub fn pairs(pool: &PoolReport, docker: DockerView<'_>) -> Vec<Pair> {
    let values = Values { pool, docker, layout: docker.layout };
    let identity = values.identity();
    let (files, loop_files) = (values.files(), values.loop_files());
    let (space, udev, deferred) = (values.space(), values.udev_sync(), values.deferred());
    let library = values.library();
    let parts = if docker.layout.is_new() {
        [identity, udev, files, loop_files, space, deferred, library]
    } else {
        [identity, files, space, udev, deferred, loop_files, library]
    };
    parts.into_iter().flatten().collect()
}

/// The values of the block, in the groups that move together between the layouts.
struct Values<'a> {
    pool: &'a PoolReport,
    docker: DockerView<'a>,
    layout: Layout,
}

impl Values<'_> {
    fn identity(&self) -> Vec<Pair> {
        let mut pairs = vec![("Pool Name", self.pool.name.clone()), ("Pool Blocksize", self.size(self.block_size()))];
        let Some(root) = self.docker.root else { return pairs };
        if self.layout == Layout::Docker1_7 {
            pairs.push(("Backing Filesystem", known(host_file_system(self.pool))));
            return pairs;
        }
        pairs.push(("Base Device Size", self.size(base_size(root))));
        let filesystem = root.device_set.as_ref().map(|set| set.base_filesystem.clone());
        pairs.push(("Backing Filesystem", known(filesystem)));
        pairs
    }

    /// Docker does not read the block size from the table: it divides (deviceset.go, `Status`).
    fn block_size(&self) -> Option<Bytes> {
        let total = self.pool.status.as_ref().and_then(PoolStatus::working).map(|s| s.data_total.get());
        let length = self.pool.table.as_ref().map(|t| t.length.get());
        match (length, total) {
            (Some(length), Some(total)) => length.checked_div(total).map(|s| Sectors::new(s).bytes()),
            _ => self.pool.block_bytes(),
        }
    }

    fn udev_sync(&self) -> Vec<Pair> {
        self.of_docker("Udev Sync Supported", |root| known(root.udev_sync()))
    }

    /// The devices; left out, or blank in older layouts, when the pool was handed to Docker ready-made.
    fn files(&self) -> Vec<Pair> {
        let [data, metadata] = match (self.is_handed_over(), self.layout.is_new()) {
            (true, true) => return Vec::new(),
            (true, false) => [String::new(), String::new()],
            (false, _) => {
                let options = self.docker.root.and_then(|root| root.options.known());
                // Docker prints a device as it was told it.
                let told = |device: fn(&StorageOptions) -> Option<&String>| options.and_then(device).cloned();
                [
                    told(|o| o.data_device.as_ref()).unwrap_or_else(|| device(&self.pool.data)),
                    told(|o| o.metadata_device.as_ref()).unwrap_or_else(|| device(&self.pool.metadata)),
                ]
            }
        };
        vec![("Data file", data), ("Metadata file", metadata)]
    }

    fn loop_files(&self) -> Vec<Pair> {
        if self.is_handed_over() {
            return Vec::new();
        }
        let dockers = |file: fn(&DockerRoot) -> Option<&Path>| self.docker.root.and_then(file);
        let data = loop_file(&self.pool.data, dockers(|root| root.data_file.as_deref()));
        let metadata = loop_file(&self.pool.metadata, dockers(|root| root.metadata_file.as_deref()));
        let lines = [data.map(|path| ("Data loop file", path)), metadata.map(|path| ("Metadata loop file", path))];
        lines.into_iter().flatten().collect()
    }

    /// Whether somebody else made the pool for Docker. A pool without Docker's name for its own that stands on no loop
    /// device is one, also when the options are not known.
    fn is_handed_over(&self) -> bool {
        let Some(root) = self.docker.root else { return false };
        match root.options.known() {
            Some(options) => options.named_pool().is_some_and(|named| named == self.pool.name),
            None => {
                let is_loop = |b: &Backing| matches!(b.carrier, Carrier::Loop { .. } | Carrier::LoopOverDevice { .. });
                root.own_pool() != self.pool.name && !is_loop(&self.pool.data) && !is_loop(&self.pool.metadata)
            }
        }
    }

    fn space(&self) -> Vec<Pair> {
        let (data, metadata) = (self.pool.data_space(), self.pool.metadata_space());
        let mut pairs = vec![
            ("Data Space Used", self.size(data.map(|space| space.used))),
            ("Data Space Total", self.size(data.map(|space| space.total))),
            ("Data Space Available", self.size(self.available(data, &self.pool.data))),
            ("Metadata Space Used", self.size(metadata.map(|space| space.used))),
            ("Metadata Space Total", self.size(metadata.map(|space| space.total))),
            ("Metadata Space Available", self.size(self.available(metadata, &self.pool.metadata))),
        ];
        if self.layout >= Layout::Docker1_12 {
            pairs.extend(self.of_docker("Thin Pool Minimum Free Space", |root| {
                self.size(root.options.minimum_free_percent().and_then(|percent| minimum_free(self.pool, percent)))
            }));
        }
        pairs
    }

    /// What is free in the pool, but not more than the file system under its loop file has.
    fn available(&self, space: Option<Space>, backing: &Backing) -> Option<Bytes> {
        let free = space?.free();
        match backing.loop_file() {
            // Docker looks for a file that is deleted, finds none, and leaves it at that.
            Some(file) if !self.is_handed_over() && !file.deleted => Some(free.min(file.host.as_ref()?.free)),
            _ => Some(free),
        }
    }

    fn deferred(&self) -> Vec<Pair> {
        let driver = self.docker.driver_version;
        let mut pairs = self.of_docker("Deferred Removal Enabled", |root| known(root.deferred_removal(driver)));
        if self.layout == Layout::Docker1_7 {
            return pairs;
        }
        pairs.extend(self.of_docker("Deferred Deletion Enabled", |root| known(root.deferred_deletion(driver))));
        pairs.extend(self.of_docker("Deferred Deleted Device Count", |_| {
            let counted = self.docker.devices.filter(|devices| devices.problems.is_empty());
            known(counted.map(|devices| devices.deleted))
        }));
        pairs
    }

    fn library(&self) -> Vec<Pair> {
        self.of_docker("Library Version", |root| known(root.library_version.clone()))
    }

    fn of_docker(&self, key: &'static str, value: impl Fn(&DockerRoot) -> String) -> Vec<Pair> {
        self.docker.root.map(|root| (key, value(root))).into_iter().collect()
    }

    fn size(&self, size: Option<Bytes>) -> String {
        known(size.map(|size| docker_size(size, self.layout.spacing())))
    }
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// The name that Docker has for a file system (`FsNames`, daemon/graphdriver/driver_linux.go).
fn host_file_system(pool: &PoolReport) -> Option<String> {
    let kind = &pool.data.loop_file()?.host.as_ref()?.kind;
    Some(if kind.starts_with("ext") { "extfs".to_owned() } else { kind.clone() })
}

/// Docker prints 0 for a root that has no base device yet.
fn base_size(root: &DockerRoot) -> Option<Bytes> {
    match &root.base {
        Some(base) => Some(base.size),
        None if root.problems.is_empty() => Some(Bytes::new(0)),
        None => None,
    }
}

/// Returns the device as the pool's user names it: the loop device, or the disk's path.
fn device(backing: &Backing) -> String {
    match &backing.carrier {
        Carrier::Loop { device: Some(device), .. } | Carrier::LoopOverDevice { device: Some(device), .. } => {
            device.display().to_string()
        }
        Carrier::Loop { device: None, .. } | Carrier::LoopOverDevice { device: None, .. } => "not attached".to_owned(),
        Carrier::Device { path } => path.display().to_string(),
        Carrier::Devices { paths } => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "),
        Carrier::Unknown => UNKNOWN.to_owned(),
    }
}

/// Returns the loop file, by Docker's name for it when Docker has one.
fn loop_file(backing: &Backing, dockers: Option<&Path>) -> Option<String> {
    let path = match &backing.carrier {
        Carrier::Loop { file, .. } => &file.path,
        Carrier::LoopOverDevice { disk, .. } => &disk.path,
        Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => return None,
    };
    Some(dockers.unwrap_or(path).display().to_string())
}

/// Returns what that share is of the pool's data, in whole blocks as Docker counts.
fn minimum_free(pool: &PoolReport, percent: u8) -> Option<Bytes> {
    let block = pool.block_bytes()?;
    let blocks = pool.data_space()?.total.get().checked_div(block.get())?;
    minimum_free::share(blocks, percent).checked_mul(block.get()).map(Bytes::new)
}

#[cfg(test)]
#[path = "docker_info_tests.rs"]
mod tests;
