//! File systems that are mounted where nobody sees them: in a mount namespace of one thread, which ends with it. What is
//! left is an open folder, and the file system is unmounted when the last folder and file of it is closed, however this
//! process ends.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::folder::Folder;
use super::{Called, KernelError, mounts};

/// What is mounted over, in that namespace and for a moment: every machine has it.
const PLACE: &str = "/proc";

const HARMLESS: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME);

const NONE: Option<&str> = None;

/// Mounts a device read-only, without device nodes, set-user-id or programs, and returns the root of its file system.
///
/// # Errors
/// As unshare(2) and mount(2): `EROFS` when the file system wants to write first, as one does whose log is not empty.
pub fn mounted(device: &Path, kind: &'static str, options: &str) -> Result<Folder, KernelError> {
    on(device, kind, HARMLESS, options)
}

/// As [`mounted`], and writable: its log is replayed, and it can be made longer.
///
/// # Errors
/// As unshare(2) and mount(2).
pub fn mounted_to_write(device: &Path, kind: &'static str, options: &str) -> Result<Folder, KernelError> {
    on(device, kind, HARMLESS.difference(MsFlags::MS_RDONLY), options)
}

fn on(device: &Path, kind: &'static str, flags: MsFlags, options: &str) -> Result<Folder, KernelError> {
    let (device, options) = (device.to_owned(), options.to_owned());
    in_thread(move || {
        alone()?;
        mount(Some(&device), PLACE, Some(kind), flags, Some(options.as_str())).called("mount", device.display())?;
        taken()
    })
}

/// Returns the folder that is mounted at a path in another process's mount namespace, without what is mounted below it.
///
/// # Errors
/// As setns(2) and mount(2).
pub fn as_seen_by(pid: u32, mount_point: &Path) -> Result<Folder, KernelError> {
    let mount_point = mount_point.to_owned();
    in_thread(move || {
        let path = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
        let namespace = std::fs::File::open(&path).called("open", path.display())?;
        unshare(CloneFlags::CLONE_FS).called("unshare", "CLONE_FS")?;
        setns(namespace, CloneFlags::CLONE_NEWNS).called("setns", path.display())?;
        alone()?;
        mount(Some(&mount_point), PLACE, NONE, MsFlags::MS_BIND, NONE).called("mount", mount_point.display())?;
        harmless(&mount_point)?;
        taken()
    })
}

/// Returns the folder at a path so that nothing that is read in it gets an access time: that of a symbolic link changes
/// whatever way it is read, unless its mount says otherwise.
///
/// # Errors
/// As unshare(2) and mount(2): `EPERM` for whoever may not mount. `EXDEV` when something is mounted below it: with the namespace goes
/// the connection to that, and the folder underneath would be read in its place.
pub fn untouched(path: &Path) -> Result<Folder, KernelError> {
    let path = path.canonicalize().called("realpath", path.display())?;
    let is_below = |mount: &mounts::Mount| mount.mount_point.starts_with(&path) && mount.mount_point != path;
    if mounts::own().map_err(|_| Errno::EIO).called("read", "mountinfo")?.iter().any(is_below) {
        return Err(Errno::EXDEV).called("mount", path.display());
    }
    in_thread(move || {
        unshare(CloneFlags::CLONE_FS).called("unshare", "CLONE_FS")?;
        alone()?;
        mount(Some(&path), PLACE, NONE, MsFlags::MS_BIND, NONE).called("mount", path.display())?;
        harmless(&path)?;
        taken()
    })
}

fn harmless(from: &Path) -> Result<(), KernelError> {
    mount(NONE, PLACE, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | HARMLESS, NONE).called("mount", from.display())
}

/// Leaves all others: no mount of theirs comes in, none of ours goes out.
fn alone() -> Result<(), KernelError> {
    unshare(CloneFlags::CLONE_NEWNS).called("unshare", "CLONE_NEWNS")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).called("mount", "/")
}

fn taken() -> Result<Folder, KernelError> {
    let folder = Folder::open(Path::new(PLACE))?;
    umount2(PLACE, MntFlags::MNT_DETACH).called("umount2", PLACE)?;
    Ok(folder)
}

fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    let started = thread::Builder::new().spawn(work).map_err(|e: Error| e).called("clone", "a thread")?;
    started.join().unwrap_or_else(|_| Err(Errno::EIO).called("join", "a thread"))
}
