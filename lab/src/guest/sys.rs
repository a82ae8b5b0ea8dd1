//! What tests ask the kernel and its programs: dm devices, loop devices, mounts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::run::{Cmd, Ran};

/// Every name that a test gives to a device, file, directory or mount begins with this.
pub const PREFIX: &str = "dmpool-test-";

/// Whether a udevd runs that would complete dmsetup's cookies.
///
/// Its control socket alone says nothing: it stays behind when udevd dies, and dmsetup then waits for ever.
#[must_use]
pub fn udev_answers() -> bool {
    // The socket is SOCK_SEQPACKET, which std cannot connect to; /proc/net/unix shows who listens (__SO_ACCEPTCON).
    fs::read_to_string("/proc/net/unix")
        .is_ok_and(|text| text.lines().any(|line| line.ends_with(" /run/udev/control") && line.contains(" 00010000 ")))
}

/// `dmsetup` with these arguments; without udevd it makes the nodes under /dev/mapper itself.
#[must_use]
pub fn dmsetup<I, S>(args: I) -> Cmd
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let cmd = Cmd::new("dmsetup").args(args);
    if udev_answers() { cmd } else { cmd.env("DM_DISABLE_UDEV", "1") }
}

/// The names of all dm devices, in the kernel's order (the youngest minor is not always last).
///
/// # Errors
/// When dmsetup fails, as without device-mapper in the kernel.
pub fn dm_names() -> Result<Vec<String>> {
    let ran = dmsetup(["info", "-c", "--noheadings", "-o", "name"]).run().checked()?;
    Ok(ran
        .stdout
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && *l != "No devices found")
        .map(Into::into)
        .collect())
}

/// Whether a dm device of this name exists.
///
/// # Errors
/// As [`dm_names`].
pub fn dm_exists(name: &str) -> Result<bool> {
    Ok(dm_names()?.iter().any(|n| n == name))
}

/// One bound loop device, as sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// `/dev/loopN`.
    pub device: PathBuf,
    /// The backing file, with ` (deleted)` after it when it is.
    pub file: String,
    /// Size in 512-byte sectors.
    pub sectors: u64,
    /// Offset and size limit in bytes, then the flags autoclear, read-only, partscan, direct I/O, as one line.
    pub flags: String,
}

/// All bound loop devices, by number.
///
/// # Errors
/// When /sys/block cannot be read.
pub fn loops() -> Result<Vec<Loop>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("cannot list /sys/block")? {
        let dir = entry?.path();
        let Some(number) = number_of(&dir) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).map(|text| text.trim_end().to_owned());
        // Unbound, or unbound while we looked.
        let Ok(file) = read("loop/backing_file") else {
            continue;
        };
        let say = |name: &str, file: &str| format!("{name}={} ", read(file).unwrap_or_else(|_| "?".into()));
        let flags = [
            say("offset", "loop/offset"),
            say("limit", "loop/sizelimit"),
            say("autoclear", "loop/autoclear"),
            say("ro", "ro"),
            say("partscan", "loop/partscan"),
            say("dio", "loop/dio"),
        ];
        let sectors = read("size").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
        let device = PathBuf::from(format!("/dev/loop{number}"));
        found.push((number, Loop { device, file, sectors, flags: flags.concat().trim_end().to_owned() }));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, device)| device).collect())
}

fn number_of(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix("loop")?.parse().ok()
}

/// One mount of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, unescaped.
    pub point: PathBuf,
    /// The file system type.
    pub kind: String,
    /// What is mounted, unescaped (a device, or a word like `tmpfs`).
    pub source: String,
}

/// The mounts of this process, oldest first.
///
/// # Errors
/// When /proc/self/mountinfo cannot be read.
pub fn mounts() -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

/// One line of mountinfo, proc(5); `None` for what does not look like one.
fn parse_mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut tail = tail.split(' ');
    Some(Mount {
        point: PathBuf::from(unescape(head.split(' ').nth(4)?)),
        kind: tail.next()?.to_owned(),
        source: unescape(tail.next()?),
    })
}

/// Undoes the kernel's octal escapes of blank, tab, newline and backslash.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The size of a block device or file in bytes.
///
/// # Errors
/// When it cannot be opened for reading.
pub fn size_of(path: &Path) -> Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.seek(SeekFrom::End(0))?)
}

/// Waits for udev to be done with what just happened; does nothing without udevd.
pub fn settle() {
    if udev_answers() {
        let _: Ran = Cmd::new("udevadm").args(["settle", "--timeout=20"]).run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_taken_apart() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/my\011root rw,errors=continue";
        let mount = parse_mount(line);
        assert_eq!(mount, Some(Mount { point: "/mnt 2".into(), kind: "ext3".into(), source: "/dev/my\troot".into() }));
        assert_eq!(parse_mount("nonsense"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounts().is_ok_and(|all| all.iter().any(|m| m.point == Path::new("/"))));
    }
}
