//! The state the kernel says the pool is in.

use super::Facts;
use super::ways::{ONLINE, argument, grow_data, grow_metadata};
use crate::pool::{Activity, Finding, Key, Maker, Mode, PoolStatus, Severity, Working};
use crate::process::quote;

/// What brings a pool back whose metadata must be checked. `METADATA` is the device or file it is on.
const CHECK: &str = "stop what uses it and take the pool down; then, on a copy first:  thin_check METADATA && thin_check \
                     --clear-needs-check-flag METADATA";

/// Judges the state: whether the pool does I/O at all.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let pool = facts.pool;
    let finding = |key, severity, sentence: &str| Finding::new(key, severity, &pool.name, sentence);
    let critical = |key, sentence: &str| finding(key, Severity::Critical, sentence);
    let unknown = |key, sentence: &str| finding(key, Severity::Unknown, sentence);
    let mut findings = Vec::new();
    if let Some(id) = &pool.interrupted {
        findings.push(
            critical(Key::Interrupted, &format!("an operation of dmpool was interrupted: {id}"))
                .way(format!("dmpool continue {id}"), "as that operation says")
                .way(format!("dmpool undo {id}"), "as far as there is a way back"),
        );
    }
    match pool.activity {
        Activity::Suspended => {
            let way = format!("dmsetup resume {}", quote(&pool.name));
            findings.push(critical(Key::Suspended, "it is suspended: all I/O waits").way(way, ONLINE));
        }
        Activity::Inactive => {
            let inactive = unknown(Key::Inactive, "it is not active");
            findings.push(match pool.maker {
                Maker::Dmpool => inactive.way(format!("dmpool activate {}", argument(pool)), ONLINE),
                Maker::Docker | Maker::Lvm | Maker::Unknown => inactive,
            });
            return findings;
        }
        Activity::Active => {}
    }
    match &pool.status {
        // A suspended pool may not answer, and that is said already.
        None if pool.activity == Activity::Suspended => {}
        None => findings.push(unknown(Key::NotSeen, "the kernel gave no status").way("dmesg | tail", ONLINE)),
        Some(PoolStatus::Fail) => findings.push(
            critical(Key::Failed, "it has failed: all I/O ends with errors").way(CHECK, "stopped until it is repaired"),
        ),
        Some(PoolStatus::Error) => findings
            .push(critical(Key::MetadataUnreadable, "the kernel cannot read its metadata").way("dmesg | tail", ONLINE)),
        Some(PoolStatus::Unreadable(line)) => {
            findings.push(unknown(Key::NotSeen, &format!("its status is `{line}`")));
        }
        Some(PoolStatus::Working(working)) => findings.extend(of_working(facts, working)),
    }
    findings
}

fn of_working(facts: &Facts<'_>, working: &Working) -> Option<Finding> {
    let pool = facts.pool;
    let critical = |key, sentence: &str| Finding::new(key, Severity::Critical, &pool.name, sentence);
    let with = |finding: Finding, way: Option<crate::pool::Way>| match way {
        Some(way) => finding.way(way.command, way.cost),
        None => finding,
    };
    if working.needs_check == Some(true) {
        let sentence = "its metadata needs a check; it cannot be written until then";
        return Some(critical(Key::NeedsCheck, sentence).way(CHECK, "stopped for minutes"));
    }
    if pool.gave_up_queueing() {
        let sentence = "it is full and has been failing writes; acknowledged writes were lost";
        return Some(with(critical(Key::LostWrites, sentence), grow_data(pool)));
    }
    match working.mode {
        Some(Mode::OutOfDataSpace) => Some(with(critical(Key::Full, "it is full"), grow_data(pool))),
        Some(Mode::ReadOnly) => {
            let full = pool.metadata_space().is_some_and(|space| space.free().get() == 0);
            let way = if full { grow_metadata(pool) } else { None };
            Some(with(critical(Key::ReadOnly, "it is read-only"), way))
        }
        Some(Mode::ReadWrite) | None => None,
    }
}
