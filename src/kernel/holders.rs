//! Who keeps a block device open: what a refusal to take it down has to name.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{DevNo, ask, block, loopdev, mounts, processes, read_if_there};

/// Something that keeps a block device open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Holder {
    /// Another block device stands on it.
    Device {
        /// Its number.
        devno: DevNo,
        /// Its device-mapper name, or the kernel's name.
        name: String,
    },
    /// It is mounted.
    Mount {
        /// Where, as that process sees it.
        mount_point: PathBuf,
        /// A process in the mount namespace.
        pid: u32,
        /// That process's name.
        comm: String,
        /// Whether it is another mount namespace than ours.
        elsewhere: bool,
    },
    /// It is swapped on.
    Swap {
        /// The name it was swapped on by.
        path: PathBuf,
    },
    /// A loop device has it as its file.
    Loop {
        /// The loop device.
        devno: DevNo,
    },
    /// A process has it open.
    Process {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A process is in the file system on it, which is mounted nowhere any more (`umount -l`).
    Detached {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// What it has there, as the kernel names it now.
        path: PathBuf,
    },
    /// A mount namespace that no process is in: whether it is mounted there cannot be seen from here.
    Namespace {
        /// The file that keeps it.
        path: PathBuf,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { devno, name } => write!(f, "device {name} ({devno})"),
            Self::Mount { mount_point, elsewhere: false, .. } => write!(f, "mount {}", mount_point.display()),
            Self::Mount { mount_point, pid, comm, elsewhere: true } => {
                write!(f, "mount {} in the mount namespace of {comm} (process {pid})", mount_point.display())
            }
            Self::Swap { path } => write!(f, "swap {}", path.display()),
            Self::Loop { devno } => write!(f, "loop device loop{} ({devno})", devno.minor),
            Self::Process { pid, comm } => write!(f, "process {pid} ({comm})"),
            Self::Detached { pid, comm, path } => {
                write!(
                    f,
                    "process {pid} ({comm}), in a file system on it that was unmounted with -l: {}",
                    path.display()
                )
            }
            Self::Namespace { path } => {
                let path = path.display();
                write!(
                    f,
                    "somebody unseen, perhaps a mount in the namespace that {path} keeps: nsenter --mount={path} findmnt"
                )
            }
        }
    }
}

/// Returns who keeps a block device open, in a fixed order, this process left out.
///
/// Root sees all but: mounts in a namespace that no process is in, and what the kernel itself opened (an export over
/// NFS, iSCSI or NVMe, a RAID). An empty answer beside an open count above zero means one of those.
///
/// # Errors
/// When /proc or /sys cannot be read; processes that end meanwhile are no error.
pub fn of(devno: DevNo) -> Result<Vec<Holder>> {
    let mut holders = Vec::new();
    for upper in block::holders(devno)? {
        holders.push(Holder::Device { devno: upper, name: name_of(upper) });
    }
    let own = mounts::own_namespace();
    for seen in mounts::of_device(devno)? {
        let elsewhere = own.as_ref() != Some(&seen.namespace);
        holders.push(Holder::Mount { mount_point: seen.mount.mount_point, pid: seen.pid, comm: seen.comm, elsewhere });
    }
    holders.extend(swaps()?.into_iter().filter(|p| is_device(p, devno)).map(|path| Holder::Swap { path }));
    // A file in the file system on it keeps that too, also where it was unmounted with -l.
    let on_it = |info: &loopdev::LoopInfo| info.backing_rdev == Some(devno) || info.backing_dev == devno;
    holders.extend(loopdev::list()?.iter().filter(|i| on_it(i)).map(|i| Holder::Loop { devno: i.devno }));
    for pid in processes::all()? {
        if pid != std::process::id() && has_open(pid, devno) {
            holders.push(Holder::Process { pid, comm: processes::comm(pid) });
        }
    }
    if holders.is_empty() {
        holders = hidden(devno);
    }
    holders.sort();
    holders.dedup();
    Ok(holders)
}

/// Returns who has files in the file system on a device without its being mounted anywhere, and the namespaces that cannot be
/// looked into. Asking about a file may hang (a dead server's), so a child asks.
fn hidden(devno: DevNo) -> Vec<Holder> {
    let looked = ask::within_limit(|| {
        let of_process =
            |pid: u32| Some(Holder::Detached { pid, comm: processes::comm(pid), path: file_on(pid, devno)? });
        processes::all().unwrap_or_default().into_iter().filter_map(of_process).collect::<Vec<_>>()
    });
    let mut found = looked.unwrap_or_default();
    if found.is_empty() {
        let kept = mounts::everywhere().unwrap_or_default().into_iter().map(|seen| seen.mount);
        let kept = kept.filter(|mount| mount.fs_type == "nsfs" && mount.root.to_string_lossy().starts_with("mnt:"));
        found.extend(kept.map(|mount| Holder::Namespace { path: mount.mount_point }));
    }
    found
}

/// Returns something that a process has in the file system on a device: its directory, its root, an open or a mapped file.
fn file_on(pid: u32, devno: DevNo) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open =
        |folder: &str| fs::read_dir(process.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = ["cwd", "root", "exe"].map(|name| process.join(name));
    let links = named.into_iter().chain(open("fd")).chain(open("map_files"));
    let is_on = |link: &PathBuf| fs::metadata(link).is_ok_and(|found| DevNo::from_dev_t(found.dev()) == devno);
    links.into_iter().find(is_on).and_then(|link| fs::read_link(link).ok())
}

fn name_of(devno: DevNo) -> String {
    let dm = read_if_there(&block::sysfs(devno).join("dm/name")).ok().flatten();
    dm.or_else(|| block::name(devno)).unwrap_or_else(|| devno.to_string())
}

/// Returns the devices and files that are swapped on, by the names they were swapped on by.
///
/// # Errors
/// When /proc cannot be read.
pub fn swaps() -> Result<Vec<PathBuf>> {
    let swaps = read_if_there(Path::new("/proc/swaps"))?.unwrap_or_default();
    Ok(parse_swaps(swaps.as_bytes()))
}

/// Returns the names in /proc/swaps.
pub(crate) fn parse_swaps(text: &[u8]) -> Vec<PathBuf> {
    let first_column = |line: &[u8]| {
        let end = line.iter().position(|b| matches!(b, b' ' | b'\t'))?;
        line.get(..end).map(mounts::unescaped)
    };
    text.split(|b| *b == b'\n').skip(1).filter_map(first_column).collect()
}

fn is_device(path: &Path, devno: DevNo) -> bool {
    fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_dev_t(m.rdev()) == devno)
}

/// Whether a process has the device open. Only descriptors that lead to a device folder are looked at: asking about a
/// file on a dead NFS server would hang.
fn has_open(pid: u32, devno: DevNo) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        let device_folder = |target: PathBuf| target.as_os_str().as_bytes().windows(5).any(|w| w == b"/dev/");
        fs::read_link(&path).is_ok_and(device_folder) && is_device(&path, devno)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn swaps_are_read_with_their_escapes() {
        let text = b"Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/dev/dm-1   partition\t1000\t0\t-2\n/a\\040b file\t1\t0\t-3\n";
        assert_eq!(parse_swaps(text), [PathBuf::from("/dev/dm-1"), PathBuf::from("/a b")]);
        assert_eq!(parse_swaps(b""), Vec::<PathBuf>::new());
    }

    #[test]
    fn nobody_holds_what_is_not_there() {
        assert_eq!(of(DevNo::new(4000, 99)).unwrap(), []);
    }
}
