//! What a pool becomes: new loop files in Docker's own place, or a pool of dmpool's.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::base::{Asked, NewBase};
use super::blocks::listing::Wanted;
use super::blocks::record::{self, Record};
use super::blocks::{Origin, Target};
use super::room::{Room, ToReserve, fits, has_room, promises, reserved};
use super::size::{self, Old};
use super::{Ground, Options, Own, Part, To, base, grow_instead, own_pool, prepared};
use crate::engine::configure::docker::{self as configure, Telling, key_of};
use crate::engine::configure::{Edit, Obstacle};
use crate::engine::dockerd;
use crate::error::{Failure, Outcome};
use crate::kernel::fs::allocated;
use crate::kernel::{block, mounts};
use crate::ops::steps::{
    Carried, CopyVolumes, InFiles, MakeDirectory, MakeFile, MakePool, MapFile, SetAside, SettleCopy, Step, Swap,
    VerifyVolumes,
};
use crate::ops::{cost, on_devices, sight, target as file};
use crate::pool::{Behaviour, Place, PoolName, Spec, sizing};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// The new pool's dm name while it is filled in Docker's own place.
const FILLED: &str = "dmpool-migrate";
/// Docker's own length of a block (`defaultThinpBlockSize`, daemon/graphdriver/devmapper/deviceset.go).
const DEFAULT_BLOCK: Bytes = Bytes::new(64 << 10);

/// Returns the steps between those that stop Docker and those that start it, and what it is told; `info` is what Docker says of
/// itself, null when it does not run.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn plan(ground: &Ground<'_>, asked: &Options, info: &Value) -> Outcome<(Part, Own)> {
    match &asked.to {
        To::LoopFiles { data: None, metadata: None, block: None } if prepared::is_of_own(ground) => {
            own_pool::plan(ground, info, None, asked.base())
        }
        To::LoopFiles { data, metadata, block } => {
            let base = asked.base();
            loop_files(ground, info, &Sizes { data: *data, metadata: *metadata, block: *block, base })
        }
        To::Pool { spec, wipe } => own_pool::plan(ground, info, Some((spec, *wipe)), asked.base()),
        To::Overlay2 { .. } => Err(Failure::refused("cannot migrate to a pool: overlay2 was asked for")),
    }
}

/// What is filled zeroes its blocks, and is told at once when it is full.
pub(super) fn while_filled(block: BlockSize) -> Behaviour {
    let features = vec!["error_if_no_space".to_owned()];
    Behaviour { block_size: block, low_water: DataBlocks::new(0), features }
}

/// How large new loop files shall be.
pub(super) struct Sizes {
    pub data: Option<Bytes>,
    pub metadata: Option<Bytes>,
    pub block: Option<BlockSize>,
    /// What the base device shall be.
    pub base: Asked,
}

/// New loop files in Docker's own place.
pub(super) struct LoopFiles {
    /// What the operation does, as a sentence goes on after "cannot".
    pub what: String,
    /// The old pool.
    pub old: Old,
    /// The new one, with its identity and its sizes.
    pub wanted: Wanted,
    /// Its dm name while it is filled.
    pub pool: String,
    /// The folders that change places.
    pub place: Swap,
    /// What makes its files.
    pub make: Vec<Step>,
    /// What brings it up.
    pub up: Vec<Step>,
    /// What Docker shall be told.
    pub edits: Vec<Edit>,
    /// What should be known.
    pub notes: Vec<String>,
    /// What was prepared, when it is gone on from.
    pub record: Option<Record>,
    /// What changes with another base device.
    pub larger: Option<NewBase>,
    /// What is reserved for the copy, where it can be.
    room: Option<(ToReserve, InFiles)>,
}

/// Returns what brings up a pool that is filled, on its files for metadata and data.
fn up_of(files: [PathBuf; 2], name: &PoolName, wanted: &Wanted) -> Vec<Step> {
    let Wanted { uuid, data, metadata, block, .. } = wanted;
    let map = |file: PathBuf, name: String, uuid: String, size: Bytes| -> Step {
        MapFile { file, name, uuid, length: size.sectors() }.into()
    };
    let [metadata_file, data_file] = files;
    let pool = MakePool {
        name: name.to_string(),
        uuid: uuid.pool(),
        metadata: name.metadata_device(),
        data: name.data_device(),
        length: data.sectors(),
        behaviour: while_filled(*block),
    };
    vec![
        map(metadata_file, name.metadata_device(), uuid.metadata(), *metadata),
        map(data_file, name.data_device(), uuid.data(), *data),
        pool.into(),
    ]
}

/// Returns what brings up the pool that was prepared, and that pool.
///
/// # Errors
/// Never: its name is one.
pub(super) fn up_of_record(home: &Path, record: &Record) -> anyhow::Result<(Vec<Step>, Target)> {
    let name = PoolName::new(FILLED)?;
    let Record { uuid, data, metadata, block, .. } = record.clone();
    let target = Target { pool: name.to_string(), uuid: uuid.pool(), block };
    let wanted = Wanted { own: None, uuid, data, metadata, block };
    Ok((up_of(record::files(home), &name, &wanted), target))
}

/// Plans new loop files: those that were prepared, when there are any. With `prepares` they are made, or brought up to date.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn new_loop_files(ground: &Ground<'_>, info: &Value, sizes: &Sizes, prepares: bool) -> Outcome<LoopFiles> {
    let root = &ground.root.path;
    let verb = if prepares { "prepare to migrate" } else { "migrate" };
    let what = format!("{verb} the pool of the Docker root `{}` to new loop files", root.display());
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    let home = root.join("devicemapper");
    let record = prepared::found(ground, &home, &refuse)?;
    if let Some(record) = record.as_ref().filter(|record| record.own.is_some()) {
        return Err(prepared::another(ground, record, &refuse));
    }
    let of = record.as_ref();
    let block = sizes.block.or(of.map(|record| record.block));
    let mut old = size::look(ground, info, block, &refuse)?;
    is_down(ground, &old, &refuse)?;
    let mut of_base = Vec::new();
    let larger = base::look(ground, &mut old, sizes.base, block, &mut of_base, &refuse)?;
    let block = block.unwrap_or(old.block);
    let data = sizes.data.or(of.map(|record| record.data)).unwrap_or(old.data);
    let metadata = sizes.metadata.or(of.map(|record| record.metadata)).unwrap_or_else(|| {
        sizing::default_metadata(data, block).max(if block == old.block { old.metadata } else { Bytes::default() })
    });
    let mut told_of_record = Vec::new();
    if record.is_some() && larger.as_ref().is_some_and(|larger| larger.anew().is_some()) {
        return Err(prepared::is_by_blocks(ground, &refuse));
    }
    if let Some(record) = of {
        prepared::is_for(ground, record, data, metadata, block, &refuse)?;
        told_of_record = prepared::judge(ground, record, &home, &mut old, prepares, &refuse)?;
    }
    let made = home.join(format!("devicemapper.dmpool-{}", ground.stamp));
    let place = Swap {
        folder: home.join("devicemapper"),
        aside: home.join(format!("devicemapper.dmpool-{}.old", ground.stamp)),
        made: if prepares || record.is_some() { record::folder(&home) } else { made },
    };
    is_renamed(&place.folder, &refuse)?;
    is_no_link(&place.folder, &refuse)?;
    let name = PoolName::new(FILLED).map_err(|bad| refuse(bad.to_string()))?;
    let spec = Spec {
        name: name.clone(),
        data_size: Some(data),
        metadata_size: Some(metadata),
        block_size: block,
        low_water: sizing::DEFAULT_LOW_WATER,
        zero: false,
        error_when_full: false,
        discard: true,
        ephemeral: false,
        on: Place::Files { directory: home.clone(), preallocate: false },
    };
    on_devices::sizes(&spec, data, metadata, &refuse)?;
    fits(&old, data, metadata, block, &refuse)?;
    let there = of.map_or_else(Bytes::default, |record| {
        record.ready(&ground.kit.dm, &home).map_or_else(|_| Bytes::default(), |(_, bytes)| bytes)
    });
    let beside = if prepares { record::list_of(old.mapped) } else { Bytes::default() };
    let needed = has_room(&home, &old, &Room { there, beside, keeps: prepares }, &refuse)?;
    let told = |given: &[&str]| {
        let mut options = options(given, data, metadata, block);
        options.extend(larger.iter().flat_map(|larger| larger.options(given)));
        Ok(options)
    };
    let telling = configure::add(Path::new("/"), &dockerd::running(), &configure::PLACES, told);
    let edits = edits(telling, root, &refuse)?;
    let uuid = of.map_or_else(|| ground.uuid.clone(), |record| record.uuid.clone());
    let [metadata_file, data_file] = [place.made.join("metadata"), place.made.join("data")];
    let make: Vec<Step> = vec![
        MakeDirectory { path: place.made.clone(), parents: false }.into(),
        MakeFile { path: metadata_file.clone(), size: metadata, preallocate: false }.into(),
        MakeFile { path: data_file.clone(), size: data, preallocate: false }.into(),
    ];
    let wanted = Wanted { own: None, uuid, data, metadata, block };
    let up = up_of([metadata_file, data_file], &name, &wanted);
    let mut notes = notes(&old, data, block, prepares);
    notes.extend(promises(
        ground,
        &old,
        &home,
        Bytes::new(data.get().saturating_add(metadata.get())).saturating_sub(there),
    ));
    let is_own = old.pool == ground.root.own_pool();
    if is_own && data >= old.data && metadata >= old.metadata && block == old.block && larger.is_none() {
        notes.insert(0, grow_instead::sentence(ground, &old, data, metadata));
    }
    match &old.origin {
        _ if prepares => {}
        Origin::Parts { data, metadata } => notes.extend(stays(data, metadata, &place.folder, &place.aside)),
        Origin::Pool(pool) => {
            notes.push(format!("the old pool `{pool}` stays up, {}, and is not written any more", old.data.human()));
        }
    }
    notes.extend(of_base);
    notes.splice(0..0, told_of_record);
    // While Docker runs nothing is kept from it.
    let in_all = if record.is_some() { Bytes::default() } else { metadata };
    let room = if prepares { None } else { reserved(&home, &old, needed, in_all, &mut notes) };
    let pool = name.to_string();
    Ok(LoopFiles { what, old, wanted, pool, place, make, up, edits, notes, record, larger, room })
}

fn loop_files(ground: &Ground<'_>, info: &Value, sizes: &Sizes) -> Outcome<(Part, Own)> {
    let planned = new_loop_files(ground, info, sizes, false)?;
    let LoopFiles { what, old, wanted, pool, place, make, up, edits, mut notes, record, larger, room } = planned;
    if record.is_none() {
        notes.extend(prepared::is_not_used(ground));
    }
    let (uuid, block) = (wanted.uuid.pool(), wanted.block);
    let prepared = record.map(|_| ground.root.path.join("devicemapper"));
    let (origin, metadata_file) = (old.origin, place.made.join("metadata"));
    let (room, in_files) = room.unzip();
    let in_files = in_files.filter(|_| prepared.is_none());
    let own: Own = Box::new(move |hold| {
        let carried = Carried {
            hold: hold.clone(),
            old: origin,
            place: Some(place.clone()),
            up,
            pool,
            uuid,
            block,
            metadata: Some(metadata_file),
            prepared,
            anew: larger.as_ref().and_then(NewBase::anew),
            room: in_files,
        };
        let Swap { folder, aside, made } = place;
        let is_there = folder.symlink_metadata().is_ok();
        let mut steps = filled(carried, make, larger.as_ref());
        steps.extend(is_there.then(|| Step::from(SetAside { from: folder.clone(), to: aside })));
        steps.push(SetAside { from: made, to: folder }.into());
        steps.extend(larger.into_iter().flat_map(NewBase::swap));
        steps
    });
    let (pool, old) = (ground.root.own_pool(), Some(old.pool));
    Ok((Part { what, pool, old, edits, notes, room, first: Vec::new(), at_last: Vec::new() }, own))
}

/// Returns the steps that fill the new pool and look at it.
pub(super) fn filled(carried: Carried, make: Vec<Step>, larger: Option<&NewBase>) -> Vec<Step> {
    let mut steps = vec![
        Step::from(CopyVolumes { carried: carried.clone(), make }),
        VerifyVolumes { carried: carried.clone() }.into(),
    ];
    steps.extend(larger.map(|larger| larger.grow(&carried)));
    steps.push(SettleCopy { carried }.into());
    steps
}

/// Returns what Docker must be told of loop files of that size: it makes them longer, up to its own sizes, when it starts, and the
/// kernel refuses a pool with blocks of another length.
fn options(given: &[&str], data: Bytes, metadata: Bytes, block: BlockSize) -> Vec<String> {
    let last = |key: &str| {
        let option = given.iter().rev().find(|option| key_of(option) == key);
        option.and_then(|option| Bytes::parse(option.split_once('=')?.1.trim()).ok())
    };
    let mut options = Vec::new();
    if last("dm.loopdatasize").unwrap_or(sizing::DEFAULT_DATA) > data {
        options.push(format!("dm.loopdatasize={}", data.typed()));
    }
    if last("dm.loopmetadatasize").unwrap_or(sizing::DEFAULT_METADATA) > metadata {
        options.push(format!("dm.loopmetadatasize={}", metadata.typed()));
    }
    if last("dm.blocksize").unwrap_or(DEFAULT_BLOCK) != block.bytes() {
        options.push(format!("dm.blocksize={}", block.bytes().typed()));
    }
    // A pool of loop files gives nothing back to their file system without, and on devices it was told otherwise.
    if given.iter().rev().find(|option| key_of(option) == "dm.blkdiscard").is_some_and(|last| last.ends_with("false"))
        && given.iter().any(|option| configure::PLACES.iter().any(|place| key_of(option).starts_with(place)))
    {
        options.push("dm.blkdiscard=true".to_owned());
    }
    options
}

/// Returns the files to be written, of a Docker that is this root's.
pub(super) fn edits(
    telling: Result<Telling, Obstacle>,
    root: &Path,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<Edit>> {
    let telling = telling.map_err(|obstacle| file::refusal(&obstacle, refuse))?;
    let told = telling.root.canonicalize().unwrap_or_else(|_| telling.root.clone());
    if told != root {
        return Err(refuse("the Docker of this machine has another root".to_owned())
            .fact("found", told.display().to_string())
            .next("name that one, or make this one Docker's (`data-root`) first"));
    }
    if let Some(driver) = &telling.driver_before {
        return Err(refuse(format!("Docker is told to use the {driver} driver when it starts"))
            .fact("state", "nothing was touched")
            .next("take that out of its configuration when the pool is what it shall use, then run this again"));
    }
    Ok(telling.edits)
}

/// Refuses a folder that cannot be renamed.
pub(super) fn is_renamed(folder: &Path, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let mounts = mounts::own().map_err(|e| refuse("the mounts here cannot be read".to_owned()).because(e))?;
    if mounts.iter().any(|mount| mount.mount_point == folder) {
        return Err(refuse(format!(
            "a file system is mounted at {}, which would have to be renamed",
            folder.display()
        ))
        .next("move the files in it into a folder beside, mount that file system elsewhere, then run this again"));
    }
    Ok(())
}

/// Refuses new loop files while a pool of Docker's own name stays up: Docker takes one that is there, and makes none of its files
/// (`initDevmapper`, daemon/graphdriver/devmapper/deviceset.go).
fn is_down(ground: &Ground<'_>, old: &Old, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    // Its pool of loop files goes down with Docker; one that Docker is told of does not, whatever its name is.
    if matches!(old.origin, Origin::Parts { .. }) {
        return Ok(());
    }
    let own = ground.root.own_pool();
    let live = sight::live(&ground.kit.dm, &own);
    match live.map_err(|e| refuse(format!("whether a pool `{own}` is up cannot be told")).because(e))? {
        None => Ok(()),
        Some(_) => Err(refuse(format!("a pool `{own}` is up, and Docker would use that and not the new files"))
            .fact("state", "nothing was touched")
            .next(format!("dmpool status {own}    # whose it is; when nobody uses it:  dmsetup remove {own}"))),
    }
}

/// Refuses a folder that a link leads to: the new files would be made beside the link, not where it leads.
fn is_no_link(folder: &Path, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let Ok(to) = folder.read_link() else { return Ok(()) };
    Err(refuse(format!("{} is a symbolic link, and new files would not be made where it leads", folder.display()))
        .fact("found", format!("it leads to {}", to.display()))
        .fact("state", "nothing was touched")
        .next("dmpool migrate --name NAME --dir DIR    # a pool of its own, in a directory on that disk"))
}

/// Says what is copied, and what of it should be known; with `prepares`, nothing of Docker being stopped.
pub(super) fn notes(old: &Old, data: Bytes, block: BlockSize, prepares: bool) -> Vec<String> {
    let need = old.need.human();
    let mut notes = vec![format!(
        "{} copied: {}, in blocks of {} (now {}), into {} (now {})",
        if old.volumes == 1 { "1 volume is".to_owned() } else { format!("{} volumes are", old.volumes) },
        if old.is_steady && old.by_files.is_none() { format!("{need} at most") } else { format!("about {need}") },
        block.bytes().human(),
        old.block.bytes().human(),
        data.human(),
        old.data.human()
    )];
    if !prepares {
        let copied = cost::carry(old.left.unwrap_or(old.need));
        notes.push(cost::docker_stopped(old.by_files.unwrap_or(copied)));
    }
    if !old.is_steady {
        notes.push(
            "Docker writes to the pool all the while, and how much is in it cannot be told exactly: whether it fits is looked at again \
             when Docker is down, before anything is copied"
                .to_owned(),
        );
    }
    if !old.missing.is_empty() {
        notes.push(format!(
            "Docker has records of volumes that the pool does not have, and they stay so: {}",
            old.missing.join(", ")
        ));
    }
    let free = Bytes::new(data.get().saturating_sub(old.need.get()));
    if free.get() < data.get() / 10 {
        notes.push(format!(
            "less than a tenth of the new pool is free then ({}): Docker makes no more images and containers, unless dm.min_free_space is smaller",
            free.human()
        ));
    }
    notes
}

/// Returns how large a disk is, as a sentence goes on; nothing when that cannot be told.
fn size_of(device: &Path) -> String {
    let size = block::devno_of(device).and_then(block::size);
    size.map_or_else(|_| String::new(), |size| format!(", {}", size.bytes().human()))
}

/// Says what is left of a pool that is down, how large it is, and how it is deleted: its loop files are put aside with their folder,
/// and what lies elsewhere stays there.
pub(super) fn stays(data: &Path, metadata: &Path, folder: &Path, aside: &Path) -> Vec<String> {
    let is_file = |path: &&Path| path.starts_with(folder) && path.symlink_metadata().is_ok_and(|found| found.is_file());
    let (files, others): (Vec<_>, Vec<_>) =
        [("data", data), ("metadata", metadata)].into_iter().partition(|(_, path)| is_file(path));
    let mut notes = Vec::new();
    if !files.is_empty() {
        let occupied = files.iter().map(|(_, path)| allocated(path).unwrap_or_default().get()).sum();
        notes.push(format!(
            "the old loop files stay as {}, {}, and are not written any more; when Docker has run well without them:  dmpool migrate --delete-old",
            aside.display(),
            Bytes::new(occupied).human(),
        ));
    }
    for (part, path) in others {
        let on = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        notes.push(format!(
            "the old pool's {part} stays where it is, on {}{}, and is not written any more",
            on.display(),
            size_of(&on)
        ));
    }
    notes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_a_link_leads_to_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink("/srv/large", &link).unwrap();
        let refuse = |why: String| Failure::refused(why);
        assert!(is_no_link(temp.path(), &refuse).is_ok() && is_no_link(&temp.path().join("none"), &refuse).is_ok());
        let failure = is_no_link(&link, &refuse).unwrap_err();
        assert!(failure.what.contains("symbolic link") && failure.next.unwrap().starts_with("dmpool migrate --name"));
    }
}
