//! `destroy`: a pool that dmpool made goes for good.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::handover::Engine;
use crate::ops::lvm::{self, LogicalVolume};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{
    DeleteFile, EraseLabel, EraseSuperblock, FileId, ForgetVolumes, Kit, NamedDevice, RemoveDirectory, RemoveVolume,
    Step, Unregister, down,
};
use crate::ops::told::{self, Engines, Told, Unread};
use crate::ops::volumes::Known;
use crate::ops::{Change, Done, deleted, gate, journal, members, sight, volumes};
use crate::pool::label::Slots;
use crate::pool::{Entry, VolumeRecord};

/// What `destroy` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether its files stay.
    pub keep_data: bool,
    /// Whether it may have volumes that dmpool made: they go with it.
    pub with_volumes: bool,
}

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its devices.
    pub down: down::Facts,
    /// The labels of its devices, each with the device; none for a pool in files.
    pub labels: Vec<(NamedDevice, Slots)>,
    /// Those of its devices that are LVs which LVM has made for it, each with its tag; why LVM does not say, where it is
    /// to be asked.
    pub made_by_lvm: Result<Vec<(LogicalVolume, String)>, String>,
    /// The record of its volumes.
    pub volumes: VolumeRecord,
    /// What its metadata says of its volumes; why that is not known.
    pub known: Result<Known, String>,
    /// Those of its files that are there.
    pub files: Vec<(PathBuf, FileId)>,
    /// Those files and devices that are not, or cannot be looked at: each with why.
    pub missing: Vec<(PathBuf, String)>,
    /// Devices of an ephemeral pool that do not have its label: they came back blank, or others have their names.
    pub blank: Vec<PathBuf>,
    /// A loop device that has one of them without being beneath the pool's own devices: the file and the device.
    pub elsewhere: Option<(PathBuf, PathBuf)>,
    /// The folder that `create` made for them, when they are in one.
    pub folder: Option<PathBuf>,
    /// Where what is erased is kept.
    saved: PathBuf,
    /// The engines that are told to use it.
    told: Vec<Told>,
    /// What may say that another one is.
    untold: Vec<Unread>,
}

/// Destroys the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason, above all who has it open; [`crate::error::Kind::Failed`] when it could not be done and was
/// taken back; [`crate::error::Kind::Partial`] when a file is deleted already.
pub fn destroy(kit: &Kit, entry: &Entry, options: Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    // Without the driver's folder no migration can give it up.
    if entry.prepared.as_ref().is_some_and(|root| root.join("devicemapper").exists()) {
        gate::not_prepared(entry, &format!("destroy pool `{}`", entry.name))?;
    }
    gate::no_interrupted(kit, entry.name.as_str())?;
    let first = plan(&look(kit, entry)?, entry, options)?;
    if change == Change::Describe {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock_entry(kit, entry, &first.what)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let plan = plan(&look(kit, entry)?, entry, options)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    let mut done = Done::ended(plan, ended);
    done.left = kit.said();
    Ok(done)
}

/// Looks at what decides.
///
/// # Errors
/// When the kernel does not answer.
pub fn look(kit: &Kit, entry: &Entry) -> Outcome<Facts> {
    let down = down::look(kit, entry)?;
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    let stores = entry.files().into_iter().flatten().map(|store| &store.file);
    for path in stores.rev() {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => match FileId::of(path) {
                Ok(file) => files.push((path.clone(), file)),
                Err(e) => missing.push((path.clone(), format!("{:#}", e.root_cause()))),
            },
            Ok(_) => missing.push((path.clone(), "something else has its name".to_owned())),
            Err(e) => missing.push((path.clone(), e.to_string())),
        }
    }
    let (mut labels, mut made_by_lvm, mut blank) = (Vec::new(), Ok(Vec::new()), Vec::new());
    if !entry.devices().is_empty() {
        let cannot = |e| Failure::failed(format!("cannot destroy pool `{}`", entry.name)).because(e);
        let found = members::look(&kit.dm).map_err(cannot)?;
        labels = labels_of(&found, entry, &mut missing, &mut blank).map_err(cannot)?;
        made_by_lvm = volumes_of(kit, &found, entry);
    }
    let folder = entry.files().and_then(|[metadata, data]| {
        let folder = data.file.parent()?;
        let is_its = folder.file_name() == Some(entry.name.as_str().as_ref());
        (is_its && metadata.file.parent() == Some(folder)).then_some(folder)
    });
    let mut elsewhere = None;
    if down.pool.is_none() && down.data.is_none() && down.metadata.is_none() {
        for (file, _) in &files {
            let user = sight::loops_on(file).ok().and_then(|loops| loops.first().map(LoopInfo::path));
            elsewhere = elsewhere.or(user.map(|device| (file.clone(), device)));
        }
    }
    let volumes = volumes::read(&kit.state, entry)?;
    let known = volumes::in_pool(&kit.dm, entry);
    let Engines { told, unread: untold } = told::engines(entry.name.as_str());
    let folder = folder.map(Path::to_owned);
    Ok(Facts {
        down,
        labels,
        made_by_lvm,
        volumes,
        known,
        files,
        missing,
        blank,
        elsewhere,
        folder,
        saved: kit.state.saved.clone(),
        told,
        untold,
    })
}

/// Returns the labels of a pool's devices; adds to `missing` those that have none, of an ephemeral one to `blank`.
fn labels_of(
    sight: &members::Sight,
    entry: &Entry,
    missing: &mut Vec<(PathBuf, String)>,
    blank: &mut Vec<PathBuf>,
) -> Result<Vec<(NamedDevice, Slots)>> {
    let of_it = sight.labelled.iter().filter(|labelled| labelled.member.label.pool == entry.uuid);
    let found: Vec<_> = of_it.collect();
    for device in entry.devices() {
        match found.iter().filter(|labelled| labelled.member.label.device == device.uuid).count() {
            0 if entry.ephemeral.is_some() => blank.push(device.path.clone()),
            0 => missing.push((device.path.clone(), "no device has its label".to_owned())),
            1 => {}
            _ => missing.push((device.path.clone(), "several devices have its label".to_owned())),
        }
    }
    let named = |labelled: &&members::Labelled| {
        let member = &labelled.member;
        Ok((NamedDevice::of(Path::new(&member.name), member.length.bytes())?, labelled.slots.clone()))
    };
    found.iter().map(named).collect()
}

/// Returns those of a pool's devices that LVM has made for it: the LV that has the label has its tag too.
fn volumes_of(kit: &Kit, sight: &members::Sight, entry: &Entry) -> Result<Vec<(LogicalVolume, String)>, String> {
    let mut found = Vec::new();
    for member in sight.of(&entry.uuid) {
        let tag = lvm::tag_of(member.label.device);
        let volume = lvm::of_device(&kit.dm, member.devno).map_err(|e| e.to_string())?;
        found.extend(volume.filter(|volume| volume.has(&tag)).map(|volume| (volume.of, tag)));
    }
    Ok(found)
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, entry: &Entry, options: Options) -> Outcome<Plan> {
    let name = &entry.name;
    let what = format!("destroy pool `{name}`");
    if options.keep_data {
        deleted::refuse(&facts.down.held, name.as_str(), &what)?;
    }
    no_volumes(facts, entry, options, &what)?;
    no_engine(facts, &what)?;
    let mut steps = down::steps(&facts.down, entry).map_err(|why| why.failure(&what))?;
    let replaced = facts.down.held.iter().find(|held| held.found == deleted::Found::Another && !options.keep_data);
    if let Some(held) = replaced {
        let (path, part) = (held.path.display(), held.part);
        return Err(Failure::refused(format!("cannot {what}: {path} is another file than its {part}"))
            .fact("found", format!("{} has {}", held.file.device.display(), held.file.path.display()))
            .fact("state", "nothing was touched")
            .next(format!("mv {path} {path}.other    # keeps that file")));
    }
    if let Some((file, device)) = &facts.elsewhere {
        return Err(Failure::refused(format!(
            "cannot {what}: its file {} is in use by {}",
            file.display(),
            device.display()
        ))
        .fact("state", "nothing was touched")
        .next(format!("losetup -l {}    # says more", device.display())));
    }
    // A file that was deleted under the pool goes with it, which is what was asked for.
    let goes_anyhow = |path: &PathBuf| facts.down.held.iter().any(|held| held.is_deleted && held.path == *path);
    let missing = facts.missing.iter().find(|(path, _)| !goes_anyhow(path));
    if let Some((file, why)) = missing.filter(|_| !options.keep_data) {
        let (kind, next) = match entry.files() {
            Some(_) => ("file", "mount the file system that it is on; or, if the file is gone for good:"),
            None if lvm::names_in(file).is_some() => (
                "LV",
                "lvs -a    # shows whether it is there, and  dmpool activate activates it; or, if it is gone for good:",
            ),
            None => ("device", "connect it; or, if it is gone for good:"),
        };
        return Err(Failure::refused(format!("cannot {what}: its {kind} {} is not there", file.display()))
            .fact("cause", why)
            .fact("state", "nothing was touched")
            .next(format!("{next}  dmpool destroy {name} --keep-data")));
    }
    no_strangers(facts, entry, options, &what)?;
    steps.push(Unregister { entry: entry.clone() }.into());
    let mut notes: Vec<_> = facts.told.iter().map(left_without).collect();
    notes.extend(facts.untold.iter().map(|unread| {
        let Unread { engine, problem, .. } = unread;
        let (engine, file) = (engine.name(), problem.path.display());
        format!("whether {engine} is told to use it is not known: {file} cannot be read ({})", problem.why)
    }));
    if !options.keep_data {
        notes.extend(what_goes(facts, entry));
    }
    if !facts.volumes.is_blank() {
        steps.push(ForgetVolumes { record: facts.volumes.clone() }.into());
        if options.keep_data {
            notes.extend(facts.volumes.state.iter().flat_map(|state| &state.volumes).map(|volume| {
                format!("in it stays the volume `{}`: id {}, {}", volume.name, volume.id, volume.size.exact())
            }));
        }
    }
    if options.keep_data {
        let kind = if entry.files().is_some() { "files" } else { "devices" };
        let kept = facts.files.iter().map(|(path, _)| path).chain(facts.labels.iter().map(|(device, _)| &device.path));
        let kept: Vec<_> = kept.map(|path| path.display().to_string()).collect();
        notes.push(match kept.as_slice() {
            [] => format!("none of its {kind} was there"),
            kept if facts.labels.is_empty() => format!("its {kind} stay: {}", kept.join(", ")),
            kept => {
                format!("its {kind} stay: {}; dmpool activate {name} --register    # brings it back", kept.join(", "))
            }
        });
    } else {
        let without = |path: &PathBuf| format!("{} does not have its label: nothing is erased there", path.display());
        notes.extend(facts.blank.iter().map(without));
        steps.extend(facts.files.iter().map(|(path, file)| delete(path, file)));
        steps.extend(facts.labels.iter().filter_map(|(on, slots)| superblock_on(facts, entry, on, slots)));
        steps.extend(facts.labels.iter().filter_map(|(on, slots)| EraseLabel::of(on.clone(), slots)).map(Step::from));
        let made = facts.made_by_lvm.as_ref().map_err(|why| {
            Failure::refused(format!("cannot {what}: LVM does not say whether its LVs were made for it"))
                .fact("cause", why)
                .fact("state", "nothing was touched")
                .next(format!("lvs    # by itself says what it waits for; or  dmpool destroy {name} --keep-data"))
        })?;
        let remove =
            |(volume, tag): &(LogicalVolume, String)| RemoveVolume { volume: volume.clone(), tag: tag.clone() };
        steps.extend(made.iter().map(remove).map(Step::from));
        steps.extend(facts.folder.iter().map(|path| RemoveDirectory { path: path.clone() }.into()));
    }
    Ok(Plan { operation: Operation::Destroy, pool: name.to_string(), what, steps, notes })
}

fn delete(path: &Path, file: &FileId) -> Step {
    DeleteFile { path: path.to_owned(), file: Some(file.clone()) }.into()
}

/// Returns the step that erases the superblock that the kernel has put behind this label.
fn superblock_on(facts: &Facts, entry: &Entry, on: &NamedDevice, slots: &Slots) -> Option<Step> {
    let label = slots.newest().ok().flatten()?;
    let short: String = label.device.to_string().chars().take(8).collect();
    let saved = facts.saved.join(format!("{}-{short}-superblock", entry.name));
    EraseSuperblock::of(on.clone(), label, saved).map(Step::from)
}

/// An engine that runs would go on with a pool that is not there.
fn no_engine(facts: &Facts, what: &str) -> Outcome<()> {
    if let Some(unread) = facts.untold.iter().find(|unread| unread.runs) {
        let engine = unread.engine.name();
        let why = format!("{engine} runs, and it is not known whether it is told to use it");
        return Err(Failure::refused(format!("cannot {what}: {why}"))
            .fact("cause", unread.cause())
            .fact("state", "nothing was touched")
            .next(format!("put {} right, or stop {engine}, then run this again", unread.problem.path.display())));
    }
    let Some(told) = facts.told.iter().find(|told| told.runs) else { return Ok(()) };
    let engine = told.engine.name();
    Err(Failure::refused(format!("cannot {what}: {engine} runs, and is told to use it"))
        .fact("found", format!("{} in {}", told.words, told.by))
        .fact("state", "nothing was touched")
        .next(format!("stop {engine} and {}, then run this again", told.way_out())))
}

/// What an engine that is told of the pool meets without it (docker 20.10, containerd 1.6).
fn left_without(told: &Told) -> String {
    let then = match told.engine {
        Engine::Docker => "Docker does not start without it",
        Engine::Containerd => {
            "containerd starts without its devmapper snapshotter then, and with none of what is on it"
        }
    };
    format!("{} is told of it by {}: {then}; {}", told.engine.name(), told.by, told.way_out())
}

/// How many volumes are named.
const NAMED: usize = 12;

/// Returns the volumes that the record has, and those that only the pool has: each with its size, and how much it maps.
fn volumes_in(facts: &Facts, entry: &Entry) -> (Vec<String>, Vec<String>) {
    let known = facts.known.as_ref().ok();
    let mapped = |id: u64| {
        let mapped = known.and_then(|known| known.volumes.get(&id)).map(|details| details.mapped);
        mapped.map(|blocks| format!("{} mapped", entry.pool.block_size.bytes_of(blocks).human()))
    };
    let recorded: Vec<_> = facts.volumes.state.iter().flat_map(|state| &state.volumes).collect();
    let mut names: Vec<_> = recorded
        .iter()
        .map(|volume| {
            let mapped = mapped(u64::from(volume.id.get())).map(|mapped| format!(", {mapped}")).unwrap_or_default();
            format!("{} ({}{mapped})", volume.name, volume.size.human())
        })
        .collect();
    // While a change of them is open, a volume stands in two states.
    names.sort();
    names.dedup();
    let is_recorded = |id: u64| recorded.iter().any(|volume| u64::from(volume.id.get()) == id);
    let strangers = known.iter().flat_map(|known| known.volumes.keys()).filter(|id| !is_recorded(**id));
    let strangers = strangers.map(|id| format!("id {id} ({})", mapped(*id).unwrap_or_default())).collect();
    (names, strangers)
}

/// Returns names as one text, not too long.
fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn counted(count: usize) -> String {
    format!("{count} {}", if count == 1 { "volume" } else { "volumes" })
}

/// Says what is lost with the pool; nothing of one without volumes.
fn what_goes(facts: &Facts, entry: &Entry) -> Option<String> {
    let (mut names, strangers) = volumes_in(facts, entry);
    names.extend(strangers);
    let (count, names) = (names.len(), listed(names));
    match &facts.known {
        Ok(_) if count == 0 => None,
        Ok(known) => {
            let used = entry.pool.block_size.bytes_of(known.data_used).human();
            Some(format!("with it go {}: {names}; {used} of its data are in use", counted(count)))
        }
        Err(why) if count == 0 => Some(format!("what is in it, and goes with it, is not known: {why}")),
        Err(why) => Some(format!("with it go {}: {names}; how much data that is, is not known: {why}", counted(count))),
    }
}

/// Volumes that dmpool made go only when that was said.
fn no_volumes(facts: &Facts, entry: &Entry, options: Options, what: &str) -> Outcome<()> {
    let mut volumes = facts.volumes.state.iter().flat_map(|state| &state.volumes);
    let Some(first) = volumes.next().filter(|_| !options.with_volumes) else { return Ok(()) };
    let (names, strangers) = volumes_in(facts, entry);
    let (pool, names) = (&facts.volumes.pool, [names, strangers].concat());
    Err(Failure::refused(format!("cannot {what}: it has {}", counted(names.len())))
        .fact("found", listed(names))
        .fact("state", "nothing was touched")
        .next(format!(
            "dmpool thin remove {pool} {}    # one by one; or, if all of them may go:  dmpool destroy {pool} --with-volumes",
            first.name
        )))
}

/// Nor do those that the record does not have: an engine's, or whose record is lost.
fn no_strangers(facts: &Facts, entry: &Entry, options: Options, what: &str) -> Outcome<()> {
    if options.with_volumes || options.keep_data {
        return Ok(());
    }
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
    let go = format!("dmpool destroy {} --with-volumes", entry.name);
    let strangers = match &facts.known {
        Ok(_) => volumes_in(facts, entry).1,
        Err(why) => {
            return Err(refuse("it cannot be told which volumes it has".to_owned())
                .fact("cause", why)
                .next(format!("{go}    # if all that may be in it may go")));
        }
    };
    match strangers.len() {
        0 => Ok(()),
        count => Err(refuse(format!("it has {} that dmpool has no record of", counted(count)))
            .fact("found", listed(strangers))
            .next(format!(
                "{go}    # if all of them may go; who made them (Docker, containerd) knows what is in them"
            ))),
    }
}
