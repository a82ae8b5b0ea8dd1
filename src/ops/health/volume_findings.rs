//! What is wrong with the volumes on a pool.

use super::owners::Owners;
use super::volumes::Volume;
use super::ways;
use super::{Facts, Thresholds};
use crate::ops::cost::{self, ONLINE};
use crate::pool::{Finding, Key, Mode, PoolReport, PoolStatus, Severity, Space};
use crate::process::quote;
use crate::units::Bytes;

/// From which share of its own size on a volume is worth a warning.
const NEARLY_FULL: u64 = 95;
/// How many names a sentence holds.
const NAMES: usize = 5;

/// Judges the active volumes of a pool.
pub(super) fn judge(facts: &Facts<'_>, thresholds: &Thresholds, volumes: &[Volume]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(lost_writes(facts.pool, volumes));
    findings.extend(retries_forever(facts, thresholds, volumes));
    findings.extend(overcommit(facts, volumes));
    for volume in volumes {
        findings.extend(sizes(facts, volume).or_else(|| nearly_full(volume)));
    }
    findings
}

/// Returns some names in one phrase.
fn names(volumes: &[&Volume]) -> String {
    let mut named: Vec<String> = volumes.iter().map(|volume| volume.label()).collect();
    named.sort();
    let more = named.len().saturating_sub(NAMES);
    named.truncate(NAMES);
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// The kernel fails every write that waits, whichever volume it is on: all active ones may have lost some.
fn lost_writes(pool: &PoolReport, volumes: &[Volume]) -> Option<Finding> {
    if !pool.gave_up_queueing() || volumes.is_empty() {
        return None;
    }
    let all: Vec<&Volume> = volumes.iter().collect();
    let sentence = format!("{}; on it: {}", super::state::LOST, names(&all));
    let mut finding = Finding::new(Key::LostWrites, Severity::Critical, &pool.name, sentence);
    finding.ways.extend(ways::grow_data(pool));
    Some(finding.act("then check the files that these wrote: their file systems go on as if nothing was", ONLINE))
}

/// A full pool that queues, under XFS that never gives up: tasks that write wait for ever and cannot be killed.
fn retries_forever(facts: &Facts<'_>, thresholds: &Thresholds, volumes: &[Volume]) -> Option<Finding> {
    let pool = facts.pool;
    let stubborn: Vec<&Volume> = volumes.iter().filter(|v| v.retries_forever == Some(true)).collect();
    if stubborn.is_empty() {
        return None;
    }
    let full = pool.status.as_ref().and_then(PoolStatus::working).and_then(|w| w.mode) == Some(Mode::OutOfDataSpace);
    let near = pool.data_space().map(Space::percent).and_then(|percent| thresholds.data.severity(percent));
    let severity = match near {
        _ if full => Severity::Critical,
        Some(_) => Severity::Warning,
        None => Severity::Info,
    };
    let sentence = format!(
        "when it is full, XFS tries again for ever, and what writes cannot even be killed: {}",
        names(&stubborn)
    );
    let files: Vec<String> = stubborn
        .iter()
        .filter_map(|v| super::volumes::retries_file(v.device))
        .map(|path| quote(&path.to_string_lossy()))
        .collect();
    let mut finding = Finding::new(Key::RetriesForever, severity, &pool.name, sentence);
    if !files.is_empty() {
        let way = format!("echo 0 | tee {}", files.join(" "));
        finding = finding.run(way, "online, until the volume is mounted again");
    }
    if facts.docker.is_some() {
        finding = finding.act("add dm.xfs_nospace_max_retries=0 to Docker's storage options", "a restart of Docker");
    }
    Some(finding)
}

/// Volumes that together may take more than the pool has. Docker's always may, by its design.
fn overcommit(facts: &Facts<'_>, volumes: &[Volume]) -> Option<Finding> {
    let pool = facts.pool;
    let total = pool.data_space()?.total;
    let sum = volumes.iter().try_fold(Bytes::default(), |sum, v| sum.checked_add(v.size))?;
    (facts.docker.is_none() && sum > total).then(|| {
        let whose = match volumes.len() {
            1 => "its active volume".to_owned(),
            several => format!("its {several} active volumes"),
        };
        let sentence = format!("{whose} may take {} and it has {}", sum.human(), total.human());
        Finding::new(Key::Overcommit, Severity::Info, &pool.name, sentence)
    })
}

/// A container is full by its own size, which no growing of the pool changes.
fn nearly_full(volume: &Volume) -> Option<Finding> {
    // Without a file system, a volume that is mapped whole is what somebody wanted.
    if volume.file_system.is_none() && volume.docker.is_none() {
        return None;
    }
    // Blocks of deleted files stay mapped until they are discarded: what is in use counts, where it can be seen.
    let (space, how) = match volume.in_use {
        Some(space) => (space, "used"),
        None => (Space { used: volume.mapped?, total: volume.size }, "mapped"),
    };
    (space.percent() >= NEARLY_FULL).then(|| {
        let label = volume.label();
        let sentence = format!(
            "{label} has {how} {}% of its own {}; a larger pool does not help it",
            space.percent(),
            volume.size.human()
        );
        let finding = Finding::new(Key::VolumeUse, Severity::Warning, label, sentence);
        match &volume.docker {
            Some(_) => finding
                .act("remove files in it, or make it anew with  --storage-opt size=SIZE", "that container stopped"),
            None => finding.act("remove files in it", ONLINE),
        }
    })
}

/// What the kernel, Docker's file and the file system take the volume's size to be.
fn sizes(facts: &Facts<'_>, volume: &Volume) -> Option<Finding> {
    let label = volume.label();
    let found = |severity, sentence: String| Finding::new(Key::SizesDisagree, severity, &label, sentence);
    let table = volume.size;
    if let Some(fs) = volume.file_system
        && fs.size > table
    {
        let sentence = format!(
            "the file system of {label} has {}, and its device ends at {}: what is behind cannot be read",
            fs.size.exact(),
            table.exact()
        );
        let sectors = fs.size.sectors().get();
        let name = quote(&volume.name);
        let table = format!("dmsetup table {name} | awk '{{ $2 = {sectors}; print }}' | dmsetup load {name}");
        return Some(
            found(Severity::Critical, sentence)
                .run(format!("{table} && dmsetup resume {name}"), "online, until the container stops"),
        );
    }
    let owned = volume.docker.as_ref()?;
    let recorded = owned.size?;
    let fs = volume.file_system.map(|fs| fs.size).filter(|size| *size > recorded);
    let behind = volume.highest.filter(|begin| *begin >= recorded);
    if fs.is_none() && behind.is_none() && table == recorded {
        return None;
    }
    let says = format!("Docker's file says {}, and makes it that long when it starts it again", recorded.exact());
    let (severity, sentence) = match (fs, behind) {
        (Some(fs), _) => {
            let lost = "its file system would not be mounted then";
            (Severity::Critical, format!("{label} was resized by hand to {}; {says}: {lost}", fs.exact()))
        }
        (None, Some(begin)) => {
            let lost = format!("its data at {} could not be read then", begin.exact());
            (Severity::Critical, format!("{label} was resized by hand to {}; {says}: {lost}", table.exact()))
        }
        (None, None) => (Severity::Warning, format!("the device of {label} has {}; {says}", table.exact())),
    };
    let file = facts.docker?.path.join("devicemapper/metadata").join(&owned.hash);
    let file = quote(&file.to_string_lossy());
    let edit = format!("sed -i 's/\"size\":{}/\"size\":{}/' {file}", recorded.get(), fs.unwrap_or(table).get());
    Some(found(severity, sentence).with(ways::with_docker_stopped(facts.docker?, &edit, cost::docker_stopped(0))))
}

/// Devices larger than the base: what is made of such a container need not fit a volume of the base's size.
pub(super) fn above_base(facts: &Facts<'_>, owners: &Owners) -> Option<Finding> {
    let root = facts.docker?;
    let base = root.base.as_ref()?.size;
    let mut larger: Vec<String> = owners
        .devices()
        .filter(|(_, device)| device.size > base && !device.deleted)
        .map(|(hash, _)| owners.container(hash).map_or_else(|| hash.to_owned(), |name| format!("container `{name}`")))
        .collect();
    // A container's init layer is as large as the container; images of its size are named by nothing better.
    larger.retain(|name| !name.ends_with("-init"));
    if larger.is_empty() {
        return None;
    }
    larger.sort();
    let count = larger.len();
    larger.truncate(NAMES);
    let more = if count > larger.len() { format!(" and {} more", count - larger.len()) } else { String::new() };
    let sentence = format!(
        "larger than the base device, which has {}: {}{more}; an image made of one may not fit",
        base.human(),
        larger.join(", ")
    );
    Some(
        Finding::new(Key::AboveBaseSize, Severity::Info, root.path.to_string_lossy(), sentence)
            .act("set a larger dm.basesize among Docker's storage options", "a restart of Docker; new images only"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::super::volumes::Owned;
    use super::*;
    use crate::engine::bookkeeping::Device;
    use crate::ops::filesystem::FileSystem;
    use crate::pool::DevNo;
    use crate::report::samples::{docker_pool, docker_root};

    const GIB: u64 = 1 << 30;

    fn volume(container: Option<&str>) -> Volume {
        Volume {
            name: "docker-179:2-1049372-aa".to_owned(),
            device: DevNo { major: 253, minor: 4000 },
            size: Bytes::new(10 * GIB),
            mapped: Some(Bytes::new(GIB)),
            highest: Some(Bytes::new(10 * GIB - 65536)),
            file_system: Some(FileSystem { kind: "xfs", size: Bytes::new(10 * GIB) }),
            in_use: None,
            retries_forever: Some(false),
            containerd: None,
            docker: Some(Owned {
                hash: "aa".to_owned(),
                size: Some(Bytes::new(10 * GIB)),
                container: container.map(str::to_owned),
            }),
        }
    }

    fn found(line: &str, volumes: &[Volume]) -> Vec<Finding> {
        let (pool, root) = (docker_pool(line, 1 << 40), docker_root());
        judge(&Facts { docker: Some(&root), ..Facts::of(&pool) }, &Thresholds::default(), volumes)
    }

    const WELL: &str = "0 6211/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024";

    #[test]
    fn a_container_that_agrees_with_itself_is_well() {
        assert_eq!(found(WELL, &[volume(Some("web"))]), []);
    }

    #[test]
    fn a_container_resized_by_hand_will_not_come_back() {
        let grown = FileSystem { kind: "xfs", size: Bytes::new(20 * GIB) };
        let resized = Volume { size: Bytes::new(20 * GIB), file_system: Some(grown), ..volume(Some("web")) };
        let found_one = found(WELL, std::slice::from_ref(&resized));
        assert_eq!((found_one[0].key, found_one[0].severity), (Key::SizesDisagree, Severity::Critical));
        assert_eq!(found_one[0].object, "container `web`");
        let way = "systemctl stop docker.socket; systemctl stop docker && sed -i \
                   's/\"size\":10737418240/\"size\":21474836480/' /var/lib/docker/devicemapper/metadata/aa && \
                   systemctl start docker";
        assert_eq!(found_one[0].ways[0].command.as_deref(), Some(way));
        // Only the table: at the next start it is as before, and nothing is lost.
        let table = Volume { file_system: volume(None).file_system, ..resized.clone() };
        assert_eq!(found(WELL, std::slice::from_ref(&table))[0].severity, Severity::Warning);
        // Only the highest block tells that something is behind.
        let mapped = Volume { highest: Some(Bytes::new(15 * GIB)), file_system: None, ..table };
        assert_eq!(found(WELL, &[mapped])[0].severity, Severity::Critical);
        // A device shorter than its file system.
        let cut = Volume { size: Bytes::new(10 * GIB), ..resized };
        let found_cut = found(WELL, &[cut]);
        assert!(found_cut[0].sentence.contains("its device ends at 10.0 GiB"), "{found_cut:?}");
        assert!(found_cut[0].ways[0].command.as_deref().unwrap().contains("$2 = 41943040"), "{found_cut:?}");
    }

    #[test]
    fn a_full_container_is_no_full_pool() {
        let full = Volume { mapped: Some(Bytes::new(10 * GIB * 97 / 100 + 1)), ..volume(Some("db")) };
        let mapped = found(WELL, std::slice::from_ref(&full));
        assert_eq!((mapped[0].key, mapped[0].severity), (Key::VolumeUse, Severity::Warning));
        assert!(mapped[0].sentence.starts_with("container `db` has mapped 97% of its own 10.0 GiB"), "{mapped:?}");
        let in_use = |gib| Some(Space { used: Bytes::new(gib * GIB), total: Bytes::new(10 * GIB) });
        let deleted = Volume { in_use: in_use(2), ..full.clone() };
        assert_eq!(found(WELL, &[deleted]), [], "what was deleted in it is free to it");
        let used = found(WELL, &[Volume { in_use: in_use(10), mapped: None, ..full }]);
        assert!(used[0].sentence.starts_with("container `db` has used 100% of its own 10.0 GiB"), "{used:?}");
        assert!(used[0].ways[0].first.as_deref().unwrap().contains("--storage-opt"), "{used:?}");
    }

    #[test]
    fn lost_writes_name_whom() {
        let lost = "0 6211/524288 1638400/1638400 - out_of_data_space discard_passdown error_if_no_space - 1024";
        let many: Vec<Volume> = ["g", "f", "e", "d", "c", "b", "a"].iter().map(|name| volume(Some(name))).collect();
        let found = found(lost, &many);
        let lost = found.iter().find(|f| f.key == Key::LostWrites).unwrap();
        assert!(lost.sentence.contains("container `a`, container `b`"), "{lost:?}");
        assert!(lost.sentence.ends_with("container `e` and 2 more"), "{lost:?}");
    }

    #[test]
    fn stubborn_xfs_is_as_bad_as_the_pool_is_full() {
        let stubborn = [Volume { retries_forever: Some(true), ..volume(Some("web")) }];
        for (line, severity) in [
            (WELL, Severity::Info),
            ("0 6211/524288 1400000/1638400 - rw discard_passdown queue_if_no_space - 1024", Severity::Warning),
            ("0 6/9 1638400/1638400 - out_of_data_space discard_passdown queue_if_no_space - 1024", Severity::Critical),
        ] {
            let found = found(line, &stubborn);
            let found = found.iter().find(|f| f.key == Key::RetriesForever).unwrap();
            assert_eq!(found.severity, severity, "{line}");
        }
    }

    #[test]
    fn volumes_of_nobody_may_promise_too_much() {
        let pool = docker_pool(WELL, 1 << 40);
        let of_containerd =
            Volume { docker: None, containerd: Some("container `k8s.io/web`".to_owned()), ..volume(None) };
        assert_eq!(of_containerd.label(), "container `k8s.io/web`");
        let own = Volume { docker: None, size: Bytes::new(60 * GIB), file_system: None, ..volume(None) };
        let facts = Facts::of(&pool);
        let judged = |volumes: &[Volume]| judge(&facts, &Thresholds::default(), volumes);
        assert_eq!(judged(std::slice::from_ref(&own)), []);
        let large = Volume { size: Bytes::new(120 * GIB), ..own.clone() };
        let both = judged(&[own.clone(), own]);
        assert_eq!(both[0].sentence, "its 2 active volumes may take 120.0 GiB and it has 100.0 GiB");
        let large = judged(&[large]);
        assert_eq!(large[0].sentence, "its active volume may take 120.0 GiB and it has 100.0 GiB");
    }

    #[test]
    fn what_is_larger_than_the_base_is_named() {
        let device =
            |size| Device { id: 2, size: Bytes::new(size), transaction_id: 2, initialized: false, deleted: false };
        let owners = Owners::of(
            &[("aa", "web")],
            vec![("aa", device(20 * GIB)), ("aa-init", device(20 * GIB)), ("bb", device(10 * GIB))],
        );
        let (pool, root) = (docker_pool(WELL, 1 << 40), docker_root());
        let found = above_base(&Facts { docker: Some(&root), ..Facts::of(&pool) }, &owners).unwrap();
        assert!(
            found.sentence.starts_with("larger than the base device, which has 10.0 GiB: container `web`;"),
            "{found:?}"
        );
        let none = Owners::of(&[], vec![("bb", device(10 * GIB))]);
        assert_eq!(above_base(&Facts { docker: Some(&root), ..Facts::of(&pool) }, &none), None);
    }
}
