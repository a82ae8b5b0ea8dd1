#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::engine::docker_root::{Options, Problem};
use crate::engine::options::StorageOptions;
use crate::report::samples::{devices, docker_pool, docker_root, lvm_pool, mute_pool, stopped_docker_pool};

const DRIVER: Option<(u32, u32)> = Some((4, 43));

#[test]
fn the_block_of_docker_20_10_byte_for_byte() {
    let status = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
    let (pool, root, devices) = (docker_pool(status, 13_740_000_000), docker_root(), devices());
    let docker =
        DockerView { root: Some(&root), devices: Some(&devices), driver_version: DRIVER, layout: Layout::default() };
    let real = include_str!("../../tests/fixtures/docker-info/20.10.2.txt");
    assert_eq!(block(&pool, docker), real);
}

#[test]
fn the_block_of_docker_1_12_on_centos_7() {
    let mut pool = docker_pool("2 142/524288 180/1638400 - rw discard_passdown queue_if_no_space", 14_260_000_000);
    pool.name = "docker-8:3-34594283-pool".to_owned();
    let mut root = docker_root();
    root.device_set.as_mut().unwrap().base_filesystem = "xfs".to_owned();
    root.library_version = Some("1.02.107-RHEL7 (2015-10-14)".to_owned());
    root.options =
        Options::Running(StorageOptions::parse(["dm.use_deferred_removal=false", "dm.use_deferred_deletion=false"]));
    let devices = devices();
    let docker = DockerView {
        root: Some(&root),
        devices: Some(&devices),
        driver_version: Some((4, 33)),
        layout: Layout::Docker1_12,
    };
    let real = include_str!("../../tests/fixtures/docker-info/1.12.6.txt");
    assert_eq!(block(&pool, docker), real);
}

#[test]
fn a_pool_handed_to_docker_has_no_file_lines() {
    let (pool, mut root, devices) = (lvm_pool(), docker_root(), devices());
    root.options = Options::Running(StorageOptions::parse(["dm.thinpooldev=/dev/mapper/docker-thinpool"]));
    let docker =
        DockerView { root: Some(&root), devices: Some(&devices), driver_version: DRIVER, layout: Layout::Docker17_12 };
    let real = include_str!("../../tests/fixtures/docker-info/18.09.0-thinpool.txt");
    let ours = block(&pool, docker);
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
    let docker = DockerView { root: Some(&root), devices: None, driver_version: DRIVER, layout: Layout::default() };
    let lines = pairs(&docker_pool("Fail", 0), docker);
    for (key, value) in lines {
        let is_read =
            matches!(key, "Pool Name" | "Pool Blocksize" | "Data file" | "Metadata file") || key.ends_with("loop file");
        assert_eq!(value == UNKNOWN, !is_read, "{key}: {value}");
    }
}

#[test]
fn with_docker_stopped_the_superblock_and_the_files_answer() {
    let (pool, root) = (stopped_docker_pool(), docker_root());
    let docker = DockerView { root: Some(&root), ..DockerView::default() };
    let lines = pairs(&pool, docker);
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
    let docker = DockerView { root: Some(&root), devices: None, ..DockerView::default() };
    let lines = pairs(&docker_pool("0 1/2 3/4", 0), docker);
    assert!(lines.contains(&("Base Device Size", "0B".to_owned())), "{lines:?}");
}

#[test]
fn a_pool_of_somebody_else_has_the_lines_it_can_answer() {
    let keys: Vec<_> = pairs(&mute_pool(), DockerView::default()).into_iter().map(|(key, _)| key).collect();
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

/// A pool as somebody met it: what is in the fixture, in the kernel's and Docker's own units.
struct Met {
    fixture: &'static str,
    version: (u16, u16),
    name: &'static str,
    /// Sectors of a data block.
    block: u64,
    /// Data blocks used and in all, metadata blocks used and in all.
    status: &'static str,
    /// Type and free bytes of the file system under the loop files; nothing for a pool handed over.
    host: Option<(&'static str, u64)>,
    base: u64,
    filesystem: &'static str,
    options: &'static [&'static str],
    library: &'static str,
}

const PLENTY: u64 = 1 << 45;

/// In every fixture below; which lines there are, their order and their form are what is compared.
const MET: [Met; 7] = [
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/1.8-ubuntu.txt"),
        version: (1, 8),
        name: "docker-202:1-524953-pool",
        block: 128,
        status: "0 5632/524288 200480/1638400 - rw no_discard_passdown queue_if_no_space",
        host: Some(("ext4", PLENTY)),
        base: 10 << 30,
        filesystem: "",
        options: &[],
        library: "1.02.82-git (2013-10-04)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/1.8.3.txt"),
        version: (1, 8),
        name: "docker-8:4-1073741920-pool",
        block: 128,
        status: "0 420/524288 31006/1638400 - rw discard_passdown queue_if_no_space",
        host: Some(("xfs", PLENTY)),
        base: 10 << 30,
        filesystem: "",
        options: &[],
        library: "1.02.127 (2016-06-11)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/1.9.1.txt"),
        version: (1, 9),
        name: "docker-202:1-150022-pool",
        block: 128,
        status: "0 1847/524288 112030/1638400 - rw discard_passdown queue_if_no_space",
        host: Some(("ext4", 2_188_000_000)),
        base: 100 << 30,
        filesystem: "",
        options: &[],
        library: "1.02.82-git (2013-10-04)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/1.10.3-thinpool.txt"),
        version: (1, 10),
        name: "dockerpool-docker--pool",
        block: 1024,
        status: "0 127/21504 4523/147296 - rw discard_passdown queue_if_no_space",
        host: None,
        base: 18 << 30,
        filesystem: "xfs",
        options: &["dm.thinpooldev=/dev/mapper/dockerpool-docker--pool"],
        library: "1.02.82-git (2013-10-04)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/1.13.1-thinpool.txt"),
        version: (1, 13),
        name: "vg0-pool0",
        block: 128,
        status: "0 8491/1047552 301666/1114112 - rw discard_passdown queue_if_no_space",
        host: None,
        base: 10 << 30,
        filesystem: "ext4",
        options: &["dm.thinpooldev=vg0-pool0", "dm.use_deferred_removal=true", "dm.use_deferred_deletion=true"],
        library: "1.02.110 (2015-10-30)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/17.05.0.txt"),
        version: (17, 5),
        name: "docker-253:1-100928529-pool",
        block: 128,
        status: "0 878/524288 1473540/1638400 - rw discard_passdown queue_if_no_space",
        host: Some(("xfs", PLENTY)),
        base: 10 << 30,
        filesystem: "xfs",
        options: &[],
        library: "1.02.107-RHEL7 (2016-06-09)",
    },
    Met {
        fixture: include_str!("../../tests/fixtures/docker-info/18.06.1-thinpool.txt"),
        version: (18, 6),
        name: "docker-thinpool",
        block: 1024,
        status: "0 210/242688 11753/180200 - rw discard_passdown queue_if_no_space",
        host: None,
        base: 10 << 30,
        filesystem: "xfs",
        options: &["dm.thinpooldev=/dev/mapper/docker-thinpool"],
        library: "1.02.149-RHEL7 (2018-07-20)",
    },
];

impl Met {
    fn block(&self) -> String {
        use crate::engine::version::Known;
        use crate::pool::PoolStatus;
        use crate::units::{BlockSize, Sectors};
        let PoolStatus::Working(working) = PoolStatus::parse(self.status) else { unreachable!("a working pool") };
        let block = BlockSize::try_from(self.block).unwrap();
        let mut pool = if self.host.is_some() { docker_pool(self.status, 0) } else { lvm_pool() };
        pool.name = self.name.to_owned();
        pool.status = Some(PoolStatus::parse(self.status));
        let table = pool.table.as_mut().unwrap();
        table.block_size = block;
        table.length = Sectors::new(working.data_total.get() * self.block);
        for backing in [&mut pool.data, &mut pool.metadata] {
            if let (Carrier::Loop { file, .. }, Some((kind, free))) = (&mut backing.carrier, self.host) {
                let host = file.host.as_mut().unwrap();
                (host.kind, host.free) = (kind.to_owned(), Bytes::new(free));
            }
        }
        let mut root = docker_root();
        let version = Version::new(self.version.0, self.version.1);
        root.version = Some(Known { version, exact: true, mark: "a test".to_owned() });
        root.base.as_mut().unwrap().size = Bytes::new(self.base);
        root.device_set.as_mut().unwrap().base_filesystem = self.filesystem.to_owned();
        root.options = Options::Running(StorageOptions::parse(self.options.iter().copied()));
        root.library_version = Some(self.library.to_owned());
        let (devices, layout) = (devices(), Layout::of_root(Some(&root)));
        block_of(&pool, &root, &devices, layout)
    }
}

fn block_of(pool: &PoolReport, root: &DockerRoot, devices: &DeviceCounts, layout: Layout) -> String {
    block(pool, DockerView { root: Some(root), devices: Some(devices), driver_version: DRIVER, layout })
}

#[test]
fn the_blocks_of_seven_versions_byte_for_byte() {
    // Whether a daemon found a udev it alone knows, when it was built to go on without.
    let without_udev =
        |text: &str| text.lines().filter(|l| !l.contains("Udev Sync")).map(str::to_owned).collect::<Vec<_>>();
    for met in MET {
        assert_eq!(without_udev(&met.block()), without_udev(met.fixture), "{:?}", met.version);
        let place = |text: &str| text.lines().position(|line| line.contains("Udev Sync"));
        assert_eq!(place(&met.block()), place(met.fixture), "{:?}", met.version);
    }
}

#[test]
fn versions_have_their_layouts() {
    for (version, layout) in [
        ((1, 6), Layout::Docker1_7),
        ((1, 8), Layout::Docker1_7),
        ((1, 11), Layout::Docker1_9),
        ((1, 13), Layout::Docker1_12),
        ((17, 3), Layout::Docker1_12),
        ((17, 5), Layout::Docker17_05),
        ((17, 11), Layout::Docker17_05),
        ((17, 12), Layout::Docker17_12),
        ((18, 9), Layout::Docker17_12),
        ((19, 3), Layout::Docker19_03),
        ((24, 0), Layout::Docker19_03),
    ] {
        assert_eq!(Layout::of(Version::new(version.0, version.1)), layout, "{version:?}");
    }
    assert_eq!(Layout::of_root(None), Layout::Docker19_03);
    // The sample's root has buildkit/: 18.06 or any later one.
    assert_eq!(Layout::of_root(Some(&docker_root())), Layout::Docker19_03);
}
