//! The volumes that are active on a pool: what the kernel, Docker and their file systems say of each.

use std::fs;
use std::path::Path;

use super::owners::Owners;
use crate::engine::docker_root::DockerRoot;
use crate::kernel::block;
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::fs::FsFacts;
use crate::kernel::mounts::{self, Mount};
use crate::ops::filesystem::{self, FileSystem};
use crate::pool::{Activity, DevNo, PoolReport, Space, User};
use crate::units::{Bytes, Sectors};

/// One active volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Its dm name.
    pub(super) name: String,
    /// Its device number.
    pub(super) device: DevNo,
    /// How long its table makes it.
    pub(super) size: Bytes,
    /// How much of it has blocks in the pool; unknown when the kernel does not say.
    pub(super) mapped: Option<Bytes>,
    /// Where the block begins that is mapped farthest behind, as far as that is known.
    pub(super) highest: Option<Bytes>,
    /// What the file system on it says.
    pub(super) file_system: Option<FileSystem>,
    /// How much of the file system on it is in use, when it is mounted where we see it.
    pub(super) in_use: Option<Space>,
    /// Whether XFS on it, mounted, tries a failed write of metadata again for ever.
    pub(super) retries_forever: Option<bool>,
    /// What Docker has written down, when it is Docker's.
    pub(super) docker: Option<Owned>,
    /// How people name it, when it is containerd's and known there.
    pub(super) containerd: Option<String>,
}

/// What Docker has written down about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    /// The name of its file, which ends its dm name.
    pub(super) hash: String,
    /// How long Docker makes it when it activates it.
    pub(super) size: Option<Bytes>,
    /// The container that has it.
    pub(super) container: Option<String>,
}

impl Volume {
    /// Returns how people name it: ``container `web` ``, else by its dm name.
    pub(super) fn label(&self) -> String {
        match self.docker.as_ref().and_then(|d| d.container.as_deref()) {
            Some(container) => format!("container `{container}`"),
            None => self.containerd.clone().unwrap_or_else(|| format!("volume `{}`", self.name)),
        }
    }
}

/// Looks at the volumes that are active on a pool.
///
/// # Errors
/// When the kernel does not list its devices.
pub(super) fn look(dm: &Dm, pool: &PoolReport, docker: Option<(&DockerRoot, &Owners)>) -> anyhow::Result<Vec<Volume>> {
    let Some(device) = pool.device else { return Ok(Vec::new()) };
    let block = pool.block_bytes().unwrap_or_default();
    let mounts = mounts::own().unwrap_or_default();
    let mut volumes = Vec::new();
    for found in dm.list()? {
        let id = DmId::DevNo(found.devno);
        let Ok(lines) = dm.table(&id) else { continue };
        let [line] = lines.as_slice() else { continue };
        if line.kind != "thin" || pool_of(&line.params) != Some(device) {
            continue;
        }
        // A suspended volume would keep its reader, and so would one on a pool that is suspended or does not answer.
        let answers = pool.activity == Activity::Active && pool.status.is_some();
        let awake = answers && dm.info(&id).ok().flatten().is_some_and(|i| !i.suspended);
        let status = if awake { dm.status(&id).ok() } else { None };
        let status = status.and_then(|lines| parse_status(&lines.first()?.params, block));
        let file_system = if awake { head(found.devno).and_then(|head| filesystem::parse(&head)) } else { None };
        volumes.push(Volume {
            device: found.devno,
            size: line.length.bytes(),
            mapped: status.map(|s| s.0),
            highest: status.and_then(|s| s.1),
            file_system,
            in_use: if awake { in_use(&mounts, found.devno) } else { None },
            retries_forever: retries_forever(found.devno),
            docker: docker.and_then(|(root, owners)| owned(root, owners, &found.name)),
            containerd: of_containerd(&pool.user, &found.name),
            name: found.name,
        });
    }
    Ok(volumes)
}

/// Returns the pool in a thin target's parameters, `POOL ID [ORIGIN]`.
pub(crate) fn pool_of(params: &str) -> Option<DevNo> {
    params.split_whitespace().next()?.parse().ok()
}

/// Reads a thin target's status, `MAPPED HIGHEST`, in sectors; HIGHEST is the last sector of the last mapped block and
/// `-` when there is none.
pub(crate) fn parse_status(params: &str, block: Bytes) -> Option<(Bytes, Option<Bytes>)> {
    let mut words = params.split_whitespace();
    let mapped = Sectors::new(words.next()?.parse().ok()?).bytes();
    let end = words.next().and_then(|word| word.parse::<u64>().ok()).and_then(|last| last.checked_add(1));
    let begin = end.map(|end| Sectors::new(end).bytes().saturating_sub(block));
    Some((mapped, begin))
}

fn head(device: DevNo) -> Option<Vec<u8>> {
    block::open_direct(device).and_then(|file| block::read_direct(&file, 0, filesystem::HEAD)).ok()
}

fn in_use(mounts: &[Mount], device: DevNo) -> Option<Space> {
    let mount = mounts.iter().find(|mount| mount.devno == device)?;
    let facts = FsFacts::of(&mount.mount_point).ok()?;
    // Another mount may lie over it.
    (facts.devno == device).then(|| Space { used: facts.total.saturating_sub(facts.free), total: facts.total })
}

/// Returns what `/sys/fs/xfs/dm-N/error/metadata/ENOSPC/max_retries` says: there while XFS is mounted, from Linux 4.7 on.
fn retries_forever(device: DevNo) -> Option<bool> {
    let text = fs::read_to_string(retries_file(device)?).ok()?;
    Some(text.trim() == "-1")
}

/// Returns the file in which XFS on a device keeps how often it tries again.
pub(super) fn retries_file(device: DevNo) -> Option<std::path::PathBuf> {
    let name = block::name(device)?;
    Some(Path::new("/sys/fs/xfs").join(name).join("error/metadata/ENOSPC/max_retries"))
}

fn owned(root: &DockerRoot, owners: &Owners, name: &str) -> Option<Owned> {
    let hash = name.strip_prefix(&root.device_prefix)?.strip_prefix('-')?;
    Some(Owned {
        size: owners.device(hash).map(|device| device.size),
        container: owners.container(hash).map(str::to_owned),
        hash: hash.to_owned(),
    })
}

fn of_containerd(user: &User, name: &str) -> Option<String> {
    let User::Containerd { devices: Some(devices), .. } = user else { return None };
    devices.iter().find(|device| device.name == name)?.label()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_status_is_two_numbers_or_less() {
        let block = Bytes::new(65536);
        let gib = 1 << 30;
        assert_eq!(
            parse_status("204800 20971519", block),
            Some((Bytes::new(100 << 20), Some(Bytes::new(10 * gib - 65536))))
        );
        assert_eq!(parse_status("0 -", block), Some((Bytes::new(0), None)));
        assert_eq!(parse_status("128", block), Some((Bytes::new(65536), None)));
        assert_eq!(parse_status("Fail", block), None);
        assert_eq!(parse_status(&format!("1 {}", u64::MAX), block), Some((Bytes::new(512), None)));
    }

    #[test]
    fn a_thin_table_names_its_pool() {
        assert_eq!(pool_of("253:0 7"), Some(DevNo { major: 253, minor: 0 }));
        assert_eq!(pool_of("253:0 7 253:9"), Some(DevNo { major: 253, minor: 0 }));
        assert_eq!(pool_of(""), None);
    }
}
