//! A pool that Docker was told of, of this machine, that is down: dmpool's own, found by its registry and labels, or LVM's, by the
//! extents that LVM names. Each part is a read-only device over its pieces; LVM and the pool stay as they are.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::parts::{Part, Parts, at};
use crate::error::Failure;
use crate::kernel::dm::{Dm, DmId, TargetLine};
use crate::kernel::{block, loopdev};
use crate::ops::contents::passing::Device;
use crate::ops::contents::source::Place;
use crate::ops::{lvm, members, registry, steps};
use crate::pool::label::Purpose;
use crate::pool::{DevNo, PoolName};
use crate::process::ProgramError;

/// Puts together what the pool is made of; nothing when neither dmpool nor LVM has a pool of that name.
pub(super) fn parts(place: &Place<'_>, dm: Option<&Dm>, pool: &str) -> Result<Option<Parts>> {
    match own(place, dm, pool)? {
        Some(parts) => Ok(Some(parts)),
        None => of_lvm(place, dm, pool),
    }
}

fn own(place: &Place<'_>, dm: Option<&Dm>, pool: &str) -> Result<Option<Parts>> {
    let Ok(name) = PoolName::new(pool) else { return Ok(None) };
    let Ok(Some(entry)) = registry::look(&place.reach.state, &name) else { return Ok(None) };
    let names = [name.data_device(), name.metadata_device()];
    dm.map_or(Ok(()), |dm| is_free(place, dm, pool, &names))?;
    if let Some([metadata, data]) = entry.files() {
        for file in [&metadata.file, &data.file] {
            is_not_attached(place, pool, file)?;
        }
        let note = Some(format!("dmpool's pool `{pool}` is down: it is read from its files"));
        return Ok(Some(Parts { data: at(&data.file)?, metadata: at(&metadata.file)?, note }));
    }
    let Some(dm) = dm else { return Ok(None) };
    let assembly = members::assembled(dm, &entry.uuid)?;
    let part = |purpose, what: &str| {
        let lines = steps::table_of_labels(&assembly, purpose, assembly.label.length(purpose))?;
        over(dm, what, &lines, PathBuf::from(format!("/dev/mapper/{pool}_t{what}")))
    };
    let note = Some(format!("dmpool's pool `{pool}` is down: it is read as its labels say"));
    Ok(Some(Parts { data: part(Purpose::Data, "data")?, metadata: part(Purpose::Metadata, "meta")?, note }))
}

fn of_lvm(place: &Place<'_>, dm: Option<&Dm>, pool: &str) -> Result<Option<Parts>> {
    let Some(dm) = dm else { return Ok(None) };
    let refuse = |why: String| {
        place.refused(format!("its pool `{pool}` is not active, and {why}")).fact("state", "nothing was touched")
    };
    let volume = match lvm::thin_pool(pool) {
        Ok(volume) => volume,
        Err(e) => match e.downcast::<ProgramError>() {
            Ok(e) if e.missing => None,
            Ok(e) => return Err(lvm::silent(e, &refuse).into()),
            Err(e) => return Err(e.context("looking for it in LVM")),
        },
    };
    let Some(volume) = volume else { return Ok(None) };
    let names = ["tdata", "tmeta"].map(|what| lvm::dm_name(&volume.of.group, &format!("{}_{what}", volume.of.name)));
    is_free(place, dm, pool, &names)?;
    let part = |what: &str| {
        let name = format!("{}_t{what}", volume.of.name);
        let lines = lvm::linear(&volume.of.group, &name)?.with_context(|| {
            format!("LVM's {}/{name} is not in plain pieces of disks that are here", volume.of.group)
        })?;
        let lines: Result<Vec<_>> = lines
            .into_iter()
            .map(|piece| {
                let disk = block::devno_of(&piece.disk)?;
                let params = format!("{disk} {}", piece.from.get());
                Ok(TargetLine { start: piece.start, length: piece.length, kind: "linear".to_owned(), params })
            })
            .collect();
        over(dm, what, &lines?, Path::new("/dev/mapper").join(lvm::dm_name(&volume.of.group, &name)))
    };
    let note = Some(format!("LVM's pool {} is down: it is read from its extents", volume.of.word()));
    Ok(Some(Parts { data: part("data")?, metadata: part("meta")?, note }))
}

/// # Errors
/// Refused when somebody stands on what the pool is made of: a pool that is active under another name.
fn is_free(place: &Place<'_>, dm: &Dm, pool: &str, names: &[String]) -> Result<()> {
    for name in names {
        if let Some(info) = dm.info(&DmId::name(name))?
            && info.open_count > 0
        {
            return Err(in_use(place, pool, format!("{name} is open"))
                .next("dmsetup ls --tree    # shows who stands on it: take that down, or give it the name of old")
                .into());
        }
    }
    Ok(())
}

/// # Errors
/// Refused when a loop device that can be written has the file.
fn is_not_attached(place: &Place<'_>, pool: &str, file: &Path) -> Result<()> {
    let Ok(found) = file.metadata() else { return Ok(()) };
    let users = loopdev::users_of(DevNo::from_dev_t(found.dev()), found.ino())?;
    match users.iter().find(|user| !user.read_only) {
        Some(user) => Err(in_use(place, pool, format!("{} has {} attached", user.path().display(), file.display()))
            .next(format!("losetup -l {}    # and who has it open: lsblk", user.path().display()))
            .into()),
        None => Ok(()),
    }
}

fn in_use(place: &Place<'_>, pool: &str, found: String) -> Failure {
    place
        .refused(format!("its pool `{pool}` is not active, and what it is made of is in use"))
        .fact("found", found)
        .fact("state", "nothing was touched")
}

/// It goes with the last who has it open.
fn over(dm: &Dm, what: &str, lines: &[TargetLine], path: PathBuf) -> Result<Part> {
    let device = Device::make(dm, what, lines, true)?;
    Ok(Part { path, file: block::open_direct(device.devno)?, devno: Some(device.devno) })
}
