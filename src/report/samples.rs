//! Pools that were met, as the values the reports are tested with.

use std::path::PathBuf;

use crate::engine::bookkeeping::{Device, DeviceSet};
use crate::engine::docker_root::{DeviceCounts, DockerRoot, Options, Standing};
use crate::engine::dockerd::{Dockerd, Flags};
use crate::engine::driver::Driver;
use crate::engine::options::StorageOptions;
use crate::engine::start::Starter;
use crate::engine::version::{Known, Version};
use crate::ops::health;
use crate::pool::{
    Activity, Backing, BytesPerDay, Carrier, DevNo, Finding, Forecast, Full, HostFs, Limit, LoopFile, Maker,
    PoolReport, PoolStatus, PoolTable, Recorded, Tie, User,
};
use crate::report::docker_info::DockerView;
use crate::report::status::StatusView;
use crate::units::{BlockSize, Bytes, DataBlocks, MetaBlocks, Sectors};

/// Docker's default pool: 100 GiB and 2 GiB sparse files on one file system.
pub(crate) fn docker_pool(status: &str, host_free: u64) -> PoolReport {
    PoolReport {
        name: "docker-179:2-1049372-pool".to_owned(),
        argument: "docker".to_owned(),
        uuid: None,
        device: Some(DevNo { major: 253, minor: 0 }),
        activity: Activity::Active,
        maker: Maker::Docker,
        user: User::Docker { root: PathBuf::from("/var/lib/docker") },
        tie: Some(Tie::Files),
        open_count: Some(7),
        table: Some(PoolTable {
            length: Sectors::new(209_715_200),
            metadata: DevNo { major: 7, minor: 1 },
            data: DevNo { major: 7, minor: 0 },
            block_size: BlockSize::DEFAULT,
            low_water: DataBlocks::new(32768),
            features: vec!["skip_block_zeroing".to_owned()],
        }),
        status: Some(PoolStatus::parse(status)),
        recorded: None,
        unread: Vec::new(),
        missing: Vec::new(),
        data: loop_backing(0, "data", 100 << 30, 10_737_418_240, host_free),
        metadata: loop_backing(1, "metadata", 2 << 30, 26_214_400, host_free),
        volume_group: None,
        interrupted: None,
    }
}

fn loop_backing(minor: u32, name: &str, size: u64, allocated: u64, host_free: u64) -> Backing {
    Backing {
        device: Some(DevNo { major: 7, minor }),
        size: Some(Bytes::new(size).sectors()),
        ..Backing::on(Carrier::Loop {
            device: Some(PathBuf::from(format!("/dev/loop{minor}"))),
            file: LoopFile {
                path: PathBuf::from("/var/lib/docker/devicemapper/devicemapper").join(name),
                deleted: false,
                in_the_way: false,
                size: Some(Bytes::new(size)),
                allocated: Some(Bytes::new(allocated)),
                host: Some(HostFs {
                    mount_point: PathBuf::from("/"),
                    kind: "ext4".to_owned(),
                    device: DevNo { major: 179, minor: 2 },
                    free: Bytes::new(host_free),
                    total: Bytes::new(64_000_000_000),
                }),
                link: None,
                autoclear: true,
                is_part: false,
            },
        })
    }
}

/// The same pool with Docker stopped: the kernel does not have it, its superblock and its files are there.
pub(crate) fn stopped_docker_pool() -> PoolReport {
    let mut pool = docker_pool("Fail", 13_740_000_000);
    for backing in [&mut pool.data, &mut pool.metadata] {
        (backing.device, backing.size) = (None, None);
        if let Carrier::Loop { device, .. } = &mut backing.carrier {
            *device = None;
        }
    }
    PoolReport {
        device: None,
        activity: Activity::Inactive,
        open_count: None,
        table: None,
        status: None,
        recorded: Some(Recorded {
            transaction_id: 180,
            needs_check: false,
            block_size: BlockSize::DEFAULT,
            data_total: DataBlocks::new(1_638_400),
            data_used: DataBlocks::new(137_985),
            metadata_total: MetaBlocks::new(524_288),
            metadata_used: MetaBlocks::new(6211 - 4096),
        }),
        ..pool
    }
}

/// The Docker root of that pool, with a daemon that was given no storage options.
pub(crate) fn docker_root() -> DockerRoot {
    let files = PathBuf::from("/var/lib/docker/devicemapper/devicemapper");
    DockerRoot {
        path: PathBuf::from("/var/lib/docker"),
        daemon: Some(Dockerd { pid: 612, flags: Flags::default(), driver_variable: None }),
        options: Options::Running(StorageOptions::default()),
        device_prefix: "docker-179:2-1049372".to_owned(),
        data_file: Some(files.join("data")),
        metadata_file: Some(files.join("metadata")),
        base: Some(Device { id: 1, size: Bytes::new(10 << 30), transaction_id: 1, initialized: true, deleted: false }),
        device_set: Some(DeviceSet {
            next_device_id: 61,
            base_uuid: "24cb4d5f-0bd5-46c4-a9b1-3e0ad3ba3d2d".to_owned(),
            base_filesystem: "ext4".to_owned(),
        }),
        transaction: None,
        standing: Standing::Running,
        next_options: Options::Running(StorageOptions::default()),
        storage_driver: None,
        starter: Some(Starter::Unit("docker".to_owned())),
        twice: Vec::new(),
        drivers: vec![Driver::Devicemapper],
        version: Some(Known { version: Version::new(18, 6), exact: false, mark: "buildkit/ in the root".to_owned() }),
        data_link: None,
        metadata_link: None,
        direct_lvm: None,
        library_version: Some("1.02.170 (2020-03-24)".to_owned()),
        problems: Vec::new(),
    }
}

/// What that root's bookkeeping counts.
pub(crate) fn devices() -> DeviceCounts {
    DeviceCounts { all: 61, ..DeviceCounts::default() }
}

/// An LVM pool with a volume of its own, on a CentOS 7 kernel whose status line stops early.
pub(crate) fn lvm_pool() -> PoolReport {
    let lv = |minor, name: &str| Backing {
        device: Some(DevNo { major: 253, minor }),
        size: Some(Bytes::new(50_997_493_760).sectors()),
        ..Backing::on(Carrier::Device { path: PathBuf::from(format!("/dev/mapper/{name}")) })
    };
    PoolReport {
        name: "docker-thinpool".to_owned(),
        argument: "docker-thinpool".to_owned(),
        uuid: Some("LVM-Zy3kDwk1N0pq-tpool".to_owned()),
        device: Some(DevNo { major: 253, minor: 4 }),
        maker: Maker::Lvm,
        user: User::Unknown,
        tie: None,
        status: Some(PoolStatus::parse("14 1241/130048 20990/97270 - rw discard_passdown queue_if_no_space")),
        table: Some(PoolTable {
            length: Sectors::new(99_604_480),
            metadata: DevNo { major: 253, minor: 2 },
            data: DevNo { major: 253, minor: 3 },
            block_size: BlockSize::try_from(1024).unwrap_or(BlockSize::DEFAULT),
            low_water: DataBlocks::new(0),
            features: vec!["skip_block_zeroing".to_owned()],
        }),
        data: lv(3, "docker-thinpool_tdata"),
        metadata: lv(2, "docker-thinpool_tmeta"),
        open_count: Some(3),
        ..docker_pool("Fail", 0)
    }
}

/// One that nobody could read anything of.
pub(crate) fn mute_pool() -> PoolReport {
    let nothing = || Backing::on(Carrier::Unknown);
    PoolReport {
        name: "mute".to_owned(),
        argument: "mute".to_owned(),
        device: None,
        activity: Activity::Inactive,
        maker: Maker::Unknown,
        user: User::Unknown,
        tie: None,
        open_count: None,
        table: None,
        status: None,
        unread: vec!["EIO (Input/output error) from reading the superblock on /dev/loop7".to_owned()],
        data: nothing(),
        metadata: nothing(),
        ..docker_pool("Fail", 0)
    }
}

/// What `status` finds in a pool that no Docker root belongs to.
pub(crate) fn findings(pool: &PoolReport) -> Vec<Finding> {
    health::judge(&health::Facts::of(pool), &health::Thresholds::default())
}

/// A pool that is full on the 25th day.
pub(crate) fn growing() -> Forecast {
    Forecast {
        data: Some(BytesPerDay::new(512 << 20)),
        metadata: Some(BytesPerDay::new(1 << 20)),
        full: Full::In { limit: Limit::HostFileSystem, seconds: 25 * 86_400 + 7200 },
    }
}

/// A pool alone, with these findings.
pub(crate) fn alone<'a>(pool: &'a PoolReport, findings: &'a [Finding]) -> StatusView<'a> {
    StatusView { pool, docker: DockerView::default(), findings, forecast: Forecast::default() }
}
