//! Pieces that are costly to make and the same every time: fetched kernels, the root image.
//!
//! A piece is a folder named after what it is and a hash of how it is made. It is made beside its place and renamed, so
//! that a piece that exists was finished; a stamp in it says what belongs to it. A piece that is damaged is made again.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// What the name of a piece ends with while it is being made.
pub const PARTIAL: &str = ".partial";

/// The stamp's name in a piece.
const STAMP: &str = "stamp.json";

#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    recipe: String,
    files: Vec<Entry>,
}

/// One file of a piece as it was when the piece was finished.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    size: u64,
    /// Every change to a file moves this on, and nothing can set it back: while it stands, the hash need not be read.
    changed: (i64, i64),
    sha256: String,
}

/// Returns the folder of the piece `name` made by `recipe`; makes it with `make` if it is missing or damaged. `make` gets
/// an empty folder. Other labs wait while one makes a piece.
///
/// # Errors
/// Those of `make`, and when the folder cannot be written.
pub fn piece(cache: &Path, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    fs::create_dir_all(cache).or_trouble(|| format!("cannot create `{}`", cache.display()))?;
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).or_trouble(|| format!("cannot create `{}`", lock_path.display()))?;
    lock.lock().or_trouble(|| format!("cannot lock `{}`", lock_path.display()))?;
    let folder = format!("{name}-{:016x}", hash(recipe));
    let place = cache.join(&folder);
    if is_whole(&place, recipe) {
        return Ok(place);
    }
    let cannot = |doing: &str| format!("cannot {doing} `{}`", place.display());
    let partial = cache.join(format!("{folder}{PARTIAL}"));
    for old in [&place, &partial] {
        if old.exists() {
            fs::remove_dir_all(old).or_trouble(|| format!("cannot remove `{}`", old.display()))?;
        }
    }
    fs::create_dir(&partial).or_trouble(|| cannot("create"))?;
    make(&partial)?;
    write_stamp(&partial, recipe)?;
    nix::unistd::sync();
    fs::rename(&partial, &place).or_trouble(|| cannot("finish"))?;
    Ok(place)
}

/// FNV-1a, 64 bits: the same on every machine and in every release of Rust.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn is_whole(place: &Path, recipe: &str) -> bool {
    let Ok(text) = fs::read(place.join(STAMP)) else {
        return false;
    };
    let Ok(stamp) = serde_json::from_slice::<Stamp>(&text) else {
        return false;
    };
    stamp.recipe == recipe
        && stamp.files.iter().all(|entry| {
            let path = place.join(&entry.path);
            fs::metadata(&path).is_ok_and(|m| {
                m.len() == entry.size
                    && ((m.ctime(), m.ctime_nsec()) == entry.changed
                        || sha256(&path).is_ok_and(|now| now == entry.sha256))
            })
        })
}

fn write_stamp(folder: &Path, recipe: &str) -> Result<()> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).or_trouble(|| format!("cannot list `{}`", next.display()))?.flatten() {
            let path = entry.path();
            let kind = entry.file_type().or_trouble(|| format!("cannot look at `{}`", path.display()))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let m = entry.metadata().or_trouble(|| format!("cannot look at `{}`", path.display()))?;
                files.push(Entry {
                    path: path.strip_prefix(folder).unwrap_or(&path).to_path_buf(),
                    size: m.len(),
                    changed: (m.ctime(), m.ctime_nsec()),
                    sha256: sha256(&path)?,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let stamp = Stamp { recipe: recipe.to_string(), files };
    let path = folder.join(STAMP);
    let text = serde_json::to_vec_pretty(&stamp).or_trouble(|| "cannot write a stamp".into())?;
    fs::write(&path, text).or_trouble(|| format!("cannot write `{}`", path.display()))
}

/// A hash of the file's bytes and holes. tar passes over holes: images are many gigabytes of them.
fn sha256(path: &Path) -> Result<String> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Trouble::new(format!("cannot hash `{}`: it is no file", path.display())));
    };
    let fixed = "--format=gnu --sparse --mtime=@0 --owner=0 --group=0 --mode=0644";
    let pipe = format!("tar --create {fixed} --directory \"$1\" -- \"$2\" | sha256sum");
    let line = tool::run(Command::new("sh").args(["-ec", &pipe, "sh"]).arg(folder).arg(name))?;
    Ok(line.split_ascii_whitespace().next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_piece_is_made_once_and_again_when_damaged_or_unfinished() {
        let cache = std::env::temp_dir().join(format!("lab-cache-{}", std::process::id()));
        let made = std::cell::Cell::new(0);
        let get = |recipe: &str| {
            piece(&cache, "thing", recipe, |folder| {
                made.set(made.get() + 1);
                fs::create_dir(folder.join("sub")).or_trouble(String::new)?;
                fs::write(folder.join("sub/data"), "whole").or_trouble(String::new)
            })
            .unwrap()
        };
        let place = get("one");
        assert_eq!(get("one"), place);
        assert_eq!(made.get(), 1);
        // The same size, other bytes.
        fs::write(place.join("sub/data"), "whale").unwrap();
        assert_eq!(fs::read_to_string(get("one").join("sub/data")).unwrap(), "whole");
        assert_eq!(made.get(), 2);
        fs::remove_file(place.join(STAMP)).unwrap();
        get("one");
        assert_eq!(made.get(), 3);
        assert_ne!(get("two"), place);
        assert_eq!(made.get(), 4);
        let failed = piece(&cache, "thing", "three", |folder| {
            fs::write(folder.join("half"), "h").or_trouble(String::new)?;
            Err(Trouble::new("no"))
        });
        assert!(failed.is_err());
        piece(&cache, "thing", "three", |folder| {
            assert!(!folder.join("half").exists());
            Ok(())
        })
        .unwrap();
        fs::remove_dir_all(cache).unwrap();
    }
}
