//! Whether what is in a pool has room in the new one, and that on its file system.

use std::path::{Path, PathBuf};

use super::blocks::Origin;
use super::size::Old;
use super::{Ground, prepare};
use crate::error::{Failure, Outcome};
use crate::kernel::fs::FsFacts;
use crate::ops::steps::{Hold, InFiles, ReserveRoom, Step};
use crate::ops::{promised, reserved};
use crate::units::{BlockSize, Bytes};

/// Refuses a pool that what is in the old one does not fit in.
pub(super) fn fits(
    old: &Old,
    data: Bytes,
    metadata: Bytes,
    block: BlockSize,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    if old.need > data {
        return Err(refuse("what is in the pool does not fit".to_owned())
            .fact("needed", format!("{} at most, in blocks of {}", old.need.exact(), block.bytes().human()))
            .fact("found", format!("{} of data", data.exact()))
            .next(format!("--data-size {}, or smaller blocks", rounded(old.need).typed())));
    }
    let times = old.block.bytes().get().div_ceil(block.bytes().get()).max(1);
    let longer = old.metadata_longer.bytes();
    let needed = old.metadata_used.bytes().get().saturating_mul(times).saturating_add(longer.get());
    if needed > metadata.get() {
        let of_base = if longer > Bytes::default() {
            format!(", with {} at most for the larger base device", longer.human())
        } else {
            String::new()
        };
        let needed_for = block.bytes().human();
        return Err(refuse("the old pool's metadata does not fit".to_owned())
            .fact("needed", format!("about {}, for blocks of {needed_for}{of_base}", Bytes::new(needed).exact()))
            .fact("found", metadata.exact())
            .next(format!("--metadata-size {}", rounded(Bytes::new(needed)).typed())));
    }
    Ok(())
}

/// A tenth more, in whole gibibytes.
fn rounded(bytes: Bytes) -> Bytes {
    let more = bytes.get().saturating_add(bytes.get() / 10);
    Bytes::new(more.div_ceil(Bytes::GIB.get()).saturating_mul(Bytes::GIB.get()))
}

/// What a copy takes beside what is in the old pool, and what it does not take.
#[derive(Default)]
pub(super) struct Room {
    /// What is there already.
    pub there: Bytes,
    /// What is written beside it.
    pub beside: Bytes,
    /// Whether Docker runs meanwhile, and some is kept free for it.
    pub keeps: bool,
}

/// Refuses a file system of Docker's that has no room for what is written down while Docker runs.
pub(super) fn has_room_for(home: &Path, list: Bytes, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let fs = FsFacts::of(home).map_err(|e| refuse(format!("{} cannot be looked at", home.display())).because(e))?;
    let needed = Bytes::new(list.get().saturating_add(prepare::kept(&fs).get()));
    if needed <= fs.available {
        return Ok(());
    }
    let mount = fs.mount_point.display();
    Err(refuse(format!("the file system at {mount} has too little space for the list of what is copied"))
        .fact(
            "needed",
            format!("{} at most, with {} that are kept free for Docker", needed.exact(), prepare::kept(&fs).exact()),
        )
        .fact("free", fs.available.exact())
        .next("free some, or migrate without --prepare"))
}

/// Refuses where the sparse files could not get the blocks that the copy needs; returns how much that is at most.
pub(super) fn has_room(place: &Path, old: &Old, room: &Room, refuse: &impl Fn(String) -> Failure) -> Outcome<Bytes> {
    let fs = FsFacts::of(place).map_err(|e| refuse(format!("{} cannot be looked at", place.display())).because(e))?;
    let needed = Bytes::new(old.need.get().saturating_add(old.metadata_used.bytes().get().saturating_mul(2)));
    let beside = room.beside.get().saturating_add(old.metadata_longer.bytes().get());
    let written = Bytes::new(needed.saturating_sub(room.there).get().saturating_add(beside));
    let needed = written.get();
    let kept = if room.keeps { prepare::kept(&fs) } else { Bytes::default() };
    let needed = Bytes::new(needed.saturating_add(kept.get()));
    if needed > fs.available {
        let kept =
            if room.keeps { format!(", with {} that are kept free for Docker", kept.exact()) } else { String::new() };
        return Err(refuse(format!(
            "the file system at {} has too little space for the copy",
            fs.mount_point.display()
        ))
        .fact("needed", format!("{} at most{kept}", needed.exact()))
        .fact("free", fs.available.exact())
        .next("free some, or name a pool elsewhere:  dmpool migrate --name NAME --dir DIR"));
    }
    Ok(written)
}

/// What is reserved before Docker is stopped, as in [`ReserveRoom`].
pub(super) struct ToReserve {
    pub folder: PathBuf,
    pub room: Bytes,
    pub also: Bytes,
}

impl ToReserve {
    /// Returns the step that does it, before that hold.
    pub(super) fn step(self, hold: &Hold) -> Step {
        let Self { folder, room, also } = self;
        ReserveRoom { hold: hold.clone(), folder, room, also }.into()
    }
}

/// Returns what is reserved on the file system of a folder, and what the new pool's files get of it, all of `metadata` where that is free; where
/// the file system cannot, nothing, and `notes` says so.
pub(super) fn reserved(
    place: &Path,
    old: &Old,
    needed: Bytes,
    metadata: Bytes,
    notes: &mut Vec<String>,
) -> Option<(ToReserve, InFiles)> {
    if !reserved::can_be(place) {
        notes.push(reserved::cannot_be(place));
        return None;
    }
    let first = old.metadata_used.bytes().get().saturating_mul(2).saturating_add(old.metadata_longer.bytes().get());
    let files = InFiles { data: old.need, metadata: Bytes::new(first) };
    let also = metadata.saturating_sub(files.metadata);
    Some((ToReserve { folder: place.to_owned(), room: needed, also }, files))
}

/// Says that sparse files are promised more than there is: `files` is what the new ones may take still, and the old ones take no more.
pub(super) fn promises(ground: &Ground<'_>, old: &Old, home: &Path, files: Bytes) -> Option<String> {
    let fs = FsFacts::of(home).ok()?;
    let own = match &old.origin {
        Origin::Parts { data, metadata } => vec![data.clone(), metadata.clone()],
        Origin::Pool(_) => Vec::new(),
    };
    promised::more_than_there(files, &fs, promised::by_others(&ground.kit.state, fs.devno, &own))
}
