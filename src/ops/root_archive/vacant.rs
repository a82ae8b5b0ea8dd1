//! Whether there is nothing in a root but what a Docker makes by starting, which it makes again.

use std::fs;
use std::path::Path;

/// The files that a Docker makes on whose root nobody has anything (seen of 20.10; `buildkit` builder/builder-next/controller.go).
/// Whether a database has volumes or networks in it is seen by reading it.
const FILES: [&str; 10] = [
    "overlay2/backingFsBlockDev",
    "volumes/backingFsBlockDev",
    "volumes/metadata.db",
    "network/files/local-kv.db",
    "buildkit/cache.db",
    "buildkit/containerdmeta.db",
    "buildkit/history.db",
    "buildkit/metadata.db",
    "buildkit/metadata_v2.db",
    "buildkit/snapshots.db",
];
/// The names of images, in a folder of each storage driver; that there are none is seen by reading it.
const NAMES_OF_IMAGES: &str = "repositories.json";

/// Returns what else there is below these names of a directory, no more than `most`: each file, and what cannot be looked at.
pub(super) fn others(root: &Path, names: &[&str], most: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut next: Vec<_> = names.iter().rev().map(|name| root.join(name)).collect();
    while let Some(path) = next.pop() {
        if found.len() >= most {
            break;
        }
        let says = |why: std::io::Error| format!("{}: {why}", path.display());
        match path.symlink_metadata() {
            Ok(what) if what.is_dir() => match fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(entries) => next.extend(entries.iter().map(fs::DirEntry::path)),
                Err(why) => found.push(says(why)),
            },
            Ok(what) if !what.is_symlink() && path.strip_prefix(root).is_ok_and(is_made) => {}
            Ok(_) => found.push(path.display().to_string()),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => found.push(says(why)),
        }
    }
    found
}

fn is_made(path: &Path) -> bool {
    let of_images = || path.starts_with("image") && path.ends_with(NAMES_OF_IMAGES) && path.components().count() == 3;
    FILES.iter().any(|file| path == Path::new(file)) || of_images()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn whatever_no_docker_makes_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let all = ["overlay2", "volumes", "network", "image", "containers", "buildkit"];
        for folder in ["overlay2/l", "volumes", "network/files", "image/overlay2/layerdb", "containers", "buildkit/a/b"]
        {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["volumes/metadata.db", "network/files/local-kv.db", "image/overlay2/repositories.json"] {
            fs::write(root.join(file), "x").unwrap();
        }
        fs::write(root.join("of-somebody"), "").unwrap();
        assert_eq!(others(root, &all, 9), Vec::<String>::new());
        fs::create_dir(root.join("volumes/.backup")).unwrap();
        let files = [
            "volumes/dump.sql",
            "volumes/.backup/db.tar",
            "image/repositories.json",
            "image/overlay2/layerdb/metadata.db",
            "containers/metadata.db",
            "buildkit/a/b/cache.db",
        ];
        for file in files {
            fs::write(root.join(file), "").unwrap();
            assert_eq!(others(root, &all, 9), [root.join(file).display().to_string()]);
            fs::remove_file(root.join(file)).unwrap();
        }
        // A link in the place of what Docker makes is somebody's.
        fs::remove_file(root.join("volumes/metadata.db")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("volumes/metadata.db")).unwrap();
        std::os::unix::fs::symlink("/", root.join("overlay2/l/AAA")).unwrap();
        assert_eq!(others(root, &all, 9).len(), 2);
        assert_eq!(others(root, &all, 1).len(), 1);
    }
}
