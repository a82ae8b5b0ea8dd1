//! A pool of dmpool's own that a pool becomes: made for it, or prepared while Docker ran.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::base::{Asked, NewBase};
use super::blocks::listing::Wanted;
use super::blocks::record::{self, Record};
use super::blocks::{Origin, Own as Prepared};
use super::room::{Room, ToReserve, fits, has_room, has_room_for, reserved};
use super::size::{self, Old};
use super::target::{edits, filled, is_renamed, notes as of_copy, stays, while_filled};
use super::{Ground, Own, Part, apart, base, prepared};
use crate::engine::configure::Edit;
use crate::engine::configure::docker::{self as configure, key_of};
use crate::engine::dockerd;
use crate::error::{Failure, Outcome};
use crate::ops::plan::Plan;
use crate::ops::steps::{Carried, DeleteFile, InFiles, SetAside, Step, Swap, UpdateEntry, devices_of};
use crate::ops::{boot, create, own_disk, steps};
use crate::pool::{Entry, Place, PoolName, Spec};
use crate::units::Bytes;

/// A pool of dmpool's own.
pub(super) struct OwnPool {
    /// What the operation does, as a sentence goes on after "cannot".
    pub what: String,
    /// The old pool.
    pub old: Old,
    /// The new one, with its identity and its sizes.
    pub wanted: Wanted,
    /// What the registry says of it.
    pub entry: Entry,
    /// What makes it, as `create` does; nothing when it is there.
    pub made: Option<Plan>,
    /// What brings it up to be filled.
    pub up: Vec<Step>,
    /// What Docker shall be told.
    pub edits: Vec<Edit>,
    /// What should be known.
    pub notes: Vec<String>,
    /// What was prepared, when it is gone on from.
    pub record: Option<Record>,
    /// What is made longer, with a larger base device.
    larger: Option<NewBase>,
    /// The folder of the old pool's files, which is put aside.
    files: Option<Swap>,
    /// What is reserved for the copy, where it lies in files and can be.
    room: Option<(ToReserve, InFiles)>,
}

/// What is there of it already, or makes it.
struct Ready {
    entry: Entry,
    data: Bytes,
    metadata: Bytes,
    made: Option<Plan>,
    /// The directory of files that are to be made, or were.
    directory: Option<PathBuf>,
}

/// Plans a pool of dmpool's own: `asked` says which, and whether what others have left on its devices goes; nothing for the one that was
/// prepared. With `prepares` it is made, or what was prepared is brought up to date.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn look(
    ground: &Ground<'_>,
    info: &Value,
    asked: Option<(&Spec, bool)>,
    new_base: Asked,
    prepares: bool,
) -> Outcome<OwnPool> {
    let root = &ground.root.path;
    let home = root.join("devicemapper");
    let verb = if prepares { "prepare to migrate" } else { "migrate" };
    let of = |name: &PoolName| format!("{verb} the pool of the Docker root `{}` to pool `{name}`", root.display());
    let first = asked
        .map_or_else(|| format!("{verb} the pool of the Docker root `{}`", root.display()), |(spec, _)| of(&spec.name));
    let refuse = |why: String| Failure::refused(format!("cannot {first}: {why}"));
    let record = prepared::found(ground, &home, &refuse)?;
    let mut notes = Vec::new();
    if let Some(record) = &record
        && !prepared::is_it(record, asked.map(|(spec, _)| &spec.name))
    {
        if prepares {
            return Err(prepared::another(ground, record, &refuse));
        }
        notes.extend(prepared::is_not_used(ground));
    }
    let record = record.filter(|record| prepared::is_it(record, asked.map(|(spec, _)| &spec.name)));
    let own = record.as_ref().and_then(|record| Some((record, record.own.as_ref()?)));
    if let Some((record, own)) = own
        && asked.is_some()
        && own.asked != ground.target
    {
        return Err(prepared::another(ground, record, &refuse));
    }
    let name = match (own, asked) {
        (Some((_, own)), _) => own.name.clone(),
        (None, Some((spec, _))) => spec.name.clone(),
        (None, None) => return Err(refuse("nothing is prepared".to_owned())),
    };
    let what = of(&name);
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    let block = own.map(|(record, _)| record.block).or(asked.map(|(spec, _)| spec.block_size));
    let mut old = size::look(ground, info, block, &refuse)?;
    let block = block.unwrap_or(old.block);
    if old.pool == name.as_str() {
        return Err(refuse("it is that pool already".to_owned())
            .next(format!("choose another name; dmpool grow {} makes it larger", old.pool)));
    }
    let mut of_base = Vec::new();
    let larger = base::look(ground, &mut old, new_base, Some(block), &mut of_base, &refuse)?;
    if own.is_some() && larger.as_ref().and_then(NewBase::anew).is_some() {
        return Err(prepared::is_by_blocks(ground, &refuse));
    }
    let ready = match own {
        Some((record, own)) => there(ground, record, own, &refuse)?,
        None => {
            let (spec, wipe) = asked.ok_or_else(|| refuse("nothing says what it shall be".to_owned()))?;
            if let Place::Devices { data, metadata, .. } = &spec.on {
                let named: Vec<_> = data.iter().chain(metadata).map(PathBuf::as_path).collect();
                apart::from_old(&ground.kit.dm, &old.origin, &named, &refuse)?;
            }
            anew(ground, spec, wipe, prepares, &refuse)?
        }
    };
    let Ready { entry, data, metadata, made, directory } = ready;
    if let Some(record) = &record {
        notes.extend(prepared::judge(ground, record, &home, &mut old, prepares, &refuse)?);
    }
    fits(&old, data, metadata, block, &refuse)?;
    let there = record
        .as_ref()
        .and_then(|record| record.ready(&ground.kit.dm, &home).ok())
        .map_or_else(Bytes::default, |(_, bytes)| bytes);
    let mut room = None;
    if let Some(directory) = &directory {
        let place = own_disk::there(directory);
        let needed = has_room(place, &old, &Room { there, beside: Bytes::default(), keeps: prepares }, &refuse)?;
        // While Docker runs nothing is kept from it.
        let in_all = if record.is_some() { Bytes::default() } else { metadata };
        room = if prepares { None } else { reserved(place, &old, needed, in_all, &mut notes) };
    }
    if prepares {
        has_room_for(&home, record::list_of(old.mapped), &refuse)?;
    }
    let mut up = devices_of(&entry, metadata.sectors(), data.sectors()).to_vec();
    for step in &mut up {
        if let Step::MakePool(make) = step {
            make.behaviour = while_filled(block);
        }
    }
    let edits = told(ground, &entry, larger.as_ref(), &refuse)?;
    notes.extend(of_copy(&old, data, block, prepares));
    notes.extend(made.iter().flat_map(|plan| plan.notes.clone()));
    notes.extend(of_base);
    let (files, stays) = set_aside(ground, &old, &refuse)?;
    notes.extend(stays.into_iter().filter(|_| !prepares));
    let prepared = prepares || record.is_some();
    let own = prepared.then(|| Prepared {
        name: name.clone(),
        asked: record
            .as_ref()
            .and_then(|record| record.own.as_ref())
            .map_or_else(|| ground.target.clone(), |own| own.asked.clone()),
        files: entry.files().map(|files| files.map(|store| store.file.clone())),
    });
    let wanted = Wanted { own, uuid: entry.uuid.clone(), data, metadata, block };
    Ok(OwnPool { what, old, wanted, entry, made, up, edits, notes, record, larger, files, room })
}

/// Returns what was prepared as it is there.
fn there(ground: &Ground<'_>, record: &Record, own: &Prepared, refuse: &impl Fn(String) -> Failure) -> Outcome<Ready> {
    let entry = prepared::entry_of(ground, record)?.ok_or_else(|| refuse(format!("pool `{}` is gone", own.name)))?;
    is_awake(ground, &entry, refuse)?;
    let directory = own.files.as_ref().and_then(|[_, data]| data.parent()).map(Path::to_owned);
    Ok(Ready { entry, data: record.data, metadata: record.metadata, made: None, directory })
}

/// Refuses a pool whose LVs are not active, as after a reboot: what was prepared in it cannot be looked at.
fn is_awake(ground: &Ground<'_>, entry: &Entry, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let name = &entry.name;
    let unclear = |e| refuse(format!("which LVs are those of the prepared pool `{name}` cannot be told")).because(e);
    let asleep = steps::asleep(ground.kit, entry).map_err(unclear)?;
    let words: Vec<_> = asleep.steps.iter().map(|wake| wake.volume.word()).collect();
    let refusal = |why: &str, of: &[String], next: String| {
        let why = format!("the prepared pool `{name}` is on LVs that {why}");
        Err(refuse(why).fact("found", of.join(", ")).fact("state", "nothing was touched").next(next))
    };
    match (asleep.partial.as_slice(), words.as_slice()) {
        ([], []) => Ok(()),
        ([], words) => {
            refusal("are not active", words, format!("lvchange -ay {}    # then run this again", words.join(" ")))
        }
        (partial, _) => refusal(
            "are not whole: disks of the volume group are missing",
            partial,
            "connect them (pvs -a -o +pv_missing), then run this again".to_owned(),
        ),
    }
}

/// Returns what makes it, as `create` would.
fn anew(
    ground: &Ground<'_>,
    spec: &Spec,
    wipe: bool,
    prepares: bool,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Ready> {
    let options = create::Options { spec: spec.clone(), ensure: false, wipe, engine: None, at_boot: !prepares };
    let facts = create::look(ground.kit, &options)?;
    let mut made = create::plan(ground.kit, &facts, &options)?;
    let lengths: Vec<Bytes> = made
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::MapFile(map) => Some(map.length.bytes()),
            Step::MapDevices(map) => Some(map.length.bytes()),
            _ => None,
        })
        .collect();
    let &[metadata, data] = lengths.as_slice() else {
        return Err(refuse("what it would be put on was not looked at".to_owned()));
    };
    for step in &mut made.steps {
        if let Step::Register(register) = step {
            register.entry.prepared = prepares.then(|| ground.root.path.clone());
        }
    }
    let entry = made.entry().cloned().ok_or_else(|| refuse("it is there already".to_owned()))?;
    let directory = match &spec.on {
        Place::Files { directory, .. } => Some(directory.clone()),
        _ => None,
    };
    Ok(Ready { entry, data, metadata, made: Some(made), directory })
}

/// Returns what Docker is told of it.
fn told(
    ground: &Ground<'_>,
    entry: &Entry,
    larger: Option<&NewBase>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<Edit>> {
    let files = entry.files();
    let is_sparse = files.is_some_and(|[_, data]| !data.preallocated);
    let discard = is_sparse && !entry.pool.features.iter().any(|feature| feature == "ignore_discard");
    let told = |given: &[&str]| {
        let last = |key: &str| given.iter().rev().find(|option| key_of(option) == key).copied();
        let wanted = format!("dm.thinpooldev=/dev/mapper/{}", entry.name);
        let mut options = Vec::new();
        if last("dm.thinpooldev") != Some(&wanted) {
            options.push(wanted);
        }
        if last("dm.blkdiscard").is_none() {
            options.push(format!("dm.blkdiscard={discard}"));
        }
        options.extend(larger.iter().flat_map(|larger| larger.options(given)));
        Ok(options)
    };
    let telling = configure::add(Path::new("/"), &dockerd::running(), &configure::DIRECT_LVM, told);
    edits(telling, &ground.root.path, refuse)
}

fn set_aside(
    ground: &Ground<'_>,
    old: &Old,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<(Option<Swap>, Vec<String>)> {
    let folder = ground.root.path.join("devicemapper/devicemapper");
    let aside = folder.with_file_name(format!("devicemapper.dmpool-{}.old", ground.stamp));
    match &old.origin {
        Origin::Parts { data, metadata } => {
            let notes = stays(data, metadata, &folder, &aside);
            let has_folder = folder.symlink_metadata().is_ok();
            if has_folder {
                is_renamed(&folder, refuse)?;
            }
            Ok((has_folder.then(|| Swap { folder, aside, made: PathBuf::new() }), notes))
        }
        Origin::Pool(pool) => {
            let note = format!("the old pool `{pool}` stays up, {}, and is not written any more", old.data.human());
            Ok((None, vec![note]))
        }
    }
}

/// Returns the steps between those that stop Docker and those that start it, and what it is told.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn plan(
    ground: &Ground<'_>,
    info: &Value,
    asked: Option<(&Spec, bool)>,
    new_base: Asked,
) -> Outcome<(Part, Own)> {
    let planned = look(ground, info, asked, new_base, false)?;
    let OwnPool { what, old, wanted, entry, made, up, edits, mut notes, record, larger, files, room } = planned;
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    let home = ground.root.path.join("devicemapper");
    let (first, after) = match made {
        Some(made) => split(made, &refuse)?,
        None => {
            let boot = boot::plan(&boot::look(ground.kit, Some(entry.name.as_str())), &refuse)?;
            notes.extend(boot.notes);
            let to = Entry { prepared: None, ..entry.clone() };
            let known = Step::from(UpdateEntry { from: entry.clone(), to });
            (Vec::new(), std::iter::once(known).chain(boot.steps).collect())
        }
    };
    let devices = devices_of(&entry, wanted.metadata.sectors(), wanted.data.sectors());
    let (origin, block, prepared) = (old.origin, wanted.block, record.map(|_| home));
    let (pool, name) = (entry.name.to_string(), entry.name.to_string());
    // Where nobody starts Docker, an undo makes it a prepared pool again, of which nobody would know without the record.
    let at_last = prepared.iter().filter(|_| !info.is_null()).flat_map(|home| Record::written_in(home));
    let at_last = at_last.map(|path| DeleteFile { path, file: None }.into()).collect();
    let (room, in_files) = room.unzip();
    let in_files = in_files.filter(|_| prepared.is_none());
    let own: Own = Box::new(move |hold| {
        let carried = Carried {
            hold: hold.clone(),
            old: origin,
            place: files.clone(),
            up,
            pool,
            uuid: entry.uuid.pool(),
            block,
            metadata: entry.files().map(|[metadata, _]| metadata.file.clone()),
            prepared,
            anew: larger.as_ref().and_then(NewBase::anew),
            room: in_files,
        };
        let mut steps = filled(carried, Vec::new(), larger.as_ref());
        steps.extend(devices);
        steps.extend(after);
        steps.extend(files.map(|Swap { folder, aside, .. }| Step::from(SetAside { from: folder, to: aside })));
        steps.extend(larger.into_iter().flat_map(NewBase::swap));
        steps
    });
    Ok((Part { what, pool: name, old: Some(old.pool), edits, notes, room, first, at_last }, own))
}

/// Returns what `create` does before it brings the pool up, and after.
fn split(made: Plan, refuse: &impl Fn(String) -> Failure) -> Outcome<(Vec<Step>, Vec<Step>)> {
    let register = made.steps.iter().position(|step| matches!(step, Step::Register(_)));
    let begin = register.and_then(|at| at.checked_sub(3)).ok_or_else(|| refuse("it is there already".to_owned()))?;
    let mut before = made.steps;
    let mut devices = before.split_off(begin);
    let after = devices.split_off(3.min(devices.len()));
    Ok((before, after))
}
