//! Docker does not start: what its log says, and what helps.

use super::Facts;
use super::docker_log::{Cause, Why};
use super::ways::{self, argument};
use crate::engine::docker_root::Standing;
use crate::engine::start::Starter;
use crate::pool::{Activity, Finding, Key, Maker, PoolReport, Severity, Way};

/// Judges why a Docker that is down does not start; nothing for a root whose daemon runs, or that no longer is Docker's.
pub(super) fn judge(facts: &Facts<'_>, cause: &Cause) -> Option<Finding> {
    let root = facts.docker?;
    if root.daemon.is_some() || root.standing != Standing::Configured {
        return None;
    }
    let why = match cause.why {
        Why::BaseDevice => "its base device is not the one that Docker knows, or cannot be read",
        Why::MissingPool => "the pool that it was told to use is not there",
        Why::NotItsPool => "the pool has blocks in use, and Docker's files know nothing of them",
        Why::Record => "one of its records of devices cannot be read",
        Why::Transaction => "its transaction is not the pool's: the two are not of the same time",
        Why::ReadOnly => "the pool takes no changes",
        Why::TooSmall => "a file or device under the pool is shorter than the pool",
        Why::DriverGone => "this Docker has no devicemapper any more: 25 and later do not",
        Why::OptionTwice => "an option is given on the command line and in daemon.json",
        Why::BadOption => "it does not know one of its options",
        Why::BaseSize => "dm.basesize is smaller than the base device is",
        Why::Udev => "udev does not answer",
        Why::NoSpace => "no space is left where it writes",
        Why::Other => "its log says why",
    };
    let sentence = format!("Docker does not start: {why}: {}", cause.line);
    let mut finding = Finding::new(Key::DockerDown, Severity::Critical, root.path.to_string_lossy(), sentence);
    finding.ways = ways_out(facts.pool, root.starter.as_ref(), cause);
    Some(finding)
}

/// Why a stopped Docker is down could not be asked.
pub(super) fn not_seen(facts: &Facts<'_>, why: &str) -> Option<Finding> {
    let root = facts.docker.filter(|root| root.daemon.is_none())?;
    let sentence = format!("not seen: whether Docker fails to start, by its log: {why}");
    let object = root.path.to_string_lossy();
    let unit = root.starter.as_ref().and_then(Starter::unit).unwrap_or("docker");
    Some(
        Finding::new(Key::NotSeen, Severity::Unknown, object, sentence)
            .run(format!("journalctl -u {unit} -n 50"), "online"),
    )
}

fn ways_out(pool: &PoolReport, starter: Option<&Starter>, cause: &Cause) -> Vec<Way> {
    let all = Way::run("dmpool list", "shows every pool, and whose it is; Docker is down until then");
    let unit = starter.and_then(Starter::unit);
    let told = match unit {
        Some(unit) => format!("systemctl cat {unit}.service; cat /etc/docker/daemon.json"),
        None => "cat /etc/default/docker /etc/sysconfig/docker* /etc/docker/daemon.json".to_owned(),
    };
    let udevd = if unit.is_some() { "systemctl restart systemd-udevd" } else { "service udev restart" };
    let unit = Way::run(&told, "shows what it was told");
    match cause.why {
        Why::MissingPool => activation(pool).into_iter().chain([all]).collect(),
        Why::BaseDevice | Why::Transaction | Why::NotItsPool => vec![all, unit],
        Why::ReadOnly => {
            vec![Way::run(format!("dmpool status {}", argument(pool)), "says why it is read-only")]
        }
        Why::Record => vec![Way::run(format!("dmpool status {}", argument(pool)), "names the records, and what to do")],
        Why::TooSmall => vec![Way::run(format!("dmpool status {}", argument(pool)), "says which one, and its lengths")],
        Why::DriverGone => {
            vec![Way::act("install Docker 24 or older again: the images and containers are still there", "minutes")]
        }
        Why::OptionTwice => vec![Way::run(told, "shows both places; keep the option in one of them, and start Docker")],
        Why::BadOption | Why::Other => vec![unit],
        Why::BaseSize => {
            vec![Way::act("set dm.basesize to the size that the line above names, or leave it out", "seconds")]
        }
        Why::Udev => vec![Way::run(udevd, "seconds; then start Docker")],
        Why::NoSpace => vec![Way::run("df -h", "shows where; free some space there, and start Docker")],
    }
}

/// What brings the missing pool up, when it is this one.
fn activation(pool: &PoolReport) -> Option<Way> {
    if pool.activity != Activity::Inactive {
        return None;
    }
    match pool.maker {
        Maker::Dmpool => Some(Way::run(format!("dmpool activate {}", argument(pool)), "seconds; then start Docker")),
        Maker::Lvm => {
            ways::logical_volume(pool).map(|lv| Way::run(format!("lvchange -ay {lv}"), "seconds; then start Docker"))
        }
        Maker::Docker | Maker::Unknown => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_root::DockerRoot;
    use crate::report::samples::{docker_root, lvm_pool, stopped_docker_pool};

    #[test]
    fn a_docker_that_runs_is_not_down_and_a_missing_pool_is_brought_up() {
        let cause = Cause { why: Why::MissingPool, line: "Non existing device docker-thinpool".to_owned() };
        let (running, pool) = (docker_root(), PoolReport { activity: Activity::Inactive, ..lvm_pool() });
        assert_eq!(judge(&Facts { docker: Some(&running), ..Facts::of(&pool) }, &cause), None);
        let stopped = DockerRoot { daemon: None, standing: Standing::Configured, ..docker_root() };
        let found = judge(&Facts { docker: Some(&stopped), ..Facts::of(&pool) }, &cause).unwrap();
        assert!(found.sentence.contains("is not there: Non existing device docker-thinpool"), "{found:?}");
        assert_eq!(found.ways[0].command.as_deref(), Some("lvchange -ay docker/thinpool"));
        // Docker's own pool is no pool that anybody brings up.
        let own = stopped_docker_pool();
        let found = judge(&Facts { docker: Some(&stopped), ..Facts::of(&own) }, &cause).unwrap();
        assert_eq!(found.ways[0].command.as_deref(), Some("dmpool list"));
    }
}
