//! Room on a file system that nobody else gets: blocks of a file without a name, which go back when this process ends, however it ends.
//!
//! A migration takes it while Docker runs ([`crate::ops::steps::ReserveRoom`]) and gives it up piece by piece for what it writes
//! ([`draw`]), or hands it over to the loop files that it fills ([`give_to_files`]): those keep it also after a death. The kernel writes to a loop
//! file when it likes, long after the copy has written, so that only the blocks of the file itself are there for sure.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;

use crate::kernel::fs::{FsFacts, give_blocks, nameless, occupies, open_existing, take_unwritten};
use crate::kernel::{Called, KernelError, errno_of};
use crate::ops::progress::{Interrupted, may_go_on};
use crate::ops::sight;
use crate::units::Bytes;

/// So much is free at least for what is written next.
const PIECE: u64 = 16 << 20;
/// What is reserved beside what is asked for, until the copy ends: for what is written down meanwhile.
const BESIDE: u64 = 64 << 20;
/// What a file system may keep for itself of what it says is free.
const OVERHEAD: u64 = 16 << 20;
/// What is left to Docker while it runs: that share of the file system, and no more than this.
const FOR_DOCKER: (u64, u64) = (20, 4 << 30);
/// So much of a file gets its blocks at once, and so much when little is free.
const STRIDE: u64 = 64 << 20;
const LEAST: u64 = 1 << 20;
/// After so many that were given, twice as much is tried: what fails has XFS write out all that it has in hand.
const WELL: u32 = 32;
/// So much is reserved before it is looked whether somebody wants an end.
const LARGE: u64 = 1 << 30;

/// What is reserved.
#[derive(Debug, Default)]
pub(in crate::ops) struct Held {
    room: RefCell<Option<Reserved>>,
    /// Whether what there was to take was taken, by this process.
    was_taken: Cell<bool>,
}

#[derive(Debug)]
struct Reserved {
    file: File,
    /// How much of it is left.
    left: u64,
    /// How much was taken from it and not written yet.
    ahead: u64,
}

impl Held {
    pub(in crate::ops) const fn nothing() -> Self {
        Self { room: RefCell::new(None), was_taken: Cell::new(false) }
    }

    /// Returns whether this process has taken what there was to take, or begun to give it up.
    pub(in crate::ops) fn was_taken(&self) -> bool {
        self.was_taken.get()
    }

    fn left(&self) -> u64 {
        self.room.borrow().as_ref().map_or(0, |reserved| reserved.left)
    }

    /// Reserves that much on the file system of a folder, and something beside it, `also` with it where that is free; less while Docker runs, when
    /// little would be left to it: the rest is taken when it is down. What was reserved before counts. A file system that cannot has given nothing.
    ///
    /// # Errors
    /// When that much is not free; [`Interrupted`] when somebody wants an end.
    pub(in crate::ops) fn take(&self, folder: &Path, bytes: Bytes, also: Bytes, docker_runs: bool) -> Result<()> {
        self.was_taken.set(false);
        self.taken(folder, bytes, also, docker_runs)?;
        self.was_taken.set(true);
        Ok(())
    }

    fn taken(&self, folder: &Path, bytes: Bytes, also: Bytes, docker_runs: bool) -> Result<()> {
        if bytes == Bytes::default() {
            return Ok(());
        }
        let fs = FsFacts::of(folder)?;
        let had = self.left();
        let free = fs.available.get().saturating_add(had);
        if bytes.get() > free {
            bail!(too_little(&fs, bytes, Bytes::new(free)));
        }
        let kept = if docker_runs { kept_for_docker(&fs) } else { 0 };
        let (needed, there) = (bytes.get().saturating_add(BESIDE), free.saturating_sub(kept));
        let all = needed.saturating_add(also.get());
        let wanted = if all.saturating_add(kept_for_docker(&fs)) <= free { all } else { needed.min(there) };
        if bytes.get().min(wanted) <= had {
            return Ok(());
        }
        let mut held = self.room.borrow_mut();
        let reserved = match &mut *held {
            Some(reserved) => reserved,
            none => none.insert(Reserved { file: nameless(folder)?, left: 0, ahead: 0 }),
        };
        // The last of what is free a file system may not give.
        let mut taken = reserved.grow(folder, wanted);
        if taken.as_ref().is_err_and(|e| errno_of(e) == Some(Errno::ENOSPC)) {
            taken = reserved.grow(folder, wanted.min(bytes.get()).saturating_sub(OVERHEAD));
        }
        let Err(why) = taken else { return Ok(()) };
        *held = None;
        match errno_of(&why) {
            Some(Errno::EOPNOTSUPP) => Ok(()),
            _ => Err(not_given(why, &fs, bytes, Bytes::new(free))),
        }
    }

    /// Gives up what is written next.
    pub(in crate::ops) fn draw(&self, bytes: u64) {
        let mut held = self.room.borrow_mut();
        let Some(reserved) = &mut *held else { return };
        reserved.ahead = reserved.ahead.saturating_sub(bytes);
        if reserved.ahead < PIECE {
            let short = bytes.max(PIECE).saturating_add(PIECE);
            reserved.ahead = reserved.ahead.saturating_add(short.min(reserved.left));
            reserved.shrink(short);
        }
    }

    /// Gives all of it up.
    pub(in crate::ops) fn give_up(&self) {
        *self.room.borrow_mut() = None;
    }

    fn shrink(&self, bytes: u64) {
        if let Some(reserved) = &mut *self.room.borrow_mut() {
            reserved.shrink(bytes);
        }
    }

    /// Gives files blocks from their beginning on, each so much as is said, out of what is reserved and what is free. What was reserved beside is
    /// left. A file system that cannot has given nothing.
    ///
    /// # Errors
    /// When there is too little; then the files have what they had, or less. [`Interrupted`] when somebody wants an end; then they keep what they got.
    pub(in crate::ops) fn give_to_files(&self, files: &[(PathBuf, Bytes)]) -> Result<()> {
        let Some((first, _)) = files.first() else { return Ok(()) };
        let open = |(path, bytes): &(PathBuf, Bytes)| -> Result<_> {
            let file = open_existing(path)?;
            let length = bytes.get().min(file.metadata()?.len());
            Ok((file, path.clone(), length))
        };
        let files: Vec<_> = files.iter().map(open).collect::<Result<_>>()?;
        let mut lacks = 0_u64;
        for (file, path, length) in &files {
            lacks = lacks.saturating_add(length.saturating_sub(occupies(file, path)?.get()));
        }
        let fs = FsFacts::of(first)?;
        let free = fs.available.get().saturating_add(self.left());
        if lacks > free {
            bail!(too_little(&fs, Bytes::new(lacks), Bytes::new(free)));
        }
        let (needed, mut given) = (Bytes::new(lacks), Ok(()));
        for (file, path, length) in &files {
            given = given.and_then(|()| self.give_to_file(file, path, *length, &mut lacks));
        }
        match given {
            Err(e) if errno_of(&e) == Some(Errno::EOPNOTSUPP) => Ok(()),
            Err(e) if e.is::<Interrupted>() => Err(e),
            Err(e) => {
                let given: Vec<_> = files.into_iter().map(|(_, path, length)| (path, Bytes::new(length))).collect();
                // A file that is attached goes, or is copied into again.
                let _ = out_of_files(&given);
                Err(not_given(e, &fs, needed, Bytes::new(free)))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives a file that is there as much more as is said, where the file system has that beside everything else.
    ///
    /// # Errors
    /// [`Interrupted`] when somebody wants an end.
    pub(in crate::ops) fn give_also(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let file = open_existing(path)?;
        let length = bytes.get().min(file.metadata()?.len());
        let mut lacks = length.saturating_sub(occupies(&file, path)?.get());
        let (fs, left) = (FsFacts::of(path)?, self.left());
        let free = fs.available.get().saturating_add(left);
        if lacks.saturating_add(BESIDE) > left && lacks.saturating_add(kept_for_docker(&fs)) > free {
            return Ok(());
        }
        match self.give_to_file(&file, path, length, &mut lacks) {
            Err(e) if e.is::<Interrupted>() => Err(e),
            _ => Ok(()),
        }
    }

    fn give_to_file(&self, file: &File, path: &Path, length: u64, lacks: &mut u64) -> Result<()> {
        let (mut at, mut most, mut well) = (0, STRIDE, 0);
        while at < length {
            may_go_on()?;
            let stride = (length - at).min(most);
            let before = occupies(file, path)?;
            match give_blocks(file, path, Bytes::new(at), Bytes::new(stride)) {
                Ok(()) => {
                    at += stride;
                    well += 1;
                    if well >= WELL {
                        (most, well) = (most.saturating_mul(2).min(STRIDE), 0);
                    }
                }
                // XFS wants as much free as is asked for, whatever the file has of it.
                Err(e) if e.errno == Errno::ENOSPC && most > LEAST => (most, well) = ((most / 2).max(LEAST), 0),
                Err(e) if e.errno == Errno::ENOSPC && self.left() > 0 => self.shrink(LEAST),
                Err(e) if e.errno == Errno::ENOSPC && *lacks <= OVERHEAD => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            // Only now: as long as something is free, nobody can come between.
            let got = occupies(file, path)?.saturating_sub(before).get();
            *lacks = lacks.saturating_sub(got);
            self.shrink(got.min(self.left().saturating_sub(BESIDE)));
        }
        file.sync_all().with_context(|| format!("writing out {}", path.display()))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // XFS frees what a file has that is gone when it likes, and at once what is cut off.
        let _ = self.file.set_len(0);
    }
}

impl Reserved {
    fn grow(&mut self, folder: &Path, to: u64) -> Result<()> {
        let to = to.max(self.left);
        self.file.set_len(to).called("ftruncate", folder.display())?;
        let before = occupies(&self.file, folder)?;
        let mut at = self.left;
        while at < to {
            may_go_on()?;
            let stride = (to - at).min(LARGE);
            // XFS wants as much free as is asked for, whatever the file has of it.
            give_blocks(&self.file, folder, Bytes::new(at), Bytes::new(stride))?;
            at += stride;
        }
        if to > self.left && occupies(&self.file, folder)? <= before {
            let object = folder.display().to_string();
            return Err(KernelError { errno: Errno::EOPNOTSUPP, call: "fallocate", object }.into());
        }
        self.left = to;
        Ok(())
    }

    fn shrink(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        if self.file.set_len(self.left).is_err() {
            self.left = 0;
        }
    }
}

fn kept_for_docker(fs: &FsFacts) -> u64 {
    let (share, most) = FOR_DOCKER;
    (fs.total.get() / share).min(most)
}

fn too_little(fs: &FsFacts, needed: Bytes, free: Bytes) -> String {
    format!(
        "the file system at {} has too little space: {} at most are needed for the copy, and {} are free",
        fs.mount_point.display(),
        needed.exact(),
        free.exact()
    )
}

/// Says why what is needed was not given.
fn not_given(why: Error, fs: &FsFacts, needed: Bytes, free: Bytes) -> Error {
    let (at, bytes) = (fs.mount_point.display(), needed.exact());
    match errno_of(&why) {
        Some(Errno::ENOSPC) => why.context(too_little(fs, needed, free)),
        Some(Errno::EDQUOT) => why.context(format!(
            "a quota on the file system at {at} leaves too little: {bytes} at most are needed for the copy"
        )),
        Some(_) => why.context(format!("reserving {bytes} for the copy on the file system at {at}")),
        None => why,
    }
}

/// Whether the file system of a folder gives a file blocks before anything is written: some say so, and give none.
pub(in crate::ops) fn can_be(folder: &Path) -> bool {
    let grows = || -> Result<bool, KernelError> {
        let file = nameless(folder)?;
        let before = occupies(&file, folder)?;
        give_blocks(&file, folder, Bytes::default(), Bytes::new(LEAST))?;
        Ok(occupies(&file, folder)? > before)
    };
    // What else is in its way is told when that much is reserved.
    grows().unwrap_or_else(|e| e.errno != Errno::EOPNOTSUPP)
}

/// Says that nothing is reserved on the file system of a folder.
pub(in crate::ops) fn cannot_be(folder: &Path) -> String {
    let (what, at) = FsFacts::of(folder)
        .map_or_else(|_| ("its type".to_owned(), folder.to_owned()), |fs| (fs.fs_type, fs.mount_point));
    format!(
        "the room for the copy cannot be reserved at {} ({what} gives no blocks before they are written): where somebody takes it meanwhile, \
         the copy fails and is taken back",
        at.display()
    )
}

/// Takes from loop files what was reserved in them and not used: each from its beginning, so much as was reserved. Returns those that
/// are attached, which are left alone.
///
/// # Errors
/// When it cannot be told who uses one, or it cannot be made sparse; [`Interrupted`](crate::ops::progress::Interrupted) when somebody wants an end.
pub(in crate::ops) fn out_of_files(files: &[(PathBuf, Bytes)]) -> Result<Vec<PathBuf>> {
    let mut attached = Vec::new();
    for (path, within) in files.iter().filter(|(path, _)| path.is_file()) {
        if !sight::loops_on(path)?.is_empty() {
            attached.push(path.clone());
            continue;
        }
        let giving = || format!("giving back what was reserved in {}", path.display());
        take_unwritten(&open_existing(path)?, path, *within, &may_go_on).with_context(giving)?;
    }
    Ok(attached)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_reserved_is_given_up_ahead_of_what_is_written_and_no_name_tells_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let held = Held::nothing();
        held.draw(1);
        held.take(temp.path(), Bytes::new(40 * MIB), Bytes::new(1 << 60), false).unwrap();
        if held.left() == 0 {
            return;
        }
        assert_eq!(held.left(), 40 * MIB + BESIDE);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        held.take(temp.path(), Bytes::new(20 * MIB), Bytes::default(), false).unwrap();
        assert_eq!(held.left(), 40 * MIB + BESIDE, "what was reserved counts");
        let all = held.left();
        held.draw(0);
        assert_eq!(all - held.left(), 2 * PIECE);
        held.draw(PIECE);
        assert_eq!(all - held.left(), 2 * PIECE, "that much is free already");
        held.draw(1);
        assert_eq!(all - held.left(), 4 * PIECE);
        held.draw(1 << 40);
        assert_eq!(held.left(), 0);
        held.give_up();
        held.draw(1);
    }

    #[test]
    fn files_get_what_is_reserved_and_give_back_what_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let held = Held::nothing();
        held.take(temp.path(), Bytes::new(30 * MIB), Bytes::new(10 * MIB), false).unwrap();
        if held.left() == 0 {
            return;
        }
        let [metadata, data] = ["metadata", "data"].map(|name| temp.path().join(name));
        for (path, length) in [(&metadata, 12), (&data, 1000)] {
            File::create_new(path).unwrap().set_len(length * MIB).unwrap();
        }
        let occupies = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
        held.give_to_files(&[(metadata.clone(), Bytes::new(9 * MIB)), (data.clone(), Bytes::new(21 * MIB))]).unwrap();
        assert_eq!([occupies(&metadata), occupies(&data)], [9 * MIB, 21 * MIB]);
        assert!(held.left() >= BESIDE && held.left() <= BESIDE + 10 * MIB);
        held.give_also(&metadata, Bytes::new(1 << 60)).unwrap();
        assert_eq!(occupies(&metadata), 12 * MIB);
        held.give_also(&data, Bytes::new(1 << 60)).unwrap();
        let all = [metadata.clone(), data.clone(), temp.path().join("none")].map(|path| (path, Bytes::new(1 << 60)));
        out_of_files(&all).unwrap();
        assert_eq!([occupies(&metadata), occupies(&data)], [0, 0]);
    }

    #[test]
    fn what_was_not_given_is_told_by_its_reason() {
        let fs = FsFacts::of(Path::new("/")).unwrap();
        let says = |errno| {
            let why = KernelError { errno, call: "fallocate", object: "/x".to_owned() };
            format!("{:#}", not_given(why.into(), &fs, Bytes::GIB, Bytes::default()))
        };
        assert!(says(Errno::ENOSPC).contains("too little space"));
        assert!(says(Errno::EDQUOT).contains("a quota on the file system at /"));
        let why = says(Errno::EIO);
        assert!(why.starts_with("reserving ") && why.contains("fallocate") && !why.contains("too little"), "{why}");
        assert!(not_given(Interrupted("SIGINT").into(), &fs, Bytes::GIB, Bytes::GIB).is::<Interrupted>());
    }

    #[test]
    fn more_than_there_is_is_refused_with_what_is_free() {
        let temp = tempfile::tempdir().unwrap();
        let held = Held::nothing();
        let why = held.take(temp.path(), Bytes::new(1 << 60), Bytes::default(), true).unwrap_err().to_string();
        assert!(why.contains("too little space") && why.contains("are free"), "{why}");
        let data = temp.path().join("data");
        let file = File::create_new(&data).unwrap();
        if file.set_len(1 << 43).is_err() {
            return;
        }
        let why = held.give_to_files(&[(data.clone(), Bytes::new(1 << 43))]).unwrap_err().to_string();
        assert!(why.contains("too little space"), "{why}");
        assert_eq!(fs::metadata(&data).unwrap().blocks(), 0);
    }
}
