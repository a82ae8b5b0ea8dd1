//! Opening device-mapper, and saying exactly why it cannot be opened.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::kernel::errno_from;
use crate::kernel::identity::{self, ModuleState};

/// The character device all device-mapper ioctls go through.
pub const CONTROL: &str = "/dev/mapper/control";

/// Major number of "misc" character devices (`MISC_MAJOR`, linux/major.h).
const MISC_MAJOR: u64 = 10;

/// Why device-mapper cannot be used on this machine, now, by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DmUnavailable {
    /// The process may not use it.
    NotRoot,
    /// The running kernel has no device-mapper, and did not load it when asked.
    NoKernelSupport {
        /// The module that brings it.
        module: &'static str,
        /// Whether the machine has that module for the running kernel: `modprobe MODULE` helps then.
        loadable: bool,
    },
    /// The kernel has it, but `/dev/mapper/control` is missing and could not be made.
    NoControlNode {
        /// Why it could not be made.
        why: String,
    },
    /// Anything else.
    Other {
        /// What the kernel answered.
        errno: Errno,
        /// The call that failed.
        call: &'static str,
    },
}

impl fmt::Display for DmUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => write!(f, "device-mapper may only be used by root (with CAP_SYS_ADMIN)"),
            Self::NoKernelSupport { module, loadable: true } => {
                write!(f, "the running kernel has not loaded device-mapper, the module `{module}`")
            }
            Self::NoKernelSupport { module, loadable: false } => write!(
                f,
                "the running kernel has no device-mapper: the module `{module}` is neither loaded, nor built in, nor installed"
            ),
            Self::NoControlNode { why } => {
                write!(f, "the kernel has device-mapper, but {CONTROL} is missing and could not be made: {why}")
            }
            Self::Other { errno, call } => {
                write!(f, "{errno:?} ({}) from {call} on {CONTROL}", errno.desc())
            }
        }
    }
}

impl std::error::Error for DmUnavailable {}

/// Opens the control device. Opening it loads the module where it can be loaded (the node is static there).
pub(super) fn control() -> Result<File, DmUnavailable> {
    match open_control() {
        Ok(file) => Ok(file),
        Err(e) => match errno_from(&e) {
            Errno::ENOENT => {
                make_control()?;
                open_control().map_err(|e| DmUnavailable::NoControlNode { why: e.to_string() })
            }
            Errno::ENODEV | Errno::ENXIO => Err(no_kernel_support()),
            // A device cgroup says EPERM to root too; only who is not root is told so.
            Errno::EACCES | Errno::EPERM if !nix::unistd::geteuid().is_root() => Err(DmUnavailable::NotRoot),
            errno => Err(DmUnavailable::Other { errno, call: "open" }),
        },
    }
}

fn no_kernel_support() -> DmUnavailable {
    let module = "dm_mod";
    DmUnavailable::NoKernelSupport { module, loadable: identity::module_state(module) == ModuleState::Loadable }
}

fn open_control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// Makes the control node as libdevmapper does, when the kernel says which number it has.
fn make_control() -> Result<(), DmUnavailable> {
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let Some(minor) = misc_minor(&misc, "device-mapper") else {
        return Err(if nix::unistd::geteuid().is_root() { no_kernel_support() } else { DmUnavailable::NotRoot });
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(DmUnavailable::NotRoot);
    }
    let failed = |why: String| DmUnavailable::NoControlNode { why };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create("/dev/mapper")
        .map_err(|e| failed(format!("making /dev/mapper: {e}")))?;
    match mknod(Path::new(CONTROL), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(MISC_MAJOR, minor)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(failed(format!("{errno:?} ({}) from mknod", errno.desc()))),
    }
}

/// Returns the minor number that /proc/misc gives for a driver.
pub(crate) fn misc_minor(misc: &str, driver: &str) -> Option<u64> {
    misc.lines().find_map(|line| {
        let (minor, name) = line.trim().split_once(' ')?;
        (name.trim() == driver).then(|| minor.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_number_is_found_in_proc_misc() {
        let misc = "237 loop-control\n 58 device-mapper\n236 device-mapper-x\n";
        assert_eq!(misc_minor(misc, "device-mapper"), Some(58));
        assert_eq!(misc_minor(misc, "loop-control"), Some(237));
        assert_eq!(misc_minor("58 device", "device-mapper"), None);
        assert_eq!(misc_minor("x device-mapper\n", "device-mapper"), None);
    }
}
