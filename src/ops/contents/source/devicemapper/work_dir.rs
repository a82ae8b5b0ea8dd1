//! Where an image of a volume is put while it is read.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;
use crate::kernel::fs::FsFacts;
use crate::kernel::memory;
use crate::ops::contents::source::Place;
use crate::units::Bytes;

/// Where it is put when nobody says where, the first that will do.
const USUAL: [&str; 7] = ["/var/tmp", "/tmp", "/home", "/srv", "/opt", "/root", "/dev/shm"];
/// What the replay of a file system's log may need beyond what is mapped.
const REPLAY: Bytes = Bytes::new(64 << 20);

/// Returns the directory that was named with `--work-dir`, or one with room: never in the Docker root, never on a network, and
/// on the file system of the root or the data only where a tenth stays free.
pub(super) fn choose(place: &Place<'_>, data: &Path, mapped: Bytes) -> Result<PathBuf> {
    let needed = Bytes::new(mapped.get().saturating_add(REPLAY.get()));
    if let Some(named) = &place.reach.work_dir {
        return Ok(checked(place, named, needed)?);
    }
    let sources: Vec<_> =
        [place.root, data].into_iter().filter_map(|path| Some(FsFacts::of(path).ok()?.devno)).collect();
    let mut second = None;
    for path in USUAL.map(Path::new) {
        let Ok(facts) = FsFacts::of(path) else { continue };
        if is_in_root(place, path) || facts.read_only || facts.is_network || facts.sparse == Some(false) {
            continue;
        }
        let is_memory = facts.fs_type == "tmpfs";
        let room = if is_memory { memory::available()?.get() / 2 } else { u64::MAX }.min(facts.available.get());
        if !sources.contains(&facts.devno) && needed.get() <= room {
            return Ok(path.to_owned());
        }
        if needed.get().saturating_add(facts.total.get() / 10) <= room {
            second.get_or_insert(path);
        }
    }
    match second {
        Some(path) => Ok(path.to_owned()),
        None => Err(place
            .refused("no usual place has room for an image of it")
            .fact("needed", needed.exact())
            .fact("found", format!("not enough in {}", USUAL.join(", ")))
            .fact("state", "nothing was touched")
            .next("name a directory on another file system with --work-dir DIR")
            .into()),
    }
}

fn checked(place: &Place<'_>, named: &Path, needed: Bytes) -> Result<PathBuf, Failure> {
    let refused = |why: String| {
        place
            .refused(format!("`{}` is no place for an image of it: {why}", named.display()))
            .fact("state", "nothing was touched")
            .next("name a directory on another file system with --work-dir DIR")
    };
    let path = named.canonicalize().map_err(|e| refused("it cannot be opened".to_owned()).because(e))?;
    if is_in_root(place, &path) {
        return Err(refused("it is in the Docker root".to_owned()));
    }
    let facts = FsFacts::of(&path).map_err(|e| refused("nothing says what it has room for".to_owned()).because(e))?;
    if facts.total.get() > 0 && facts.available < needed {
        let refused = refused(format!("the file system at {} is too small", facts.mount_point.display()));
        return Err(refused.fact("needed", needed.exact()).fact("free", facts.available.exact()));
    }
    Ok(path)
}

fn is_in_root(place: &Place<'_>, path: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(path).starts_with(real(place.root))
}
