//! The state the kernel says the pool is in.

use super::Facts;
use super::check;
use super::ways::{argument, grow_data, grow_metadata};
use crate::engine::docker_root::{DockerRoot, Standing};
use crate::ops::cost::ONLINE;
use crate::pool::{Activity, Finding, Key, Maker, Mode, PoolStatus, Severity, Tie, Way, Working};
use crate::process::quote;

/// What is said of a pool that gave up queueing.
pub(super) const LOST: &str = "it is full and has been failing writes; acknowledged writes were lost";

const NEEDS_CHECK: &str = "its metadata needs a check; it cannot be written until then";

/// Judges the state: whether the pool does I/O at all.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let pool = facts.pool;
    let finding = |key, severity, sentence: &str| Finding::new(key, severity, &pool.name, sentence);
    let critical = |key, sentence: &str| finding(key, Severity::Critical, sentence);
    let unknown = |key, sentence: &str| finding(key, Severity::Unknown, sentence);
    let mut findings = Vec::new();
    if let Some(it) = &pool.interrupted {
        let finding =
            critical(Key::Interrupted, &format!("an operation of dmpool was interrupted: {} ({})", it.what, it.id));
        findings.push(Finding { ways: it.ways_out(), ..finding });
    }
    match pool.activity {
        Activity::Suspended => {
            let way = format!("dmsetup resume {}", quote(&pool.name));
            findings.push(critical(Key::Suspended, "it is suspended: all I/O waits").run(way, ONLINE));
        }
        Activity::Inactive => {
            let is_left = facts.docker.is_some_and(|root| root.standing == Standing::Left);
            let inactive = if pool.tie == Some(Tie::Before) || is_left && pool.maker == Maker::Docker {
                // Nobody misses it.
                finding(Key::Inactive, Severity::Info, "it is not active, and Docker no longer uses it")
            } else if pool.tie == Some(Tie::Prepared) {
                finding(
                    Key::Inactive,
                    Severity::Info,
                    "it is not active: a migration of Docker's pool into it is prepared",
                )
            } else if waits_for(facts).is_some() {
                unknown(Key::Inactive, "it is not active: Docker is not running")
            } else {
                unknown(Key::Inactive, "it is not active")
            };
            findings.extend(missing(facts));
            findings.push(match pool.maker {
                // What has to be done first is said by another finding, and `activate` would refuse.
                _ if pool.interrupted.is_some() || !pool.missing.is_empty() => inactive,
                Maker::Dmpool if pool.tie == Some(Tie::Prepared) => inactive,
                Maker::Dmpool => inactive.run(format!("dmpool activate {}", argument(pool)), ONLINE),
                Maker::Docker | Maker::Lvm | Maker::Unknown => inactive,
            });
            if pool.recorded.is_some_and(|recorded| recorded.needs_check) {
                findings.push(Finding { ways: check::ways(facts), ..critical(Key::NeedsCheck, NEEDS_CHECK) });
            }
            return findings;
        }
        Activity::Active => {}
    }
    match &pool.status {
        // A suspended pool may not answer, and that is said already; why another did not is among what was not seen.
        None if pool.activity == Activity::Suspended || !pool.unread.is_empty() => {}
        None => findings.push(unknown(Key::NotSeen, "the kernel gave no status").run("dmesg | tail", ONLINE)),
        Some(PoolStatus::Fail) => {
            let failed = critical(Key::Failed, "it has failed: all I/O ends with errors");
            findings.push(Finding { ways: check::ways(facts), ..failed });
        }
        Some(PoolStatus::Error) => findings
            .push(critical(Key::MetadataUnreadable, "the kernel cannot read its metadata").run("dmesg | tail", ONLINE)),
        Some(PoolStatus::Unreadable(line)) => {
            findings.push(unknown(Key::NotSeen, &format!("its status is `{line}`")));
        }
        Some(PoolStatus::Working(working)) => {
            findings.extend(of_working(facts, working));
            findings.extend(snapshot(facts, working));
        }
    }
    findings
}

/// Devices that are not here keep the whole pool down.
fn missing(facts: &Facts<'_>) -> Option<Finding> {
    let pool = facts.pool;
    let (is, it) = match pool.missing.len() {
        0 => return None,
        1 => ("is", "it"),
        _ => ("are", "them"),
    };
    let word = argument(pool);
    let sentence = format!(
        "{} {is} missing: {}",
        if it == "it" { "a device of it" } else { "devices of it" },
        pool.missing.join("; ")
    );
    let look = format!("connect {it} (dmpool disks shows what is here, and how to look again)");
    let gone = "if that is gone for good with what was on it";
    Some(
        Finding::new(Key::MissingDevice, Severity::Critical, &pool.name, sentence)
            .with(Way::after(look, format!("dmpool activate {word}"), "seconds"))
            .with(Way::after(gone, format!("dmpool destroy {word} --keep-data"), "forgets the pool")),
    )
}

/// Returns the root whose stopped Docker brings the pool up when it starts.
fn waits_for<'a>(facts: &Facts<'a>) -> Option<&'a DockerRoot> {
    let is_dockers = facts.pool.maker == Maker::Docker && facts.pool.tie != Some(Tie::Before);
    facts.docker.filter(|root| is_dockers && root.daemon.is_none() && root.standing == Standing::Configured)
}

/// Adds to a pool that waits for Docker how Docker is started. Not beside any trouble: some must be dealt with first, for
/// Docker makes missing files anew.
pub(super) fn offer_start(facts: &Facts<'_>, findings: &mut [Finding]) {
    let Some(root) = waits_for(facts) else { return };
    if findings.iter().any(|finding| finding.key != Key::Inactive && finding.severity > Severity::Info) {
        return;
    }
    if let Some(inactive) = findings.iter_mut().find(|finding| finding.key == Key::Inactive) {
        inactive.ways.push(match &root.starter {
            Some(starter) => Way::run(starter.command("start"), "seconds; Docker makes it active"),
            None => Way::act("start Docker", "seconds; Docker makes it active"),
        });
    }
}

/// A metadata snapshot keeps blocks of the metadata from being used again, and is left behind when its maker dies.
fn snapshot(facts: &Facts<'_>, working: &Working) -> Option<Finding> {
    let block = working.held_root?.get();
    let name = &facts.pool.name;
    let way = format!("dmsetup message {} 0 release_metadata_snap", quote(name));
    let sentence = format!("a metadata snapshot is held, at block {block}: it takes metadata as long as it is there");
    Some(
        Finding::new(Key::MetadataSnapshot, Severity::Warning, name, sentence)
            .run(way, "online, when no backup or thin_ls is at work"),
    )
}

/// Returns what could not be read, as findings: what is not seen may be bad.
pub(super) fn not_seen(facts: &Facts<'_>) -> Vec<Finding> {
    let files = facts.docker.into_iter().flat_map(|root| &root.problems);
    let files = files.map(|problem| (problem.path.to_string_lossy().into_owned(), problem.why.clone()));
    let of_pool = facts.pool.unread.iter().map(|why| (facts.pool.name.clone(), why.clone()));
    let finding = |(object, why): (String, String)| {
        let named = if object == facts.pool.name { String::new() } else { format!("{object}: ") };
        Finding::new(Key::NotSeen, Severity::Unknown, object, format!("not seen: {named}{why}"))
    };
    of_pool.chain(files).map(finding).collect()
}

fn of_working(facts: &Facts<'_>, working: &Working) -> Option<Finding> {
    let pool = facts.pool;
    let critical = |key, sentence: &str| Finding::new(key, Severity::Critical, &pool.name, sentence);
    let with = |finding: Finding, way: Option<crate::pool::Way>| match way {
        Some(way) => finding.with(way),
        None => finding,
    };
    if working.needs_check == Some(true) {
        return Some(Finding { ways: check::ways(facts), ..critical(Key::NeedsCheck, NEEDS_CHECK) });
    }
    if pool.gave_up_queueing() {
        return Some(with(critical(Key::LostWrites, LOST), grow_data(pool)));
    }
    match working.mode {
        Some(Mode::OutOfDataSpace) => Some(with(critical(Key::Full, "it is full"), grow_data(pool))),
        Some(Mode::ReadOnly) => {
            if pool.metadata_space().is_some_and(|space| space.free().get() == 0) {
                let sentence = "it is read-only: its metadata is full";
                return Some(with(critical(Key::ReadOnly, sentence), grow_metadata(pool)));
            }
            let asked = pool.table.as_ref().is_some_and(|table| table.has("read_only"));
            let sentence = if asked { "it is read-only, as its table says" } else { "it is read-only" };
            Some(critical(Key::ReadOnly, sentence).run("dmesg | grep -e thin -e dm-", "online; says why"))
        }
        Some(Mode::ReadWrite) | None => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::start::Starter;
    use crate::pool::{Interrupted, PoolReport};
    use crate::report::samples::{docker_root, stopped_docker_pool};

    #[test]
    fn a_pool_that_cannot_be_activated_says_what_has_to_be_done_first() {
        let down = PoolReport { maker: Maker::Dmpool, argument: "p1".to_owned(), ..stopped_docker_pool() };
        let ways = |pool: &PoolReport| {
            let found = judge(&Facts::of(pool)).into_iter().flat_map(|f| f.ways.into_iter());
            found.filter_map(|way| way.command).collect::<Vec<_>>()
        };
        assert_eq!(ways(&down), ["dmpool activate p1"]);
        let it = Interrupted {
            id: "grow-1".to_owned(),
            what: "grow".to_owned(),
            destroys: false,
            can_finish: true,
            can_go_back: true,
        };
        let interrupted = PoolReport { interrupted: Some(it), ..down.clone() };
        assert_eq!(ways(&interrupted), ["dmpool continue grow-1", "dmpool undo grow-1"]);
        let lacks = |missing: &[&str]| {
            let missing = missing.iter().map(|&name| name.to_owned()).collect();
            judge(&Facts::of(&PoolReport { missing, ..down.clone() }))
        };
        let found = &lacks(&["device 2 of 3, /dev/sdb (as it was called last)"])[0];
        let sentence = "a device of it is missing: device 2 of 3, /dev/sdb (as it was called last)";
        assert_eq!(
            (found.key, found.severity, found.sentence.as_str()),
            (Key::MissingDevice, Severity::Critical, sentence)
        );
        assert!(found.ways[0].first.as_deref().unwrap().starts_with("connect it ("), "{found:?}");
        assert!(lacks(&["a", "b"])[0].sentence.starts_with("devices of it are missing: a; b"));
    }

    #[test]
    fn a_pool_that_waits_for_docker_says_how_it_is_started_unless_something_is_to_be_done_first() {
        let pool = stopped_docker_pool();
        let said = |root: &DockerRoot, others: &[Finding]| {
            let facts = Facts { docker: Some(root), ..Facts::of(&pool) };
            let mut findings = judge(&facts);
            findings.extend_from_slice(others);
            offer_start(&facts, &mut findings);
            let inactive = findings.into_iter().find(|finding| finding.key == Key::Inactive).unwrap();
            let way = inactive.ways.first().and_then(|way| way.command.clone());
            (inactive.severity, inactive.sentence, way)
        };
        let starter = Some(Starter::Unit("docker2".to_owned()));
        let stopped = DockerRoot { daemon: None, standing: Standing::Configured, starter, ..docker_root() };
        let sentence = "it is not active: Docker is not running".to_owned();
        let way = Some("systemctl start docker2".to_owned());
        assert_eq!(said(&stopped, &[]), (Severity::Unknown, sentence.clone(), way));
        let short = Finding::new(Key::ShortFile, Severity::Critical, "x", "x");
        assert_eq!(said(&stopped, &[short]), (Severity::Unknown, sentence, None));
        let left = DockerRoot { standing: Standing::Left, ..stopped };
        let sentence = "it is not active, and Docker no longer uses it".to_owned();
        assert_eq!(said(&left, &[]), (Severity::Info, sentence, None));
    }
}
