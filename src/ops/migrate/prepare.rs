//! `migrate --prepare`: what nobody can change any more is copied while Docker runs, so that Docker is down for the rest only.
//!
//! No journal stays open: what was prepared lies beside Docker's own files, with a record of what of it is whole, and is in nobody's way.

use std::path::{Path, PathBuf};

use super::base::Asked;
use super::blocks::record::{self, Opened, Record};
use super::blocks::{Target, identity, listing};
use super::prepared::{self, command, drop_command};
use super::target::{self, LoopFiles, Sizes};
use super::{Ground, Options, To, around, ground, preflight, root_of};
use crate::engine::docker_root::DockerRoot;
use crate::error::{Failure, Outcome};
use crate::kernel::critical::hold_signals;
use crate::kernel::fs::FsFacts;
use crate::ops::fault::{self, Point};
use crate::ops::progress::Interrupted;
use crate::ops::steps::{Attempt, Kit, MakeDirectory, MakeFile, Reverted, Step, take_down, with_pool};
use crate::ops::{Change, gate};
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

/// Returns whether a migration of that root was prepared, or was begun to be.
pub fn is_prepared(kit: &Kit, root: Option<&str>) -> bool {
    let read = |root: DockerRoot| Record::read(&root.path.join("devicemapper")).ok().flatten();
    root_of(kit, root).ok().and_then(read).is_some()
}

/// Copies what can be copied while Docker runs, or says what would be.
///
/// # Errors
/// Refused with every reason for which the migration would be refused; [`crate::error::Kind::Failed`] when it could not be done, or somebody
/// wanted an end: it goes on from there.
pub fn prepare(kit: &Kit, options: &Options, change: Change) -> Outcome<Ready> {
    gate::may_change(kit)?;
    let To::LoopFiles { data, metadata, block } = options.to else {
        return Err(Failure::refused(
            "cannot prepare that migration: only new loop files in Docker's own place can be prepared",
        )
        .fact("state", "nothing was touched")
        .next("dmpool migrate --prepare    # without --name; or migrate without --prepare"));
    };
    let sizes = Sizes { data, metadata, block, base: Asked::default() };
    if change == Change::Make {
        hold_signals();
    }
    let look = || -> Outcome<(Ground<'_>, LoopFiles)> {
        let ground = ground(kit, options)?;
        let judged = preflight::judge(&preflight::look(&ground.root.path, &options.docker), &options.docker)?;
        let planned = target::new_loop_files(&ground, &judged.info, &sizes, true)?;
        let home = ground.root.path.join("devicemapper");
        identity(&kit.dm, &home, &planned.old.origin).map_err(|e| {
            Failure::refused(format!("cannot {}: what is prepared could not be told to be this pool's", planned.what))
                .because(e)
                .fact("state", "nothing was touched")
                .next(format!("{}    # without --prepare", command(&ground, "")))
        })?;
        // What would refuse the switch is said by now.
        around::around(&judged, &kit.state, "docker", Some(&planned.old.pool), &planned.edits, &[])?;
        Ok((ground, planned))
    };
    if change == Change::Describe {
        let (ground, planned) = look()?;
        let switch = command(&ground, "");
        return Ok(Ready { what: planned.what, notes: planned.notes, next: switch });
    }
    let _lock = gate::lock(kit, LOCK, "prepare a migration")?;
    let (ground, planned) = look()?;
    let cannot = |e: anyhow::Error| {
        let when = if e.is::<Interrupted>() { "goes on" } else { "once that is mended" };
        let next = format!("{}    # {when}; or --drop-prepared gives it up", command(&ground, " --prepare"));
        Failure::failed(format!("cannot {}", planned.what))
            .because(e)
            .fact("state", "Docker was not touched, and the old pool was only read")
            .next(next)
    };
    let (record, left_out) = copy(kit, &ground, &planned).map_err(cannot)?;
    let home = ground.root.path.join("devicemapper");
    let (_, bytes) = record.ready(&home).map_err(cannot)?;
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
        record::folder(&home).display()
    ));
    notes.push(match prepared::left(&ground, &record, &home, &planned.old) {
        Some(left) => {
            format!("{} are left to copy and to compare while Docker is down, as the pool is now", left.human())
        }
        None => "Docker writes to the pool, and how much is left to copy cannot be told now".to_owned(),
    });
    notes.push(format!("to give it up:  {}", drop_command(&ground)));
    Ok(Ready { what: planned.what, notes, next: command(&ground, "") })
}

/// Returns what was prepared, and how many volumes were left out.
fn copy(kit: &Kit, ground: &Ground<'_>, planned: &LoopFiles) -> anyhow::Result<(Record, usize)> {
    let home = ground.root.path.join("devicemapper");
    let LoopFiles { old, wanted, up, pool, make, .. } = planned;
    let target = Target { pool: pool.clone(), uuid: wanted.uuid.pool(), block: wanted.block };
    take_down(kit, up, &target)?;
    let base = match &planned.record {
        Some(record) => match record.unfit(&kit.dm, &home, &old.origin, &old.superblock)? {
            None | Some(record::Unfit::NotWhole) => Opened::open(&home, record.clone()).ok(),
            Some(_) => None,
        },
        None => None,
    };
    if base.is_none() {
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
    let keeps = (home.as_path(), kept(&FsFacts::of(&home)?));
    let differ =
        with_pool(kit, up, &target, |target| listing::fill_listed(kit, &listed, base.as_ref(), target, keeps, &home))?;
    fault::reached(2, Point::Before)?;
    Ok((record::settle(&home, listed.opened.record, &differ)?, listed.left_out))
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

/// Gives up what was prepared, or says what would be. Returns the folder that goes; nothing when nothing was prepared.
///
/// # Errors
/// Refused while somebody is at work on it; when it cannot be removed.
pub fn drop_prepared(kit: &Kit, options: &Options, change: Change) -> Outcome<Option<PathBuf>> {
    gate::may_change(kit)?;
    let ground = ground(kit, options)?;
    let home = ground.root.path.join("devicemapper");
    let folder = record::folder(&home);
    let record = Record::read(&home);
    if !folder.is_dir() && matches!(record, Ok(None)) {
        return Ok(None);
    }
    if change == Change::Describe {
        return Ok(Some(folder));
    }
    let what = format!("give up what was prepared for the Docker root `{}`", ground.root.path.display());
    let _lock = gate::lock(kit, LOCK, &what)?;
    let remove = || -> anyhow::Result<()> {
        if let Ok(Some(record)) = &record {
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
    Ok(Some(folder))
}
