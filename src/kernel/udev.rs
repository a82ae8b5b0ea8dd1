//! Whether udev serves device-mapper here, nodes where it does not, and a limit on waiting for it.
//!
//! A call that makes or removes a node hands udev a cookie, a semaphore that the rule `95-dm-notify` counts down,
//! and waits for it. The crate `devicemapper` (as libdevmapper) does so whenever `/run/udev/control` exists, and
//! without limit: a stale socket, a udevd without those rules, or one in another IPC namespace means for ever.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::{Called, DevNo, is_gone, processes, raw};

/// Where udevd listens, and the file whose existence makes the crate hand out cookies.
const CONTROL: &str = "/run/udev/control";

/// Where rules are looked for, first found first (udev(7)); a file hides those of its name further down.
const RULES: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

/// How long udev has to complete a cookie or make a node; and how long once it has let us wait in vain.
const LIMIT: Duration = Duration::from_secs(30);
const LIMIT_OF_THE_SILENT: Duration = Duration::from_secs(1);

/// Whether udev has let this process wait in vain.
static SILENT: AtomicBool = AtomicBool::new(false);

/// How long udevd may be too busy to take a connection, and how often that is tried.
const BACKLOG_LIMIT: Duration = Duration::from_secs(10);
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// Whether udev answers here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Udev {
    /// It does, and completes device-mapper's cookies.
    Running,
    /// There is none: nodes are made by [`ensure_node`].
    Absent,
    /// Its socket is there, but who waits for it waits for ever.
    Stale {
        /// How this was seen.
        why: String,
        /// What helps.
        way_out: &'static str,
    },
}

const START_UDEVD: &str =
    "start udevd again (systemctl restart systemd-udevd); or, if this machine has none: rm /run/udev/control";
const SHARE_NAMESPACES: &str =
    "run dmpool where that udevd runs; in a container, share the host's pid and IPC namespaces (--pid=host --ipc=host)";
const INSTALL_RULES: &str = "install device-mapper's udev rules (95-dm-notify.rules, in the package of dmsetup), or unmask them in /etc/udev/rules.d";

/// Looks whether udev answers here: by connecting, by the namespace of who listens, and for the rule that completes cookies.
pub fn state() -> Udev {
    let stale = |why: String, way_out| Udev::Stale { why, way_out };
    let listener = match listener() {
        Ok(Some(pid)) => pid,
        Ok(None) => return Udev::Absent,
        Err(errno) => return stale(format!("{CONTROL}: {errno:?} ({}) from connect", errno.desc()), START_UDEVD),
    };
    if listener == 0 {
        return stale(format!("{CONTROL} belongs to a process of another pid namespace"), SHARE_NAMESPACES);
    }
    if let (Some(theirs), Some(ours)) = (ipc_namespace_of_udevd(listener), ipc_namespace("self"))
        && theirs != ours
    {
        let why = format!("{CONTROL} belongs to a udevd in another IPC namespace: it cannot see our semaphores");
        return stale(why, SHARE_NAMESPACES);
    }
    if !RULES.iter().any(|dir| completes_cookies(Path::new(dir))) {
        return stale("udevd runs, but no rules file calls `dmsetup udevcomplete`".to_owned(), INSTALL_RULES);
    }
    Udev::Running
}

fn ipc_namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/ipc")).ok()
}

/// Returns the IPC namespace of who listens, or nothing when it cannot be told. A udevd that made itself a daemon
/// listened before it forked: then that process is gone, and udevd is looked for by name.
fn ipc_namespace_of_udevd(listener: i32) -> Option<PathBuf> {
    ipc_namespace(&listener.to_string()).or_else(|| {
        let udevd = |pid: &u32| processes::comm(*pid).ends_with("udevd");
        processes::all().ok()?.into_iter().find(udevd).and_then(|pid| ipc_namespace(&pid.to_string()))
    })
}

/// Connects to udevd; returns the process that listens (0: not of our pid namespace), or nothing without a socket.
fn listener() -> Result<Option<i32>, Errno> {
    // SOCK_SEQPACKET since udev 183; a type that does not fit is told by EPROTOTYPE.
    for kind in [SockType::SeqPacket, SockType::Stream, SockType::Datagram] {
        // Not blocking: a full backlog, nobody accepting, shall not hold us.
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        match connect_soon(&socket) {
            Ok(()) => return getsockopt(&socket, PeerCredentials).map(|peer| Some(peer.pid())),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(Errno::EPROTOTYPE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EPROTOTYPE)
}

/// Connects, and waits a while for a place in the backlog: udevd's has room for one, which another dmpool, or dmsetup,
/// or this one a moment ago, may have taken.
fn connect_soon(socket: &OwnedFd) -> Result<(), Errno> {
    let address = UnixAddr::new(CONTROL)?;
    let until = Instant::now() + BACKLOG_LIMIT;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(BACKLOG_PAUSE),
            result => return result,
        }
    }
}

/// Whether a rules file in `dir`, not hidden by one of the same name further up, completes cookies.
fn completes_cookies(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let hidden = RULES
            .iter()
            .map(Path::new)
            .take_while(|above| *above != dir)
            .any(|above| above.join(&name).symlink_metadata().is_ok() && !same_folder(above, dir));
        !hidden
            && name.to_string_lossy().ends_with(".rules")
            && fs::read(entry.path()).is_ok_and(|text| text.windows(12).any(|w| w == b"udevcomplete"))
    })
}

/// Whether two folders are one, as /lib and /usr/lib often are.
fn same_folder(a: &Path, b: &Path) -> bool {
    let id = |p: &Path| fs::metadata(p).map(|m| (m.dev(), m.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}

/// How a node came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// It was there, or udev made it.
    Found,
    /// It was made here, because nobody else did.
    Made,
}

/// Returns the path of a device's node: `/dev/mapper/NAME`.
pub fn node(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// Sees to it that `/dev/mapper/NAME` is the device: waits for udev where it runs, else makes the node.
///
/// # Errors
/// When something is there that is no device node, or the node cannot be made.
pub fn ensure_node(name: &str, devno: DevNo) -> Result<Node> {
    ensure_node_within(name, devno, if state() == Udev::Running { patience() } else { Duration::ZERO })
}

fn ensure_node_within(name: &str, devno: DevNo, limit: Duration) -> Result<Node> {
    let path = node(name);
    let until = Instant::now() + limit;
    loop {
        match what_is(&path)? {
            Is::Device(found) if found == devno => return Ok(Node::Found),
            Is::Other => bail!("{} is in the way: it is not a device node", path.display()),
            _ if Instant::now() >= until => {
                SILENT.fetch_or(!limit.is_zero(), Ordering::Relaxed);
                break;
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    make_node(&path, devno).with_context(|| format!("making the node {}", path.display()))?;
    Ok(Node::Made)
}

/// Makes a node, in place of whatever stale node or link has the name.
fn make_node(path: &Path, devno: DevNo) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).called("mkdir", dir.display())?;
    }
    // Beside it and renamed over it: nobody sees the name without a node.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".dmpool-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(&beside, SFlag::S_IFBLK, mode, devno.dev_t()).called("mknod", beside.display())?;
    if let Err(e) = fs::rename(&beside, path).called("rename", path.display()) {
        // The first cause is what is told; a node left over is harmless and named after us.
        let _ = fs::remove_file(&beside);
        return Err(e.into());
    }
    Ok(())
}

/// Removes a node that a removed device left behind: only a block node with that number, or a link that leads nowhere.
/// Returns whether there was one.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_node(name: &str, devno: DevNo) -> Result<bool> {
    let path = node(name);
    let ours = match what_is(&path)? {
        Is::Device(found) => found == devno && !path.is_symlink(),
        Is::Dangling => true,
        Is::Nothing | Is::Other => false,
    };
    if ours {
        match fs::remove_file(&path) {
            Err(e) if !is_gone(&e) => {
                return Err(e).called("unlink", path.display()).context("removing a leftover node");
            }
            _ => {}
        }
    }
    Ok(ours)
}

/// What stands under a name in /dev/mapper.
enum Is {
    Nothing,
    Dangling,
    Device(DevNo),
    Other,
}

fn what_is(path: &Path) -> Result<Is> {
    match fs::metadata(path) {
        Ok(m) if m.file_type().is_block_device() => Ok(Is::Device(DevNo::from_dev_t(m.rdev()))),
        Ok(_) => Ok(Is::Other),
        Err(e) if is_gone(&e) => Ok(if path.is_symlink() { Is::Dangling } else { Is::Nothing }),
        Err(e) => Err(e).called("stat", path.display()).context("looking at a device node"),
    }
}

/// One call with a cookie at a time: the watchdog tells ours from others' by process only.
static COOKIES: Mutex<()> = Mutex::new(());

/// Returns whether udev has let this process wait in vain: what was waited for has happened nevertheless.
pub fn was_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// How long to wait for udev now.
fn patience() -> Duration {
    if was_silent() { LIMIT_OF_THE_SILENT } else { LIMIT }
}

/// Runs a call that may wait for udev, and ends the wait after 30 s, or 1 s if there has been such a wait already.
/// Returns what the call returned.
pub(super) fn bounded<T>(call: impl FnOnce() -> T) -> T {
    if !Path::new(CONTROL).exists() {
        return call();
    }
    let _alone = COOKIES.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut wait = patience();
            // Goes on looking: a removal that is tried again hands out a new cookie.
            while is_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                SILENT.fetch_or(complete_own_cookies() > 0, Ordering::Relaxed);
                wait = LIMIT_OF_THE_SILENT;
            }
        });
        let result = call();
        drop(done);
        result
    })
}

/// Completes the cookies that this process waits for; returns how many.
fn complete_own_cookies() -> usize {
    let table = fs::read_to_string("/proc/sysvipc/sem").unwrap_or_default();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    cookie_semaphores(&table)
        .into_iter()
        // The waiter was the last to touch it (it takes its own count before it waits), and the count is not zero yet.
        .filter(|set| raw::semaphore_last_pid(*set) == Ok(own))
        .filter(|set| raw::semaphore_value(*set).is_ok_and(|value| value > 0))
        .filter(|set| raw::semaphore_take(*set).is_ok())
        .count()
}

/// Returns the ids of the semaphores in the table of /proc/sysvipc/sem whose key is a device-mapper cookie
/// (`DM_COOKIE_MAGIC` 0x0d4d in the upper half, libdevmapper.h).
pub(crate) fn cookie_semaphores(table: &str) -> Vec<i32> {
    let cookie = |line: &str| {
        let mut columns = line.split_whitespace();
        let key: i32 = columns.next()?.parse().ok()?;
        let set = columns.next()?.parse().ok()?;
        (key.cast_unsigned() >> 16 == 0x0d4d).then_some(set)
    };
    table.lines().filter_map(cookie).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_magic() {
        let table = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                     223155921          0   600          1     0     0     0     0 1763687000 1763687000\n\
                     1234567890         1   600          1     0     0     0     0 1763687000 1763687000\n\
                     -559038737         2   600          1     0     0     0     0          0 1763687000\n\
                     short\n";
        assert_eq!(cookie_semaphores(table), [0]);
    }

    #[test]
    fn a_regular_file_is_not_taken_for_a_node() {
        assert!(matches!(what_is(Path::new("/proc/self/status")), Ok(Is::Other)));
        assert!(matches!(what_is(Path::new("/dev/mapper/no such node")), Ok(Is::Nothing)));
    }
}
