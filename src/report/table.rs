//! The pools of a machine, one a line, as `list` prints them.

use super::docker_info::UNKNOWN;
use super::failure::printable;
use super::health;
use super::human::percent;
use super::status::{self, StatusView};
use crate::pool::{Activity, Mode, PoolReport, PoolStatus, Space};

const HEADINGS: [&str; 8] = ["NAME", "MAKER", "USER", "SIZE", "DATA", "METADATA", "MODE", "VERDICT"];
/// The columns of numbers, which stand to the right.
const RIGHT: [&str; 3] = ["SIZE", "DATA", "METADATA"];

/// Returns the table, each line ended, in the order in which the pools came; a sentence when there are none.
pub fn text(pools: &[StatusView<'_>]) -> String {
    if pools.is_empty() {
        return "no thin pools on this machine\n".to_owned();
    }
    let rows: Vec<[String; 8]> = pools.iter().map(row).collect();
    let heading = HEADINGS.map(str::to_owned);
    let all: Vec<&[String; 8]> = std::iter::once(&heading).chain(&rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(|column| width(column).unwrap_or(0)).collect();

    let mut text = String::new();
    for row in all {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(HEADINGS) {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if RIGHT.contains(&name) { (space.as_str(), "") } else { ("", space.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(view: &StatusView<'_>) -> [String; 8] {
    let pool = view.pool;
    let user = match &pool.user {
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
        mode(pool).to_owned(),
        health::verdict(view.findings),
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
NAME                       MAKER    USER                  SIZE     DATA  METADATA  MODE               VERDICT
docker-179:2-1049372-pool  Docker   /var/lib/docker  100.0 GiB   100.0%      1.1%  out_of_data_space  CRITICAL: it is full and has been failing writes; acknowledged writes were lost
docker-thinpool            LVM      -                 47.5 GiB    21.5%      0.9%  rw                 OK
mute                       unknown  -                  unknown  unknown   unknown  inactive           UNKNOWN: it is not active
"
        );
    }

    #[test]
    fn no_pools_are_said_in_words() {
        assert_eq!(text(&[]), "no thin pools on this machine\n");
    }
}
