//! Between a suspend and its resume: nothing may be paged in, no signal may stop us, and somebody must resume if we die.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

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

/// The signal that wanted an end, once one has come and was asked for.
static CAME: OnceLock<Signal> = OnceLock::new();

/// Holds the signals back that usually end a program, in this thread and until it ends: who does the work asks for them
/// between two steps, and what became of it is told before the program goes. Where they cannot be held they act as
/// ever: death at any point is provided for.
pub fn hold_signals() {
    let held: SigSet = HELD.into_iter().collect();
    let _ = held.thread_block();
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
    pub fn start(mut act: impl FnMut() -> Result<(), Errno>, deadline: Duration) -> Result<Self> {
        let context = "starting the guardian that resumes the pool if this process dies";
        let (mut ours, theirs) = UnixStream::pair().called("socketpair", "the guardian").context(context)?;
        // What the child needs is made here: between fork and exit it may not allocate.
        let milliseconds = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX);
        let other_end = ours.as_raw_fd();
        // Blocked across the fork: the child begins with signals blocked and keeps them so.
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .called("sigprocmask", "this thread")
            .context(context)?;
        let child = raw::fork_running(|| guard(&mut act, &theirs, other_end, milliseconds));
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

/// The guardian's whole life, in bare system calls: other threads' locks (the allocator's) may be held for ever here.
fn guard(act: &mut impl FnMut() -> Result<(), Errno>, stream: &UnixStream, other_end: i32, milliseconds: i32) -> i32 {
    // Our copy of the parent's end would keep the stream open after its death.
    raw::close_inherited(other_end);
    // Neither is needed for the task itself: it is done as well as it can be.
    let _ = nix::unistd::setsid();
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    if (&*stream).write(&[READY]).is_err() || raw::wait_readable(stream.as_fd(), milliseconds) == Ok(true) {
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
        let guardian = Guardian::start(|| Err(Errno::ENXIO), Duration::from_secs(60)).unwrap();
        assert_eq!(guardian.done().unwrap(), GuardianDid::Nothing);
    }

    #[test]
    fn a_guardian_acts_when_its_time_is_over() {
        let mut guardian = Guardian::start(|| Err(Errno::ENXIO), Duration::from_millis(10)).unwrap();
        // Its end of the stream closes when it has acted.
        assert_eq!(guardian.to_guardian.read(&mut [0]).unwrap(), 0);
        // There is no device behind that resume, so the kernel refuses: seen as such, not as done.
        assert_eq!(guardian.done().unwrap(), GuardianDid::Failed);
    }
}
