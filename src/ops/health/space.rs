//! How full the pool is, and what it can really have.

use super::ways::{grow_data, grow_metadata};
use super::{Facts, Threshold, Thresholds};
use crate::pool::{Finding, Key, Limit, Mode, PoolStatus, Severity, Space, Way};

/// Judges the use of data and metadata, and the file system under the loop files.
pub(super) fn judge(facts: &Facts<'_>, thresholds: &Thresholds) -> Vec<Finding> {
    let pool = facts.pool;
    let mut findings = Vec::new();
    // What is full and stopped has been said by its mode.
    let mode = pool.status.as_ref().and_then(PoolStatus::working).and_then(|w| w.mode);
    if mode != Some(Mode::OutOfDataSpace) {
        findings.extend(of_use(facts, Key::DataUse, pool.data_space(), thresholds.data, grow_data(pool)));
    }
    if mode != Some(Mode::ReadOnly) {
        let way = grow_metadata(pool);
        findings.extend(of_use(facts, Key::MetadataUse, pool.metadata_space(), thresholds.metadata, way));
    }
    findings.extend(of_host(facts));
    findings
}

fn of_use(
    facts: &Facts<'_>,
    key: Key,
    space: Option<Space>,
    threshold: Threshold,
    way: Option<Way>,
) -> Option<Finding> {
    let percent = space?.percent();
    let what = if key == Key::DataUse { "data" } else { "metadata" };
    let severity = match percent {
        percent if percent >= u64::from(threshold.critical) => Severity::Critical,
        percent if percent >= u64::from(threshold.warning) => Severity::Warning,
        _ => return None,
    };
    let mut finding = Finding::new(key, severity, &facts.pool.name, format!("{percent}% of its {what} is used"));
    finding.ways.extend(way);
    Some(finding)
}

/// The file system under the loop file, when it is what binds first and little of it is left.
fn of_host(facts: &Facts<'_>) -> Option<Finding> {
    let pool = facts.pool;
    let (limit, left) = pool.binding_limit()?;
    let nearly = left.get() < pool.data_space()?.total.get() / 20;
    let host = pool.data.loop_file()?.host.as_ref()?;
    (limit == Limit::HostFileSystem && nearly).then(|| {
        Finding::new(
            Key::HostFileSystem,
            Severity::Warning,
            host.mount_point.to_string_lossy(),
            "the file system under its loop file is nearly full",
        )
        .way(format!("free space on {}", host.mount_point.display()), "online")
    })
}
