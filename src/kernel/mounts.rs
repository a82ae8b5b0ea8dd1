//! Mounts: what `/proc/PID/mountinfo` says, in this mount namespace and in all others.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Called, DevNo, is_gone, processes, read_whole};

/// One mount: a line of mountinfo (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Its number, unique while it is mounted.
    pub id: u32,
    /// The number of the mount it is on.
    pub parent: u32,
    /// What `stat` says as `st_dev` of its files; btrfs and overlay have numbers of no device here.
    pub devno: DevNo,
    /// Which folder of the file system is mounted.
    pub root: PathBuf,
    /// Where, as seen from the root of the process asked.
    pub mount_point: PathBuf,
    /// The options of this mount: `rw,noatime`.
    pub options: String,
    /// The file system's type: `ext4`.
    pub fs_type: String,
    /// What was mounted, as the mounter named it.
    pub source: PathBuf,
    /// The options of the file system: `rw,errors=continue`.
    pub fs_options: String,
}

/// A mount, and a process that sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountSeen {
    /// The mount.
    pub mount: Mount,
    /// The mount namespace, by what `/proc/PID/ns/mnt` leads to: `mnt:[4026531840]`.
    pub namespace: String,
    /// The lowest process id in that namespace with that root.
    pub pid: u32,
    /// That process's name.
    pub comm: String,
}

/// Reads the mounts of a text of mountinfo. Lines that are none are left out.
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut text = || Some(String::from_utf8_lossy(fields.next()?).into_owned());
    let (id, parent, devno) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?.parse().ok()?);
    let root = unescaped(fields.next()?);
    let mount_point = unescaped(fields.next()?);
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    // Any number of optional fields, then a dash.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescaped(fields.next()?);
    let fs_options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    Some(Mount { id, parent, devno, root, mount_point, options, fs_type, source, fs_options })
}

/// Takes the kernel's escapes back: blank, tab, newline, backslash and # stand as `\040` (`mangle_path`, fs/seq_file.c).
pub(super) fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escape = (*first == b'\\').then(|| tail.get(..3).and_then(octal)).flatten();
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// Returns the mounts that this process sees, in the order they were made.
///
/// # Errors
/// When /proc cannot be read.
pub fn own() -> Result<Vec<Mount>> {
    of_file(Path::new("/proc/self/mountinfo"))
}

/// Returns the mounts that a process sees; none when it has ended.
///
/// # Errors
/// When /proc cannot be read.
pub fn of_process(pid: u32) -> Result<Vec<Mount>> {
    of_file(Path::new(&format!("/proc/{pid}/mountinfo")))
}

fn of_file(path: &Path) -> Result<Vec<Mount>> {
    match read_whole(path) {
        Ok(text) => Ok(parse(&text)),
        // EINVAL: the process is ending and has no namespace any more (mounts_open_common, fs/proc_namespace.c).
        Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(e) => Err(e).called("read", path.display()).context("reading the mounts"),
    }
}

/// Returns where a block device is mounted, in every mount namespace that a process is in.
///
/// # Errors
/// As [`everywhere`].
pub fn of_device(devno: DevNo) -> Result<Vec<MountSeen>> {
    let mut seen = everywhere()?;
    seen.retain(|seen| seen.mount.is_of(devno));
    Ok(seen)
}

/// Returns every mount of every mount namespace that a process is in.
///
/// A namespace that only a file or an open descriptor keeps is not seen.
///
/// # Errors
/// When /proc cannot be read.
pub fn everywhere() -> Result<Vec<MountSeen>> {
    let mut views = BTreeSet::new();
    let mut known = BTreeSet::new();
    let mut found: Vec<MountSeen> = Vec::new();
    for pid in processes::all()? {
        let link = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).ok();
        // A process that was chrooted sees less of its namespace than others in it: each root is a view of its own.
        let (Some(namespace), Some(root)) = (link("ns/mnt"), link("root")) else { continue };
        let namespace = namespace.to_string_lossy().into_owned();
        if !views.insert((namespace.clone(), root)) {
            continue;
        }
        let comm = processes::comm(pid);
        for mount in of_process(pid)? {
            if known.insert((namespace.clone(), mount.id)) {
                found.push(MountSeen { mount, namespace: namespace.clone(), pid, comm: comm.clone() });
            }
        }
    }
    found.sort();
    Ok(found)
}

impl Mount {
    /// Returns whether it is of the device: by its number, or where that is of no device (btrfs) by its source.
    pub fn is_of(&self, devno: DevNo) -> bool {
        let source_is = || {
            fs::metadata(&self.source)
                .is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_dev_t(m.rdev()) == devno)
        };
        self.devno == devno || (self.devno.major == 0 && self.source.starts_with("/dev") && source_is())
    }
}

/// Returns the name of this process's mount namespace, as [`MountSeen::namespace`] has it.
pub fn own_namespace() -> Option<String> {
    fs::read_link("/proc/self/ns/mnt").ok().map(|namespace| namespace.to_string_lossy().into_owned())
}

/// Returns the mount that a path is on, given the mounts this process sees.
pub fn mount_of<'m>(mounts: &'m [Mount], canonical: &Path) -> Option<&'m Mount> {
    // The deepest mount point; of several on the same folder the last hides the others.
    let depth = |m: &&Mount| m.mount_point.components().count();
    mounts.iter().filter(|m| canonical.starts_with(&m.mount_point)).max_by_key(depth)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        36 22 98:0 /mnt1 /mnt\\040two rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n\
        37 22 0:45 / /x\\134y\\012z rw - tmpfs tmpfs\n\
        38 22 0:46 / /mnt\\040two ro - xfs /dev/mapper/a#b ro,nouuid\n\
        a broken line\n\n";

    #[test]
    fn lines_are_read_as_proc_says_them() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[1].devno, DevNo::new(98, 0));
        assert_eq!(mounts[1].mount_point, Path::new("/mnt two"));
        assert_eq!((mounts[1].root.as_path(), mounts[1].fs_type.as_str()), (Path::new("/mnt1"), "ext3"));
        assert_eq!(mounts[1].fs_options, "rw,errors=continue");
        assert_eq!(mounts[2].mount_point, Path::new("/x\\y\nz"));
        assert_eq!(mounts[2].fs_options, "");
    }

    #[test]
    fn a_path_is_on_the_deepest_mount_made_last() {
        let mounts = parse(TEXT);
        let id = |path: &str| mount_of(&mounts, Path::new(path)).map(|m| m.id);
        assert_eq!(id("/mnt two/file"), Some(38));
        assert_eq!(id("/mnt twofold"), Some(22));
        assert_eq!(id("/"), Some(22));
    }

    #[test]
    fn this_process_sees_its_root() {
        let mounts = own().unwrap();
        assert!(mount_of(&mounts, Path::new("/proc/self")).is_some_and(|m| m.fs_type == "proc"), "{mounts:?}");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn escapes_are_taken_back(path in "[a-z \\\\\t\n#]{0,20}") {
            let escaped: String = path
                .chars()
                .map(|c| if c.is_ascii_lowercase() { c.to_string() } else { format!("\\{:03o}", u32::from(c)) })
                .collect();
            prop_assert_eq!(unescaped(escaped.as_bytes()), PathBuf::from(path));
        }
    }
}
