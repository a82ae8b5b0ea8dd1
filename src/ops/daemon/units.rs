//! systemd's units around Docker: which one a daemon is in, and which others are stopped with it.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ops::steps::configure::{is_systemd, runs, systemctl};
use crate::process;

/// What units say, seen from the other side, that are stopped when this one is (systemd.unit(5)): `Requires=`, `Requisite=`,
/// `BindsTo=`, `PartOf=`.
const STOPPED_WITH: [&str; 4] = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"];
/// What tells whether a unit runs.
const STATE: [&str; 3] = ["ActiveState", "Job", "Result"];
/// How long systemd may take to say something of a unit.
const ANSWERS: Duration = Duration::from_secs(20);
const LONGEST: usize = 64 << 10;
/// How long it is looked at the least: what cannot run has often ended by then.
const SETTLES: Duration = Duration::from_secs(2);
/// How long units may take to start before we go on without them.
const STARTS: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Returns the unit that a process is in, when it is that one (`/proc/PID/cgroup`).
pub fn of_process(pid: u32, unit: Option<&'static str>) -> Option<&'static str> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    unit.filter(|unit| text.lines().any(|line| line.split('/').any(|part| part == *unit)))
}

/// Returns the socket that starts a service.
pub fn socket_of(unit: &str) -> String {
    format!("{}.socket", unit.strip_suffix(".service").unwrap_or(unit))
}

/// Returns the units that run and that systemd stops with these, in the order in which they were found. A target is none: it does nothing
/// itself, and starting it starts what did not run.
pub fn stopped_with(units: &[String]) -> Vec<String> {
    if !is_systemd() {
        return Vec::new();
    }
    let mut known: BTreeSet<String> = units.iter().cloned().collect();
    let mut queue = units.to_vec();
    let mut found = Vec::new();
    while let Some(unit) = queue.pop() {
        for other in listed(&shown(&unit, &STOPPED_WITH)) {
            if known.insert(other.clone()) {
                queue.push(other.clone());
                found.push(other);
            }
        }
    }
    found.retain(|unit| !unit.ends_with(".target") && runs(unit));
    found
}

/// Returns whether systemd is about to start a unit, or waits for something before it does.
pub fn is_beginning(unit: &str) -> bool {
    is_systemd() && begins(&shown(unit, &STATE))
}

fn shown(unit: &str, properties: &[&str]) -> String {
    let properties = format!("--property={}", properties.join(","));
    let answer = process::run_within("systemctl", &["show", &properties, "--", unit], ANSWERS, LONGEST);
    String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned()
}

fn listed(shown: &str) -> Vec<String> {
    let values = shown.lines().filter_map(|line| line.split_once('=')).map(|(_, value)| value);
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

fn begins(shown: &str) -> bool {
    let is = |line: &str| match line.split_once('=') {
        Some(("ActiveState", state)) => matches!(state, "activating" | "reloading"),
        Some(("Job", job)) => waits(job),
        _ => false,
    };
    shown.lines().any(is)
}

fn waits(job: &str) -> bool {
    !matches!(job, "" | "0")
}

/// Stops units, which would else bring back what is stopped next.
///
/// # Errors
/// When systemd does not stop them in time.
pub fn stop(units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    systemctl(&[&["stop", "--"], units.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
}

/// Has units started, and does not wait for it. Returns those that systemd does not take, each a sentence.
pub fn queue(units: &[String]) -> Vec<String> {
    let start = |unit: &String| {
        let why = systemctl(&["start", "--no-block", "--", unit]).err()?;
        Some(format!("{unit} ran before and does not start ({why:#}); when that is mended:  systemctl start {unit}"))
    };
    units.iter().filter_map(start).collect()
}

/// Starts units that ran before, waits a while, and returns those that do not run, each a sentence.
pub fn start(units: &[String]) -> Vec<String> {
    if units.is_empty() {
        return Vec::new();
    }
    // One that was tried without Docker, after a reboot say, may have used up its tries.
    let _ =
        systemctl(&[&["reset-failed", "--"], units.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    let mut sentences = queue(units);
    let asked: Vec<_> = units.iter().filter(|unit| !sentences.iter().any(|said| said.starts_with(*unit))).collect();
    let begun = Instant::now();
    while begun.elapsed() < SETTLES || asked.iter().any(|unit| is_beginning(unit)) && begun.elapsed() < STARTS {
        std::thread::sleep(BETWEEN_LOOKS);
    }
    sentences.extend(asked.into_iter().filter_map(|unit| missing(unit, &shown(unit, &STATE))));
    sentences
}

/// Returns the sentence on a unit that shall run and does not.
fn missing(unit: &str, shown: &str) -> Option<String> {
    let value =
        |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    match value("ActiveState") {
        "active" | "reloading" if !waits(value("Job")) => None,
        state if begins(shown) => {
            let state = if state.is_empty() { "unknown" } else { state };
            Some(format!(
                "{unit} ran before and is not up yet ({state});  systemctl status {unit}    shows how far it is"
            ))
        }
        state => {
            let why = Some(value("Result")).filter(|why| !matches!(*why, "" | "success"));
            let state = if state.is_empty() { "systemd does not tell" } else { state };
            Some(format!(
                "{unit} ran before and does not run ({state}{}{});  systemctl status {unit}    says why; when that is mended:  systemctl start {unit}",
                if why.is_some() { ", " } else { "" },
                why.unwrap_or_default()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_shows_is_read() {
        let shown = "RequiredBy=web.service multi-user.target\nBoundBy=\nConsistsOf=docker.socket\n";
        assert_eq!(listed(shown), ["web.service", "multi-user.target", "docker.socket"]);
        assert!(begins("ActiveState=activating\n") && begins("Job=7\nActiveState=inactive\n"));
        assert!(!begins("ActiveState=failed\nJob=0\n") && !begins("ActiveState=active\n") && !begins(""));
    }
    #[test]
    fn a_unit_that_did_not_come_is_told_with_the_reason() {
        let said = |shown: &str| missing("web.service", shown).unwrap_or_default();
        assert_eq!(said("ActiveState=active\nResult=success\n"), "");
        assert_eq!(said("ActiveState=active\nJob=0\nResult=success\n"), "");
        let limit = said("ActiveState=failed\nResult=start-limit-hit\n");
        assert!(
            limit.contains("does not run (failed, start-limit-hit)") && limit.ends_with("systemctl start web.service"),
            "{limit}"
        );
        assert!(said("ActiveState=inactive\nResult=success\n").contains("does not run (inactive);"));
        assert!(said("ActiveState=activating\nJob=12\nResult=success\n").contains("not up yet (activating)"));
        assert!(said("ActiveState=inactive\nJob=12\n").contains("not up yet (inactive)"));
        assert!(said("").contains("systemd does not tell"), "one that does not answer is not taken for one that runs");
    }
}
