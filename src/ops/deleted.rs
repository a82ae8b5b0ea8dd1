//! Loop files that were deleted, or replaced, beneath a pool: what they hold goes with their loop devices, and how it is
//! brought back before.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::error::{Failure, Outcome};
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::sight;
use crate::ops::steps::Part;
use crate::pool::{Carrier, Entry, PoolReport};
use crate::process::quote;
use crate::units::Sectors;

/// A loop file that nobody can open any more, and the devices that still have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Where it was.
    pub path: PathBuf,
    /// Its loop device.
    pub device: PathBuf,
    /// The linear device between that and the pool, by dm name, and how long it is; nothing where the pool stands on the
    /// loop device itself.
    pub linear: Option<(String, Sectors)>,
    /// Whether another file has its path: a copy that was broken off, if nothing else.
    pub in_the_way: bool,
}

/// What a linear device of dmpool's over a loop file really stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which part of the pool it is.
    pub part: Part,
    /// The file that the registry names.
    pub path: PathBuf,
    /// What is at that path.
    pub found: Found,
    /// The file that the loop device has.
    pub file: Deleted,
    /// Whether that has no name any more.
    pub is_deleted: bool,
}

/// What is at the path of a loop file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file that the loop device has.
    Its,
    /// Another one.
    Another,
    /// Nothing that can be looked at.
    Nothing,
}

/// Returns those of a pool's loop files that were deleted.
pub fn of(pool: &PoolReport) -> Vec<Deleted> {
    let deleted = |backing: &crate::pool::Backing| match &backing.carrier {
        Carrier::Loop { device: Some(device), file } if file.deleted => Some(Deleted {
            path: file.path.clone(),
            device: device.clone(),
            linear: backing.linear.clone().zip(backing.size),
            in_the_way: file.in_the_way,
        }),
        _ => None,
    };
    [&pool.data, &pool.metadata].into_iter().filter_map(deleted).collect()
}

/// Returns the command that copies deleted files back to where they were while the pool waits, and has the pool go on with the
/// copies; nothing where the pool stands on its loop devices itself, since no kernel gives a pool other devices.
pub fn way_back(pool: &str, files: &[Deleted]) -> Option<String> {
    let each = files.iter().map(|file| {
        let (name, length) = file.linear.as_ref()?;
        let (path, name) = (quote(&file.path.to_string_lossy()), quote(name));
        // The loop device goes away with its last user again, as the one before did.
        Some(format!(
            "{} && n=$(losetup -f --show {path}) && dmsetup load {name} --table \"0 {} linear $n 0\" && dmsetup resume {name} && losetup -d $n",
            copy(file),
            length.get()
        ))
    });
    let each: Vec<_> = each.collect::<Option<_>>()?;
    Some(while_it_waits(pool, files, &each))
}

/// Returns the command that copies deleted files back to where they were while the pool waits, and then does `then`, if all
/// went well.
pub fn copied_back(pool: &str, files: &[Deleted], then: Option<&str>) -> String {
    let copies: Vec<_> = files.iter().map(copy).collect();
    let then = then.map(|then| format!(" && {then}")).unwrap_or_default();
    format!("{}{then}", while_it_waits(pool, files, &copies))
}

/// Returns the command that does these while the pool waits. Nor does it stay so when a copy of hours is broken off, by Ctrl-C or
/// with the connection: a shell that is killed by a signal runs no trap of its exit.
fn while_it_waits(pool: &str, files: &[Deleted], commands: &[String]) -> String {
    let pool = quote(pool);
    let aside = files.iter().filter(|file| file.in_the_way).map(|file| format!("{} && ", aside(&file.path)));
    format!(
        "{}( umask 077; trap {} EXIT; trap 'exit 1' HUP INT TERM; {} && dmsetup suspend {pool} && {} )",
        aside.collect::<String>(),
        quote(&format!("dmsetup resume {pool}")),
        folders(files),
        commands.join(" && ")
    )
}

/// Past the page cache of the loop device, which device-mapper does not write through; never over another file.
fn copy(file: &Deleted) -> String {
    let (from, to) = (quote(&file.device.to_string_lossy()), quote(&file.path.to_string_lossy()));
    format!("dd if={from} of={to} bs=1M iflag=direct conv=sparse,excl,fsync")
}

fn folders(files: &[Deleted]) -> String {
    let mut folders: Vec<_> = files.iter().filter_map(|file| file.path.parent()).collect();
    folders.dedup();
    let folders: Vec<_> = folders.into_iter().map(|folder| quote(&folder.to_string_lossy())).collect();
    format!("mkdir -p {}", folders.join(" "))
}

/// Looks at what the linear devices of a registered pool really stand on; nothing of one that is not there, or whose pool is
/// not in files.
///
/// # Errors
/// When the kernel does not answer.
pub fn held(dm: &Dm, entry: &Entry) -> Result<Vec<Held>> {
    let Some([metadata, data]) = entry.files() else { return Ok(Vec::new()) };
    let parts = [
        (Part::Data, entry.name.data_device(), &data.file),
        (Part::Metadata, entry.name.metadata_device(), &metadata.file),
    ];
    let mut found = Vec::new();
    for (part, linear, path) in parts {
        let Some((info, length)) = beneath(dm, &linear)? else { continue };
        let found_there = match fs::symlink_metadata(path) {
            Ok(_) if info.is_at(path) => Found::Its,
            Ok(_) => Found::Another,
            Err(_) => Found::Nothing,
        };
        found.push(Held {
            part,
            path: path.clone(),
            found: found_there,
            // One that was put back by another name of it is called deleted, too.
            is_deleted: info.deleted && found_there != Found::Its,
            file: Deleted {
                path: info.backing_path.clone().unwrap_or_else(|| path.clone()),
                device: info.path(),
                linear: Some((linear, length)),
                in_the_way: found_there == Found::Another,
            },
        });
    }
    Ok(found)
}

/// Returns the loop device that a linear device begins on, and how long that is.
fn beneath(dm: &Dm, linear: &str) -> Result<Option<(LoopInfo, Sectors)>> {
    let id = DmId::name(linear);
    if dm.info(&id)?.is_none() {
        return Ok(None);
    }
    let lines = dm.table(&id)?;
    let Some(line) = lines.first() else { return Ok(None) };
    let Some(below) = line.params.split_whitespace().next().and_then(|word| word.parse().ok()) else { return Ok(None) };
    let [info, _] = sight::loops_at([below, below]);
    Ok(info.map_err(anyhow::Error::msg)?.map(|info| (info, line.length)))
}

/// Refuses to remove a linear device when a deleted file goes with it.
///
/// # Errors
/// When there is such a file, or that cannot be told.
pub fn refuse_last(dm: &Dm, linear: &str) -> Result<()> {
    let Some((info, _)) = beneath(dm, linear)? else { return Ok(()) };
    let path = info.backing_path.as_deref().unwrap_or(Path::new("?")).display();
    let node = info.path();
    ensure!(!info.deleted, "the file {path} was deleted, and only `{linear}` on {} still has it", node.display());
    Ok(())
}

/// Refuses what takes a pool down whose files would be gone with it, or not be found again.
///
/// # Errors
/// Refused with what brings the files back.
pub fn refuse(held: &[Held], pool: &str, what: &str) -> Outcome<()> {
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
    let deleted: Vec<_> = held.iter().filter(|held| held.is_deleted).collect();
    if let Some(first) = deleted.first() {
        let (path, device) = (first.path.display(), first.file.device.display());
        let named: Vec<_> = deleted
            .iter()
            .map(|held| format!("{}: only {} has it", held.path.display(), held.file.device.display()))
            .collect();
        let why = match deleted.as_slice() {
            [_] => {
                format!("its {} file {path} was deleted, and what {device} has of it goes with the pool", first.part)
            }
            _ => "its files were deleted, and what their loop devices have of them goes with the pool".to_owned(),
        };
        let files: Vec<_> =
            deleted.iter().map(|held| Deleted { path: held.path.clone(), ..held.file.clone() }).collect();
        let next = way_back(pool, &files).unwrap_or_default();
        return Err(refuse(why)
            .fact("found", named.join("\n"))
            .next(format!("{next}    # copies what is in use back while writes wait")));
    }
    let Some(other) = held.iter().find(|held| held.found == Found::Another) else { return Ok(()) };
    let (path, its) = (other.path.display(), other.file.path.display());
    Err(refuse(format!("{path} is another file than its {}, and activate would take that", other.part))
        .fact("found", format!("{} has {its}", other.file.device.display()))
        .next(format!("{} && mv {} {}", aside(&other.path), quote(&its.to_string()), quote(&path.to_string()))))
}

/// Says of files that were moved away under their pool where they are: it is not found by them when it is to come up.
pub fn moved(held: &[Held]) -> Vec<String> {
    let moved = held.iter().filter(|held| held.found == Found::Nothing && !held.is_deleted);
    let note = |held: &Held| {
        let (path, its) = (held.path.display(), held.file.path.display());
        format!("its {} file is {its}; activate looks for it at {path}", held.part)
    };
    moved.map(note).collect()
}

/// Returns the command that makes way for a file.
fn aside(path: &Path) -> String {
    let path = path.to_string_lossy();
    format!("mv {} {}", quote(&path), quote(&format!("{path}.other")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn held(part: Part, found: Found, is_deleted: bool) -> Held {
        let path = PathBuf::from(format!("/srv/p0/{part}"));
        let linear = Some((format!("p0_t{part}"), Sectors::new(2048)));
        let now = if is_deleted { path.clone() } else { "/srv/old".into() };
        let file = Deleted { path: now, device: "/dev/loop3".into(), linear, in_the_way: found == Found::Another };
        Held { part, path, found, file, is_deleted }
    }

    #[test]
    fn what_would_be_lost_is_copied_back_first() {
        let refused = |held: &[Held]| refuse(held, "p0", "deactivate pool `p0`").map_err(|f| (f.what, f.next.unwrap()));
        assert_eq!(
            refused(&[held(Part::Data, Found::Its, false), held(Part::Metadata, Found::Nothing, false)]),
            Ok(())
        );
        let (what, next) = refused(&[held(Part::Data, Found::Nothing, true)]).unwrap_err();
        assert!(what.contains("its data file /srv/p0/data was deleted"), "{what}");
        assert!(
            next.starts_with(
                "( umask 077; trap 'dmsetup resume p0' EXIT; trap 'exit 1' HUP INT TERM; mkdir -p /srv/p0 && dmsetup \
                 suspend p0 && dd if=/dev/loop3 of=/srv/p0/data bs=1M iflag=direct conv=sparse,excl,fsync && n=$(losetup -f --show /srv/p0/data) && dmsetup load p0_tdata \
                 --table \"0 2048 linear $n 0\" && dmsetup resume p0_tdata && losetup -d $n )    "
            ),
            "{next}"
        );
        let both = [held(Part::Data, Found::Another, true), held(Part::Metadata, Found::Nothing, true)];
        let (what, next) = refused(&both).unwrap_err();
        assert!(what.contains("its files were deleted"), "{what}");
        assert!(next.starts_with("mv /srv/p0/data /srv/p0/data.other && ( umask"), "{next}");
        assert_eq!(next.matches("dd if=").count(), 2, "{next}");
        let (what, next) = refused(&[held(Part::Data, Found::Another, false)]).unwrap_err();
        assert!(what.contains("/srv/p0/data is another file than its data"), "{what}");
        assert_eq!(next, "mv /srv/p0/data /srv/p0/data.other && mv /srv/old /srv/p0/data");
    }
}
