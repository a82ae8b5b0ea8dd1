//! Sleeping until something may have come: a device, a mount, or a signal that wants an end.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use super::critical;

/// The kernel's own events; those that udev passes on come after its links are made, and are told without one too.
const KERNEL_AND_UDEV: u32 = 1 | 2;
/// Whoever listens to nothing, or whom something has come without an event for, still looks now and then.
const PULSE: Duration = Duration::from_secs(2);
/// Events come in bursts, a disk with its partitions: one look is enough for all.
const BURST: Duration = Duration::from_millis(200);

/// What tells that something has come. Where the kernel gives it to nobody here, time alone does.
#[derive(Debug)]
pub struct Arrivals {
    events: Option<OwnedFd>,
    mounts: Option<File>,
    signals: Option<SignalFd>,
}

impl Arrivals {
    /// Begins to listen: what comes from now on is told by the next [`Arrivals::wait`]. Signals that end a program are held
    /// ([`critical::hold_signals`]).
    pub fn listen() -> Self {
        critical::hold_signals();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Self {
            events: events().ok(),
            mounts: File::open("/proc/self/mountinfo").ok(),
            signals: SignalFd::with_flags(&critical::held(), flags).ok(),
        }
    }

    /// Returns when something may have come, when a signal wants an end ([`critical::wanted_end`]), and at the latest after
    /// `limit`.
    pub fn wait(&self, limit: Duration) {
        let until = Instant::now() + limit.min(PULSE);
        if self.sleep(until, true) {
            self.sleep((Instant::now() + BURST).min(until), false);
        }
        self.forget();
    }

    /// Sleeps until then, or until a signal comes, or, if they count, a device or a mount. Returns whether one of these came.
    fn sleep(&self, until: Instant, arrivals: bool) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        fds.extend(self.signals.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        let signals = fds.len();
        if arrivals {
            fds.extend(self.events.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            // A change of the mounts is told as an exceptional condition (mounts_poll, fs/proc_namespace.c).
            fds.extend(self.mounts.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI)));
        }
        let told = poll(&mut fds, timeout).is_ok_and(|count| count > 0);
        told && fds.iter().skip(signals).any(|fd| fd.any().unwrap_or(false))
    }

    /// Throws away what has been told. A buffer that ran over is an event too.
    fn forget(&self) {
        let Some(events) = &self.events else { return };
        let mut bytes = [0_u8; 8192];
        while !matches!(
            recv(events.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT),
            Ok(0) | Err(Errno::EAGAIN | Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK)
        ) {}
    }
}

fn events() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_AND_UDEV))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_its_time_is_over() {
        // Whether events can be had here or not.
        let arrivals = Arrivals::listen();
        for _ in 0..3 {
            arrivals.wait(Duration::from_millis(1));
        }
    }
}
