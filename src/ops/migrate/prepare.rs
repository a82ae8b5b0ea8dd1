//! `migrate --prepare`: what nobody can change any more is copied while Docker runs, so that Docker is down for the rest only.
//!
//! No journal stays open: what was prepared lies beside Docker's own files, with a record of what of it is whole, and is in nobody's way.

use std::path::{Path, PathBuf};

use super::base::Asked;
use serde_json::Value;

use super::blocks::listing::Wanted;
use super::blocks::record::{self, Opened, Record};
use super::blocks::{Target, identity, listing};
use super::own_pool::{self, OwnPool};
use super::preflight::Options as Docker;
use super::prepared::{self, command, drop_command};
use super::size::Old;
use super::target::{self, LoopFiles, Sizes};
use super::{Ground, Options, To, around, ground, preflight};
use crate::engine::configure::Edit;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::critical::hold_signals;
use crate::kernel::fs::FsFacts;
use crate::ops::cost;
use crate::ops::daemon::vanishing;
use crate::ops::fault::{self, Point};
use crate::ops::plan::Plan;
use crate::ops::progress::Interrupted;
use crate::ops::steps::{self, Attempt, Kit, MakeDirectory, MakeFile, Reverted, Step, take_down, with_pool};
use crate::ops::{Change, destroy, gate, journal, own_disk};
use crate::pool::Entry;
use crate::units::Bytes;

/// The lock of who writes to what is prepared, or goes on from it.
pub const LOCK: &str = "prepared";
/// What share of the file system is kept free for Docker's own loop files while they are copied.
const KEPT: u64 = 20;

/// Returns how much of a file system that is.
pub(super) fn kept(fs: &FsFacts) -> Bytes {
    Bytes::new(fs.total.get() / KEPT)
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What was done, or would be, as a sentence goes on after "dmpool would".
    pub what: String,
    /// What should be known, each a sentence.
    pub notes: Vec<String>,
    /// The command that goes on.
    pub next: String,
}

/// What is copied into what.
struct Planned {
    what: String,
    old: Old,
    wanted: Wanted,
    /// The new pool's dm name while it is filled.
    pool: String,
    up: Vec<Step>,
    edits: Vec<Edit>,
    notes: Vec<String>,
    /// What was prepared before.
    record: Option<Record>,
    /// What makes new loop files.
    make: Vec<Step>,
    /// What makes a pool of dmpool's own, when it is not there.
    create: Option<Plan>,
    /// Where some is kept free meanwhile.
    keeps: Option<PathBuf>,
}

/// Returns whether a migration of that root was prepared, or was begun to be.
pub fn is_prepared(kit: &Kit, options: &Options) -> bool {
    let look = || -> Outcome<bool> {
        let ground = ground(kit, options)?;
        Ok(prepared::found(&ground, &ground.root.path.join("devicemapper"), &Failure::refused)?.is_some())
    };
    look().unwrap_or(false)
}

/// Copies what can be copied while Docker runs, or says what would be.
///
/// # Errors
/// Refused with every reason for which the migration would be refused; [`crate::error::Kind::Failed`] when it could not be done, or somebody
/// wanted an end: it goes on from there.
pub fn prepare(kit: &Kit, options: &Options, change: Change) -> Outcome<Ready> {
    gate::may_change(kit)?;
    if change == Change::Make {
        hold_signals();
    }
    let look = || -> Outcome<(Ground<'_>, Planned)> {
        let ground = ground(kit, options)?;
        let docker = preflight::Options { purpose: preflight::Purpose::Prepare, ..options.docker.clone() };
        let judged = preflight::judge(&preflight::look(&ground.root.path, &docker), &docker)?;
        let mut planned = planned(&ground, options, &judged.info)?;
        let vanish: Vec<_> = vanishing::still_there(&judged.containers).iter().map(ToString::to_string).collect();
        let Docker { without_rm, keep_rm, .. } = &options.docker;
        if !vanish.is_empty() && !without_rm && !keep_rm {
            planned.notes.push(format!(
                "the switch is refused while containers of --rm are there, unless it is told --keep-rm or --without-rm: {}",
                vanish.join(", ")
            ));
        }
        let home = ground.root.path.join("devicemapper");
        identity(&kit.dm, &home, &planned.old.origin).map_err(|e| {
            Failure::refused(format!("cannot {}: what is prepared could not be told to be this pool's", planned.what))
                .because(e)
                .fact("state", "nothing was touched")
                .next(format!("{}    # without --prepare", command(&ground, "")))
        })?;
        // What would refuse the switch is said by now.
        around::around(&judged, &kit.state, "docker", Some(&planned.old.pool), &planned.edits, &[])?;
        if let Some(create) = &planned.create {
            steps::agreed_by_lvm(&create.steps, &create.what)?;
        }
        Ok((ground, planned))
    };
    if change == Change::Describe {
        let (ground, mut planned) = look()?;
        let into = match &planned.wanted.own {
            Some(own) => format!("pool `{}`", own.name),
            None => record::folder(&ground.root.path.join("devicemapper")).display().to_string(),
        };
        planned
            .notes
            .insert(0, format!("what can be copied while containers run goes into {into}; nothing is stopped"));
        return Ok(Ready { what: planned.what, notes: planned.notes, next: command(&ground, "") });
    }
    let _lock = gate::lock(kit, LOCK, "prepare a migration")?;
    let existence = gate::lock(kit, gate::EXISTENCE, "prepare a migration")?;
    let (ground, planned) = look()?;
    let cannot = |e: anyhow::Error| {
        let when = if e.is::<Interrupted>() { "goes on" } else { "once that is mended" };
        let next = format!("{}    # {when}; or --drop-prepared gives it up", command(&ground, " --prepare"));
        Failure::failed(format!("cannot {}", planned.what))
            .because(e)
            .fact("state", "Docker was not touched, and the old pool was only read")
            .next(next)
    };
    let home = ground.root.path.join("devicemapper");
    if let Some(create) = &planned.create {
        // A pool that is there is found by it; without the pool it says nothing.
        listing::unlisted(&kit.dm, &home, &planned.old.origin, &planned.old.superblock, &planned.wanted)
            .and_then(|record| record.write_empty(&home))
            .map_err(cannot)?;
        journal::carry_out(kit, create.clone())?;
    }
    drop(existence);
    let (record, left_out) = copy(kit, &ground, &planned).map_err(cannot)?;
    let (_, bytes) = record.ready(&kit.dm, &home).map_err(cannot)?;
    let mut notes = planned.notes;
    let differ = record.volumes.iter().filter(|volume| !volume.is_whole).count();
    if differ > 0 {
        notes.push(format!("{differ} volumes were changed or deleted while they were copied, and are copied again"));
    }
    if left_out > 0 {
        notes.push(format!(
            "{left_out} volumes could not be read, as when Docker writes to them, and are left for the switch"
        ));
    }
    let whole = record.volumes.len() - differ;
    notes.push(format!(
        "{whole} volumes are prepared, {} on the disk, in {}",
        bytes.human(),
        prepared::name_of(&record, &home)
    ));
    notes.push(match prepared::left(&ground, &record, &home, &planned.old) {
        Some(left) => {
            let then = cost::docker_stopped(cost::carry(left));
            format!("{} are left to copy and to compare, as the pool is now: {then}", left.human())
        }
        None => "Docker writes to the pool, and how much is left to copy cannot be told now".to_owned(),
    });
    notes.push(format!("to give it up:  {}", drop_command(&ground)));
    Ok(Ready { what: planned.what, notes, next: command(&ground, "") })
}

/// Plans what is made or brought up to date.
fn planned(ground: &Ground<'_>, options: &Options, info: &Value) -> Outcome<Planned> {
    let asked = match &options.to {
        To::Overlay2 { .. } => {
            return Err(Failure::refused("cannot prepare that migration: only a pool can be prepared")
                .fact("state", "nothing was touched")
                .next("dmpool migrate --to-driver overlay2    # without --prepare"));
        }
        To::LoopFiles { data: None, metadata: None, block: None } if prepared::is_of_own(ground) => None,
        To::LoopFiles { data, metadata, block } => {
            let sizes = Sizes { data: *data, metadata: *metadata, block: *block, base: Asked::default() };
            let planned = target::new_loop_files(ground, info, &sizes, true)?;
            let LoopFiles { what, old, wanted, pool, make, up, edits, notes, record, .. } = planned;
            if record.is_none() && data.is_none() && metadata.is_none() && block.is_none() {
                return Err(Failure::new(Kind::Usage, "cannot prepare a migration: nothing says what the pool shall become")
                    .fact("needed", "--data-size or --block-size for new loop files; or --name with --dir, --data-device or --vg for a pool of dmpool's")
                    .fact("state", "nothing was touched")
                    .next("dmpool migrate    # on a terminal it asks, and whether to prepare, too"));
            }
            let keeps = Some(ground.root.path.join("devicemapper"));
            return Ok(Planned { what, old, wanted, pool, up, edits, notes, record, make, create: None, keeps });
        }
        To::Pool { spec, wipe } => {
            gate::no_interrupted(ground.kit, spec.name.as_str())?;
            Some((spec.as_ref(), *wipe))
        }
    };
    let planned = own_pool::look(ground, info, asked, Asked::default(), true)?;
    let OwnPool { what, old, wanted, entry, made, up, edits, mut notes, record, .. } = planned;
    gate::no_interrupted(ground.kit, entry.name.as_str())?;
    if let Some(made) = &made {
        notes.push(format!(
            "pool `{}` is made first, and is for nothing else until Docker is switched to it or it is given up",
            entry.name
        ));
        if made.steps.iter().any(|step| matches!(step, Step::ClearDevice(_))) {
            notes.push("what is on the disks that are wiped does not come back, also when that is given up".to_owned());
        }
    }
    let keeps = entry.files().and_then(|[_, data]| data.file.parent()).map(|folder| own_disk::there(folder).to_owned());
    let (pool, make) = (entry.name.to_string(), Vec::new());
    Ok(Planned { what, old, wanted, pool, up, edits, notes, record, make, create: made, keeps })
}

/// Returns what was prepared, and how many volumes were left out.
fn copy(kit: &Kit, ground: &Ground<'_>, planned: &Planned) -> anyhow::Result<(Record, usize)> {
    let home = ground.root.path.join("devicemapper");
    let Planned { old, wanted, up, pool, make, keeps, .. } = planned;
    let target = Target { pool: pool.clone(), uuid: wanted.uuid.pool(), block: wanted.block };
    take_down(kit, up, &target)?;
    let base = match &planned.record {
        Some(record) => match record.unfit(&kit.dm, &home, &old.origin, &old.superblock)? {
            None | Some(record::Unfit::NotWhole) => Opened::open(&home, record.clone()).ok(),
            Some(_) => None,
        },
        None => None,
    };
    if base.is_none() && wanted.own.is_none() {
        clear(kit, &home, make)?;
    }
    for step in make.iter().filter(|step| step.act().verify(kit).is_err()) {
        step.act().apply(kit, Attempt::Again)?;
    }
    fault::reached(0, Point::Before)?;
    let listed = listing::list(&kit.dm, &old.now, &old.origin, &ground.root.path, &home, wanted)?;
    if base.is_none() {
        // A pool that is up is found by it.
        listed.write_down(&home)?;
    }
    fault::reached(1, Point::Before)?;
    let keeps = keeps.as_deref().map(|place| anyhow::Ok((place, kept(&FsFacts::of(place)?)))).transpose()?;
    let differ =
        with_pool(kit, up, &target, |target| listing::fill_listed(kit, &listed, base.as_ref(), target, keeps, &home))?;
    fault::reached(2, Point::Before)?;
    Ok((record::settle(&kit.dm, &home, listed.opened.record, &differ)?, listed.left_out))
}

/// Takes what was prepared away.
fn clear(kit: &Kit, home: &Path, make: &[Step]) -> anyhow::Result<()> {
    Record::remove(home)?;
    for step in make.iter().rev() {
        if let Reverted::Stands(why) | Reverted::Left(why) = step.act().revert(kit)? {
            anyhow::bail!("{why}");
        }
    }
    Ok(())
}

/// Gives up what was prepared, or says what would be. Returns what goes; nothing when nothing was prepared.
///
/// # Errors
/// Refused while somebody is at work on it; when it cannot be removed.
pub fn drop_prepared(kit: &Kit, options: &Options, change: Change) -> Outcome<Option<String>> {
    gate::may_change(kit)?;
    let ground = ground(kit, options)?;
    let home = ground.root.path.join("devicemapper");
    let folder = record::folder(&home);
    let look = || -> Outcome<_> {
        let (record, entry) = (Record::read(&home), prepared::entry(&ground)?);
        // One that is being made is not registered yet, and would have no record once that is finished.
        if let Ok(Some(Record { own: Some(own), .. })) = &record {
            gate::no_interrupted(kit, own.name.as_str())?;
        }
        let parts = [
            entry.as_ref().map(|entry| format!("pool `{}`", entry.name)),
            folder.is_dir().then(|| folder.display().to_string()),
        ];
        let mut gone: Vec<_> = parts.into_iter().flatten().collect();
        if gone.is_empty() && !matches!(record, Ok(None)) {
            gone.extend(Record::written_in(&home).first().map(|path| path.display().to_string()));
        }
        Ok((record, entry, gone.join(" and ")))
    };
    let (_, _, gone) = look()?;
    if gone.is_empty() || change == Change::Describe {
        return Ok((!gone.is_empty()).then_some(gone));
    }
    let what = format!("give up what was prepared for the Docker root `{}`", ground.root.path.display());
    let _lock = gate::lock(kit, LOCK, &what)?;
    // Who had the lock until now may have made or taken away some of it.
    let (record, entry, gone) = look()?;
    if let Some(entry) = &entry {
        destroyed(kit, entry)?;
    }
    let remove = || -> anyhow::Result<()> {
        if let Ok(Some(record)) = record.as_ref().map(|record| record.as_ref().filter(|record| record.own.is_none())) {
            let (up, pool) = target::up_of_record(&home, record)?;
            take_down(kit, &up, &pool)?;
        }
        let [metadata, data] = record::files(&home);
        let file = |path: PathBuf| Step::from(MakeFile { path, size: Bytes::default(), preallocate: false });
        let make = [MakeDirectory { path: folder.clone(), parents: false }.into(), file(metadata), file(data)];
        clear(kit, &home, &make)
    };
    remove().map_err(|e| {
        Failure::failed(format!("cannot {what}"))
            .because(e)
            .fact("state", "Docker does not use it, and it is in nobody's way but for the space that it takes")
            .next(format!("{}    # once that is mended", drop_command(&ground)))
    })?;
    Ok((!gone.is_empty()).then_some(gone))
}

/// Destroys the pool that was prepared, with all that was copied into it.
fn destroyed(kit: &Kit, entry: &Entry) -> Outcome<()> {
    let what = format!("destroy pool `{}`", entry.name);
    let _existence = gate::lock(kit, gate::EXISTENCE, &what)?;
    let _pool = gate::lock_entry(kit, entry, &what)?;
    gate::no_interrupted(kit, entry.name.as_str())?;
    // A death in the copy may have left a volume open.
    let target = Target { pool: entry.name.to_string(), uuid: entry.uuid.pool(), block: entry.pool.block_size };
    target.sweep(kit).map_err(|e| Failure::failed(format!("cannot {what}")).because(e))?;
    let all = destroy::Options { keep_data: false, with_volumes: true };
    let plan = destroy::plan(&destroy::look(kit, entry)?, entry, all)?;
    journal::carry_out(kit, plan).map(drop)
}
