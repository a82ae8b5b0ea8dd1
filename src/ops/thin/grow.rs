//! `thin grow`: a volume becomes longer, with the file system that is mounted on it.

use super::{Facts, Needs, active, change, named, overcommit, plan_of, ready, refused, whole_blocks};
use crate::error::{Failure, Outcome};
use crate::kernel::DevNo;
use crate::kernel::mounts::{self, Mount};
use crate::ops::find::Found;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{GrowFileSystem, Kit, ReloadVolume, ResizeVolume, Step, grower};
use crate::ops::thin::snapshot::no_needs;
use crate::ops::{Change, Done, filesystem, ground};
use crate::pool::{Volume, VolumeName};
use crate::process::{self, quote};
use crate::units::{Bytes, SizeArg};

/// What `thin grow` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume.
    pub name: VolumeName,
    /// How long it shall be.
    pub size: SizeArg,
    /// Whether the file system that is mounted on it grows too.
    pub file_system: bool,
}

/// What is on a volume, and what of it can grow.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OnIt {
    /// Nothing that dmpool knows, or it is not active.
    Nothing,
    /// A file system that can grow while it is mounted, there, with its size.
    Grows { mount: Mount, had: Bytes },
    /// Something that stays as it is: what is to be done about it.
    Stays(String),
}

/// Grows the volume, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn grow(kit: &Kit, found: &Found, options: &Options, how: Change) -> Outcome<Done> {
    let what = format!("grow volume `{}` of pool `{}`", options.name, found.name);
    change(kit, found, how, &what, |facts| plan(kit, facts, options, &what))
}

fn plan(kit: &Kit, facts: &Facts, options: &Options, what: &str) -> Outcome<Plan> {
    let refuse = |why: String| -> Failure { refused(&format!("{what}: {why}")) };
    let ready = ready(facts, Needs::Writes, &refuse)?;
    let volume = named(facts, ready.state, &options.name, &refuse)?;
    let device = active(facts, volume, &refuse)?;
    let asked = match options.size {
        SizeArg::To(size) => Some(size),
        SizeArg::By(more) => volume.size.checked_add(more),
        SizeArg::ByPercent(_) | SizeArg::ByShare(_) | SizeArg::Max => {
            return Err(refuse("a volume has no share or most: it promises, and the pool keeps".to_owned())
                .next(format!("dmpool thin grow {} {} +10G", facts.entry.name, volume.name)));
        }
    };
    let to = asked.and_then(|size| whole_blocks(facts, size)).ok_or_else(|| {
        refuse("that size is larger than any device can be (2^63 bytes)".to_owned()).next("choose a smaller size")
    })?;
    if to < volume.size {
        return Err(refuse("a volume is not made smaller: what lies behind would be cut off".to_owned())
            .fact("found", format!("it has {}", volume.size.exact()))
            .fact("needed", format!("at least that; {} was asked for", to.exact()))
            .next("make a smaller volume and copy what is in this one to it"));
    }
    let what = format!("{what} from {} to {}", volume.size.human(), to.human());
    let mut notes = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    if to == volume.size && device.is_none_or(|device| device.length == to.sectors()) {
        notes.push(format!("volume `{}` has {} already: unchanged", volume.name, to.exact()));
        return Ok(plan_of(facts, Operation::ThinGrow, &what, steps, notes));
    }
    if asked != Some(to) {
        notes.push(format!("its size is rounded up to whole blocks of the pool: {}", to.exact()));
    }
    let resize =
        ResizeVolume { pool: facts.entry.name.clone(), uuid: facts.entry.uuid.clone(), volume: volume.clone(), to };
    steps.push(resize.into());
    if let Some(device) = device {
        no_needs(&ground::needs_on(&kit.state, device.info.devno), &refuse)?;
        let (name, uuid) = (device.info.name.clone(), facts.entry.uuid.volume(volume.id));
        steps.push(ReloadVolume { name: name.clone(), uuid, from: device.length, to: to.sectors() }.into());
        match on_it(device.info.devno, &name, options.file_system, &refuse)? {
            OnIt::Nothing => {}
            OnIt::Stays(why) => notes.push(why),
            OnIt::Grows { mount, had } => {
                steps.push(GrowFileSystem { name, kind: mount.fs_type, mount: mount.mount_point, had, to }.into());
            }
        }
    }
    let grown =
        |other: &Volume| if other.id == volume.id { Volume { size: to, ..other.clone() } } else { other.clone() };
    notes.extend(overcommit(facts, &ready.state.volumes.iter().map(grown).collect::<Vec<_>>()));
    Ok(plan_of(facts, Operation::ThinGrow, &what, steps, notes))
}

/// Looks at what is on an active volume.
fn on_it(device: DevNo, name: &str, wanted: bool, refuse: &impl Fn(String) -> Failure) -> Outcome<OnIt> {
    let cannot = |e: anyhow::Error| refuse("what is on it cannot be read".to_owned()).because(e);
    let found = filesystem::on(device).map_err(cannot)?;
    let seen = mounts::of_device(device).map_err(cannot)?;
    let here: Vec<Mount> = mounts::own().map_err(cannot)?.into_iter().filter(|mount| mount.devno == device).collect();
    let path = format!("/dev/mapper/{name}");
    let Some(mount) = here.iter().find(|mount| is_writable(mount)).or(here.first()).cloned() else {
        return Ok(match (seen.first(), found) {
            (Some(seen), _) if !grows(&seen.mount.fs_type) => OnIt::Stays(stays(&seen.mount)),
            (Some(seen), _) => OnIt::Stays(format!(
                "the {} on it is not grown: it is mounted where only {} (process {}) sees it",
                seen.mount.fs_type, seen.comm, seen.pid
            )),
            (None, Some(found)) if found.kind == filesystem::XFS => {
                OnIt::Stays("the XFS on it is not grown: mount it, then  xfs_growfs MOUNTPOINT".to_owned())
            }
            (None, Some(_)) => {
                OnIt::Stays(format!("the ext file system on it is not grown: mount it, then  resize2fs {path}"))
            }
            (None, None) => OnIt::Nothing,
        });
    };
    let at = mount.mount_point.display();
    let (true, Some(found)) = (grows(&mount.fs_type), found) else {
        return Ok(OnIt::Stays(stays(&mount)));
    };
    let (program, argument) = grower(&mount.fs_type, name, &mount.mount_point.to_string_lossy());
    let by_hand = format!("{program} {}", quote(&argument));
    if !wanted {
        return Ok(OnIt::Stays(format!("the {} on {at} is not grown:  {by_hand}    # does it", mount.fs_type)));
    }
    if !is_writable(&mount) {
        return Ok(OnIt::Stays(format!("the {} on {at} is mounted read-only and not grown", mount.fs_type)));
    }
    if !process::is_there(program) {
        let package = if program == "xfs_growfs" { "xfsprogs" } else { "e2fsprogs" };
        return Err(refuse(format!(
            "its {} is mounted on {at}, and the program that grows it is missing",
            mount.fs_type
        ))
        .fact("needed", program)
        .next(format!("install {package}; or --no-file-system    # leaves the file system as it is")));
    }
    Ok(OnIt::Grows { mount, had: found.size })
}

/// Returns whether a file system of that type can grow while it is mounted.
fn grows(fs_type: &str) -> bool {
    matches!(fs_type, "ext4" | "ext3" | "xfs")
}

fn stays(mount: &Mount) -> String {
    format!("the {} on {} is not grown: dmpool grows ext4, ext3 and XFS", mount.fs_type, mount.mount_point.display())
}

fn is_writable(mount: &Mount) -> bool {
    let rw = |options: &str| options.split(',').any(|word| word == "rw");
    rw(&mount.options) && rw(&mount.fs_options)
}
