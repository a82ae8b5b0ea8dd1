//! Running suites in guests: several guests of a kind at once, each test in one of them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::lab::Lab;
use super::machine::{Lane, Machine};
use super::programs::Programs;
use super::session::{Report, Session};
use super::show;
use super::suites::Group;
use super::tally::Tally;
use super::tool;
use super::trouble::Result;

/// Below so many tests for each, another guest is not worth its boot.
const TESTS_PER_GUEST: usize = 6;

/// A test by its suite and its name.
type Test = (&'static str, String);

/// Runs what `filter` leaves of the group's suites.
///
/// # Errors
/// When a guest cannot be made or does not come up.
pub fn group(lab: &Lab, group: &Group, programs: &Programs, payload: &Path, filter: Option<&str>) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut tests: VecDeque<Test> = VecDeque::new();
    let place = match group.lane {
        Lane::Native => "(this machine)".to_string(),
        _ => format!(
            "({}, kernel {}{})",
            group.lane.name(),
            group.kernel.name(),
            if group.systemd { ", systemd" } else { "" }
        ),
    };
    for suite in &group.suites {
        let Some(binary) = programs.tests.get(suite.name) else {
            if filter.is_some() {
                continue;
            }
            let reason = format!("package {} has no test target of this name", suite.package);
            show::result(&format!("suite {} {place} ... skipped: {reason}", suite.name));
            tally.skip(&format!("suite {} {place}", suite.name), &reason);
            continue;
        };
        let listed = list(binary)?;
        if listed.is_empty() && filter.is_none() {
            tally.fail(&format!("suite {} {place}", suite.name), "it has no tests");
        }
        let wanted =
            listed.into_iter().filter(|name| filter.is_none_or(|f| format!("{}::{name}", suite.name).contains(f)));
        tests.extend(wanted.map(|name| (suite.name, name)));
    }
    if tests.is_empty() {
        return Ok(tally);
    }
    let machine = lab.machine(group.lane, group.kernel, group.systemd, programs, payload.to_path_buf())?;
    show::result(&format!("\nrunning {} tests {place}", tests.len()));
    let most = if group.lane == Lane::Native { 1 } else { processors() };
    let guests = (tests.len() / TESTS_PER_GUEST).clamp(1, most);
    let queue = Mutex::new(tests);
    let (sender, receiver) = channel();
    let first_trouble = thread::scope(|scope| {
        let workers: Vec<_> = (0..guests)
            .map(|number| {
                let machine = Machine { folder: numbered(&machine.folder, number), ..machine.clone() };
                let (queue, sender) = (&queue, sender.clone());
                scope.spawn(move || work(Session::new(machine, lab.keep).full(lab.full), queue, &sender))
            })
            .collect();
        drop(sender);
        for ((suite, name), report) in receiver {
            if report.wreck.is_some() {
                lab.run.keep();
            }
            tally.test(&place, &format!("{suite}::{name}"), &report);
        }
        workers.into_iter().find_map(|w| w.join().ok().and_then(Result::err))
    });
    match first_trouble {
        Some(trouble) => Err(trouble),
        None => Ok(tally),
    }
}

/// Takes tests from the queue until it is empty.
fn work(mut session: Session, queue: &Mutex<VecDeque<Test>>, results: &Sender<(Test, Report)>) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((suite, name)) = next else {
            return Ok(());
        };
        let report = session.test(suite, &name)?;
        if results.send(((suite, name), report)).is_err() {
            return Ok(());
        }
    }
}

/// The names of a test binary's tests. It is a static program: it runs on this machine as well, and lists without
/// running anything.
fn list(binary: &Path) -> Result<Vec<String>> {
    let text = tool::run(Command::new(binary).args(["--list", "--format=terse"]))?;
    Ok(text.lines().filter_map(|l| l.strip_suffix(": test")).map(str::to_string).collect())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn numbered(folder: &Path, number: usize) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    folder.with_file_name(name)
}
