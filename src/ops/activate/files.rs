//! Bringing up a pool in loop files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Outcome};
use crate::kernel::ask;
use crate::kernel::fs::{self as durable, FsFacts};
use crate::kernel::loopdev::LoopInfo;
use crate::metadata::{BadSuperblock, Superblock};
use crate::ops::sight;
use crate::ops::volumes::{self, Known};
use crate::pool::{Entry, FileStore};
use crate::units::{Bytes, Sectors};

/// What there is of the files.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The metadata file.
    metadata: FileFacts,
    /// The data file.
    data: FileFacts,
    /// What is in block 0 of the metadata file; nothing when the file is not there.
    superblock: Option<Result<Superblock, BadSuperblock>>,
}

/// What there is of a loop file.
#[derive(Clone, Debug)]
struct FileFacts {
    /// Its path.
    path: PathBuf,
    /// Its length; nothing when it is missing or no file.
    length: Option<Bytes>,
    /// What is there instead of a file.
    not_a_file: Option<&'static str>,
    /// The type of the file system it is on, when that is not this machine's own.
    network: Option<String>,
    /// The loop devices that have it.
    loops: Vec<LoopInfo>,
}

/// Returns whether the files, or the lack of them, can be seen: asked of a child, since what they lie on may hang.
pub(super) fn answer(files: [&FileStore; 2]) -> bool {
    ask::within_limit(|| files.iter().filter(|store| sight::superblock_in(&store.file).is_ok()).count()).is_ok()
}

/// Returns the refusal of files that hang.
pub(super) fn silent(entry: &Entry, files: [&FileStore; 2]) -> Failure {
    let names = files.map(|store| store.file.display().to_string());
    Failure::refused(format!("cannot activate pool `{}`: its files do not answer", entry.name))
        .fact("found", names.join(", "))
        .fact("state", "nothing was touched")
        .next("dmesg | tail    # may say what hangs beneath them")
        .awaiting(names)
}

pub(super) fn look([metadata, data]: [&FileStore; 2]) -> anyhow::Result<Facts> {
    let found = file(&metadata.file)?;
    let superblock = match found.length {
        Some(_) => Some(sight::superblock_in(&metadata.file)?),
        None => None,
    };
    Ok(Facts { metadata: found, data: file(&data.file)?, superblock })
}

/// Returns what the metadata file says of the pool's volumes.
///
/// # Errors
/// When it is not there, or cannot be read.
pub(super) fn volumes(facts: &Facts) -> anyhow::Result<Known> {
    volumes::known_in(&durable::open_existing(&facts.metadata.path)?)
}

fn file(path: &Path) -> anyhow::Result<FileFacts> {
    let mut facts =
        FileFacts { path: path.to_owned(), length: None, not_a_file: None, network: None, loops: Vec::new() };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(anyhow::Error::new(e).context(format!("looking at {}", path.display()))),
        Ok(found) if found.is_symlink() => facts.not_a_file = Some("a symbolic link"),
        Ok(found) if !found.is_file() => facts.not_a_file = Some("no file"),
        Ok(found) => {
            facts.length = Some(Bytes::new(found.len()));
            let fs = FsFacts::of(path)?;
            facts.network = fs.is_network.then_some(fs.fs_type);
            facts.loops = sight::loops_on(path)?;
        }
    }
    Ok(facts)
}

/// Returns the superblock of files that hold what it counts.
///
/// # Errors
/// Refused when they do not, or cannot be attached.
pub(super) fn superblock<'f>(facts: &'f Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f Superblock> {
    attachable(facts, refuse)?;
    let path = facts.metadata.path.display();
    let superblock = match &facts.superblock {
        Some(found) => super::usable(found, &path.to_string(), refuse)?,
        None => return Err(refuse(format!("its file {path} is missing"))),
    };
    let data = superblock.length().map(Sectors::bytes).unwrap_or_default();
    for (file, needed, part) in
        [(&facts.data, data, "data"), (&facts.metadata, superblock.metadata_total.bytes(), "metadata")]
    {
        long_enough(file, needed, part, refuse)?;
    }
    Ok(superblock)
}

fn attachable(facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    for file in [&facts.metadata, &facts.data] {
        let path = file.path.display();
        if let Some(other) = file.not_a_file {
            return Err(refuse(format!("{path} is {other}")).next("put the pool's own file in its place"));
        }
        if file.length.is_none() {
            return Err(refuse(format!("its file {path} is missing"))
                .next("mount the file system it is on, or put the file back")
                .awaiting([path.to_string()]));
        }
        if let Some(kind) = &file.network {
            return Err(refuse(format!("{path} is on a file system that is not this machine's own ({kind})")).next(
                "copy its files to a local disk (cp --sparse=always): a pool must not depend on a server's answer",
            ));
        }
        if let Some(user) = file.loops.first() {
            return Err(refuse(format!("{path} is in use by {}", user.path().display()))
                .next(format!("find out who uses it:  losetup -l {0}; then losetup -d {0}", user.path().display())));
        }
    }
    Ok(())
}

fn long_enough(file: &FileFacts, needed: Bytes, part: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let found = file.length.unwrap_or_default();
    if found >= needed {
        return Ok(());
    }
    let path = file.path.display();
    Err(refuse(format!("its {part} file {path} is shorter than the pool"))
        .fact("needed", format!("{}, as the superblock records", needed.exact()))
        .fact("found", found.exact())
        .next(format!(
            "if it was cut by accident (dd, truncate), what lay behind is lost; with   truncate -s {} {path}   the rest can be read again",
            needed.get()
        )))
}
