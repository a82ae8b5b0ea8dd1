//! The pools of a machine, one a line, as `list` prints them.

use super::docker_info::UNKNOWN;
use super::failure::printable;
use super::health;
use super::human::{duration, percent};
use super::status::{self, StatusView};
use crate::pool::{Activity, Full, Mode, PoolReport, PoolStatus, Space, Tie};

const HEADINGS: [&str; 9] = ["NAME", "MAKER", "USER", "SIZE", "DATA", "METADATA", "FULL IN", "MODE", "VERDICT"];
/// The columns of numbers, which stand to the right.
const RIGHT: [&str; 6] = ["SIZE", "DATA", "METADATA", "FULL IN", "ID", "MAPPED"];

/// Returns the table, each line ended, in the order in which the pools came; a sentence when there are none.
pub fn text(pools: &[StatusView<'_>]) -> String {
    if pools.is_empty() {
        return "no thin pools on this machine\n".to_owned();
    }
    columns(&HEADINGS, &pools.iter().map(row).collect::<Vec<_>>())
}

/// Returns rows below their headings, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(headings: &[&str; N], rows: &[[String; N]]) -> String {
    let heading = headings.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();

    let mut text = String::new();
    for row in all {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(headings) {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if RIGHT.contains(name) { (space.as_str(), "") } else { ("", space.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns when a pool is full, for a cell: `34 days`, `now`, `-` for one that does not fill.
fn full_in(full: Full) -> String {
    match full {
        Full::Unknown => UNKNOWN.to_owned(),
        Full::NotFilling => "-".to_owned(),
        Full::In { seconds, .. } => duration_cell(seconds),
    }
}

/// Returns in how long it will be, for a cell: `34 days`, `now`.
pub(super) fn duration_cell(seconds: u64) -> String {
    if seconds == 0 { "now".to_owned() } else { duration(seconds) }
}

fn row(view: &StatusView<'_>) -> [String; 9] {
    let pool = view.pool;
    let user = match &pool.user {
        crate::pool::User::Docker { .. } if pool.tie == Some(Tie::Configured) => "docker (configured)".to_owned(),
        crate::pool::User::Docker { .. } if pool.tie == Some(Tie::Prepared) => "docker (prepared)".to_owned(),
        crate::pool::User::Docker { root } => printable(&root.to_string_lossy()),
        crate::pool::User::Containerd { .. } => "containerd".to_owned(),
        crate::pool::User::Unknown => "-".to_owned(),
    };
    [
        printable(&pool.name),
        status::maker(pool.maker).to_owned(),
        user,
        pool.data_space().map_or_else(|| UNKNOWN.to_owned(), |space| space.total.human()),
        share(pool.data_space()),
        share(pool.metadata_space()),
        full_in(view.forecast.full),
        mode(pool).to_owned(),
        health::verdict_at_a_glance(view.findings),
    ]
}

fn share(space: Option<Space>) -> String {
    space.and_then(|s| percent(s.used.get(), s.total.get())).unwrap_or_else(|| UNKNOWN.to_owned())
}

fn mode(pool: &PoolReport) -> &'static str {
    match (pool.activity, &pool.status) {
        (Activity::Inactive, _) => "inactive",
        (Activity::Suspended, _) => "suspended",
        (Activity::Active, Some(PoolStatus::Working(working))) => working.mode.map_or(UNKNOWN, Mode::word),
        (Activity::Active, Some(PoolStatus::Fail)) => "Fail",
        (Activity::Active, Some(PoolStatus::Error)) => "Error",
        (Activity::Active, Some(PoolStatus::Unreadable(_)) | None) => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{alone, docker_pool, findings, lvm_pool, mute_pool};

    #[test]
    fn columns_line_up_and_every_pool_has_its_line() {
        let full = "180 6211/524288 1638400/1638400 - out_of_data_space discard_passdown error_if_no_space - 1024";
        let pools = [docker_pool(full, 13_740_000_000), lvm_pool(), mute_pool()];
        let findings = pools.each_ref().map(findings);
        let views: Vec<_> = pools.iter().zip(&findings).map(|(pool, findings)| alone(pool, findings)).collect();
        assert_eq!(
            text(&views),
            "\
NAME                       MAKER    USER                  SIZE     DATA  METADATA  FULL IN  MODE               VERDICT
docker-179:2-1049372-pool  Docker   /var/lib/docker  100.0 GiB   100.0%      1.1%  unknown  out_of_data_space  CRITICAL: it is full and has been failing writes; acknowledged writes were lost
docker-thinpool            LVM      -                 47.5 GiB    21.5%      0.9%  unknown  rw                 OK at a glance
mute                       unknown  -                  unknown  unknown   unknown  unknown  inactive           UNKNOWN: it is not active
"
        );
    }

    #[test]
    fn no_pools_are_said_in_words() {
        assert_eq!(text(&[]), "no thin pools on this machine\n");
    }
}
