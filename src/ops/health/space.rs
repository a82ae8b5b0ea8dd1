//! How full the pool is, and what it can really have.

use super::ways::{self, grow_data, grow_metadata};
use super::{Facts, Threshold, Thresholds};
use crate::ops::cost::ONLINE;
use crate::pool::{Finding, HostFs, Key, Limit, Mode, PoolReport, PoolStatus, Severity, Space};
use crate::process::quote;
use crate::units::{Bytes, MAX_META_BLOCKS};

/// Judges the use of data and metadata, and the file system under the loop files.
pub(super) fn judge(facts: &Facts<'_>, thresholds: &Thresholds) -> Vec<Finding> {
    let pool = facts.pool;
    let mode = pool.status.as_ref().and_then(PoolStatus::working).and_then(|w| w.mode);
    let mut findings = Vec::new();
    // What is full and stopped has been said by its mode.
    if mode != Some(Mode::OutOfDataSpace) {
        findings.extend(of_data(facts, thresholds.data));
    }
    if mode != Some(Mode::ReadOnly) {
        findings.extend(of_metadata(pool, thresholds.metadata));
    }
    let host = of_host(pool, thresholds.data);
    if host.is_none() {
        findings.extend(of_overcommit(pool));
    }
    findings.extend(host);
    findings
}

impl Threshold {
    /// Returns how bad it is that so many hundredths are in use; nothing when it is not.
    pub fn severity(self, percent: u64) -> Option<Severity> {
        match percent {
            percent if percent >= u64::from(self.critical) => Some(Severity::Critical),
            percent if percent >= u64::from(self.warning) => Some(Severity::Warning),
            _ => None,
        }
    }
}

fn in_use(space: Space, what: &str) -> String {
    format!("{}% of its {what} is used, {} of {}", space.percent(), space.used.human(), space.total.human())
}

fn of_data(facts: &Facts<'_>, threshold: Threshold) -> Option<Finding> {
    let pool = facts.pool;
    let space = pool.data_space()?;
    let severity = threshold.severity(space.percent())?;
    let mut sentence = in_use(space, "data");
    if let Some(group) = &pool.volume_group {
        match group.adds.get() {
            0 => sentence.push_str(&format!(
                "; LVM adds nothing by itself, its volume group {} has {} left",
                group.name,
                group.free.human()
            )),
            _ => sentence.push_str(&format!(
                "; LVM adds up to {} by itself from its volume group {}",
                group.adds.human(),
                group.name
            )),
        }
    }
    let mut finding = Finding::new(Key::DataUse, severity, &pool.name, sentence);
    finding.ways.extend(grow_data(pool));
    finding.ways.extend(ways::prune(facts.docker));
    Some(finding)
}

fn of_metadata(pool: &PoolReport, threshold: Threshold) -> Option<Finding> {
    let space = pool.metadata_space()?;
    let severity = threshold.severity(space.percent())?;
    let used = in_use(space, "metadata");
    if space.total >= MAX_META_BLOCKS.bytes() {
        let sentence = format!("{used}, and the kernel can use no more");
        return Some(
            Finding::new(Key::MetadataLimit, severity, &pool.name, sentence)
                .act("delete volumes: images, containers, snapshots that nobody needs", ONLINE),
        );
    }
    let mut finding = Finding::new(Key::MetadataUse, severity, &pool.name, used);
    finding.ways.extend(grow_metadata(pool));
    Some(finding)
}

/// The file system under the data file: when much of it is in use; and, when it binds first, when little is left of what
/// the pool can really have, or little of what its file promises.
fn of_host(pool: &PoolReport, threshold: Threshold) -> Option<Finding> {
    let host = pool.data.loop_file()?.host.as_ref()?;
    let data = pool.data_space()?;
    let mut severity = host_in_use(host.free, host.total, threshold);
    if let (Limit::HostFileSystem, left) = pool.binding_limit()? {
        let real = Space { used: data.used, total: data.used.checked_add(left)? };
        let of_promise = match (left.get(), data.total.get()) {
            (left, total) if left < total / 100 => Some(Severity::Critical),
            (left, total) if left < total / 20 => Some(Severity::Warning),
            _ => None,
        };
        severity = severity.max(threshold.severity(real.percent())).max(of_promise);
    }
    Some(host_finding(severity?, host, data.free(), None))
}

/// Returns how bad it is that so much of a file system is in use under Docker's root or a pool's files, whoever looks.
pub(super) fn host_in_use(free: Bytes, total: Bytes, threshold: Threshold) -> Option<Severity> {
    threshold.severity(Space { used: total.saturating_sub(free), total }.percent())
}

/// The finding about a host's file system; `filled` says with what, when somebody has looked.
pub(super) fn host_finding(severity: Severity, host: &HostFs, wanted: Bytes, filled: Option<&str>) -> Finding {
    let mount = host.mount_point.to_string_lossy();
    let left = format!("{} of {}", host.free.human(), host.total.human());
    let filled = filled.map(|what| format!("; on it: {what}")).unwrap_or_default();
    let sentence = format!(
        "the file system under its loop file, {mount}, has {left} left, and the pool may still take {}{filled}",
        wanted.human()
    );
    Finding::new(Key::HostFileSystem, severity, mount.as_ref(), sentence)
        .act(format!("free space on {}", quote(&mount)), ONLINE)
}

fn of_overcommit(pool: &PoolReport) -> Option<Finding> {
    let by = pool.overcommitted_by()?;
    let mount = pool.data.loop_file()?.host.as_ref()?.mount_point.to_string_lossy().into_owned();
    let sentence = format!("its loop files promise {} more than {mount} has", by.human());
    Some(Finding::new(Key::Overcommit, Severity::Info, &pool.name, sentence))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::Carrier;
    use crate::report::samples::docker_pool;

    /// Docker's pool with so much of its data file allocated.
    fn loop_pool(line: &str, allocated: u64, host_free: u64) -> PoolReport {
        let mut pool = docker_pool(line, host_free);
        if let Carrier::Loop { file, .. } = &mut pool.data.carrier {
            file.allocated = Some(Bytes::new(allocated));
        }
        pool
    }

    /// A pool of that status on a disk.
    fn on_device(line: &str) -> PoolReport {
        let mut pool = docker_pool(line, 0);
        pool.data.carrier = Carrier::Device { path: "/dev/sdb".into() };
        pool.metadata.carrier = Carrier::Device { path: "/dev/sdc".into() };
        pool
    }

    fn found(pool: &PoolReport) -> Vec<(Key, Severity)> {
        let facts = Facts::of(pool);
        judge(&facts, &Thresholds::default()).into_iter().map(|f| (f.key, f.severity)).collect()
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn data_and_metadata_have_thresholds_of_their_own() {
        for (metadata, data, expected) in [
            (100, 1_310_719, vec![]),
            (100, 1_310_720, vec![(Key::DataUse, Severity::Warning)]),
            (100, 1_556_480, vec![(Key::DataUse, Severity::Critical)]),
            (419_431, 9, vec![(Key::MetadataUse, Severity::Warning)]),
            (498_074, 1_310_720, vec![(Key::DataUse, Severity::Warning), (Key::MetadataUse, Severity::Critical)]),
        ] {
            let line = format!("0 {metadata}/524288 {data}/1638400 - rw discard_passdown queue_if_no_space - 1024");
            assert_eq!(found(&on_device(&line)), expected, "{line}");
        }
        let line = "0 9/524288 1000000/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let pool = on_device(line);
        let low = Thresholds { data: Threshold { warning: 50, critical: 61 }, metadata: Threshold::default() };
        let found = judge(&Facts::of(&pool), &low);
        assert_eq!(found[0].severity, Severity::Critical);
        assert_eq!(found[0].sentence, "61% of its data is used, 61.0 GiB of 100.0 GiB");
    }

    #[test]
    fn metadata_at_the_kernels_limit_cannot_grow() {
        let line = "0 4100000/4161600 9/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let pool = on_device(line);
        let found = judge(&Facts::of(&pool), &Thresholds::default());
        assert_eq!((found[0].key, found[0].severity), (Key::MetadataLimit, Severity::Critical));
        assert!(found[0].ways.iter().all(|way| way.command.is_none()), "{found:?}");
    }

    #[test]
    fn what_can_really_be_had_is_what_the_host_has() {
        // 100 GiB promised, of which so many blocks are used and so many bytes are left on the host.
        for (used, host_free, expected) in [
            (9, 500 * GIB, vec![]),
            (9, 99 * GIB, vec![(Key::Overcommit, Severity::Info)]),
            (9, 4 * GIB, vec![(Key::HostFileSystem, Severity::Warning)]),
            (9, GIB - 1, vec![(Key::HostFileSystem, Severity::Critical)]),
            (9, 0, vec![(Key::HostFileSystem, Severity::Critical)]),
            // 40 GiB used and 9 more to have: four fifths.
            (655_360, 9 * GIB, vec![(Key::HostFileSystem, Severity::Warning)]),
            (655_360, 12 * GIB, vec![(Key::Overcommit, Severity::Info)]),
            // More than the pool may still take, and all the same four fifths of the host's 59.6 GiB are in use.
            (1_300_000, 23 * GIB, vec![]),
            (1_500_000, 11 * GIB, vec![(Key::DataUse, Severity::Warning), (Key::HostFileSystem, Severity::Warning)]),
        ] {
            let line = format!("0 6211/524288 {used}/1638400 - rw discard_passdown queue_if_no_space - 1024");
            assert_eq!(found(&loop_pool(&line, used * 65536, host_free)), expected, "{used} {host_free}");
        }
    }

    #[test]
    fn a_full_pool_is_not_told_twice() {
        let line = "0 9/524288 1638400/1638400 - out_of_data_space discard_passdown queue_if_no_space - 1024";
        assert_eq!(found(&on_device(line)), []);
        let pool = on_device("0 524288/524288 9/1638400 - ro discard_passdown queue_if_no_space - 1024");
        assert_eq!(found(&pool), []);
    }
}
