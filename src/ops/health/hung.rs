//! A Docker daemon that runs and does nothing.

use std::time::Duration;

use super::Facts;
use crate::engine::stuck::{Stuck, stuck};
use crate::ops::cost::ONLINE;
use crate::pool::{Finding, Key, Severity};

/// How long a thread that waits is given to go on: no healthy disk takes that long.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks whether the daemon on a pool's root goes on, for no longer than `limit`.
pub(super) fn look(facts: &Facts<'_>, limit: Duration) -> Option<Finding> {
    let daemon = facts.docker?.daemon.as_ref()?;
    judge(facts, stuck(daemon.pid, limit.min(PAUSE))?)
}

fn judge(facts: &Facts<'_>, stuck: Stuck) -> Option<Finding> {
    let root = facts.docker?;
    let pid = root.daemon.as_ref()?.pid;
    let finding = |severity, sentence| Finding::new(Key::DockerHung, severity, root.path.to_string_lossy(), sentence);
    Some(match stuck {
        Stuck::Stopped => {
            let sentence =
                format!("Docker's daemon, process {pid}, was stopped by a signal: every docker command waits");
            finding(Severity::Critical, sentence).run(format!("kill -CONT {pid}"), ONLINE)
        }
        Stuck::Waits(threads) => {
            let threads = if threads == 1 { "a thread".to_owned() } else { format!("{threads} threads") };
            let sentence =
                format!("{threads} of Docker's daemon, process {pid}, wait in the kernel: docker commands may hang");
            finding(Severity::Warning, sentence).run(format!("cat /proc/{pid}/task/*/stack"), "online; shows for what")
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::samples::{docker_pool, docker_root};

    #[test]
    fn a_daemon_that_was_stopped_is_let_go_on() {
        let (pool, root) = (docker_pool("0 1/2 3/4", 0), docker_root());
        let facts = Facts { docker: Some(&root), ..Facts::of(&pool) };
        let stopped = judge(&facts, Stuck::Stopped).unwrap();
        assert_eq!(
            (stopped.severity, stopped.ways[0].command.as_deref()),
            (Severity::Critical, Some("kill -CONT 612"))
        );
        let waits = judge(&facts, Stuck::Waits(3)).unwrap();
        assert!(waits.severity == Severity::Warning && waits.sentence.starts_with("3 threads of"), "{waits:?}");
    }
}
