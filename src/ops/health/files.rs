//! The files under the pool: short, deleted, of another pool, or there at all.

use super::{Facts, disk_names};
use crate::engine::docker_root::DockerRoot;
use crate::metadata::BadSuperblock;
use crate::ops::cost;
use crate::ops::deleted;
use crate::pool::{Activity, Backing, Finding, Key, LoopFile, Maker, PoolReport, Severity, Space, User, Way};
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
        findings.extend(file.and_then(|file| deleted(facts, part, file)));
    }
    findings.extend(short(pool));
    findings.extend(mismatch(facts));
    findings.extend(disk_names::judge(facts, &|_| None));
    if pool.data.loop_file().is_some() && pool.activity != Activity::Inactive {
        let sentence = "it is on loop files: slower than a disk or LV of its own, and as large as their file system";
        findings.push(Finding::new(Key::LoopFiles, Severity::Info, &pool.name, sentence));
    }
    findings
}

fn deleted(facts: &Facts<'_>, part: &str, file: &LoopFile) -> Option<Finding> {
    if !file.deleted {
        return None;
    }
    let pool = facts.pool;
    let path = file.path.to_string_lossy();
    let sentence = format!("its {part} file {path} was deleted while in use: its contents go when the pool does");
    let finding = Finding::new(Key::DeletedFile, Severity::Critical, path.as_ref(), sentence);
    let cost = |what: &str| match to_copy(pool) {
        Some(bytes) => format!("~{} {what}; needs {} there", cost::time(cost::copy(bytes)), bytes.human()),
        None => format!("{what}; needs room there for what is in use, which is not known"),
    };
    let files = deleted::of(pool);
    if pool.maker == Maker::Dmpool
        && let Some(command) = deleted::way_back(&pool.name, &files)
    {
        let cost = cost("in which writes wait; the pool goes on with copies");
        return Some(finding.run(command, cost));
    }
    // Docker's own pool goes when Docker stops, and Docker makes it again of the files that it finds.
    if let Some(root) = facts.docker.filter(|_| pool.maker == Maker::Docker && pool.user != User::Unknown) {
        let first = if root.daemon.is_some() { "stop all containers, and leave Docker running" } else { UNMOUNT };
        let command = deleted::copied_back(&pool.name, &files, again(pool, root).as_deref());
        return Some(finding.with(Way::after(first, command, cost("with all containers stopped"))));
    }
    let command = deleted::copied_back(&pool.name, &files, None);
    let first = "stop what writes, and leave the pool active";
    let finding = finding.with(Way::after(first, command, cost("stopped; then make the pool again, on the copies")));
    // One that nobody has open is what `rm -rf` of a root has left.
    if pool.maker != Maker::Dmpool && pool.user == User::Unknown && pool.open_count == Some(0) {
        let way = format!("dmsetup remove {}", quote(&pool.name));
        return Some(finding.run(way, "online; gives its space back, and what is in it is gone for good"));
    }
    Some(finding)
}

const UNMOUNT: &str = "unmount what is on its volumes, and leave the pool active";

/// Returns what has Docker make its own pool again: a running one takes it down as it stops.
fn again(pool: &PoolReport, root: &DockerRoot) -> Option<String> {
    let starter = root.starter.as_ref()?;
    Some(match &root.daemon {
        Some(_) => starter.command("restart"),
        None => format!("dmsetup remove {} && {}", quote(&pool.name), starter.command("start")),
    })
}

/// Returns what both files hold. Nobody sees any more what a deleted one has on its disk: the pool knows what is in use.
fn to_copy(pool: &PoolReport) -> Option<Bytes> {
    let held = |backing: &Backing, space: Option<Space>| match backing.loop_file().filter(|file| file.deleted) {
        Some(file) => file.allocated.or_else(|| space.map(|space| space.used)).map(Bytes::get),
        None => Some(0),
    };
    let (data, metadata) = (held(&pool.data, pool.data_space())?, held(&pool.metadata, pool.metadata_space())?);
    Some(Bytes::new(data.saturating_add(metadata)))
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
        return (new && much).then(|| {
            critical(format!("its metadata was never written or was erased, and its data file {path} holds {holds}"))
        });
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
    use crate::pool::Carrier;
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
    fn a_deleted_file_is_brought_back_before_its_space_is() {
        let mut pool = docker_pool("0 9/524288 9/1638400", 1 << 40);
        data_file(&mut pool).deleted = true;
        let root = docker_root();
        let used = found(&pool, Some(&root));
        assert_eq!(used[0].key, Key::DeletedFile);
        let way = used[0].ways[0].command.clone().unwrap();
        assert!(way.contains("dd if=/dev/loop0 of=/var/lib/docker/devicemapper/devicemapper/data bs=1M"), "{way}");
        assert!(!way.contains("remove"), "{way}");
        // As the kernel leaves it: what a deleted file has on its disk nobody sees; what is in use is copied all the same.
        let mut unseen = docker_pool("0 9/524288 16384/1638400", 1 << 40);
        data_file(&mut unseen).deleted = true;
        data_file(&mut unseen).allocated = None;
        let cost = &found(&unseen, None)[0].ways[0].cost;
        assert!(cost.contains("needs 1.0 GiB there"), "{cost}");
        let left = PoolReport { user: User::Unknown, open_count: Some(0), maker: Maker::Docker, ..pool.clone() };
        let left = found(&left, None);
        assert!(left[0].ways[0].command.as_deref().unwrap().contains("dd if=/dev/loop0"), "{left:?}");
        assert_eq!(left[0].ways[1].command.as_deref().unwrap(), "dmsetup remove docker-179:2-1049372-pool");
        let mut ours = PoolReport { user: User::Unknown, open_count: Some(0), maker: Maker::Dmpool, ..pool };
        ours.data.linear = Some("p0_tdata".to_owned());
        let ours = found(&ours, None);
        assert_eq!(ours[0].ways.len(), 1);
        let way = ours[0].ways[0].command.as_deref().unwrap();
        assert!(way.contains("dmsetup load p0_tdata") && !way.contains("remove"), "{way}");
    }
}
