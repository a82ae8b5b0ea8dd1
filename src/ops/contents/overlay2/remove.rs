//! Removing what was written: trees that may be deeper than a process can have folders open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernel::fs::sync_dir;

/// Removes a directory with all in it; one that is not there is none to remove. Each directory in it is taken out and emptied
/// beside it, so that no path becomes long, and a death in between leaves what the next call finds.
///
/// # Errors
/// As unlink(2), rmdir(2) and rename(2).
pub(in crate::ops) fn remove_tree(path: &Path) -> Result<()> {
    let context = || format!("removing {}", path.display());
    let is_there = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let parent = path.parent().context("it has no directory")?;
    let mut next: u64 = 0;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = |number: u64| -> PathBuf { parent.join(format!("{name}.going-{number}")) };
    // What a call that died has left.
    let mut left: Vec<PathBuf> = Vec::new();
    if let Ok(entries) = fs::read_dir(parent) {
        let prefix = format!("{name}.going-");
        left.extend(
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()),
        );
    }
    if is_there(path) {
        left.push(path.to_owned());
    }
    let any = !left.is_empty();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).with_context(context)? {
            let entry = entry.with_context(context)?;
            if !entry.file_type().with_context(context)?.is_dir() {
                fs::remove_file(entry.path()).with_context(context)?;
                continue;
            }
            match fs::remove_dir(entry.path()) {
                Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {
                    let to = loop {
                        let to = beside(next);
                        next += 1;
                        if to.symlink_metadata().is_err() {
                            break to;
                        }
                    };
                    fs::rename(entry.path(), &to).with_context(context)?;
                    left.push(to);
                }
                removed => removed.with_context(context)?,
            }
        }
        match fs::remove_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).with_context(context),
            _ => {}
        }
    }
    if any { sync_dir(parent) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_deeper_than_a_path_is_long_goes() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        let mut deep = tree.clone();
        for _ in 0..3 {
            let mut part = deep.clone();
            for _ in 0..300 {
                part.push("directory");
            }
            fs::create_dir_all(&part).unwrap();
            fs::write(part.join("file"), "x").unwrap();
            // Put the tree so far into a new one: the whole becomes longer than any path may be.
            let above = temp.path().join("above");
            let mut bottom = above.clone();
            for _ in 0..300 {
                bottom.push("directory");
            }
            fs::create_dir_all(&bottom).unwrap();
            fs::rename(&tree, bottom.join("tree")).unwrap();
            fs::rename(&above, &tree).unwrap();
            deep.clone_from(&tree);
        }
        std::os::unix::fs::symlink("/", tree.join("link")).unwrap();
        fs::create_dir(temp.path().join("tree.going-0")).unwrap();
        fs::write(temp.path().join("other"), "stays").unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        remove_tree(&tree).unwrap();
    }
}
