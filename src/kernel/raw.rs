//! The system calls that need `unsafe`, each behind a function that cannot be called wrongly.

#![allow(unsafe_code, reason = "this module is where the unsafe calls of dmpool are, one a block")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_ulong, c_ushort};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid};

/// Length of `struct dm_ioctl` (linux/dm-ioctl.h), the header of every device-mapper ioctl.
pub(super) const DM_HEADER: usize = 312;
/// Length of `struct loop_info64` (linux/loop.h).
pub(super) const LOOP_INFO64: usize = 232;
/// Length of `struct loop_config` (linux/loop.h).
pub(super) const LOOP_CONFIG: usize = 304;

/// Length of `struct xfs_fsop_geom_v1` (fs/xfs/libxfs/xfs_fs.h).
pub(super) const XFS_GEOMETRY: usize = 112;

/// Where `data_size` stands in `struct dm_ioctl`.
const DM_DATA_SIZE: std::ops::Range<usize> = 12..16;

/// Issues one device-mapper ioctl with `buffer` as header and payload. Allocates nothing.
///
/// # Errors
/// The kernel's errno; EINVAL without a call when the buffer is shorter than a header.
pub(super) fn dm(fd: BorrowedFd<'_>, command: u8, buffer: &mut [u8]) -> Result<(), Errno> {
    let size = u32::try_from(buffer.len()).map_err(|_| Errno::EINVAL)?;
    if buffer.len() < DM_HEADER {
        return Err(Errno::EINVAL);
    }
    // The kernel believes this field: it is written here, from the slice itself, and nowhere else.
    buffer.get_mut(DM_DATA_SIZE).ok_or(Errno::EINVAL)?.copy_from_slice(&size.to_ne_bytes());
    let request = nix::request_code_readwrite!(0xfd, command, DM_HEADER);
    // SAFETY: the kernel copies at most `data_size` bytes in and out, which is the length of the slice.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, buffer.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// Issues a loop or block ioctl whose argument is a plain number; returns what the kernel returned.
fn with_number(fd: BorrowedFd<'_>, request: c_ulong, argument: c_ulong) -> Result<c_int, Errno> {
    // SAFETY: the callers below pass only requests whose argument is a number that no memory hangs on.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    Errno::result(result)
}

/// `LOOP_CTL_GET_FREE`: returns the number of an unbound loop device, made if need be.
pub(super) fn loop_get_free(control: BorrowedFd<'_>) -> Result<c_int, Errno> {
    with_number(control, 0x4C82, 0)
}

/// `LOOP_SET_CAPACITY`: tells the loop device to look at its file's size again.
pub(super) fn loop_set_capacity(device: BorrowedFd<'_>) -> Result<(), Errno> {
    with_number(device, 0x4C07, 0).map(drop)
}

/// `LOOP_CLR_FD`: takes the file away, now or when the last user closes the device.
pub(super) fn loop_clear(device: BorrowedFd<'_>) -> Result<(), Errno> {
    with_number(device, 0x4C01, 0).map(drop)
}

/// `LOOP_GET_STATUS64`: returns the bytes of the `struct loop_info64`.
pub(super) fn loop_get_status(device: BorrowedFd<'_>) -> Result<[u8; LOOP_INFO64], Errno> {
    let mut info = [0_u8; LOOP_INFO64];
    // SAFETY: the kernel writes one `struct loop_info64`, which is as long as the array.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), 0x4C05, info.as_mut_ptr()) };
    Errno::result(result).map(|_| info)
}

/// `LOOP_CONFIGURE` (5.8 and later): binds the file and sets all options in one call.
pub(super) fn loop_configure(device: BorrowedFd<'_>, config: &[u8; LOOP_CONFIG]) -> Result<(), Errno> {
    // SAFETY: the kernel reads one `struct loop_config`, which is as long as the array.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), 0x4C0A, config.as_ptr()) };
    Errno::result(result).map(drop)
}

/// `BLKGETSIZE64`: returns the device's length in bytes.
pub(super) fn block_size64(device: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut bytes = 0_u64;
    let request = nix::request_code_read!(0x12, 114, size_of::<libc::size_t>());
    // SAFETY: the kernel writes one u64.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut bytes) };
    Errno::result(result).map(|_| bytes)
}

/// `BLKDISCARD`: gives a range of the device back, in bytes.
pub(super) fn discard(device: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Errno> {
    let range = [offset, length];
    let request = nix::request_code_none!(0x12, 119);
    // SAFETY: the kernel reads two u64.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, range.as_ptr()) };
    Errno::result(result).map(drop)
}

/// `XFS_IOC_FSGEOMETRY_V1`: returns the bytes of the `struct xfs_fsop_geom_v1`.
pub(super) fn xfs_geometry(root: BorrowedFd<'_>) -> Result<[u8; XFS_GEOMETRY], Errno> {
    let mut geometry = [0_u8; XFS_GEOMETRY];
    let request = nix::request_code_read!(b'X', 100, XFS_GEOMETRY);
    // SAFETY: the kernel writes one `struct xfs_fsop_geom_v1`, which is as long as the array.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), request, geometry.as_mut_ptr()) };
    Errno::result(result).map(|_| geometry)
}

/// `XFS_IOC_FSGROWFSDATA`: makes a mounted XFS that many blocks long; the bytes are a `struct xfs_growfs_data`.
pub(super) fn xfs_grow(root: BorrowedFd<'_>, growth: &[u8; 16]) -> Result<(), Errno> {
    let request = nix::request_code_write!(b'X', 110, 16);
    // SAFETY: the kernel reads one `struct xfs_growfs_data`, which is as long as the array.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), request, growth.as_ptr()) };
    Errno::result(result).map(drop)
}

/// `EXT4_IOC_RESIZE_FS` (3.3 and later): makes a mounted ext4 that many blocks long.
pub(super) fn ext4_resize(root: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    let request = nix::request_code_write!(b'f', 16, size_of::<u64>());
    // SAFETY: the kernel reads one u64.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), request, &raw const blocks) };
    Errno::result(result).map(drop)
}

/// `FS_IOC_GETFLAGS`: returns the flags of an open file or folder, as chattr(1) has them.
pub(super) fn inode_flags(file: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut flags = [0_u32; 2];
    let request = nix::request_code_read!(b'f', 1, size_of::<libc::c_long>());
    // SAFETY: the kernel writes an int, or on some architectures a long: the array has room for either.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, flags.as_mut_ptr()) };
    Errno::result(result).map(|_| flags[0])
}

/// `FS_IOC_SETFLAGS`: gives an open file or folder these flags.
pub(super) fn set_inode_flags(file: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    let flags = [flags, 0];
    let request = nix::request_code_write!(b'f', 2, size_of::<libc::c_long>());
    // SAFETY: the kernel reads an int, or a long, and the array is as long as either.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, flags.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Returns the id of the process that last operated on the first semaphore of the set.
pub(super) fn semaphore_last_pid(set: c_int) -> Result<c_int, Errno> {
    // SAFETY: GETPID takes no fourth argument.
    let result = unsafe { libc::semctl(set, 0, libc::GETPID) };
    Errno::result(result)
}

/// Returns the value of the first semaphore of the set.
pub(super) fn semaphore_value(set: c_int) -> Result<c_int, Errno> {
    // SAFETY: GETVAL takes no fourth argument.
    let result = unsafe { libc::semctl(set, 0, libc::GETVAL) };
    Errno::result(result)
}

/// Takes one from the first semaphore of the set without waiting; who waits for zero goes on.
pub(super) fn semaphore_take(set: c_int) -> Result<(), Errno> {
    let sem_flg = libc::c_short::try_from(libc::IPC_NOWAIT).map_err(|_| Errno::EINVAL)?;
    let mut operation = libc::sembuf { sem_num: 0 as c_ushort, sem_op: -1, sem_flg };
    // SAFETY: one sembuf, as the count says.
    let result = unsafe { libc::semop(set, &raw mut operation, 1) };
    Errno::result(result).map(drop)
}

/// Borrows the descriptor of a value that only has the older `AsRawFd`.
pub(super) fn borrow_fd<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as its owner lives, and the borrow lives no longer.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Forks; the child runs `body` and ends with what it returns, without any cleanup of the parent's.
///
/// `body` must not allocate, lock or unwind: other threads of the parent may have held locks.
pub(super) fn fork_running(body: impl FnOnce() -> c_int) -> Result<Pid, Errno> {
    // SAFETY: the child runs only `body`, which by contract makes bare system calls, and then `_exit`.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = body();
            // SAFETY: `_exit` may always be called; no destructor of the parent's may run twice.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Closes a descriptor that a forked child inherited and nobody in the child owns.
pub(super) fn close_inherited(fd: c_int) {
    // SAFETY: called in the child right after the fork, whose owner of the descriptor never runs again.
    unsafe { libc::close(fd) };
}

/// Returns the signals that have come while they were blocked.
pub(super) fn pending_signals() -> Result<SigSet, Errno> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the kernel writes one signal set.
    let result = unsafe { libc::sigpending(set.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all zeros is a signal set already, and the call above has filled it.
    let set = unsafe { set.assume_init() };
    // SAFETY: the kernel filled it, so it is a valid set.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

extern "C" fn nothing(_: c_int) {}

/// Lets SIGALRM interrupt the system call it comes in, instead of ending the process; returns what it did before.
pub(super) fn alarm_interrupts() -> Result<SigAction, Errno> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it may run anywhere.
    unsafe { sigaction(Signal::SIGALRM, &action) }
}

/// Lets SIGALRM do again what it did before.
pub(super) fn alarm_acts(before: &SigAction) -> Result<(), Errno> {
    // SAFETY: the handler is the one that the process had.
    unsafe { sigaction(Signal::SIGALRM, before) }.map(drop)
}

/// Waits until something can be read, or the other end is closed; returns whether one of them came before the limit.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, milliseconds: c_int) -> Result<bool, Errno> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, as the count says.
    let result = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    Errno::result(result).map(|ready| ready > 0)
}

/// Has a program begin with no signal held back, whatever its parent holds: what it starts itself would inherit that too.
pub fn without_held_signals(command: &mut Command) {
    let none = || SigSet::empty().thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec the closure makes one system call (sigprocmask), and neither allocates nor locks.
    unsafe { command.pre_exec(none) };
}
