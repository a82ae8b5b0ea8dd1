//! systemd's units around Docker: which one a daemon is in, and which others are stopped with it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::ops::steps::configure::{is_systemd, runs, systemctl};
use crate::process;

/// What units say, seen from the other side, that are stopped when this one is (systemd.unit(5)): `Requires=`, `Requisite=`,
/// `BindsTo=`, `PartOf=`.
const STOPPED_WITH: [&str; 4] = ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf"];
/// How long systemd may take to say something of a unit.
const ANSWERS: Duration = Duration::from_secs(20);
const LONGEST: usize = 64 << 10;

/// Returns the unit that a process is in, when it is that one (`/proc/PID/cgroup`).
pub fn of_process(pid: u32, unit: Option<&'static str>) -> Option<&'static str> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    unit.filter(|unit| text.lines().any(|line| line.split('/').any(|part| part == *unit)))
}

/// Returns the socket that starts a service.
pub fn socket_of(unit: &str) -> String {
    format!("{}.socket", unit.strip_suffix(".service").unwrap_or(unit))
}

/// Returns the units that run and that systemd stops with these, in the order in which they were found.
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
    found.retain(|unit| runs(unit));
    found
}

/// Returns whether systemd is about to start a unit, or waits for something before it does.
pub fn is_beginning(unit: &str) -> bool {
    is_systemd() && begins(&shown(unit, &["ActiveState", "Job"]))
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
        Some(("Job", job)) => !matches!(job, "" | "0"),
        _ => false,
    };
    shown.lines().any(is)
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

/// Has units started. Returns those that systemd does not start, each a sentence; it goes on without us.
pub fn start(units: &[String]) -> Vec<String> {
    let start = |unit: &String| {
        let why = systemctl(&["start", "--no-block", "--", unit]).err()?;
        Some(format!("{unit} ran before and does not start ({why:#}); when that is mended:  systemctl start {unit}"))
    };
    units.iter().filter_map(start).collect()
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
}
