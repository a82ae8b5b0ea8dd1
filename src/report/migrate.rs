//! What is asked before a pool is migrated.

use std::collections::BTreeSet;

use super::failure::printable;
use crate::ops::daemon::containers::Ran;
use crate::ops::daemon::saved::Saved;
use crate::ops::plan::Plan;
use crate::ops::steps::Step;
use crate::process::quote;
use crate::units::Bytes;

/// How many containers the question names.
const NAMED: usize = 20;

/// Returns the question that names what is overwritten, and what is stopped; `keep_rm` is whether what vanishes by that is saved before.
pub fn question(plan: &Plan, keep_rm: bool) -> String {
    let disks: BTreeSet<_> = plan.named_devices().map(|on| printable(&on.path.to_string_lossy())).collect();
    let overwritten = match disks.is_empty() {
        true => String::new(),
        false => format!("What is on {} goes. ", disks.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let Some(daemon) = plan.stopped_docker() else {
        return format!("{overwritten}Docker is down, and is kept from starting meanwhile. Go on?");
    };
    let units: String = daemon.with.iter().map(|unit| format!("{}, ", printable(unit))).collect();
    let all = plan.stops();
    let name = |ran: &&Ran| match (ran.vanishes, keep_rm) {
        (true, true) => format!("{}, which is saved first and gone then", printable(&ran.name)),
        (true, false) => format!("{}, which is gone then", printable(&ran.name)),
        (false, _) => printable(&ran.name),
    };
    let mut names: Vec<_> = all.iter().rev().take(NAMED).map(name).collect();
    if let more @ 1.. = all.len().saturating_sub(NAMED) {
        names.push(format!("{more} more"));
    }
    let first = match all.len() {
        0 => "Docker, in which no container runs".to_owned(),
        1 => format!("the container {}, then Docker", names.join("")),
        several => format!("{several} containers ({}), then Docker", names.join(", ")),
    };
    format!("{overwritten}First these stop, and start again at the end: {units}{first}. Go on?")
}

/// Returns the question before what was set aside goes.
pub fn deletes(plan: &Plan) -> String {
    format!("That does not come back; it gives {}. Go on?", given_back(plan))
}

/// Returns how much room a plan gives that deletes what was set aside.
pub fn given_back(plan: &Plan) -> String {
    let of = |step: &Step| match step {
        Step::DeleteFolder(s) => s.occupied.get(),
        _ => 0,
    };
    format!("{} back", Bytes::new(plan.steps.iter().map(of).sum()).human())
}

/// Returns what a container of `--rm` was saved as, with the commands that run and remove it, each line ended.
pub fn saved(saved: &Saved) -> String {
    let lines = saved.to_string();
    lines.lines().map(|line| format!("{}\n", printable(line))).collect()
}

/// Returns the command line that asks nothing: what was typed behind `dmpool`, and the words that the answers make.
pub fn command_line(typed: &[String], answers: &[String]) -> String {
    let typed = typed.iter().filter(|word| *word != "--dry-run");
    let words: Vec<_> = typed.chain(answers).map(|word| quote(word)).collect();
    format!("dmpool {} --yes", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::daemon::{Daemon, Way};
    use crate::ops::plan::Operation;
    use crate::ops::steps::{ClearDevice, Hold, NamedDevice, StopContainers, StopDocker};
    use crate::pool::PoolUuid;
    use crate::pool::label::DeviceUuid;

    fn asked(names: &[&str], units: &[&str], runs: bool) -> String {
        kept(names, units, runs, false)
    }

    fn kept(names: &[&str], units: &[&str], runs: bool, keep_rm: bool) -> String {
        let running: Vec<_> = names
            .iter()
            .map(|name| Ran {
                id: format!("{name}-id"),
                name: (*name).to_owned(),
                paused: false,
                stop_timeout: None,
                vanishes: *name == "job",
            })
            .collect();
        let way = Way::Script("docker".to_owned());
        let with = units.iter().map(|unit| (*unit).to_owned()).collect();
        let daemon = runs.then(|| Daemon { root: "/d".into(), socket: "/s".into(), way, with });
        let hold = Hold::of_nothing();
        let stop = |daemon: Daemon| Step::from(StopContainers { daemon, running: running.clone(), hold: hold.clone() });
        let mut steps: Vec<_> = daemon.clone().map(stop).into_iter().collect();
        steps.push(StopDocker { hold, daemon, running, pool: None }.into());
        let plan = Plan {
            operation: Operation::Migrate,
            pool: "p".to_owned(),
            what: "migrate".to_owned(),
            steps,
            notes: Vec::new(),
        };
        question(&plan, keep_rm)
    }

    #[test]
    fn each_container_that_stops_is_named() {
        let stops = |names: &[&str]| {
            asked(names, &[], true).trim_start_matches("First these stop, and start again at the end: ").to_owned()
        };
        assert_eq!(stops(&["db", "web"]), "2 containers (web, db), then Docker. Go on?");
        assert_eq!(stops(&["web"]), "the container web, then Docker. Go on?");
        assert_eq!(stops(&["job"]), "the container job, which is gone then, then Docker. Go on?");
        assert!(
            kept(&["job"], &[], true, true).contains("the container job, which is saved first and gone then, then")
        );
        assert_eq!(stops(&[]), "Docker, in which no container runs. Go on?");
        assert!(stops(&["x"; 22]).contains("x, 2 more)"), "{}", stops(&["x"; 22]));
        assert!(asked(&[], &[], false).starts_with("Docker is down"));
        assert!(
            asked(&["web"], &["a.service", "b.service"], true)
                .contains(": a.service, b.service, the container web, then")
        );
    }

    #[test]
    fn a_disk_that_is_overwritten_is_named_first() {
        let clear = ClearDevice {
            on: NamedDevice { path: "/dev/sdb".into(), length: Bytes::new(1 << 30), boot: None },
            pool: PoolUuid::from_random(1),
            device: DeviceUuid::from_random(2),
            areas: Vec::new(),
        };
        let plan = Plan {
            operation: Operation::Migrate,
            pool: "p".to_owned(),
            what: "migrate".to_owned(),
            steps: vec![clear.into()],
            notes: Vec::new(),
        };
        assert!(
            question(&plan, false).starts_with("What is on /dev/sdb goes. Docker is down"),
            "{}",
            question(&plan, false)
        );
    }

    #[test]
    fn the_command_line_can_be_used_again() {
        let typed = ["migrate", "/srv/my docker", "--dry-run"].map(str::to_owned);
        let answers = ["--stop-command", "/root/stop 1"].map(str::to_owned);
        assert_eq!(
            command_line(&typed, &answers),
            "dmpool migrate '/srv/my docker' --stop-command '/root/stop 1' --yes"
        );
    }
}
