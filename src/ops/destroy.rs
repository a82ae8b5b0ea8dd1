//! `destroy`: a pool that dmpool made goes for good.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{
    DeleteFile, EraseLabel, ForgetVolumes, Kit, NamedDevice, RemoveDirectory, Step, Unregister, down,
};
use crate::ops::{Change, Done, gate, journal, members, sight, volumes};
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
    /// The record of its volumes.
    pub volumes: VolumeRecord,
    /// Those of its files that are there.
    pub files: Vec<PathBuf>,
    /// Those files and devices that are not, or cannot be looked at: each with why.
    pub missing: Vec<(PathBuf, String)>,
    /// A loop device that has one of them without being beneath the pool's own devices: the file and the device.
    pub elsewhere: Option<(PathBuf, PathBuf)>,
    /// The folder that `create` made for them, when they are in one.
    pub folder: Option<PathBuf>,
}

/// Destroys the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason, above all who has it open; [`crate::error::Kind::Failed`] when it could not be done and was
/// taken back; [`crate::error::Kind::Partial`] when a file is deleted already.
pub fn destroy(kit: &Kit, entry: &Entry, options: Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let first = plan(&look(kit, entry)?, entry, options)?;
    if change == Change::Describe {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock(kit, &gate::key_of_entry(entry), &first.what)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    let plan = plan(&look(kit, entry)?, entry, options)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
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
            Ok(found) if found.is_file() => files.push(path.clone()),
            Ok(_) => missing.push((path.clone(), "something else has its name".to_owned())),
            Err(e) => missing.push((path.clone(), e.to_string())),
        }
    }
    let mut labels = Vec::new();
    if !entry.devices().is_empty() {
        let cannot = |e| Failure::failed(format!("cannot destroy pool `{}`", entry.name)).because(e);
        labels = labels_of(kit, entry, &mut missing).map_err(cannot)?;
    }
    let folder = entry.files().and_then(|[metadata, data]| {
        let folder = data.file.parent()?;
        let is_its = folder.file_name() == Some(entry.name.as_str().as_ref());
        (is_its && metadata.file.parent() == Some(folder)).then_some(folder)
    });
    let mut elsewhere = None;
    if down.pool.is_none() && down.data.is_none() && down.metadata.is_none() {
        for file in &files {
            let user = sight::loops_on(file).ok().and_then(|loops| loops.first().map(LoopInfo::path));
            elsewhere = elsewhere.or(user.map(|device| (file.clone(), device)));
        }
    }
    let volumes = volumes::read(&kit.state, entry)?;
    Ok(Facts { down, labels, volumes, files, missing, elsewhere, folder: folder.map(Path::to_owned) })
}

/// Returns the labels of a pool's devices; adds to `missing` those that have none.
fn labels_of(kit: &Kit, entry: &Entry, missing: &mut Vec<(PathBuf, String)>) -> Result<Vec<(NamedDevice, Slots)>> {
    let sight = members::look(&kit.dm)?;
    let of_it = sight.labelled.iter().filter(|labelled| labelled.member.label.pool == entry.uuid);
    let found: Vec<_> = of_it.collect();
    for device in entry.devices() {
        match found.iter().filter(|labelled| labelled.member.label.device == device.uuid).count() {
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

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, entry: &Entry, options: Options) -> Outcome<Plan> {
    let name = &entry.name;
    let what = format!("destroy pool `{name}`");
    no_volumes(facts, options, &what)?;
    let mut steps = down::steps(&facts.down, entry).map_err(|why| why.failure(&what))?;
    if let Some((file, device)) = &facts.elsewhere {
        return Err(Failure::refused(format!(
            "cannot {what}: its file {} is in use by {}",
            file.display(),
            device.display()
        ))
        .fact("state", "nothing was touched")
        .next(format!("losetup -l {}    says more", device.display())));
    }
    if let Some((file, why)) = facts.missing.first().filter(|_| !options.keep_data) {
        let (kind, next) = match entry.files() {
            Some(_) => ("file", "mount the file system that it is on; or, if the file is gone for good:"),
            None => ("device", "connect it; or, if it is gone for good:"),
        };
        return Err(Failure::refused(format!("cannot {what}: its {kind} {} is not there", file.display()))
            .fact("cause", why)
            .fact("state", "nothing was touched")
            .next(format!("{next}  dmpool destroy {name} --keep-data")));
    }
    steps.push(Unregister { entry: entry.clone() }.into());
    let mut notes = Vec::new();
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
        let kept = facts.files.iter().chain(facts.labels.iter().map(|(device, _)| &device.path));
        let kept: Vec<_> = kept.map(|path| path.display().to_string()).collect();
        notes.push(match kept.as_slice() {
            [] => format!("none of its {kind} was there"),
            kept => format!("its {kind} stay: {}", kept.join(", ")),
        });
    } else {
        steps.extend(facts.files.iter().map(|path| DeleteFile { path: path.clone() }.into()));
        steps.extend(facts.labels.iter().filter_map(|(on, slots)| EraseLabel::of(on.clone(), slots)).map(Step::from));
        steps.extend(facts.folder.iter().map(|path| RemoveDirectory { path: path.clone() }.into()));
    }
    Ok(Plan { operation: Operation::Destroy, pool: name.to_string(), what, steps, notes })
}

/// Volumes that dmpool made go only when that was said.
fn no_volumes(facts: &Facts, options: Options, what: &str) -> Outcome<()> {
    let volumes: Vec<_> = facts.volumes.state.iter().flat_map(|state| &state.volumes).collect();
    let Some(first) = volumes.first().filter(|_| !options.with_volumes) else { return Ok(()) };
    let mut names: Vec<_> = volumes.iter().map(|volume| format!("{} ({})", volume.name, volume.size.human())).collect();
    let count = names.len();
    names.truncate(12);
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    let pool = &facts.volumes.pool;
    Err(Failure::refused(format!("cannot {what}: it has {count} {}", if count == 1 { "volume" } else { "volumes" }))
        .fact("found", names.join(", "))
        .fact("state", "nothing was touched")
        .next(format!(
            "dmpool thin remove {pool} {}    one by one; or, if all of them may go:  dmpool destroy {pool} --with-volumes",
            first.name
        )))
}
