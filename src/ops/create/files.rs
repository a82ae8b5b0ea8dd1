//! `create` on two loop files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};
use crate::kernel::fs::{self as durable, FsFacts};
use crate::ops::create::LEAST_FREE;
use crate::ops::steps::{Kit, MakeDirectory, MakeFile, Step};
use crate::ops::{gate, own_disk, promised};
use crate::pool::{FileStore, Spec, Store};
use crate::units::Bytes;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'s> {
    /// The whole.
    pub spec: &'s Spec,
    /// The directory in which the pool's own is made.
    pub directory: &'s Path,
    /// Whether the files get all their blocks at once.
    pub preallocate: bool,
}

/// What decides whether files can be made.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The directory that was named, or the nearest one that is there of the default.
    directory: Directory,
    /// What exists already of what would be made.
    existing: Vec<PathBuf>,
    /// Whether that directory is dmpool's own default.
    is_default: bool,
    /// The largest file this process may make, when it is limited.
    file_size_limit: Option<Bytes>,
}

/// The directory under which a pool's own is made.
#[derive(Clone, Debug)]
enum Directory {
    /// It is there.
    There {
        /// Its mode bits.
        mode: u32,
        /// The file system it is on.
        fs: Box<FsFacts>,
        /// Whether a file as long as the data's can be made there; nothing when that cannot be tried.
        holds: Option<bool>,
    },
    /// Something else has its name.
    Not(&'static str),
    /// It is missing.
    Missing,
}

impl Wanted<'_> {
    /// Returns the directory that holds the pool's files and nothing else.
    fn own_directory(&self) -> PathBuf {
        self.directory.join(self.spec.name.as_str())
    }

    pub fn data_file(&self) -> PathBuf {
        self.own_directory().join("data")
    }

    fn metadata_file(&self) -> PathBuf {
        self.own_directory().join("metadata")
    }

    pub fn store(&self) -> Store {
        let file = |file| FileStore { file, preallocated: self.preallocate };
        Store::Files { metadata: file(self.metadata_file()), data: file(self.data_file()) }
    }

    pub fn look(&self, kit: &Kit) -> Result<Facts> {
        let is_default = self.directory == kit.state.pools;
        // The default is dmpool's own, and made with the pool's; of another one a missing part may be a missing mount.
        let looked_at = if is_default { own_disk::there(self.directory) } else { self.directory };
        let existing = [self.own_directory(), self.data_file(), self.metadata_file()];
        let file_size_limit = durable::file_size_limit()?;
        Ok(Facts {
            directory: directory(looked_at, self.spec.sizes_in_files().0, file_size_limit)?,
            existing: existing.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()).collect(),
            is_default,
            file_size_limit,
        })
    }

    /// Returns the steps that make the files, and what the user should know of them.
    ///
    /// # Errors
    /// Every reason not to make them there.
    pub fn plan(&self, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<(Vec<Step>, Vec<String>)> {
        let fs = self.place(facts, refuse)?;
        let (data, metadata) = self.spec.sizes_in_files();
        let mut notes = Vec::new();
        let wanted = Bytes::new(data.get().saturating_add(metadata.get()));
        if self.preallocate && wanted > fs.available {
            return Err(refuse("the file system has too little space to preallocate it".to_owned())
                .fact("needed", wanted.exact())
                .fact("free", fs.available.exact())
                .next("leave out --preallocate for sparse files, or choose a smaller --data-size"));
        }
        notes.extend(promised::more_than_there(wanted, fs, Bytes::default()));
        let file = |path: PathBuf, size: Bytes| MakeFile { path, size, preallocate: self.preallocate };
        let steps = vec![
            MakeDirectory { path: self.own_directory(), parents: facts.is_default }.into(),
            file(self.metadata_file(), metadata).into(),
            file(self.data_file(), data).into(),
        ];
        Ok((steps, notes))
    }

    fn place<'f>(&self, facts: &'f Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f FsFacts> {
        let (data, metadata) = self.spec.sizes_in_files();
        let path = self.directory.display();
        let (mode, fs, holds) = match &facts.directory {
            Directory::There { mode, fs, holds } => (*mode, fs, *holds),
            Directory::Missing => {
                return Err(refuse(format!("the directory `{path}` is missing")).next(format!("mkdir -m 0700 {path}")));
            }
            Directory::Not(other) => {
                return Err(
                    refuse(format!("`{path}` is {other}")).next("name a directory that is one, by its own path")
                );
            }
        };
        if mode & 0o002 != 0 {
            return Err(refuse(format!("everybody may write in the directory `{path}`"))
                .fact("found", format!("mode {:04o}", mode & 0o7777))
                .next(format!("chmod o-w {path}, or name a directory of root's own")));
        }
        if let Some(file) = facts.existing.first() {
            return Err(refuse(format!("`{}` is there already", file.display()))
                .fact("state", "nothing was touched; dmpool never writes over a file")
                .next("choose another name or another --dir, or move what is there away"));
        }
        if fs.is_network {
            return Err(refuse(format!(
                "`{path}` is on a file system that is not this machine's own ({})",
                fs.fs_type
            ))
            .fact("found", format!("{} on {}", fs.source.display(), fs.mount_point.display()))
            .next("choose a directory on a local disk: a pool must not depend on a server's answer"));
        }
        if fs.read_only {
            return Err(refuse(format!("the file system of `{path}` is read-only"))
                .fact("found", format!("{} on {}", fs.fs_type, fs.mount_point.display()))
                .next(format!("mount -o remount,rw {}", fs.mount_point.display())));
        }
        if fs.sparse == Some(false) && !fs.keeps_modes {
            let why =
                format!("the file system of `{path}` ({}) has no sparse files and keeps no permissions", fs.fs_type);
            return Err(refuse(why)
                .fact("found", format!("{} on {}", fs.source.display(), fs.mount_point.display()))
                .next("choose a directory on ext4 or xfs: there the pool's files are root's alone"));
        }
        if fs.sparse == Some(false) && !self.preallocate {
            return Err(refuse(format!("the file system of `{path}` ({}) has no sparse files", fs.fs_type))
                .next("--preallocate, or a directory on ext4 or xfs"));
        }
        if holds == Some(false) || fs.max_file_size.is_some_and(|most| data > most) {
            let most = fs.max_file_size.map_or_else(|| "less".to_owned(), Bytes::exact);
            return Err(refuse(format!(
                "the file system of `{path}` ({}) cannot hold a file of that length",
                fs.fs_type
            ))
            .fact("needed", data.exact())
            .fact("found", format!("its largest file: {most}"))
            .next("choose a smaller --data-size, or a directory on xfs"));
        }
        gate::file_size(data.max(metadata), facts.file_size_limit, refuse)?;
        if fs.available < LEAST_FREE {
            return Err(refuse(format!("the file system of `{path}` is full"))
                .fact("needed", format!("{} for a new pool", LEAST_FREE.human()))
                .fact("free", fs.available.exact())
                .next(format!("make room on {}, or choose another --dir", fs.mount_point.display())));
        }
        Ok(fs)
    }
}

fn directory(path: &Path, length: Bytes, limit: Option<Bytes>) -> Result<Directory> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Directory::Missing),
        Err(e) => return Err(anyhow::Error::new(e).context(format!("looking at {}", path.display()))),
    };
    if found.is_symlink() {
        return Ok(Directory::Not("a symbolic link"));
    }
    if !found.is_dir() {
        return Ok(Directory::Not("no directory"));
    }
    let fs = FsFacts::of(path)?;
    // Past the limit the kernel would end this process for trying.
    let holds = match fs.read_only || gate::is_past(length, limit) {
        true => None,
        false => durable::can_hold(path, length).unwrap_or(None),
    };
    Ok(Directory::There { mode: found.mode(), fs: Box::new(fs), holds })
}
