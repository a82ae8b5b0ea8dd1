//! The block devices that a file system is on, also where its files say a number of no device.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use super::{DevNo, block, read_if_there};

/// Where btrfs says which devices each of its file systems has (fs/btrfs/sysfs.c).
const BTRFS: &str = "/sys/fs/btrfs";

/// How many file systems of others may be on top of each other: an overlay on an overlay is refused from the third on
/// (`FILESYSTEM_MAX_STACK_DEPTH`, linux/fs.h).
const LAYERS: usize = 4;

/// Returns the block devices that a file or folder lies on; none where there is no such path, or its file system has no
/// device that could be found out (tmpfs, a server's).
///
/// btrfs and overlay make up the numbers that `stat` says: what was mounted tells then, and what overlay's folders lie on.
pub fn devices_of(path: &Path) -> Vec<DevNo> {
    let Ok(found) = fs::metadata(path) else { return Vec::new() };
    let devno = DevNo::from_dev_t(found.dev());
    if devno.major != 0 {
        return vec![devno];
    }
    // A pipe and a socket are on no mount, whatever path they seem to have.
    if !found.is_file() && !found.is_dir() {
        return Vec::new();
    }
    let (Ok(canonical), Ok(mounts)) = (path.canonicalize(), mounts::own()) else { return Vec::new() };
    let mut devices = of_path(&mounts, &canonical, LAYERS);
    devices.sort_unstable();
    devices.dedup();
    devices
}

fn of_path(mounts: &[Mount], path: &Path, layers: usize) -> Vec<DevNo> {
    let Some(mount) = mounts::mount_of(mounts, path) else { return Vec::new() };
    match mount.fs_type.as_str() {
        _ if mount.devno.major != 0 => vec![mount.devno],
        "overlay" => {
            let Some(layers) = layers.checked_sub(1) else { return Vec::new() };
            folders(&mount.fs_options).iter().flat_map(|folder| of_path(mounts, folder, layers)).collect()
        }
        _ => match block::devno_of(&mount.source) {
            Ok(source) if mount.fs_type == "btrfs" => with_others(source, Path::new(BTRFS)),
            Ok(source) => vec![source],
            Err(_) => Vec::new(),
        },
    }
}

/// Returns the folders that an overlay is made of, by its mount options.
fn folders(options: &str) -> Vec<PathBuf> {
    let value = |option: &str| {
        let (name, value) = option.split_once('=')?;
        matches!(name, "upperdir" | "workdir" | "lowerdir").then(|| value.to_owned())
    };
    let lists = options.split(',').filter_map(value);
    // Several lower folders stand in one list, data-only ones after two colons.
    let folders = lists.flat_map(|list| list.split(':').map(str::to_owned).collect::<Vec<_>>());
    folders.filter(|folder| !folder.is_empty()).map(|folder| mounts::unescaped(folder.as_bytes())).collect()
}

/// Returns the device with those that make one btrfs with it.
fn with_others(source: DevNo, sysfs: &Path) -> Vec<DevNo> {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |device: PathBuf| read_if_there(&device.join("dev")).ok().flatten()?.parse::<DevNo>().ok();
    let sets = list(sysfs).map(|one| list(&one.join("devices")).filter_map(number).collect::<Vec<_>>());
    sets.into_iter().find(|set| set.contains(&source)).unwrap_or_else(|| vec![source])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 8:17 / /srv rw - ext4 /dev/sdb1 rw\n\
        31 22 0:40 / /merged rw - overlay overlay rw,lowerdir=/srv/l\\0401:/opt/l2,upperdir=/srv/u,workdir=/srv/w\n\
        32 31 0:41 / /merged/on rw - overlay over rw,lowerdir=/merged/below\n\
        33 22 0:42 / /run rw - tmpfs tmpfs rw\n\
        34 22 0:43 / /far rw - nfs4 server:/export rw\n";

    #[test]
    fn an_overlay_lies_on_what_its_folders_lie_on() {
        let mounts = mounts::parse(MOUNTS);
        let on = |path: &str| {
            let mut devices = of_path(&mounts, Path::new(path), LAYERS);
            devices.sort_unstable();
            devices.dedup();
            devices
        };
        let (sda1, sdb1) = (DevNo::new(8, 1), DevNo::new(8, 17));
        assert_eq!(on("/srv/x"), [sdb1]);
        assert_eq!(on("/merged/x"), [sda1, sdb1]);
        assert_eq!(on("/merged/on/x"), [sda1, sdb1]);
        assert_eq!((on("/run/x"), on("/far/x")), (Vec::new(), Vec::new()));
        assert_eq!(folders("rw,lowerdir=/a\\040b::/c,upperdir=/u"), ["/a b", "/c", "/u"].map(PathBuf::from));
    }

    #[test]
    fn a_btrfs_lies_on_all_its_devices() {
        let dir = tempfile::tempdir().unwrap();
        for (uuid, devices) in [("features", &[][..]), ("u1", &["253:1", "253:2"]), ("u2", &["8:1"])] {
            for device in devices {
                let place = dir.path().join(uuid).join("devices").join(device);
                fs::create_dir_all(&place).unwrap();
                fs::write(place.join("dev"), format!("{device}\n")).unwrap();
            }
        }
        let all = |major, minor| {
            let mut all = with_others(DevNo::new(major, minor), dir.path());
            all.sort_unstable();
            all
        };
        assert_eq!(all(253, 2), [DevNo::new(253, 1), DevNo::new(253, 2)]);
        assert_eq!(all(8, 1), [DevNo::new(8, 1)]);
        assert_eq!(all(7, 0), [DevNo::new(7, 0)], "one that sysfs does not have");
    }

    #[test]
    fn a_pipe_lies_on_nothing_and_a_file_on_what_it_is_on() {
        let (_, end) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&end));
        assert_eq!(devices_of(Path::new(&path)), []);
        assert_eq!(devices_of(Path::new("/no such path")), []);
    }
}
