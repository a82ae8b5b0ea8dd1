//! Between a suspend and its resume: nothing may be paged in, no signal may stop us, and somebody must resume if we die.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::signal::{SigAction, SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, getpid, getppid};

use super::{Called, raw};

/// What the guardian says once it can take over, and what tells it that it need not.
const READY: u8 = b'r';
const DONE: u8 = b'd';

/// Exit statuses of the guardian.
const TOLD_DONE: i32 = 0;
const RESUMED: i32 = 10;
const RESUME_FAILED: i32 = 11;

/// The signals that a terminal, a service manager or a closed pipe sends: a change is not ended by them midway.
const HELD: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE];

/// How much stack a critical section may use without a page fault.
const STACK: usize = 128 * 1024;

/// While this lives, all memory of the process is locked and all signals are blocked in this thread. Threads that
/// others started before may still take a signal and die of it: enter before any is started, or from the only one.
#[derive(Debug)]
pub struct CriticalSection {
    before: SigSet,
}

impl CriticalSection {
    /// Locks the memory and blocks the signals.
    ///
    /// # Errors
    /// ENOMEM or EPERM when the memory cannot be locked; nothing is changed then.
    pub fn enter() -> Result<Self> {
        let context = "entering a critical section";
        touch_stack();
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
            .called("mlockall", "this process")
            .context(context)?;
        match SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK) {
            Ok(before) => Ok(Self { before }),
            Err(errno) => {
                // The first cause is what is told.
                let _ = munlockall();
                Err(errno).called("sigprocmask", "this thread").context(context)
            }
        }
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        // Neither can fail for want of anything, and there is nobody to tell here.
        let _ = munlockall();
        let _ = self.before.thread_set_mask();
    }
}

/// While this lives, a call that waits in the kernel where signals reach it ends with EINTR when the time is over. Made
/// and dropped within a [`CriticalSection`]; allocates nothing.
#[derive(Debug)]
pub struct Alarm {
    before: SigAction,
    mask: SigSet,
}

impl Alarm {
    /// Starts the time, in whole seconds, at least one.
    ///
    /// # Errors
    /// When the kernel does not take the handler; nothing is changed then.
    pub fn after(limit: Duration) -> Result<Self, Errno> {
        let before = raw::alarm_interrupts()?;
        let mut alarm_only = SigSet::empty();
        alarm_only.add(Signal::SIGALRM);
        let mask = match alarm_only.thread_swap_mask(SigmaskHow::SIG_UNBLOCK) {
            Ok(mask) => mask,
            Err(errno) => {
                let _ = raw::alarm_acts(&before);
                return Err(errno);
            }
        };
        alarm::set(u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1));
        Ok(Self { before, mask })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        alarm::cancel();
        // One that has come meanwhile is taken by the handler that does nothing, before the mask is as it was.
        let _ = self.mask.thread_set_mask();
        let _ = raw::alarm_acts(&self.before);
    }
}

/// The signal that wanted an end, once one has come and was asked for.
static CAME: OnceLock<Signal> = OnceLock::new();

/// Holds the signals back that usually end a program, in this thread and until it ends: who does the work asks for them
/// between two steps, and what became of it is told before the program goes. Where they cannot be held they act as
/// ever: death at any point is provided for.
pub fn hold_signals() {
    let _ = held().thread_block();
}

/// Returns the signals that [`hold_signals`] holds.
pub(super) fn held() -> SigSet {
    HELD.into_iter().collect()
}

/// Returns the signal by which somebody wants an end, when one has come since [`hold_signals`]. From then on every time:
/// what has not been begun is not wanted either.
pub fn wanted_end() -> Option<&'static str> {
    if let Some(came) = CAME.get() {
        return Some(came.as_str());
    }
    let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    let pending = raw::pending_signals().ok()?;
    let signal = wanted.into_iter().find(|signal| pending.contains(*signal))?;
    Some(CAME.get_or_init(|| signal).as_str())
}

/// Uses as much stack as the section may, so that it is there when the memory is locked.
#[inline(never)]
fn touch_stack() {
    let stack = [1_u8; STACK];
    std::hint::black_box(&stack);
}

/// What a guardian does when its time is over and this process still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It acts.
    Act,
    /// It ends this process first, and acts when that has ended: what was to be done while the device is suspended must
    /// not be done once it runs again.
    EndItFirst,
}

/// A process forked beforehand that resumes a device when this one dies, or takes too long, before it says done.
///
/// It is in a session of its own and blocks all signals, so what ends this process (Ctrl-C, a closed terminal) does not
/// end it; SIGKILL to both does. It holds copies of this process's descriptors, locks among them, until it ends.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    to_guardian: UnixStream,
}

/// What the guardian did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardianDid {
    /// Nothing: it was told done in time.
    Nothing,
    /// It resumed the device, because its time was over.
    Resumed,
    /// It tried to, and the kernel refused.
    Failed,
    /// It ended before its task did.
    Died,
}

impl Guardian {
    /// Forks the guardian and returns once it is ready. Call it before the suspend and outside a critical section.
    /// `act` resumes the device by what was prepared beforehand; it may neither allocate nor take a lock.
    ///
    /// # Errors
    /// When no process can be made, or it does not become ready.
    pub fn start(mut act: impl FnMut() -> Result<(), Errno>, deadline: Duration, late: Late) -> Result<Self> {
        let context = "starting the guardian that resumes the pool if this process dies";
        let (mut ours, theirs) = UnixStream::pair().called("socketpair", "the guardian").context(context)?;
        // What the child needs is made here: between fork and exit it may not allocate.
        let milliseconds = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX);
        let watch = Watch { other_end: ours.as_raw_fd(), parent: getpid(), milliseconds, late };
        // Blocked across the fork: the child begins with signals blocked and keeps them so.
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .called("sigprocmask", "this thread")
            .context(context)?;
        let child = raw::fork_running(|| guard(&mut act, &theirs, watch));
        before.thread_set_mask().called("sigprocmask", "this thread").context(context)?;
        let pid = child.called("fork", "the guardian").context(context)?;
        drop(theirs);
        let mut word = [0_u8];
        let ready = ours.read_exact(&mut word).called("read", "the guardian");
        let guardian = Self { pid, to_guardian: ours };
        ready.context(context)?;
        Ok(guardian)
    }

    /// Tells the guardian that the device is resumed, and returns what it did.
    ///
    /// # Errors
    /// When its end cannot be learnt.
    pub fn done(self) -> Result<GuardianDid> {
        // EPIPE: it has ended already, its status says why.
        match (&self.to_guardian).write_all(&[DONE]) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                return Err(e).called("write", "the guardian").context("telling the guardian that all is done");
            }
            _ => {}
        }
        let status = loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                other => break other.called("waitpid", "the guardian").context("waiting for the guardian's end")?,
            }
        };
        Ok(match status {
            WaitStatus::Exited(_, TOLD_DONE) => GuardianDid::Nothing,
            WaitStatus::Exited(_, RESUMED) => GuardianDid::Resumed,
            WaitStatus::Exited(_, RESUME_FAILED) => GuardianDid::Failed,
            _ => GuardianDid::Died,
        })
    }
}

/// What the guardian must know, made before the fork.
#[derive(Clone, Copy)]
struct Watch {
    other_end: i32,
    parent: Pid,
    milliseconds: i32,
    late: Late,
}

/// The guardian's whole life, in bare system calls: other threads' locks (the allocator's) may be held for ever here.
fn guard(act: &mut impl FnMut() -> Result<(), Errno>, stream: &UnixStream, watch: Watch) -> i32 {
    // Our copy of the parent's end would keep the stream open after its death.
    raw::close_inherited(watch.other_end);
    // Neither is needed for the task itself: it is done as well as it can be.
    let _ = nix::unistd::setsid();
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    if (&*stream).write(&[READY]).is_err() {
        return if act().is_ok() { RESUMED } else { RESUME_FAILED };
    }
    let mut in_time = raw::wait_readable(stream.as_fd(), watch.milliseconds) == Ok(true);
    // Of an orphan there is nobody to end.
    if !in_time && watch.late == Late::EndItFirst && getppid() == watch.parent {
        let _ = kill(watch.parent, Signal::SIGKILL);
        // Its end closes the stream; a word that it said before counts.
        in_time = raw::wait_readable(stream.as_fd(), -1) == Ok(true);
    }
    if in_time {
        let mut word = [0_u8];
        if matches!((&*stream).read(&mut word), Ok(1)) && word == [DONE] {
            return TOLD_DONE;
        }
    }
    // The parent is dead, or its time is over.
    if act().is_ok() { RESUMED } else { RESUME_FAILED }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn signals_are_blocked_within_and_as_before_after() {
        let blocked = || SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM);
        assert!(!blocked());
        let section = match CriticalSection::enter() {
            Ok(section) => section,
            // Only root may lock as much as it likes; refused, nothing may have changed.
            Err(e) => {
                assert!(!nix::unistd::geteuid().is_root(), "{e:#}");
                return assert!(!blocked());
            }
        };
        assert!(blocked());
        drop(section);
        assert!(!blocked());
    }

    #[test]
    fn a_guardian_that_is_told_in_time_does_nothing() {
        let guardian = Guardian::start(|| Err(Errno::ENXIO), Duration::from_secs(60), Late::Act).unwrap();
        assert_eq!(guardian.done().unwrap(), GuardianDid::Nothing);
    }

    #[test]
    fn a_guardian_acts_when_its_time_is_over() {
        let mut guardian = Guardian::start(|| Err(Errno::ENXIO), Duration::from_millis(10), Late::Act).unwrap();
        // Its end of the stream closes when it has acted.
        assert_eq!(guardian.to_guardian.read(&mut [0]).unwrap(), 0);
        // There is no device behind that resume, so the kernel refuses: seen as such, not as done.
        assert_eq!(guardian.done().unwrap(), GuardianDid::Failed);
    }

    #[test]
    fn a_late_parent_is_ended_before_its_guardian_acts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acted");
        let middle = raw::fork_running(|| {
            let seen = path.clone();
            let parent = getpid();
            let descriptors = format!("/proc/{parent}/fd");
            let act = move || {
                let open = std::fs::read_dir(&descriptors).map_or(0, Iterator::count);
                let state = if open == 0 { "ended" } else { "alive" };
                std::fs::write(&seen, state).map_err(|_| Errno::EIO)
            };
            let guardian = Guardian::start(act, Duration::from_millis(10), Late::EndItFirst);
            std::thread::sleep(Duration::from_secs(3600));
            drop(guardian);
            0
        });
        let status = waitpid(middle.unwrap(), None).unwrap();
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{status:?}");
        while std::fs::read_to_string(&path).unwrap_or_default().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ended");
    }

    #[test]
    fn an_alarm_ends_a_call_that_waits() {
        // In a process with one thread, as dmpool is: of several any could take the signal.
        let child = raw::fork_running(|| {
            let Ok(_) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return 1 };
            let Ok((ours, _theirs)) = UnixStream::pair() else { return 2 };
            let Ok(alarm) = Alarm::after(Duration::from_millis(1)) else { return 3 };
            let waited = raw::wait_readable(ours.as_fd(), -1);
            drop(alarm);
            let masked = SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(Signal::SIGALRM));
            if waited == Err(Errno::EINTR) && masked { 0 } else { 4 }
        });
        let status = waitpid(child.unwrap(), None).unwrap();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}
