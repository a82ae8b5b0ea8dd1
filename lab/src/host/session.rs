//! One guest and the tests it runs, one after the other, over as many boots as they need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::guest::{Guest, Heard};
use super::machine::{self, Machine};
use super::trouble::{OrTrouble, Result};
use crate::protocol::{Ask, Disks, Ended, Exit, Job, Order, PAYLOAD, SKIP_MARK, Word};

/// A test's time limit, unless it asks for another.
pub const TEST_LIMIT: Duration = Duration::from_secs(300);

/// A test that goes down more often than this is taken for one that never ends.
const MOST_PHASES: u32 = 1000;

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed; why, in one line.
    Failed(String),
    /// It could not run; its own reason.
    Skipped(String),
}

/// What is known of a test that has run.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it went.
    pub outcome: Outcome,
    /// Seconds from its start to its end, boots in between included.
    pub seconds: f64,
    /// What it wrote, and what the lab has to say to that.
    pub output: Vec<String>,
    /// What its guest looked like when it fell silent, for each that did.
    pub silent: Vec<Vec<String>>,
    /// Where its guest's disks and console were kept, if they were.
    pub wreck: Option<PathBuf>,
}

/// One guest, booted when it is needed.
#[derive(Debug)]
pub struct Session {
    machine: Machine,
    guest: Option<Guest>,
    keep: bool,
    full: bool,
}

/// How one phase of a job ended.
enum Phase {
    Ended(Ended),
    /// The guest went down as the test wished.
    Down,
    /// The guest went down unasked, or hung while it did so.
    Lost(String),
    /// The guest said nothing for a minute; what it looked like.
    Silent(Vec<String>),
}

/// What a job has asked and said so far.
#[derive(Default)]
struct Story {
    phase: u32,
    notes: BTreeMap<String, String>,
    output: Vec<String>,
    /// The scratch disks that it wants from the next boot on.
    plugged: Option<Disks>,
}

impl Report {
    /// Of a test that was run again after its guest had fallen silent.
    fn after(self, first: Report) -> Report {
        let outcome = match self.outcome {
            Outcome::Failed(why) if !self.silent.is_empty() => Outcome::Failed(format!("{why}, twice")),
            other => other,
        };
        Report {
            outcome,
            seconds: first.seconds + self.seconds,
            output: self.output,
            silent: [first.silent, self.silent].concat(),
            wreck: self.wreck.or(first.wreck),
        }
    }
}

impl Session {
    /// A session whose guest is not booted yet. With `keep`, the folder of a failed test's guest is kept.
    #[must_use]
    pub fn new(machine: Machine, keep: bool) -> Session {
        Session { machine, guest: None, keep, full: false }
    }

    /// The same, telling its tests to do all they can.
    #[must_use]
    pub fn full(self, full: bool) -> Session {
        Session { full, ..self }
    }

    /// The release of the kernel that runs; boots the guest if none does.
    ///
    /// # Errors
    /// When the guest does not come up.
    pub fn kernel(&mut self) -> Result<String> {
        Ok(self.guest()?.kernel.clone())
    }

    /// The console of the running guest, to write its input to; its output goes to standard output from now on.
    ///
    /// # Errors
    /// When the guest does not come up.
    pub fn console(&mut self) -> Result<UnixStream> {
        self.guest()?.share_console()
    }

    /// Runs one test of a suite's binary. One whose guest falls silent is run again, once, in a new guest.
    ///
    /// # Errors
    /// When the guest does not come up.
    pub fn test(&mut self, suite: &str, name: &str) -> Result<Report> {
        let first = self.test_once(suite, name)?;
        if first.silent.is_empty() {
            return Ok(first);
        }
        Ok(self.test_once(suite, name)?.after(first))
    }

    fn test_once(&mut self, suite: &str, name: &str) -> Result<Report> {
        let start = Instant::now();
        let mut story = Story::default();
        let words = ["--exact", name, "--nocapture", "--test-threads=1"];
        let job = Job {
            program: format!("{PAYLOAD}/tests/{suite}"),
            args: words.map(str::to_string).to_vec(),
            env: BTreeMap::from([
                ("LAB_TEST".to_string(), name.to_string()),
                ("LAB_FULL".to_string(), self.full.to_string()),
            ]),
            limit_s: Some(TEST_LIMIT.as_secs()),
            phase: 0,
            notes: BTreeMap::new(),
            on_console: false,
            sweep: true,
        };
        let last = self.follow(&job, &mut story, &mut |_| ())?;
        let mut silent = Vec::new();
        let (outcome, spoiled) = match last {
            Phase::Ended(ended) => (judge(name, &ended, &story.output), ended.spoiled),
            Phase::Down => (Outcome::Failed(format!("went down {MOST_PHASES} times")), true),
            Phase::Lost(why) => {
                story.output.push("-- the end of the console:".to_string());
                let tail = self.guest.as_ref().map(Guest::console_tail).unwrap_or_default();
                story.output.extend(tail.lines().map(str::to_string));
                (Outcome::Failed(why), true)
            }
            Phase::Silent(seen) => {
                let said = [vec!["-- what the test had written:".to_string()], story.output.clone()];
                silent.push([seen, said.concat()].concat());
                (Outcome::Failed("the guest said nothing for a minute".into()), true)
            }
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        let mut wreck = None;
        if spoiled || failed || story.phase > 0 {
            // What such a test leaves on the root disk or in the kernel is no start for the next one.
            self.guest = None;
            if failed && self.keep {
                wreck = Some(self.keep_wreck(suite, name)?);
            }
        } else if self.machine.blank_scratch()? {
            self.forget_disks();
        }
        self.machine.plug(machine::all_scratch())?;
        Ok(Report { outcome, seconds: start.elapsed().as_secs_f64(), output: story.output, silent, wreck })
    }

    /// Runs a program in the guest to its end; every line it writes goes to `show`.
    ///
    /// # Errors
    /// When the guest does not come up, or goes down before the program has ended.
    pub fn program(&mut self, job: &Job, show: &mut dyn FnMut(&str)) -> Result<Exit> {
        match self.follow(job, &mut Story::default(), show)? {
            Phase::Ended(ended) => Ok(ended.exit),
            Phase::Down => Err(super::trouble::Trouble::new("cannot go on: the program takes its guest down for ever")),
            Phase::Lost(why) => {
                let tail = self.guest.as_ref().map(Guest::console_tail).unwrap_or_default();
                Err(super::trouble::Trouble::new(format!("cannot go on: {why}")).fact("console", tail))
            }
            Phase::Silent(seen) => {
                let trouble = super::trouble::Trouble::new("cannot go on: the guest said nothing for a minute");
                Err(trouble.fact("seen", seen.join("\n")))
            }
        }
    }

    /// Runs a job over all its phases.
    fn follow(&mut self, job: &Job, story: &mut Story, show: &mut dyn FnMut(&str)) -> Result<Phase> {
        loop {
            let phase = self.phase(job, story, show)?;
            if !matches!(phase, Phase::Down) || story.phase >= MOST_PHASES {
                return Ok(phase);
            }
            story.phase += 1;
            self.guest = None;
            if let Some(disks) = story.plugged.take() {
                self.machine.plug(disks)?;
            }
            self.guest = Some(self.machine.boot()?);
        }
    }

    fn phase(&mut self, job: &Job, story: &mut Story, show: &mut dyn FnMut(&str)) -> Result<Phase> {
        let job = Job { phase: story.phase, notes: story.notes.clone(), ..job.clone() };
        let folder = self.machine.folder.clone();
        let guest = self.guest()?;
        guest.tell(&Order::Run(job));
        let mut cut_at = None;
        loop {
            match guest.next(cut_at) {
                Heard::Word(Word::Out { text }) => {
                    show(&text);
                    story.output.push(text);
                }
                Heard::Word(Word::Ask(Ask::Remember { key, value })) => {
                    story.notes.insert(key, value);
                    guest.tell(&Order::Noted);
                }
                Heard::Word(Word::Ask(Ask::Plug { disks })) => {
                    story.plugged = Some(disks);
                    guest.tell(&Order::Noted);
                }
                Heard::Word(Word::Ask(Ask::PowerCut { after_ms })) => {
                    cut_at = Some(Instant::now() + Duration::from_millis(after_ms));
                }
                Heard::Word(Word::Done(ended)) if ended.exit == Exit::Reboot => {
                    let down = guest.wait_until_gone();
                    return Ok(if down {
                        Phase::Down
                    } else {
                        Phase::Lost("the guest hung while it went down".into())
                    });
                }
                Heard::Word(Word::Done(mut ended)) => {
                    if cut_at.is_some() && ended.exit == Exit::Code(0) {
                        story.output.push("-- the test ended before the power cut that it had asked for".to_string());
                        ended.exit = Exit::Code(1);
                    }
                    return Ok(Phase::Ended(ended));
                }
                Heard::Due => {
                    self.guest = None;
                    return Ok(Phase::Down);
                }
                Heard::Word(_) => {}
                Heard::Gone => return Ok(Phase::Lost("the guest went down".into())),
                Heard::Silent => {
                    return Ok(Phase::Silent(guest.look(&folder)));
                }
            }
        }
    }

    /// The running guest; boots one on new disks if there is none.
    fn guest(&mut self) -> Result<&mut Guest> {
        if self.guest.is_none() {
            self.machine.make_disks()?;
        }
        match self.guest {
            Some(ref mut guest) => Ok(guest),
            None => Ok(self.guest.insert(self.machine.boot()?)),
        }
    }

    /// Makes the guest drop what it has cached of the scratch disks.
    fn forget_disks(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        guest.tell(&Order::DisksBlanked);
        loop {
            match guest.next(None) {
                Heard::Word(Word::Ready) => return,
                Heard::Gone | Heard::Silent => break,
                Heard::Word(_) | Heard::Due => {}
            }
        }
        self.guest = None;
    }

    fn keep_wreck(&self, suite: &str, name: &str) -> Result<PathBuf> {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let wreck = self.machine.folder.with_file_name(format!("wreck-{suite}-{name}"));
        let from = &self.machine.folder;
        let _ = fs::remove_dir_all(&wreck);
        fs::rename(from, &wreck).or_trouble(|| format!("cannot keep `{}`", from.display()))?;
        Ok(wreck)
    }
}

/// The verdict over a test whose process has ended. libtest exits with 0 also when it ran nothing: its own count is
/// what counts.
fn judge(name: &str, ended: &Ended, output: &[String]) -> Outcome {
    let failed = |why: String| Outcome::Failed(why);
    match &ended.exit {
        Exit::Code(0) => {}
        Exit::Code(code) => return failed(format!("exit status {code}")),
        Exit::Signal(signal) => return failed(format!("killed by signal {signal}")),
        Exit::NotStarted(why) => return failed(format!("could not be started: {why}")),
        Exit::Hung => return failed("still running at its time limit".to_string()),
        Exit::Reboot => return failed("a reboot that did not come".to_string()),
    }
    if let Some(first) = ended.left.first() {
        let more = ended.left.len() - 1;
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        return failed(format!("left behind: {first}{rest}"));
    }
    // libtest has written the test's name without a line end by the time the test writes its first line.
    let reason = output.iter().find_map(|line| line.split_once(SKIP_MARK).map(|(_, reason)| reason));
    if let Some(reason) = reason {
        return Outcome::Skipped(reason.trim().to_string());
    }
    if output.iter().any(|line| line.starts_with("test result: ok. 1 passed")) {
        return Outcome::Passed;
    }
    failed(format!("its binary ran no test called `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_fall_silent_once_and_that_is_kept() {
        let report = |outcome: Outcome, silent: &[&str]| Report {
            outcome,
            seconds: 1.0,
            output: Vec::new(),
            silent: silent.iter().map(|seen| vec![seen.to_string()]).collect(),
            wreck: None,
        };
        let failed = |why: &str| Outcome::Failed(why.to_string());
        for (again, outcome) in [
            (report(Outcome::Passed, &[]), Outcome::Passed),
            (report(failed("exit status 101"), &[]), failed("exit status 101")),
            (report(failed("the guest said nothing"), &["b"]), failed("the guest said nothing, twice")),
        ] {
            let silences = again.silent.len() + 1;
            let all = again.after(report(failed("the guest said nothing"), &["a"]));
            assert_eq!(all.outcome, outcome);
            assert_eq!((all.silent.len(), all.silent.first()), (silences, Some(&vec!["a".to_string()])));
        }
    }

    fn ended(exit: Exit, left: &[&str]) -> Ended {
        Ended { exit, seconds: 0.0, left: left.iter().map(ToString::to_string).collect(), spoiled: false }
    }

    #[test]
    fn only_a_test_that_ran_and_left_nothing_passes() {
        let ok = ["running 1 test".to_string(), "test result: ok. 1 passed; 0 failed".to_string()];
        let none = ["running 0 tests".to_string(), "test result: ok. 0 passed; 0 failed".to_string()];
        let skip = ["test a ... lab-skip: no KVM here".to_string()];
        assert_eq!(judge("a", &ended(Exit::Code(0), &[]), &ok), Outcome::Passed);
        assert_eq!(judge("a", &ended(Exit::Code(0), &[]), &skip), Outcome::Skipped("no KVM here".into()));
        for (ended, output) in [
            (ended(Exit::Code(0), &[]), none.as_slice()),
            (ended(Exit::Code(0), &["mount /mnt/dmpool-test-x"]), &ok),
            (ended(Exit::Code(0), &["mount /mnt/dmpool-test-x"]), &skip),
            (ended(Exit::Code(101), &[]), &ok),
            (ended(Exit::Signal(9), &[]), &ok),
            (ended(Exit::Hung, &[]), &ok),
            (ended(Exit::NotStarted("x".into()), &[]), &ok),
        ] {
            assert!(matches!(judge("a", &ended, output), Outcome::Failed(_)), "{ended:?}");
        }
    }
}
