//! LVM, asked and told by its own programs: which files, tags, filters and locks count, it alone knows.

mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::error::{Failure, Outcome};
use crate::pool::disk::Kind;
use crate::pool::label::DeviceUuid;
use crate::pool::{DevNo, PoolName};
use crate::process::{self, ProgramError};

pub use report::{Group, LogicalVolume, Piece, Volume, dm_name, groups, may_activate, pieces, volume_list_in, volumes};

use crate::kernel::dm::{Dm, DmId};

/// How long LVM may take to answer: it reads every device, and one that hangs keeps it for ever.
const ANSWER: Duration = Duration::from_secs(15);
/// How long it may take to change something. It is not ended then.
const CHANGE: Duration = Duration::from_secs(300);
const LARGEST_ANSWER: usize = 4 << 20;

/// The tag of everything that dmpool makes: `lvs @dmpool`.
pub const TAG: &str = "dmpool";

/// Returns the tags of an LV that dmpool makes, that by which it is known again last.
pub fn tags(pool: &PoolName, device: DeviceUuid) -> [String; 3] {
    [TAG.to_owned(), format!("{TAG}.pool.{pool}"), tag_of(device)]
}

/// Returns the tag by which an LV that dmpool has made is known: with the identity that its label has too.
pub fn tag_of(device: DeviceUuid) -> String {
    format!("{TAG}.device.{device}")
}

/// Returns the name of the pool that an LV was made for.
pub fn pool_of(volume: &Volume) -> Option<PoolName> {
    let of_pool = |tag: &String| PoolName::new(tag.strip_prefix(TAG)?.strip_prefix(".pool.")?).ok();
    volume.tags.iter().find_map(of_pool)
}

/// Returns every volume group.
///
/// # Errors
/// When LVM does not answer.
pub fn all_groups() -> Result<Vec<Group>, ProgramError> {
    ask("vgs", &[&REPORT[..], &["-o", GROUP]].concat()).map(|answer| groups(&answer))
}

/// Returns every LV with its group, LVM's inner ones too; of one group when it is named.
///
/// # Errors
/// When LVM does not answer, or there is no such group.
pub fn all_volumes(group: Option<&str>) -> Result<Vec<Volume>, ProgramError> {
    let fields = format!("{GROUP},lv_name,lv_uuid,lv_attr,lv_size,segtype,lv_tags");
    let args = [&REPORT[..], &["-a", "-o", &fields], group.as_slice()].concat();
    ask("lvs", &args).map(|answer| volumes(&answer))
}

/// Returns the thin pool whose device has that name in device-mapper, or would have; nothing when LVM knows none.
///
/// # Errors
/// As [`current`].
pub fn thin_pool(name: &str) -> Result<Option<Volume>> {
    let name = name.strip_suffix("-tpool").unwrap_or(name);
    let is_meant =
        |volume: &Volume| volume.dm_name() == name && volume.types.iter().any(|kind| kind == crate::pool::THIN_POOL);
    let all = all_volumes(None)?;
    one(&all, is_meant).map(Option::<&Volume>::cloned)
}

/// Returns where an LV's pieces are, in their order; nothing when it is not in plain pieces of disks that are here.
///
/// # Errors
/// When LVM does not answer.
pub fn linear(group: &str, volume: &str) -> Result<Option<Vec<Piece>>, ProgramError> {
    let sectors = ["--noheadings", "--nosuffix", "--units", "s", "--separator", "|"];
    let of_group = format!("vg_name={group}");
    let disks = ask("pvs", &[&sectors[..], &["-o", "pv_name,pe_start", "-S", &of_group]].concat())?;
    let fields = "lv_name,segtype,seg_start,seg_size,vg_extent_size,seg_pe_ranges";
    let segments = ask("lvs", &[&sectors[..], &["-a", "-o", fields, group]].concat())?;
    Ok(pieces(&segments, &disks, volume))
}

const GROUP: &str = "vg_name,vg_uuid,vg_attr,vg_extent_size,vg_extent_count,vg_free_count,vg_tags";
const REPORT: [&str; 6] = ["--noheadings", "--nosuffix", "--units", "b", "--separator", "|"];

/// Returns an LV as it is now, under whatever name; nothing when it is not there any more.
///
/// # Errors
/// When LVM does not answer, or would not know which of two is meant.
pub fn current(volume: &LogicalVolume) -> Result<Option<Volume>> {
    let all = all_volumes(None)?;
    one(&all, |other| other.of.is(volume)).map(Option::<&Volume>::cloned)
}

/// Returns an LV as it is now, under whatever name.
///
/// # Errors
/// As [`current`]; when it is not there any more.
pub fn still_there(volume: &LogicalVolume) -> Result<Volume> {
    current(volume)?.with_context(|| format!("looking for the LV {}: there is none", volume.word()))
}

/// Returns the LV with that tag in the group with that identity; nothing when there is none.
///
/// # Errors
/// As [`current`].
pub fn by_tag(tag: &str, group_uuid: &str) -> Result<Option<Volume>> {
    let all = all_volumes(None)?;
    one(&all, |volume| volume.of.group_uuid == group_uuid && volume.has(tag)).map(Option::<&Volume>::cloned)
}

/// Returns the only LV of which that is so; nothing when there is none.
///
/// # Errors
/// When there are several; when LVM's programs, which take names, could take another for it.
pub fn one(all: &[Volume], is_meant: impl Fn(&Volume) -> bool) -> Result<Option<&Volume>> {
    let meant: Vec<_> = all.iter().filter(|volume| is_meant(volume)).collect();
    let volume = match meant.as_slice() {
        [] => return Ok(None),
        [one] => *one,
        several => {
            let words: Vec<_> = several.iter().map(|volume| volume.of.word()).collect();
            bail!("the LVs {} cannot be told apart: one is a copy of the other", words.join(" and "));
        }
    };
    let namesakes = |other: &Volume| other.of.group == volume.of.group && other.of.group_uuid != volume.of.group_uuid;
    ensure!(!all.iter().any(namesakes), "there are several volume groups `{}`: vgs -o +vg_uuid", volume.of.group);
    Ok(Some(volume))
}

/// Returns the setting `activation/volume_list` as LVM prints it; nothing where every LV may be activated.
///
/// # Errors
/// When LVM does not answer.
pub fn volume_list() -> Result<Option<String>, ProgramError> {
    // Asked for that one alone, it ends with the same status where the setting is in no file and where it fails.
    ask("lvmconfig", &[]).map(|answer| volume_list_in(&answer))
}

fn ask(program: &str, args: &[&str]) -> Result<String, ProgramError> {
    let answer = process::run_within(program, args, ANSWER, LARGEST_ANSWER)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Has LVM change something.
///
/// # Errors
/// When it does not, with what it said; when it is not done in time, and goes on.
pub fn change(program: &str, args: &[&str]) -> Result<(), ProgramError> {
    process::change_within(program, args, CHANGE)
}

/// Has LVM say whether it would: by itself, with all that it looks at, and without changing anything.
///
/// # Errors
/// Why it would not, in LVM's own words.
pub fn would(program: &str, args: &[&str]) -> Result<(), ProgramError> {
    process::change_within(program, &[&["--test"], args].concat(), ANSWER)
}

/// Returns the group and the LV that a public LV's device is of, by its dm name and uuid; nothing for another device.
pub fn names_of(dm: &Dm, device: DevNo) -> Option<(String, String)> {
    let info = dm.info(&DmId::from(device)).ok()??;
    match Kind::of_dm(&info.name, info.uuid.as_deref()?) {
        Kind::LogicalVolume { group, volume } => Some((group, volume)),
        _ => None,
    }
}

/// Returns the LV that a device is, as LVM has it: found by its identity, which stands in its dm uuid. Nothing for a device
/// that is none.
///
/// # Errors
/// When LVM does not answer.
pub fn of_device(dm: &Dm, device: DevNo) -> Result<Option<Volume>, ProgramError> {
    let Some((group, _)) = names_of(dm, device) else { return Ok(None) };
    let uuid = dm.info(&DmId::from(device)).ok().flatten().and_then(|info| info.uuid);
    Ok(all_volumes(Some(&group))?.into_iter().find(|volume| uuid.as_deref() == Some(volume.dm_uuid().as_str())))
}

/// Returns the group and the LV that a path `/dev/GROUP/VOLUME` names.
pub fn names_in(path: &Path) -> Option<(String, String)> {
    let mut words = path.strip_prefix("/dev").ok()?.iter().map(|word| word.to_string_lossy().into_owned());
    match (words.next(), words.next(), words.next()) {
        (Some(group), Some(volume), None) if !["mapper", "block"].contains(&group.as_str()) => Some((group, volume)),
        _ => None,
    }
}

/// Returns where the device of an LV is found.
pub fn path(group: &str, volume: &str) -> PathBuf {
    Path::new("/dev").join(group).join(volume)
}

/// Returns the refusal of what needs LVM's answer.
pub fn silent(e: ProgramError, refuse: &impl Fn(String) -> Failure) -> Failure {
    if e.missing {
        return refuse("LVM's programs are not installed".to_owned())
            .fact("cause", e.to_string())
            .next("install LVM: yum install lvm2, or apt-get install lvm2");
    }
    let why = if e.gave_up {
        "LVM did not answer: a device hangs, or another of its programs is at work"
    } else {
        "LVM could not be asked"
    };
    refuse(why.to_owned()).next("lvs    # by itself says what it waits for, or what is wrong").because(e)
}

/// Returns a volume group that can be changed here.
///
/// # Errors
/// Refused when there is none of that name, or it is not this machine's to change.
pub fn usable_group(name: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<Group> {
    let mut all = all_groups().map_err(|e| silent(e, refuse))?;
    all.retain(|group| group.name == name);
    match all.as_slice() {
        [one] => one.usable(refuse).cloned(),
        [] => Err(refuse(format!("there is no volume group `{name}`"))
            .next("vgs    # shows those that are here; vgcreate VG DEV makes one")),
        [_, _, ..] => Err(refuse(format!("there are {} volume groups `{name}`", all.len()))
            .next("vgs -o +vg_uuid    # shows both; vgrename UUID NAME gives one another name")),
    }
}
