//! All that `status` and `list` know of one pool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pool::{DevNo, Interrupted, Mode, NoSpace, PoolStatus, PoolTable, sizing};
use crate::units::{BlockSize, Bytes, DataBlocks, MAX_META_BLOCKS, META_BLOCK_BYTES, MetaBlocks, Sectors};

/// Who made a pool. It decides how the pool grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maker {
    /// dmpool: its uuid begins `DMPOOL-`, and it is registered.
    Dmpool,
    /// Docker's devicemapper driver.
    Docker,
    /// LVM: its uuid begins `LVM-`.
    Lvm,
    /// Nobody who left a mark.
    Unknown,
}

/// Who uses a pool. It decides what may happen to its volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// A Docker root.
    Docker {
        /// Where it is.
        root: PathBuf,
    },
    /// containerd's devmapper snapshotter.
    Containerd {
        /// The configuration that names the pool; nothing when only the names on it speak for containerd.
        config: Option<PathBuf>,
        /// Where the snapshotter keeps its databases; as above.
        root_path: Option<PathBuf>,
        /// The devices that it knows, by name; nothing when its database could not be read.
        devices: Option<Vec<Snapshot>>,
    },
    /// Nobody that dmpool knows of.
    Unknown,
}

/// A thin device as containerd's snapshotter knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its dm name.
    pub name: String,
    /// Its id in the pool.
    pub id: u32,
    /// Its virtual size.
    pub size: Bytes,
    /// containerd's name for its state: `Activated`, `Faulty`.
    pub state: String,
    /// What went wrong with it last.
    pub error: Option<String>,
    /// Whose it is, when that could be told.
    pub owner: Option<SnapshotOwner>,
}

/// Whose a snapshot of containerd's is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOwner {
    /// The namespace.
    pub namespace: String,
    /// The snapshot's key there.
    pub key: String,
    /// The id of the container whose root it is.
    pub container: Option<String>,
    /// The image that this container was made from.
    pub image: Option<String>,
}

impl Snapshot {
    /// Returns how people name it: ``container `k8s.io/web` ``, else its snapshot by its key; nothing when its owner is
    /// unknown.
    pub fn label(&self) -> Option<String> {
        let SnapshotOwner { namespace, key, container, .. } = self.owner.as_ref()?;
        Some(match container {
            Some(container) => format!("container `{namespace}/{container}`"),
            None => format!("snapshot `{namespace}/{key}`"),
        })
    }
}

/// How it is known which user a pool has. Names come late: they change when a root moves, and its pool may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// The user's configuration names the pool.
    Options,
    /// The user's files are behind the pool's loop devices.
    Files,
    /// The devices that the user's configuration names are in the pool's table.
    Devices,
    /// Its name is the one that the user makes for itself.
    Name,
    /// A deleted file behind its loop device was the user's.
    DeletedFile,
    /// The volumes on it have the user's names.
    Volumes,
    /// The user's configuration names the pool, and the user has not been started with it.
    Configured,
    /// A migration of the user's pool into it is prepared.
    Prepared,
    /// It was made by Docker for that root, and Docker now uses another pool, or another storage driver, there.
    Before,
}

/// Whether the kernel has the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It does, and lets I/O through.
    Active,
    /// It does, and I/O waits until somebody resumes it.
    Suspended,
    /// It does not: the numbers come from the superblock.
    Inactive,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its dm name.
    pub name: String,
    /// The word by which commands name it: `docker`, a Docker root's path, or its dm name, which moves with the root of Docker's own pool.
    pub argument: String,
    /// Its dm uuid, when it has one.
    pub uuid: Option<String>,
    /// Its device number, when it is active.
    pub device: Option<DevNo>,
    /// Whether the kernel has it.
    pub activity: Activity,
    /// Who made it.
    pub maker: Maker,
    /// Who uses it.
    pub user: User,
    /// How that is known; nothing for a pool of nobody.
    pub tie: Option<Tie>,
    /// How many opens its device has: the volumes active on it, when they are the only ones.
    pub open_count: Option<u32>,
    /// Its table; unknown when it is inactive and no superblock could be read.
    pub table: Option<PoolTable>,
    /// Its status; unknown when the kernel did not answer, or it is inactive.
    pub status: Option<PoolStatus>,
    /// What the superblock says; only read when the pool is inactive.
    pub recorded: Option<Recorded>,
    /// What could not be read, each a sentence.
    pub unread: Vec<String>,
    /// Which of the devices that dmpool has formatted are not here, each a phrase; only looked for when it is inactive.
    pub missing: Vec<String>,
    /// Where the data is kept.
    pub data: Backing,
    /// Where the metadata is kept.
    pub metadata: Backing,
    /// What the volume group of a pool of LVM's has left; nothing when LVM was not asked, or did not say.
    pub volume_group: Option<VolumeGroup>,
    /// An operation of dmpool on this pool that was interrupted.
    pub interrupted: Option<Interrupted>,
}

/// What a pool's superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The number that the pool's user counts its changes with.
    pub transaction_id: u64,
    /// Whether the kernel wants the metadata checked before it writes again.
    pub needs_check: bool,
    /// The length of a data block.
    pub block_size: BlockSize,
    /// Data blocks in all.
    pub data_total: DataBlocks,
    /// Data blocks in use.
    pub data_used: DataBlocks,
    /// Metadata blocks in all.
    pub metadata_total: MetaBlocks,
    /// Metadata blocks in use, without the reserve that newer kernels add.
    pub metadata_used: MetaBlocks,
}

/// What one of a pool's two devices is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// The device in the pool's table, when the pool is active.
    pub device: Option<DevNo>,
    /// Its size.
    pub size: Option<Sectors>,
    /// The linear device between the pool and what carries it, by dm name, when there is one.
    pub linear: Option<String>,
    /// What carries it.
    pub carrier: Carrier,
    /// What devices that dmpool has formatted have behind all that the pool uses: `grow` takes it.
    pub room: Bytes,
    /// Whether it ends on an LV, which `grow` has LVM extend.
    pub on_lv: bool,
}

/// What carries a pool's data or metadata in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A file behind a loop device.
    Loop {
        /// `/dev/loopN`, when it is attached.
        device: Option<PathBuf>,
        /// The file.
        file: LoopFile,
    },
    /// A disk or an LV behind a loop device, not a file: what Docker gets from a symbolic link in its loop file's place.
    LoopOverDevice {
        /// `/dev/loopN`, when it is attached.
        device: Option<PathBuf>,
        /// The disk.
        disk: LoopDisk,
    },
    /// A disk, a partition, an LV or whatever else.
    Device {
        /// Its path.
        path: PathBuf,
    },
    /// Several devices, one behind the other or striped.
    Devices {
        /// Their paths, each once, in the order in which they come.
        paths: Vec<PathBuf>,
    },
    /// It could not be found out.
    Unknown,
}

/// A symbolic link in the place of one of Docker's loop files. Docker follows it anew at each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it is.
    pub at: PathBuf,
    /// What is written in it: `/dev/sdb` may be another disk after the next boot, `/dev/disk/by-id/…` may not.
    pub target: PathBuf,
}

/// A disk that stands in a loop file's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopDisk {
    /// Its path, as the kernel names it; as the link does when the loop device is not attached.
    pub path: PathBuf,
    /// Its number, when it is there.
    pub number: Option<DevNo>,
    /// How large it is, when it is there. The loop device does not follow it by itself.
    pub size: Option<Bytes>,
    /// The link by which Docker finds it, when a Docker root has one.
    pub link: Option<Link>,
    /// Its dm name, when it is a logical volume of LVM's.
    pub volume: Option<String>,
}

/// A loop file and the file system it lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopFile {
    /// Its path, as the kernel names it.
    pub path: PathBuf,
    /// Whether it has been deleted while attached.
    pub deleted: bool,
    /// Whether something else has its path, once it was deleted.
    pub in_the_way: bool,
    /// How long it is.
    pub size: Option<Bytes>,
    /// How much of it has blocks.
    pub allocated: Option<Bytes>,
    /// The file system it lies on.
    pub host: Option<HostFs>,
    /// The link by which Docker finds it, when a Docker root has one in its place.
    pub link: Option<Link>,
    /// Whether its loop device goes away with its last user.
    pub autoclear: bool,
    /// Whether its loop device shows only a part of it.
    pub is_part: bool,
}

impl LoopFile {
    /// Returns one of which only the path is known yet.
    pub const fn unlooked(path: PathBuf, deleted: bool) -> Self {
        let (autoclear, is_part, in_the_way) = (false, false, false);
        Self { path, deleted, in_the_way, size: None, allocated: None, host: None, link: None, autoclear, is_part }
    }

    /// Returns the bytes that the file promises and does not have.
    pub fn promised(&self) -> Option<Bytes> {
        Some(self.size?.saturating_sub(self.allocated?))
    }
}

/// A file system that holds loop files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFs {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its type, as in /proc/mounts.
    pub kind: String,
    /// Its device number.
    pub device: DevNo,
    /// Free bytes, root's reserve included (`f_bfree`): what Docker counts.
    pub free: Bytes,
    /// Its size.
    pub total: Bytes,
}

/// The volume group of a pool that LVM made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// What it has left.
    pub free: Bytes,
    /// How much of that LVM adds to the pool's data by itself as it fills; 0 when it adds nothing.
    pub adds: Bytes,
}

impl VolumeGroup {
    /// Returns how much is added to a pool of that size by steps of so many hundredths, in whole extents, as long as
    /// there is a whole step left: LVM adds no part of one (`lvextend --use-policies`).
    pub fn added_in_steps(total: Bytes, percent: u64, free: Bytes, extent: Bytes) -> Bytes {
        let (mut total, mut left) = (total.get(), free.get());
        let extent = extent.get().max(1);
        loop {
            let step = u128::from(total) * u128::from(percent) / 100;
            let step = u64::try_from(step).ok().and_then(|step| step.checked_next_multiple_of(extent));
            match step.filter(|step| *step > 0 && *step <= left) {
                Some(step) => (total, left) = (total.saturating_add(step), left - step),
                None => return Bytes::new(free.get() - left),
            }
        }
    }
}

/// Which limit a pool that is written to meets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The pool's own free blocks.
    Pool,
    /// Those, and what LVM adds to them by itself.
    VolumeGroup,
    /// The free space of the file system under its sparse files.
    HostFileSystem,
    /// The free metadata blocks.
    Metadata,
}

/// Used and total of one of a pool's two spaces, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes in use.
    pub used: Bytes,
    /// Bytes in all.
    pub total: Bytes,
}

impl Space {
    /// Returns the bytes not in use.
    pub const fn free(self) -> Bytes {
        self.total.saturating_sub(self.used)
    }

    /// Returns the hundredths in use, rounded down; 100 of nothing.
    pub const fn percent(self) -> u64 {
        match self.used.get().saturating_mul(100).checked_div(self.total.get()) {
            Some(percent) => percent,
            None => 100,
        }
    }
}

impl Backing {
    /// Returns one of which only that is known.
    pub const fn on(carrier: Carrier) -> Self {
        Self { device: None, size: None, linear: None, carrier, room: Bytes::new(0), on_lv: false }
    }

    /// Returns the loop file that carries it, when one does.
    pub const fn loop_file(&self) -> Option<&LoopFile> {
        match &self.carrier {
            Carrier::Loop { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Returns the link by which Docker finds what carries it, when Docker has one in its loop file's place.
    pub const fn link(&self) -> Option<&Link> {
        match &self.carrier {
            Carrier::Loop { file, .. } => file.link.as_ref(),
            Carrier::LoopOverDevice { disk, .. } => disk.link.as_ref(),
            Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => None,
        }
    }
}

impl PoolReport {
    /// Returns the bytes of one data block.
    pub fn block_bytes(&self) -> Option<Bytes> {
        self.block_size().map(BlockSize::bytes)
    }

    /// Returns the length of a data block: from the kernel, else from the superblock.
    pub fn block_size(&self) -> Option<BlockSize> {
        self.table.as_ref().map(|t| t.block_size).or(self.recorded.map(|r| r.block_size))
    }

    /// Returns used and total of the data: from the kernel, else from the superblock.
    pub fn data_space(&self) -> Option<Space> {
        let block = self.block_size()?;
        let (used, total) = match (self.status.as_ref().and_then(PoolStatus::working), self.recorded) {
            (Some(s), _) => (s.data_used, s.data_total),
            (None, Some(r)) => (r.data_used, r.data_total),
            (None, None) => return None,
        };
        Some(Space { used: block.bytes_of(used), total: block.bytes_of(total) })
    }

    /// Returns used and total of the metadata: from the kernel, else from the superblock with the kernel's reserve
    /// added, so that both say the same.
    pub fn metadata_space(&self) -> Option<Space> {
        let (used, total) = match (self.status.as_ref().and_then(PoolStatus::working), self.recorded) {
            (Some(s), _) => (s.metadata_used.get(), s.metadata_total),
            (None, Some(r)) => {
                let reserve = sizing::metadata_reserve(r.metadata_total);
                (r.metadata_used.get().saturating_add(reserve.get()), r.metadata_total)
            }
            (None, None) => return None,
        };
        let used = used.saturating_mul(META_BLOCK_BYTES);
        Some(Space { used: Bytes::new(used), total: total.bytes() })
    }

    /// Returns which limit a writer meets first, and the bytes until then; those of the metadata are an estimate.
    pub fn binding_limit(&self) -> Option<(Limit, Bytes)> {
        let mut first = self.data_limit()?;
        let host = self.data.loop_file().and_then(|f| f.host.as_ref()).map(|h| (Limit::HostFileSystem, h.free));
        let metadata = self.mappable().map(|bytes| (Limit::Metadata, bytes));
        for limit in [host, metadata].into_iter().flatten() {
            if limit.1 < first.1 {
                first = limit;
            }
        }
        Some(first)
    }

    /// Returns what the pool's data can grow to by itself, and which limit that is.
    pub fn data_limit(&self) -> Option<(Limit, Bytes)> {
        let free = self.data_space()?.free();
        match self.volume_group.as_ref().map(|group| group.adds).filter(|adds| adds.get() > 0) {
            Some(adds) => Some((Limit::VolumeGroup, free.checked_add(adds)?)),
            None => Some((Limit::Pool, free)),
        }
    }

    /// Returns whether LVM may extend the pool, and nobody has asked it: then the pool's own limits may be none.
    pub fn may_be_extended(&self) -> bool {
        self.maker == Maker::Lvm && self.volume_group.is_none()
    }

    /// Returns the bytes of metadata that are left; LVM extends it with the data, up to what the kernel can use.
    pub fn metadata_left(&self) -> Option<Bytes> {
        let space = self.metadata_space()?;
        let Some(group) = self.volume_group.as_ref().filter(|group| group.adds.get() > 0) else {
            return Some(space.free());
        };
        let most = space.total.checked_add(group.free)?.min(MAX_META_BLOCKS.bytes());
        Some(most.saturating_sub(space.used).max(space.free()))
    }

    /// Returns how many bytes of data the free metadata can map when its leaves are half full, as a B-tree's are at
    /// worst: 126 mappings in 4 KiB.
    fn mappable(&self) -> Option<Bytes> {
        let free = self.metadata_left()?.get() / META_BLOCK_BYTES;
        Some(Bytes::new(free.saturating_mul(126).saturating_mul(self.block_bytes()?.get())))
    }

    /// Returns by how many bytes the loop files promise more than their file system has, when they do.
    pub fn overcommitted_by(&self) -> Option<Bytes> {
        let data = self.data.loop_file()?;
        let host = data.host.as_ref()?;
        let mut promised = data.promised()?;
        if let Some(metadata) = self.metadata.loop_file()
            && metadata.host.as_ref().is_some_and(|h| h.device == host.device)
        {
            promised = promised.checked_add(metadata.promised()?)?;
        }
        (promised > host.free).then(|| promised.saturating_sub(host.free))
    }

    /// Returns whether writes that were acknowledged have been lost since the pool filled up: after 60 s the kernel
    /// turns a queueing pool into one that fails writes, without changing its table.
    pub fn gave_up_queueing(&self) -> bool {
        let queueing = self.table.as_ref().is_some_and(|t| !t.has("error_if_no_space"));
        let working = self.status.as_ref().and_then(PoolStatus::working);
        let full = working.is_some_and(|s| s.mode == Some(Mode::OutOfDataSpace) && s.no_space == Some(NoSpace::Error));
        queueing && full
    }
}
