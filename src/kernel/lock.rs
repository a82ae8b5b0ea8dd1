//! Locks between dmpools: `flock` on a file, which the kernel drops however its holder ends.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Called, is_gone, processes, raw};

/// A lock, held until it is dropped. The file stays: removing it would let two hold "the" lock.
#[derive(Debug)]
pub struct FileLock {
    held: Flock<File>,
}

/// The descriptors of the locks that this process has.
static HELD: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Gives up a forked child's share in the locks of its parent, who keeps them: a child that hangs must not have them
/// for longer than the one that took them.
///
/// Called in the child of a process with one thread, before anything else.
pub(super) fn leave_to_parent() {
    // Nobody else is there to have it; waiting for somebody of the parent's would be for ever.
    let Ok(mut held) = HELD.try_lock() else { return };
    for fd in held.drain(..) {
        raw::close_inherited(fd);
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let fd = self.held.as_raw_fd();
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != fd);
    }
}

/// Who holds a lock, as far as it has written that down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBy {
    /// Its process id; nothing when it has not written it yet, or it has ended and a child of its has the lock.
    pub pid: Option<u32>,
    /// Its command line as it wrote it, else its name; empty when unknown.
    pub command: String,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) if self.command.is_empty() => write!(f, "process {pid}"),
            Some(pid) => write!(f, "process {pid} ({})", self.command),
            None => f.write_str("a process that did not say its number"),
        }
    }
}

impl FileLock {
    /// Takes the lock, or says at once who holds it. The file is made with mode 0600 where it is missing; its folder
    /// is not.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn try_exclusive(path: &Path) -> Result<Result<Self, HeldBy>> {
        let context = || format!("taking the lock {}", path.display());
        // std opens close-on-exec: a program we run does not inherit the lock.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .called("open", path.display())
            .with_context(context)?;
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, Errno::EWOULDBLOCK)) => return Ok(Err(holder(file))),
            Err((_, errno)) => return Err(errno).called("flock", path.display()).with_context(context),
        };
        // Who fails here (a full disk) has the lock all the same; the next one only cannot say who has it.
        let _ = held.set_len(0).and_then(|()| held.write_all_at(own_line().as_bytes(), 0));
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held.as_raw_fd());
        Ok(Ok(Self { held }))
    }
}

/// A lock on a file that is open already and says something else than who has it: while it lives, its owner is at work.
#[derive(Debug)]
pub struct AtWork {
    file: Flock<File>,
}

impl AtWork {
    /// Takes the lock; who only looks whether somebody has it ([`AtWork::on`]) is waited for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(file: File, path: &Path) -> Result<Self> {
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .called("flock", path.display())
            .with_context(|| format!("taking the lock {}", path.display()))?;
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file.as_raw_fd());
        Ok(Self { file })
    }

    /// Returns whether somebody is at work on the file, false also when that cannot be looked at; nothing when there is
    /// no such file, or it was removed meanwhile.
    pub fn on(path: &Path) -> Option<bool> {
        let file = match File::open(path) {
            Err(e) if is_gone(&e) => return None,
            Err(_) => return Some(false),
            Ok(file) => file,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, errno)) => Some(errno == Errno::EWOULDBLOCK),
            // Its owner removes it before it lets go of it.
            Ok(file) => file.metadata().map_or(true, |found| found.nlink() > 0).then_some(false),
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let fd = self.file.as_raw_fd();
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != fd);
    }
}

fn own_line() -> String {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    format!("{} {}\n", std::process::id(), words.join(" "))
}

fn holder(mut file: File) -> HeldBy {
    let mut text = String::new();
    // What cannot be read is unknown.
    let _ = file.read_to_string(&mut text);
    parse_holder(&text, |pid| processes::is_alive(pid).then(|| processes::comm(pid)))
}

pub(crate) fn parse_holder(text: &str, alive: impl Fn(u32) -> Option<String>) -> HeldBy {
    let (pid, command) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
    let living = pid.parse().ok().and_then(|pid| alive(pid).map(|comm| (pid, comm)));
    match living {
        Some((pid, comm)) => {
            HeldBy { pid: Some(pid), command: if command.is_empty() { comm } else { command.to_owned() } }
        }
        // A number left by an earlier holder says nothing about this one.
        None => HeldBy { pid: None, command: String::new() },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_exclusive(&path).unwrap().unwrap();
        let holder = FileLock::try_exclusive(&path).unwrap().unwrap_err();
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(holder.to_string().starts_with(&format!("process {} (", std::process::id())), "{holder}");
        drop(first);
        assert!(FileLock::try_exclusive(&path).unwrap().is_ok());
    }

    #[test]
    fn who_is_at_work_is_seen_and_keeps_what_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, "what it says").unwrap();
        assert_eq!((AtWork::on(&path), AtWork::on(&dir.path().join("none"))), (Some(false), None));
        let work = AtWork::begin(File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(AtWork::on(&path), Some(true));
        drop(work);
        assert_eq!(AtWork::on(&path), Some(false));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "what it says");
    }

    #[test]
    fn a_dead_holders_number_is_not_believed() {
        let dead = |_| None;
        let living = |_| Some("dmpool".to_owned());
        assert_eq!(parse_holder("12 dmpool grow p0 200G\n", dead).pid, None);
        let held = parse_holder("12 dmpool grow p0 200G\n", living);
        assert_eq!(held, HeldBy { pid: Some(12), command: "dmpool grow p0 200G".to_owned() });
        assert_eq!(parse_holder("12", living).command, "dmpool");
        assert_eq!(parse_holder("", living).pid, None);
        assert_eq!(parse_holder("\0\u{fffd} x", living).pid, None);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(FileLock::try_exclusive(&path).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
