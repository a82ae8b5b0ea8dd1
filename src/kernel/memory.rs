//! Memory, and files that are in it alone.

use std::fs::{self, File};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Called, KernelError};
use crate::units::Bytes;

/// Makes a file that is nowhere but in memory, and goes with the last who has it open. It has room for what is written.
///
/// # Errors
/// As `memfd_create(2)` and ftruncate(2); `ENOSYS` before Linux 3.17.
pub fn file(name: &str, length: Bytes) -> Result<File, KernelError> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).called("memfd_create", name)?);
    file.set_len(length.get()).called("ftruncate", name)?;
    Ok(file)
}

/// Returns how much memory can be had without swapping (`MemAvailable`; before Linux 3.14 what is free and cached).
///
/// # Errors
/// When /proc does not say.
pub fn available() -> Result<Bytes, KernelError> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).called("read", path)?;
    of_meminfo(&text).ok_or(Errno::EINVAL).called("read", path)
}

fn of_meminfo(text: &str) -> Option<Bytes> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let old = || Some(field("MemFree")?.saturating_add(field("Cached")?));
    field("MemAvailable").or_else(old).and_then(|kib| kib.checked_mul(1024)).map(Bytes::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_file_in_memory_is_a_file() {
        let made = file("test", Bytes::new(1 << 20)).unwrap();
        made.write_all_at(b"x", 1 << 19).unwrap();
        assert_eq!(made.metadata().unwrap().len(), 1 << 20);
    }

    #[test]
    fn what_can_be_had_is_in_kibibytes() {
        assert_eq!(of_meminfo("MemFree: 3 kB\nMemAvailable:  20 kB\n"), Some(Bytes::new(20 << 10)));
        assert_eq!(of_meminfo("MemFree: 3 kB\nCached: 4 kB\n"), Some(Bytes::new(7 << 10)));
        assert_eq!(of_meminfo("MemFree: x\n"), None);
        assert!(available().unwrap() > Bytes::new(1 << 20));
    }
}
