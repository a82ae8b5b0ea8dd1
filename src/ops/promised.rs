//! What other pools' sparse files may still take of a file system: free space that is free no more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::roots;
use crate::kernel::fs::FsFacts;
use crate::ops::{State, docker, registry};
use crate::pool::{DevNo, Entry};
use crate::units::Bytes;

/// Returns how many bytes the files of registered pools and of Docker's own pools on a file system promise and do not
/// have, those of the files in `except` left out. What cannot be looked at counts as nothing: this is for a remark.
pub fn by_others(state: &State, host: DevNo, except: &[PathBuf]) -> Bytes {
    let entries = registry::read_all(state).unwrap_or_default();
    let roots = roots::find(&docker::answers).found;
    let mut files: Vec<PathBuf> =
        entries.iter().filter_map(Entry::files).flatten().map(|store| store.file.clone()).collect();
    files.extend(roots.into_iter().flat_map(|root| [root.data_file, root.metadata_file]).flatten());
    let except: Vec<_> = except.iter().filter_map(|path| identity(path.as_path())).map(|(id, _)| id).collect();
    let mut seen = Vec::new();
    let mut sum = 0_u64;
    for (id, missing) in files.iter().filter_map(|path| identity(path.as_path())) {
        if DevNo::from_dev_t(id.0) == host && !except.contains(&id) && !seen.contains(&id) {
            seen.push(id);
            sum = sum.saturating_add(missing);
        }
    }
    Bytes::new(sum)
}

/// Returns the sentence on sparse files that promise more than their file system has, less what it has promised to others; nothing when all of
/// that is there.
pub fn more_than_there(promised: Bytes, fs: &FsFacts, others: Bytes) -> Option<String> {
    let more = promised.saturating_sub(fs.free.saturating_sub(others));
    let others = match others.get() {
        0 => String::new(),
        _ => format!(", of which {} are promised to other pools' files", others.human()),
    };
    (more.get() > 0).then(|| {
        format!(
            "the files promise {}, the file system {} has {} free{others}: {} more is promised than is there",
            promised.human(),
            fs.mount_point.display(),
            fs.free.human(),
            more.human()
        )
    })
}

/// Returns which file a path is, by device and inode number, and how many bytes it lacks of its length.
fn identity(path: &Path) -> Option<((u64, u64), u64)> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(((found.dev(), found.ino()), found.len().saturating_sub(found.blocks().saturating_mul(512))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_others_were_promised_is_not_there() {
        let fs = FsFacts { free: Bytes::new(80 << 30), ..FsFacts::of(Path::new("/")).unwrap() };
        let says =
            |promised: u64, others: u64| more_than_there(Bytes::new(promised << 30), &fs, Bytes::new(others << 30));
        assert_eq!((says(80, 0), says(50, 30)), (None, None));
        let more = says(200, 0).unwrap();
        assert!(
            more.starts_with("the files promise 200.0 GiB") && more.contains("80.0 GiB free: 120.0 GiB more"),
            "{more}"
        );
        let shared = says(60, 30).unwrap();
        assert!(shared.contains("30.0 GiB are promised to other pools' files: 10.0 GiB more"), "{shared}");
    }

    #[test]
    fn a_sparse_file_lacks_what_it_has_no_blocks_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(identity(&path).unwrap().1, 1 << 30);
        assert_eq!(identity(&dir.path().join("none")), None);
        let state = State::below(dir.path());
        let host = DevNo::from_dev_t(fs::metadata(&path).unwrap().dev());
        assert_eq!(by_others(&state, host, &[path]), Bytes::new(0));
    }
}
