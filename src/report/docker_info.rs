//! The storage block of `docker info`, key for key, for any pool.
//!
//! Keys, their order and their values: `Driver.Status` in daemon/graphdriver/devmapper/driver.go and
//! `DeviceSet.Status` in deviceset.go of Docker; indentation: cli/command/system/info.go of its command line.
//! Where Docker would print zeros because it could not read a value, this prints `unknown`.

use std::path::Path;

use super::human::{Spacing, docker_size};
use crate::engine::docker_root::{DeviceCounts, DockerRoot};
use crate::pool::{Backing, Carrier, PoolReport, PoolStatus, Space};
use crate::units::{Bytes, Sectors};

/// What stands for a value that could not be read.
pub const UNKNOWN: &str = "unknown";

/// Which Docker's way of printing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// 1.12 to 17.03: the loop files last, a space before units.
    Docker1_12,
    /// 17.05 to 17.09: the same without the space.
    Docker17_05,
    /// 17.12 to 18.09: the order of today.
    Docker17_12,
    /// 19.03 and later: the same, one space further in, since all is under `Server:`.
    #[default]
    Docker19_03,
}

impl Layout {
    const fn spacing(self) -> Spacing {
        match self {
            Self::Docker1_12 => Spacing::Space,
            Self::Docker17_05 | Self::Docker17_12 | Self::Docker19_03 => Spacing::None,
        }
    }

    const fn indent(self) -> &'static str {
        match self {
            Self::Docker1_12 | Self::Docker17_05 | Self::Docker17_12 => "",
            Self::Docker19_03 => " ",
        }
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
}

/// One line: key and value.
pub type Pair = (&'static str, String);

/// Returns the block with its heading, as the terminal shows it, each line ended.
pub fn block(pool: &PoolReport, docker: DockerView<'_>, layout: Layout) -> String {
    let indent = layout.indent();
    let mut text = format!("{indent}Storage Driver: devicemapper\n");
    for (key, value) in pairs(pool, docker, layout) {
        text.push_str(&format!("{indent} {key}: {value}\n"));
    }
    text
}

/// Returns the lines of the block in the layout's order (`DriverStatus` of the API).
///
/// A pool that no Docker root uses has only the lines that the pool itself answers.
pub fn pairs(pool: &PoolReport, docker: DockerView<'_>, layout: Layout) -> Vec<Pair> {
    let values = Values { pool, docker, spacing: layout.spacing() };
    let identity = values.identity();
    let (files, loop_files) = (values.files(), values.loop_files());
    let (space, udev, deferred) = (values.space(), values.udev_sync(), values.deferred());
    let library = values.library();
    let parts = match layout {
        Layout::Docker1_12 | Layout::Docker17_05 => [identity, files, space, udev, deferred, loop_files, library],
        Layout::Docker17_12 | Layout::Docker19_03 => [identity, udev, files, loop_files, space, deferred, library],
    };
    parts.into_iter().flatten().collect()
}

/// The values of the block, in the groups that move together between the layouts.
struct Values<'a> {
    pool: &'a PoolReport,
    docker: DockerView<'a>,
    spacing: Spacing,
}

impl Values<'_> {
    fn identity(&self) -> Vec<Pair> {
        let mut pairs = vec![("Pool Name", self.pool.name.clone()), ("Pool Blocksize", self.size(self.block_size()))];
        if let Some(root) = self.docker.root {
            pairs.push(("Base Device Size", self.size(base_size(root))));
            let filesystem = root.device_set.as_ref().map(|set| set.base_filesystem.clone());
            pairs.push(("Backing Filesystem", known(filesystem)));
        }
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

    /// The devices; not there when the pool was handed to Docker ready-made.
    fn files(&self) -> Vec<Pair> {
        if self.is_handed_over() {
            return Vec::new();
        }
        vec![("Data file", device(&self.pool.data)), ("Metadata file", device(&self.pool.metadata))]
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

    fn is_handed_over(&self) -> bool {
        let options = self.docker.root.and_then(|root| root.options.known());
        options.is_some_and(|options| options.named_pool().is_some())
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
        pairs.extend(self.of_docker("Thin Pool Minimum Free Space", |root| {
            self.size(root.options.minimum_free_percent().and_then(|percent| minimum_free(self.pool, percent)))
        }));
        pairs
    }

    /// What is free in the pool, but not more than the file system under its loop file has.
    fn available(&self, space: Option<Space>, backing: &Backing) -> Option<Bytes> {
        let free = space?.free();
        match backing.loop_file() {
            Some(file) if !self.is_handed_over() => Some(free.min(file.host.as_ref()?.free)),
            _ => Some(free),
        }
    }

    fn deferred(&self) -> Vec<Pair> {
        let driver = self.docker.driver_version;
        let mut pairs = self.of_docker("Deferred Removal Enabled", |root| known(root.deferred_removal(driver)));
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
        known(size.map(|size| docker_size(size, self.spacing)))
    }
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
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
        Carrier::Unknown => UNKNOWN.to_owned(),
    }
}

/// Returns the loop file, by Docker's name for it when Docker has one.
fn loop_file(backing: &Backing, dockers: Option<&Path>) -> Option<String> {
    let file = backing.loop_file()?;
    Some(dockers.unwrap_or(&file.path).display().to_string())
}

/// Returns what that share is of the pool's data, in whole blocks as Docker counts.
fn minimum_free(pool: &PoolReport, percent: u8) -> Option<Bytes> {
    let block = pool.block_bytes()?;
    let blocks = pool.data_space()?.total.get().checked_div(block.get())?;
    let kept = u128::from(blocks) * u128::from(percent) / 100;
    u64::try_from(kept).ok()?.checked_mul(block.get()).map(Bytes::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_root::{Options, Problem};
    use crate::engine::options::StorageOptions;
    use crate::report::samples::{devices, docker_pool, docker_root, lvm_pool, mute_pool, stopped_docker_pool};

    const DRIVER: Option<(u32, u32)> = Some((4, 43));

    #[test]
    fn the_block_of_docker_20_10_byte_for_byte() {
        let status = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let (pool, root, devices) = (docker_pool(status, 13_740_000_000), docker_root(), devices());
        let docker = DockerView { root: Some(&root), devices: Some(&devices), driver_version: DRIVER };
        let real = include_str!("../../tests/fixtures/docker-info/20.10.2.txt");
        assert_eq!(block(&pool, docker, Layout::default()), real);
    }

    #[test]
    fn the_block_of_docker_1_12_on_centos_7() {
        let mut pool = docker_pool("2 142/524288 180/1638400 - rw discard_passdown queue_if_no_space", 14_260_000_000);
        pool.name = "docker-8:3-34594283-pool".to_owned();
        let mut root = docker_root();
        root.device_set.as_mut().unwrap().base_filesystem = "xfs".to_owned();
        root.library_version = Some("1.02.107-RHEL7 (2015-10-14)".to_owned());
        root.options = Options::Running(StorageOptions::parse([
            "dm.use_deferred_removal=false",
            "dm.use_deferred_deletion=false",
        ]));
        let devices = devices();
        let docker = DockerView { root: Some(&root), devices: Some(&devices), driver_version: Some((4, 33)) };
        let real = include_str!("../../tests/fixtures/docker-info/1.12.6.txt");
        assert_eq!(block(&pool, docker, Layout::Docker1_12), real);
    }

    #[test]
    fn a_pool_handed_to_docker_has_no_file_lines() {
        let (pool, mut root, devices) = (lvm_pool(), docker_root(), devices());
        root.options = Options::Running(StorageOptions::parse(["dm.thinpooldev=/dev/mapper/docker-thinpool"]));
        let docker = DockerView { root: Some(&root), devices: Some(&devices), driver_version: DRIVER };
        let real = include_str!("../../tests/fixtures/docker-info/18.09.0-thinpool.txt");
        let ours = block(&pool, docker, Layout::Docker17_12);
        assert_eq!(ours.strip_prefix(real).unwrap(), " Library Version: 1.02.170 (2020-03-24)\n");
    }

    #[test]
    fn what_cannot_be_known_is_unknown_and_never_zero() {
        let mut root = docker_root();
        root.daemon = None;
        root.options = Options::Unknown;
        root.library_version = None;
        root.base = None;
        root.device_set = None;
        root.problems = vec![Problem { path: "base".into(), why: "it is empty".to_owned() }];
        let docker = DockerView { root: Some(&root), devices: None, driver_version: DRIVER };
        let lines = pairs(&docker_pool("Fail", 0), docker, Layout::default());
        for (key, value) in lines {
            let is_read = matches!(key, "Pool Name" | "Pool Blocksize" | "Data file" | "Metadata file")
                || key.ends_with("loop file");
            assert_eq!(value == UNKNOWN, !is_read, "{key}: {value}");
        }
    }

    #[test]
    fn with_docker_stopped_the_superblock_and_the_files_answer() {
        let (pool, root) = (stopped_docker_pool(), docker_root());
        let docker = DockerView { root: Some(&root), ..DockerView::default() };
        let lines = pairs(&pool, docker, Layout::default());
        for line in [
            ("Pool Blocksize", "65.54kB"),
            ("Data file", "not attached"),
            ("Data loop file", "/var/lib/docker/devicemapper/devicemapper/data"),
            ("Data Space Used", "9.043GB"),
            ("Data Space Available", "13.74GB"),
            // The kernel counts a reserve of 4096 blocks as used, the superblock does not.
            ("Metadata Space Used", "25.44MB"),
            ("Thin Pool Minimum Free Space", "10.74GB"),
        ] {
            assert!(lines.iter().any(|(key, value)| (*key, value.as_str()) == line), "{line:?} is not in {lines:?}");
        }
    }

    #[test]
    fn a_root_without_a_base_device_has_one_of_no_size_as_docker_prints_it() {
        let mut root = docker_root();
        root.base = None;
        let docker = DockerView { root: Some(&root), devices: None, driver_version: None };
        let lines = pairs(&docker_pool("0 1/2 3/4", 0), docker, Layout::default());
        assert!(lines.contains(&("Base Device Size", "0B".to_owned())), "{lines:?}");
    }

    #[test]
    fn a_pool_of_somebody_else_has_the_lines_it_can_answer() {
        let keys: Vec<_> =
            pairs(&mute_pool(), DockerView::default(), Layout::default()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.first(), Some(&"Pool Name"));
        assert!(!keys.iter().any(|key| key.starts_with("Deferred") || key.starts_with("Base")), "{keys:?}");
    }

    #[test]
    fn the_minimum_is_whole_blocks() {
        let status = "0 1/2 0/1638405 - rw discard_passdown queue_if_no_space - 1024";
        let pool = docker_pool(status, 0);
        assert_eq!(minimum_free(&pool, 10), Some(Bytes::new(163_840 * 65_536)));
        assert_eq!(minimum_free(&pool, 0), Some(Bytes::new(0)));
        assert_eq!(minimum_free(&docker_pool("Error", 0), 10), None);
    }
}
