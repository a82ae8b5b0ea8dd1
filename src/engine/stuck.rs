//! Whether a process goes on: told by the states of its threads, so that it need not be asked itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::small_file;

/// More than `/proc/PID/status` ever has.
const LONGEST: u64 = 64 << 10;
/// `SIGKILL`, signal 9, in a mask.
const KILL: u64 = 1 << 8;

/// Why a process does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// A signal has stopped it (`T`).
    Stopped,
    /// So many of its threads wait in the kernel where no signal reaches them (`D`), and have not been woken for a while.
    Waits(usize),
}

/// What the kernel says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// `R`, `S`, `D`, `T`, `Z` and others (proc_pid_status(5)).
    pub state: char,
    /// How often it has given the processor away, or lost it: the same number at two moments when it has not run between.
    pub switches: u64,
}

impl Thread {
    /// Reads `/proc/PID/status`; nothing when it does not say both.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let number = |key: &str| value(key)?.parse::<u64>().ok();
        let switches = number("voluntary_ctxt_switches:")?.checked_add(number("nonvoluntary_ctxt_switches:")?)?;
        Some(Self { state: value("State:")?.chars().next()?, switches })
    }
}

/// Returns why a process does nothing; nothing when it goes on, or is gone. Takes `pause` when some of its threads wait.
pub fn stuck(pid: u32, pause: Duration) -> Option<Stuck> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    if thread(&process)?.state == 'T' {
        return Some(Stuck::Stopped);
    }
    let waiting = || {
        let all = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        all.filter_map(|entry| Some((entry.file_name(), thread(&entry.path())?))).filter(|(_, t)| t.state == 'D')
    };
    let before: Vec<_> = waiting().collect();
    if before.is_empty() {
        return None;
    }
    std::thread::sleep(pause);
    match waiting().filter(|thread| before.contains(thread)).count() {
        0 => None,
        several => Some(Stuck::Waits(several)),
    }
}

/// Returns whether a process was sent `SIGKILL` and has not got it: it ends as soon as it comes back from what it waits for.
pub fn is_killed(pid: u32) -> bool {
    status(&PathBuf::from(format!("/proc/{pid}"))).is_some_and(|text| pends_kill(&text))
}

/// Reads the masks of `/proc/PID/status`; signal 1 is their lowest bit (proc_pid_status(5)).
fn pends_kill(text: &str) -> bool {
    let mask = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let pends = |key: &str| mask(key).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
    (pends("SigPnd:") | pends("ShdPnd:")) & KILL != 0
}

fn status(at: &Path) -> Option<String> {
    let bytes = small_file::read_at(&at.join("status"), LONGEST).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn thread(at: &Path) -> Option<Thread> {
    Thread::parse(&status(at)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::process::Command;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_thread_is_read_as_the_kernel_writes_it() {
        let text =
            "Name:\tdockerd\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(Thread::parse(text), Some(Thread { state: 'D', switches: 42 }));
        assert_eq!(Thread::parse("State:\tD (disk sleep)\n"), None);
        assert_eq!(Thread::parse(""), None);
    }

    #[test]
    fn who_was_killed_has_the_signal_before_it() {
        let text =
            |own: &str, all: &str| format!("Threads:\t1\nSigPnd:\t{own}\nShdPnd:\t{all}\nSigBlk:\t0000000000000100\n");
        assert!(pends_kill(&text("0000000000000100", "0000000000000000")));
        assert!(pends_kill(&text("0000000000000000", "0000000000004101")));
        assert!(!pends_kill(&text("0000000000004000", "0000000000000000")) && !pends_kill(""));
        assert!(!is_killed(std::process::id()));
    }

    #[test]
    fn a_process_is_stuck_from_the_signal_that_stops_it_to_the_one_that_lets_it_go_on() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (pid, of_nix) = (child.id(), Pid::from_raw(child.id().try_into().unwrap()));
        let seen = || stuck(pid, Duration::ZERO);
        // What is read from a busy disk waits for a moment.
        let runs_after_a_while =
            || (0..100).map_while(|_| seen().inspect(|_| std::thread::sleep(Duration::from_millis(50)))).count() < 100;
        assert!(runs_after_a_while(), "{:?}", seen());
        kill(of_nix, Signal::SIGSTOP).unwrap();
        waitpid(of_nix, Some(WaitPidFlag::WUNTRACED)).unwrap();
        let stopped = seen();
        kill(of_nix, Signal::SIGCONT).unwrap();
        waitpid(of_nix, Some(WaitPidFlag::WCONTINUED)).unwrap();
        let goes_on = runs_after_a_while();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((stopped, goes_on), (Some(Stuck::Stopped), true));
        assert_eq!(seen(), None);
    }
}
