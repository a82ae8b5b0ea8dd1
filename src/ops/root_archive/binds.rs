//! Directories and files of the host that containers have mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::engine::docker_objects::{Container, Objects};
use crate::kernel::folder::FileKind;
use crate::ops::rescue::label;

use super::contents::Bind;

/// What the kernel makes, and what is made anew at each boot.
const NOT_KEPT: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/var/run"];

/// Returns what containers have mounted of the host, each once, by path. `included` says whether it shall be in the archive, which is
/// written in the directory `archive` when that is a file.
pub(super) fn binds<'a>(
    objects: &Objects,
    containers: impl Iterator<Item = &'a Container>,
    included: bool,
    archive: Option<&Path>,
) -> Vec<Bind> {
    let mut found: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for container in containers {
        for point in container.mount_points() {
            if let (None, Some(source)) = (point.volume, point.source) {
                found.entry(PathBuf::from(source)).or_default().insert(label(container));
            }
        }
    }
    let of = |(source, containers): (PathBuf, BTreeSet<String>)| {
        let left_out = if included {
            refused(&source, &objects.path, archive)
        } else {
            Some("it is the host's; --include-binds takes such along".to_owned())
        };
        Bind { source, containers: containers.into_iter().collect(), left_out }
    };
    found.into_iter().map(of).collect()
}

/// Says why a path is not taken along.
fn refused(source: &Path, root: &Path, archive: Option<&Path>) -> Option<String> {
    let real = match source.canonicalize() {
        _ if !source.is_absolute() => return Some("its path does not begin at /".to_owned()),
        Ok(real) => real,
        Err(e) => return Some(format!("it cannot be reached: {e}")),
    };
    let why = if real == Path::new("/") {
        "it is all of the host"
    } else if NOT_KEPT.iter().any(|place| real.starts_with(place) || source.starts_with(place)) {
        "it is the kernel's, or made anew at each boot"
    } else if root.starts_with(&real) {
        "the Docker root is in it"
    } else if real.starts_with(root) {
        "it is in the Docker root, and saved as far as that is"
    } else if archive.is_some_and(|archive| archive.starts_with(&real)) {
        "the archive is written into it"
    } else {
        return match kind(&real) {
            Some(FileKind::File | FileKind::Directory) => None,
            _ => Some("it is a socket, a FIFO or a device".to_owned()),
        };
    };
    Some(why.to_owned())
}

fn kind(path: &Path) -> Option<FileKind> {
    let found = path.symlink_metadata().ok()?;
    if found.is_dir() {
        Some(FileKind::Directory)
    } else if found.is_file() {
        Some(FileKind::File)
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_must_not_be_in_an_archive_is_named() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let place = temp.path().canonicalize().unwrap();
        let [root, data, out] = ["docker", "data", "out"].map(|name| place.join(name));
        [&root, &data, &out].iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(data.join("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(data.join("socket")).unwrap();
        std::os::unix::fs::symlink("/proc", data.join("link")).unwrap();
        let why = |path: &Path| refused(path, &root, Some(&out));
        assert_eq!(why(&data), None);
        assert_eq!(why(&data.join("file")), None);
        let inside = root.join("volumes");
        fs::create_dir(&inside).unwrap();
        for wrong in [
            Path::new("/"),
            Path::new("/proc/sys"),
            Path::new("/sys"),
            Path::new("/dev/null"),
            Path::new("relative"),
            &place,
            &root,
            &inside,
            &out,
            &data.join("socket"),
            &data.join("link"),
            &data.join("none"),
        ] {
            assert!(why(wrong).is_some(), "{}", wrong.display());
        }
    }
}
