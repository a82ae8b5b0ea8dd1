//! Ctrl-C while something is half made: it waits until what is half made was taken away.

use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use super::raw;
pub use super::raw::without_held_signals;
use crate::kernel::{Called, KernelError};

/// Signals that ask this process to end, held back as long as this lives.
#[derive(Debug)]
pub struct Held {
    before: SigSet,
}

fn asking() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

impl Held {
    /// Holds them back from now on.
    ///
    /// # Errors
    /// As sigprocmask(2).
    pub fn hold() -> Result<Self, KernelError> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&asking()), Some(&mut before))
            .called("sigprocmask", "SIGINT, SIGTERM, SIGHUP")?;
        Ok(Self { before })
    }

    /// Whether one of them has come. A signal that the process ignores never comes.
    pub fn came(&self) -> bool {
        raw::pending_signals().is_ok_and(|pending| asking().iter().any(|signal| pending.contains(signal)))
    }

    /// Takes the one that has come, so that it does not end the process when this goes; returns its name.
    pub fn take(&self) -> Option<&'static str> {
        if self.came() { asking().wait().ok().map(Signal::as_str) } else { None }
    }
}

/// What has no more to say once a signal that is held back has come: a pipe may give nothing for ever.
#[derive(Debug)]
pub struct UntilSignal<'h, R> {
    /// What holds it back.
    pub held: &'h Held,
    /// What is read, without a buffer of its own.
    pub from: R,
}

impl<R: Read + AsFd> Read for UntilSignal<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        /// How long a signal goes unnoticed, in milliseconds.
        const LOOK: u16 = 200;
        loop {
            if self.held.came() {
                return Err(io::Error::other("a signal came"));
            }
            if poll(&mut [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)], LOOK)? > 0 {
                return self.from.read(into);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_waits_and_is_taken() {
        let held = Held::hold().unwrap();
        assert!(!held.came());
        raise(Signal::SIGTERM).unwrap();
        assert!(held.came());
        assert_eq!(held.take(), Some("SIGTERM"));
        assert!(!held.came());
    }

    #[test]
    fn a_silent_pipe_is_read_until_a_signal_comes() {
        let (reader, mut writer) = io::pipe().unwrap();
        let held = Held::hold().unwrap();
        let mut from = UntilSignal { held: &held, from: reader };
        writer.write_all(b"ab").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(from.read(&mut bytes).unwrap(), 2);
        raise(Signal::SIGINT).unwrap();
        assert_eq!(from.read(&mut bytes).unwrap_err().to_string(), "a signal came");
        assert_eq!(held.take(), Some("SIGINT"));
        drop(writer);
        assert_eq!(from.read(&mut bytes).unwrap(), 0);
    }
}
