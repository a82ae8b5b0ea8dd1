//! The files under the pool: short, deleted, of another pool, or there at all.

use std::path::Path;

use super::Facts;
use super::cost::{self, ONLINE};
use super::ways::with_docker_stopped;
use crate::metadata::BadSuperblock;
use crate::pool::{Activity, Backing, Carrier, DevNo, Finding, Key, LoopFile, PoolReport, Severity, Space, User, Way};
use crate::process::quote;
use crate::units::Bytes;

/// A data file with less than this is as good as empty.
const LITTLE: u64 = 64 << 20;
/// The least that a used block has in a sparse file is one block of its file system; a quarter of that, to be sure.
const LEAST_IN_A_BLOCK: u64 = 1024;

/// Judges the loop files.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let pool = facts.pool;
    let mut findings = Vec::new();
    for (part, file) in [("data", pool.data.loop_file()), ("metadata", pool.metadata.loop_file())] {
        findings.extend(file.and_then(|file| deleted(pool, part, file)));
    }
    findings.extend(short(pool));
    findings.extend(mismatch(facts));
    findings.extend(symlinked(facts, &|_| None));
    if pool.data.loop_file().is_some() && pool.activity != Activity::Inactive {
        let sentence = "it is on loop files: slower than a disk or LV of its own, and as large as their file system";
        findings.push(Finding::new(Key::LoopFiles, Severity::Info, &pool.name, sentence));
    }
    findings
}

fn deleted(pool: &PoolReport, part: &str, file: &LoopFile) -> Option<Finding> {
    if !file.deleted {
        return None;
    }
    let path = file.path.to_string_lossy();
    let sentence = format!("its {part} file {path} was deleted while in use: its contents go when the pool does");
    let finding = Finding::new(Key::DeletedFile, Severity::Critical, path.as_ref(), sentence);
    // Docker's own pool goes when Docker stops; one that nobody has open is what `rm -rf` of a root has left.
    if pool.user == User::Unknown && pool.open_count == Some(0) {
        let way = format!("dmsetup remove {}", quote(&pool.name));
        return Some(finding.run(way, "online; gives its space back, and what is in it is gone"));
    }
    let cost = to_copy(pool).map_or_else(
        || "stopped meanwhile; needs what is in use, which is not known, where it is pasted".to_owned(),
        |bytes| format!("~{} stopped; needs {} where it is pasted", cost::time(cost::copy(bytes)), bytes.human()),
    );
    Some(finding.with(Way::after("stop what writes, and leave the pool active", copies(pool), cost)))
}

/// Returns what both files hold. Nobody sees any more what a deleted one has on its disk: the pool knows what is in use.
fn to_copy(pool: &PoolReport) -> Option<Bytes> {
    let held = |backing: &Backing, space: Option<Space>| {
        let allocated = backing.loop_file().and_then(|file| file.allocated);
        allocated.or_else(|| space.map(|space| space.used)).map(Bytes::get)
    };
    let (data, metadata) = (held(&pool.data, pool.data_space())?, held(&pool.metadata, pool.metadata_space())?);
    Some(Bytes::new(data.saturating_add(metadata)))
}

fn copies(pool: &PoolReport) -> String {
    let copy = |device: &std::path::Path, to| format!("dd if={} of={to} bs=1M conv=sparse,fsync", device.display());
    let mut commands = Vec::new();
    for (backing, to) in [(&pool.data, "data.copy"), (&pool.metadata, "metadata.copy")] {
        if let Carrier::Loop { device: Some(device), .. } = &backing.carrier {
            commands.push(copy(device, to));
        }
    }
    commands.join(" && ")
}

/// Disks behind loop devices that Docker finds by a link to a name that another disk may have after the next boot.
/// `stable` gives a disk's name that no other has, when somebody has looked.
pub(super) fn symlinked(facts: &Facts<'_>, stable: &dyn Fn(DevNo) -> Option<String>) -> Vec<Finding> {
    let pool = facts.pool;
    let parts = [("data", "dm.datadev", &pool.data), ("metadata", "dm.metadatadev", &pool.metadata)];
    let finding = |(part, option, backing): (&str, &str, &Backing)| {
        let Carrier::LoopOverDevice { disk, .. } = &backing.carrier else { return None };
        let link = disk.link.as_ref().filter(|link| !is_stable(&link.target))?;
        let (at, target) = (link.at.to_string_lossy(), link.target.display());
        let sentence = format!(
            "its {part} is the disk behind the link {at}: after a boot {target} may be another disk, which Docker then \
             writes on"
        );
        let finding = Finding::new(Key::SymlinkedDevice, Severity::Critical, at.as_ref(), sentence);
        // A command with a name to be filled in would make a link to nothing, and Docker a new file behind it.
        let Some(name) = disk.number.and_then(stable) else {
            let path = disk.path.display();
            let then = format!("shows a name of {path} that stays, for {option} among Docker's storage options");
            return Some(finding.run("ls -l /dev/disk/by-id/", then));
        };
        let away = format!("rm {}", quote(&at));
        let cost = format!("{}; nothing is copied", cost::docker_stopped(0));
        let restart = facts.docker.map(|root| with_docker_stopped(root, &away, cost));
        let set = format!("add {option}={name} to Docker's storage options, where the others are");
        let relink = format!("ln -sfn {} {}", quote(&name), quote(&at));
        let finding = match restart {
            Some(Way { first, command, cost }) => {
                let first = first.map_or_else(|| set.clone(), |first| format!("{set}, {first}"));
                finding.with(Way { first: Some(first), command, cost })
            }
            None => finding,
        };
        Some(finding.run(relink, ONLINE))
    };
    parts.into_iter().filter_map(finding).collect()
}

/// Whether a name stays with its disk: udev's links by identity, and names that device-mapper and LVM keep.
fn is_stable(target: &Path) -> bool {
    let text = target.to_string_lossy();
    match text.strip_prefix("/dev/") {
        Some(name) => {
            ["disk/by-id/", "disk/by-uuid/", "disk/by-partuuid/", "mapper/"].iter().any(|kind| name.starts_with(kind))
            // `/dev/VG/LV`
            || (name.matches('/').count() == 1 && !["disk/", "block/", "loop/"].iter().any(|kind| name.starts_with(kind)))
        }
        None => false,
    }
}

/// The data file ends before the pool does.
fn short(pool: &PoolReport) -> Option<Finding> {
    let file = pool.data.loop_file()?;
    let (has, needs) = (file.size?, pool.data_space()?.total);
    if has >= needs {
        return None;
    }
    let path = file.path.to_string_lossy();
    let what = if pool.activity == Activity::Inactive { "it does not start" } else { "what is behind its end is gone" };
    let sentence =
        format!("its data file {path} has {}, and its superblock records {}: {what}", has.exact(), needs.exact());
    let way = format!("truncate -s {} {}", needs.get(), quote(&path));
    Some(
        Finding::new(Key::ShortFile, Severity::Critical, path.as_ref(), sentence)
            .act("put back the file as it was, from a backup", "stopped meanwhile")
            .run(way, "seconds; makes it as long as it was, with zeros for what was cut off"),
    )
}

/// Metadata that knows of nothing over a data file full of blocks, or the reverse.
fn mismatch(facts: &Facts<'_>) -> Option<Finding> {
    let pool = facts.pool;
    let file = pool.data.loop_file()?;
    let allocated = file.allocated?;
    let path = file.path.to_string_lossy();
    let critical = |sentence: String| {
        Finding::new(Key::Mismatch, Severity::Critical, path.as_ref(), sentence)
            .act("find the files that belong together before anything is started", "stopped meanwhile")
    };
    let holds = allocated.human();
    let much = allocated.get() > LITTLE;
    let Some(data) = pool.data_space() else {
        let zero = BadSuperblock::Zero.to_string();
        let new = pool.unread.iter().any(|why| why.ends_with(&zero));
        return (new && much)
            .then(|| critical(format!("its metadata was never written, and its data file {path} holds {holds}")));
    };
    // A Docker that has a base device has blocks in use; others may have deleted all they had.
    let has_base = facts.docker.is_some_and(|root| root.base.is_some());
    if data.used.get() == 0 && has_base && much {
        return Some(critical(format!("its metadata is new and maps nothing, and its data file {path} holds {holds}")));
    }
    let blocks = data.used.get().checked_div(pool.block_bytes()?.get())?;
    if data.used.get() > LITTLE && allocated.get() < blocks.saturating_mul(LEAST_IN_A_BLOCK) {
        let maps = data.used.human();
        let sentence = format!("its metadata maps {maps}, and its data file {path} holds {holds}: it is another file");
        return Some(critical(sentence));
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_root::DockerRoot;
    use crate::pool::{Carrier, Link, LoopDisk};
    use crate::report::samples::{docker_pool, docker_root, stopped_docker_pool};

    fn found(pool: &PoolReport, docker: Option<&DockerRoot>) -> Vec<Finding> {
        judge(&Facts { docker, ..Facts::of(pool) }).into_iter().filter(|f| f.severity == Severity::Critical).collect()
    }

    fn data_file(pool: &mut PoolReport) -> &mut LoopFile {
        match &mut pool.data.carrier {
            Carrier::Loop { file, .. } => file,
            Carrier::LoopOverDevice { .. } | Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => {
                unreachable!()
            }
        }
    }

    #[test]
    fn dockers_own_pool_is_well_active_and_stopped() {
        let line = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
        for pool in [docker_pool(line, 1 << 40), stopped_docker_pool()] {
            assert_eq!(found(&pool, Some(&docker_root())), []);
        }
    }

    #[test]
    fn a_disk_behind_a_link_by_a_name_that_changes_is_told_with_one_that_does_not() {
        let mut pool = docker_pool("0 9/524288 9/1638400", 1 << 40);
        let root = docker_root();
        let mut linked = |target: &str| {
            pool.data.carrier = Carrier::LoopOverDevice {
                device: Some("/dev/loop0".into()),
                disk: LoopDisk {
                    path: "/dev/sdb".into(),
                    number: Some(DevNo { major: 8, minor: 16 }),
                    size: None,
                    link: Some(Link {
                        at: "/var/lib/docker/devicemapper/devicemapper/data".into(),
                        target: target.into(),
                    }),
                },
            };
            let facts = Facts { docker: Some(&root), ..Facts::of(&pool) };
            symlinked(&facts, &|_| Some("/dev/disk/by-id/wwn-0x5000".to_owned()))
        };
        let told = linked("/dev/sdb");
        assert_eq!((told[0].key, told[0].severity), (Key::SymlinkedDevice, Severity::Critical));
        let first = "add dm.datadev=/dev/disk/by-id/wwn-0x5000 to Docker's storage options, where the others are";
        assert_eq!(told[0].ways[0].first.as_deref(), Some(first));
        let away =
            "systemctl stop docker && rm /var/lib/docker/devicemapper/devicemapper/data && systemctl start docker";
        assert!(told[0].ways[0].command.as_deref().unwrap().ends_with(away), "{told:?}");
        assert_eq!(
            told[0].ways[1].command.as_deref().unwrap(),
            "ln -sfn /dev/disk/by-id/wwn-0x5000 /var/lib/docker/devicemapper/devicemapper/data"
        );
        for stable in ["/dev/disk/by-id/wwn-0x5000", "/dev/mapper/vg-data", "/dev/vg/data"] {
            assert_eq!(linked(stable), [], "{stable}");
        }
        assert_eq!(linked("/dev/disk/by-path/pci-0000").len(), 1);
    }

    #[test]
    fn a_short_file_says_both_lengths_and_how_it_was_long() {
        let mut pool = stopped_docker_pool();
        data_file(&mut pool).size = Some(Bytes::new(50 << 30));
        let found = found(&pool, None);
        assert_eq!(found[0].key, Key::ShortFile);
        assert!(found[0].sentence.contains("50.0 GiB (53687091200 bytes)"), "{found:?}");
        let way = "truncate -s 107374182400 /var/lib/docker/devicemapper/devicemapper/data";
        assert!(found[0].ways.iter().any(|w| w.command.as_deref() == Some(way)), "{found:?}");
    }

    #[test]
    fn metadata_and_data_of_two_pools_are_told() {
        let root = docker_root();
        // New metadata, old data: the superblock is there and maps nothing, or was never written.
        let mut new = stopped_docker_pool();
        new.recorded = new.recorded.map(|r| crate::pool::Recorded { data_used: crate::units::DataBlocks::new(0), ..r });
        assert_eq!(found(&new, Some(&root))[0].key, Key::Mismatch);
        assert_eq!(found(&new, None), [], "whose volumes were all deleted");
        let mut zero = stopped_docker_pool();
        zero.recorded = None;
        zero.unread = vec![format!("the superblock in /x/metadata: {}", BadSuperblock::Zero)];
        assert_eq!(found(&zero, None)[0].key, Key::Mismatch);
        // Old metadata, new data: 137985 blocks mapped, and next to nothing in the file.
        let mut empty = stopped_docker_pool();
        data_file(&mut empty).allocated = Some(Bytes::new(1 << 20));
        assert_eq!(found(&empty, Some(&root))[0].key, Key::Mismatch);
        // Sixteen volumes of one file each: 4 KiB in every 64 KiB.
        data_file(&mut empty).allocated = Some(Bytes::new(137_985 * 4096));
        assert_eq!(found(&empty, Some(&root)), []);
    }

    #[test]
    fn a_deleted_file_is_saved_or_its_space_given_back() {
        let mut pool = docker_pool("0 9/524288 9/1638400", 1 << 40);
        data_file(&mut pool).deleted = true;
        let used = found(&pool, None);
        assert_eq!(used[0].key, Key::DeletedFile);
        assert!(used[0].ways[0].command.as_deref().unwrap().contains("dd if=/dev/loop0 of=data.copy"), "{used:?}");
        // As the kernel leaves it: what a deleted file has on its disk nobody sees; what is in use is copied all the same.
        let mut unseen = docker_pool("0 9/524288 16384/1638400", 1 << 40);
        data_file(&mut unseen).deleted = true;
        data_file(&mut unseen).allocated = None;
        let cost = &found(&unseen, None)[0].ways[0].cost;
        assert!(cost.contains("needs 1.0 GiB where it is pasted"), "{cost}");
        let left = PoolReport { user: User::Unknown, open_count: Some(0), ..pool };
        assert_eq!(
            found(&left, None)[0].ways[0].command.as_deref().unwrap(),
            "dmsetup remove docker-179:2-1049372-pool"
        );
    }
}
