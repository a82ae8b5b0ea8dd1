//! Deciding whether and how a pool grows: from facts alone.

use std::path::Path;

use crate::error::{Failure, Outcome};
use crate::ops::grow::notes::after;
use crate::ops::grow::room::{self, Room};
use crate::ops::grow::{Facts, FileFacts, Options, block_of, lvm, metadata_of, part_of};
use crate::ops::health;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{ExtendFile, ExtendVolume, Part, ReloadLinear, ReloadPool, SetCapacity, Step};
use crate::pool::{Activity, Carrier, LoopDisk, LoopFile, Maker, PoolReport, PoolStatus, Working};
use crate::process::quote;
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors, SizeArg};

/// What is behind the loop device.
#[derive(Clone, Copy)]
enum Beneath<'f> {
    File(&'f LoopFile),
    /// A disk behind a loop device: whoever owns it makes it larger, and nothing here shortens it.
    Disk(&'f LoopDisk),
    /// A disk, or another device, in the pool's own table.
    Device(&'f Path, Option<Bytes>),
}

impl Beneath<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            Self::Disk(disk) => &disk.path,
            Self::Device(path, _) => path,
        }
    }

    fn size(&self) -> Option<Bytes> {
        match self {
            Self::File(file) => file.size,
            Self::Disk(disk) => disk.size,
            Self::Device(_, size) => *size,
        }
    }
}

/// What is grown, once the pool's own state allows it.
struct Growth<'f> {
    beneath: Beneath<'f>,
    room: Room,
    from: Bytes,
    to: Bytes,
    /// The LV that is made longer first.
    extend: Option<ExtendVolume>,
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, options: &Options) -> Outcome<Plan> {
    let name = &facts.report.name;
    let part = options.part;
    let refuse = |why: String| {
        Failure::refused(format!("cannot grow the {part} of pool `{name}`: {why}")).fact("state", "nothing was touched")
    };
    let working = state_allows(facts, &refuse)?;
    let beneath = carrier_allows(facts, part, &refuse)?;
    let growth = size_allows(facts, options, beneath, &refuse)?;
    let what = format!("grow the {part} of pool `{name}` from {} to {}", growth.from.human(), growth.to.human());
    let mut plan = Plan { operation: Operation::Grow, pool: name.clone(), what, steps: Vec::new(), notes: Vec::new() };
    if growth.to == growth.from {
        plan.notes.push(format!("the {part} of pool `{name}` has {} already: unchanged", growth.to.exact()));
        return Ok(plan);
    }
    space_allows(facts, options, &growth, &mut plan.notes, &refuse)?;
    plan.steps = steps(facts, part, &growth);
    plan.notes.extend(after(facts, options, growth.to, working));
    Ok(plan)
}

/// The pool itself must be able to take a larger size.
pub(super) fn state_allows<'f>(facts: &'f Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f Working> {
    let report = &facts.report;
    let (word, argument) = (quote(&report.name), health::argument(report));
    match report.activity {
        Activity::Active => {}
        Activity::Suspended => {
            return Err(refuse("somebody left it suspended, and all I/O on it waits".to_owned())
                .fact("found", "the pool is suspended; dmpool did not do that now, and does not know why it was done")
                .next(format!("dmsetup resume {word}    # when nobody works on it; then run this again")));
        }
        Activity::Inactive => {
            let next = match report.maker {
                Maker::Docker => "start Docker, then run this again".to_owned(),
                Maker::Dmpool => format!("dmpool activate {word}    # then run this again"),
                Maker::Lvm => "have LVM bring it up (lvchange -ay), then run this again".to_owned(),
                Maker::Unknown => "bring it up as it was made, then run this again".to_owned(),
            };
            return Err(refuse("it is not active".to_owned()).next(next));
        }
    }
    let working = match &report.status {
        Some(PoolStatus::Working(working)) => working,
        Some(PoolStatus::Fail) => {
            return Err(refuse("it has failed, and every I/O on it ends with an error".to_owned())
                .fact("found", "status `Fail`: the kernel could not go on with its metadata")
                .next(format!(
                    "dmpool health {argument}    # says how its metadata is checked, and it is brought back"
                )));
        }
        Some(PoolStatus::Error) => {
            return Err(refuse("the kernel cannot read its metadata".to_owned())
                .fact("found", "status `Error`")
                .next("dmesg | tail    # says which device fails"));
        }
        Some(PoolStatus::Unreadable(line)) => {
            return Err(refuse("its status cannot be understood".to_owned())
                .fact("found", format!("`{line}`"))
                .next(format!("dmsetup status --noflush {word}; dmesg | tail")));
        }
        None => {
            return Err(refuse("the kernel does not tell its status".to_owned())
                .fact("cause", report.unread.join("; "))
                .next("dmesg | tail"));
        }
    };
    let flagged = facts.superblock.as_ref().is_ok_and(|sb| sb.needs_check);
    if working.needs_check == Some(true) || flagged {
        return Err(refuse("its metadata needs a check first".to_owned())
            .fact("found", "needs_check is set: the kernel would say yes to a larger table and grow nothing")
            .next(format!("dmpool health {argument}    # says how its metadata is checked")));
    }
    if let Err(bad) = &facts.superblock {
        return Err(refuse("its superblock cannot be read".to_owned()).fact("cause", bad).next("dmesg | tail"));
    }
    if !facts.needs_on_it.is_empty() {
        let paths: Vec<_> = facts.needs_on_it.iter().map(|p| p.display().to_string()).collect();
        return Err(refuse("dmpool itself needs files that lie on it, while it is suspended for a moment".to_owned())
            .fact("found", paths.join(", "))
            .next("run dmpool from another disk, with --state-dir on another disk, and its output elsewhere"));
    }
    Ok(working)
}

/// What carries the part must be a loop file that can be made longer, or a device.
fn carrier_allows<'f>(facts: &'f Facts, part: Part, refuse: &impl Fn(String) -> Failure) -> Outcome<Beneath<'f>> {
    let backing = part_of(&facts.report, part);
    let beneath = match &backing.carrier {
        Carrier::Loop { file, .. } => Beneath::File(file),
        Carrier::LoopOverDevice { disk, .. } => Beneath::Disk(disk),
        Carrier::Device { path } => return Ok(Beneath::Device(path, backing.size.map(Sectors::bytes))),
        Carrier::Devices { paths } => {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(refuse(format!("its {part} is on the devices {}, not on a loop file", paths.join(" and ")))
                .next("enlarge one of them, then reload the tables over them; who made those tables must do it"));
        }
        Carrier::Unknown => {
            return Err(refuse(format!("it cannot be told what its {part} is kept on"))
                .fact("cause", facts.report.unread.join("; "))
                .next(format!("dmsetup table {}    # names its devices", quote(&facts.report.name))));
        }
    };
    let (path, word) = (beneath.path().display(), quote(&beneath.path().to_string_lossy()));
    if let Beneath::File(file) = beneath
        && file.deleted
    {
        return Err(refuse(format!("its loop file {path} is deleted; it lives only as long as the pool is active"))
            .next(format!(
                "dmpool health {}    # says how it is copied back, before anything is stopped or the machine reboots",
                quote(&facts.report.argument)
            )));
    }
    match facts.file {
        FileFacts::Same => {}
        FileFacts::Device if matches!(beneath, Beneath::Disk(_)) => {}
        FileFacts::Another => {
            return Err(refuse(format!("{path} is another file than the loop device has"))
                .next("losetup -l -O NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE    # tells the right file by its inode"));
        }
        FileFacts::Device => {
            return Err(refuse(format!("the loop device has a file, and {path} is a device"))
                .next("losetup -l -O NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE    # tells the right file by its inode"));
        }
        FileFacts::Missing => {
            return Err(refuse(format!("its loop file {path} cannot be looked at"))
                .fact("cause", facts.report.unread.join("; "))
                .next(format!("ls -l {word}    # says why; mount the file system that it is on where it was")));
        }
    }
    if let [first, second, ..] = facts.loops.as_slice() {
        return Err(refuse(format!("two loop devices have its file {path}"))
            .fact("found", format!("{} and {}", first.path().display(), second.path().display()))
            .next(format!(
                "lsblk {} {}    # shows who uses which; losetup -d detaches the other one",
                first.path().display(),
                second.path().display()
            )));
    }
    if let Some(odd) = facts.loops.iter().find(|l| l.offset.get() != 0 || l.size_limit.get() != 0) {
        return Err(refuse(format!("its loop device {} shows only a part of {path}", odd.path().display()))
            .fact("found", format!("offset {}, size limit {}", odd.offset, odd.size_limit))
            .next("losetup -l    # says how it is attached; who did so must enlarge it"));
    }
    if let (Some(linear), None) = (&backing.linear, &facts.entry) {
        let linear = quote(linear);
        return Err(refuse(format!("its {part} stands on the device `{linear}`, which dmpool did not make"))
            .next(format!("dmsetup table {linear}    # shows it; who made it must enlarge it")));
    }
    if let Some(fs) = &facts.fs
        && fs.is_network
    {
        return Err(refuse(format!("{path} is on a file system that is not this machine's own ({})", fs.fs_type))
            .fact("found", format!("{} on {}", fs.source.display(), fs.mount_point.display()))
            .next("take the pool down, copy its files to a local disk (cp --sparse=always) and bring it up there"));
    }
    if facts.fs.as_ref().is_some_and(|fs| fs.read_only) {
        return Err(refuse(format!("the file system of {path} is read-only")).next("remount it read-write"));
    }
    match (beneath.size(), backing.size, facts.report.table.as_ref()) {
        (Some(size), Some(device), Some(_)) if size < device.bytes() => {
            Err(refuse(format!("{path} is shorter than the device on it"))
                .fact("found", format!("the file has {}, the device {}", size.exact(), device.bytes().exact()))
                .next("something has shortened the file: copy what can still be read away before anything is stopped"))
        }
        _ => Ok(beneath),
    }
}

/// The size must be one that the part can have.
fn size_allows<'f>(
    facts: &Facts,
    options: &Options,
    beneath: Beneath<'f>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Growth<'f>> {
    let part = options.part;
    let room = room::room(&facts.report, part, facts.promised_to_others)
        .ok_or_else(|| refuse("its size is not known".to_owned()))?;
    let block = block_of(&facts.report, part);
    let too_large = || refuse("that size is larger than any file can be (2^63 bytes)".to_owned());
    lvm::share_allows(options, &facts.under, &facts.report, refuse)?;
    let room = lvm::with_room(Some(room), &facts.under).unwrap_or(room);
    let to = room::wanted(options.size, &room, block).ok_or_else(too_large)?;
    size_can_be(&facts.report, part, room.size, to, refuse)?;
    let growth = Growth { beneath, from: room.size, room, to, extend: None };
    if matches!(beneath, Beneath::Disk(_) | Beneath::Device(..)) {
        let extend = device_allows(facts, options, &growth, refuse)?;
        return Ok(Growth { extend, ..growth });
    }
    let largest = facts.fs.as_ref().and_then(|fs| fs.max_file_size);
    if facts.holds == Some(false) || largest.is_some_and(|most| to > most) {
        let kind = facts.fs.as_ref().map_or("", |fs| fs.fs_type.as_str());
        return Err(refuse(format!("its file system ({kind}) cannot hold a file of that length"))
            .fact("needed", to.exact())
            .fact("found", format!("its largest file: {}", largest.map_or_else(|| "less".to_owned(), Bytes::exact)))
            .next(format!(
                "dmpool grow {}    # says what there is; choose a smaller size",
                quote(&facts.report.name)
            )));
    }
    crate::ops::gate::file_size(to, facts.file_size_limit, refuse)?;
    Ok(growth)
}

/// A part is never made smaller, and the kernel uses only so much metadata.
pub(super) fn size_can_be(
    report: &PoolReport,
    part: Part,
    from: Bytes,
    to: Bytes,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    if to < from {
        return Err(refuse("a pool cannot be made smaller".to_owned())
            .fact("found", format!("it has {}", from.exact()))
            .fact("needed", format!("at least that; {} was asked for", to.exact()))
            .next("save what is in it, and make a smaller pool"));
    }
    if part == Part::Metadata && from >= MAX_META_BLOCKS.bytes() && to > from {
        return Err(refuse(format!("it has {} already, and the kernel uses no more", from.human())).next(
            "remove volumes, images or snapshots that nobody needs: that alone frees metadata now; a pool with larger blocks needs less of it",
        ));
    }
    if part == Part::Metadata && to > MAX_META_BLOCKS.bytes() && to > from {
        return Err(refuse("the kernel uses no more than 15.875 GiB of metadata".to_owned())
            .fact("needed", format!("at most {}", MAX_META_BLOCKS.bytes().exact()))
            .next(format!("dmpool grow {} --metadata 16256M", quote(&report.name))));
    }
    Ok(())
}

/// A disk must have the size already; an LV is made longer first, when its group has room.
fn device_allows(
    facts: &Facts,
    options: &Options,
    growth: &Growth<'_>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Option<ExtendVolume>> {
    let (path, to) = (growth.beneath.path().display(), growth.to);
    let Some(size) = growth.beneath.size() else {
        return Err(refuse(format!("the size of the device {path} is not known")));
    };
    if to <= size {
        return Ok(None);
    }
    let under = lvm::to_extend(&facts.under, || too_small(facts, options.part, growth, size, refuse), refuse)?;
    let length = under.longer_by(to.saturating_sub(size));
    under.can_have(length, length.saturating_sub(under.volume.size), &facts.report, refuse)?;
    Ok(Some(under.extend(facts, options, length, growth.from)))
}

/// Returns the refusal of a device that is no LV, with what its owner has to do.
fn too_small(
    facts: &Facts,
    part: Part,
    growth: &Growth<'_>,
    size: Bytes,
    refuse: &impl Fn(String) -> Failure,
) -> Failure {
    let (path, pool) = (growth.beneath.path().display(), quote(&facts.report.name));
    let option = if part == Part::Metadata { "--metadata " } else { "" };
    let then = format!("dmpool grow {pool} {option}max");
    if let (Beneath::Device(..), Some(linear)) = (growth.beneath, &part_of(&facts.report, part).linear) {
        let (linear, needed) = (quote(linear), growth.to.sectors().get());
        return refuse(format!("it stands on the device `{linear}`, which dmpool did not make"))
            .fact("found", format!("{linear} has {}, over {path}", size.exact()))
            .fact("needed", growth.to.exact())
            .next(format!(
                "dmsetup table {linear} | awk '{{ $2 = {needed}; print }}' | dmsetup load {linear} && dmsetup resume {linear} && {then}    # if it is yours to make longer"
            ));
    }
    let link = part_of(&facts.report, part).link().map(|link| format!(", by the symbolic link {}", link.at.display()));
    refuse(format!("it is kept on the disk {path}, which is too small"))
        .fact("found", format!("{path} has {}{}", size.exact(), link.unwrap_or_default()))
        .fact("needed", growth.to.exact())
        .next(format!("{then}    # once the disk is larger, where it comes from; dmpool disks says how to look again"))
}

/// The host's file system must have something to give.
fn space_allows(
    facts: &Facts,
    options: &Options,
    growth: &Growth<'_>,
    notes: &mut Vec<String>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    let Beneath::File(LoopFile { path, host: Some(host), .. }) = growth.beneath else { return Ok(()) };
    let more = growth.to.saturating_sub(growth.from);
    let unpromised = growth.room.unpromised();
    let mount = host.mount_point.display();
    if preallocated(facts, options.part) {
        if more > unpromised {
            return Err(refuse(format!("the file system {mount} has too little space for a preallocated file"))
                .fact("file", path.display().to_string())
                .fact("needed", format!("{} more", more.exact()))
                .fact("free", format!("{} on {mount} that is not promised to the pool's files", unpromised.exact()))
                .next(format!(
                    "dmpool grow {}    # says what there is; choose a smaller size",
                    quote(&facts.report.name)
                )));
        }
        return Ok(());
    }
    if unpromised.get() == 0 && !options.overcommit {
        return Err(refuse(format!("nothing would be gained: the file system {mount} fills up before the pool does"))
            .fact("file", path.display().to_string())
            .fact("free", format!("{} on {mount}", host.free.exact()))
            .fact("needed", format!("{} for what the pool may take already", growth.room.promised.exact()))
            .next(format!(
                "dmpool grow {} {}{} --overcommit    # if you make room on {mount} before it is needed",
                quote(&facts.report.name),
                if options.part == Part::Metadata { "--metadata " } else { "" },
                growth.to.get()
            )));
    }
    if more > unpromised {
        notes.push(format!(
            "the file is sparse: with {} more, the pool may take {} more than the file system {mount} has ({} free)",
            more.human(),
            more.saturating_sub(unpromised).human(),
            host.free.human()
        ));
    }
    if options.size == SizeArg::Max {
        notes.push(format!("{} is the most that {mount} can really carry", growth.to.human()));
    }
    Ok(())
}

/// Whether the part's file was given all its blocks when dmpool made it: a file that has them because it is full is
/// no such file.
fn preallocated(facts: &Facts, part: Part) -> bool {
    let files = facts.entry.as_ref().and_then(crate::pool::Entry::files);
    files.is_some_and(|[metadata, data]| match part {
        Part::Data => data.preallocated,
        Part::Metadata => metadata.preallocated,
    })
}

fn steps(facts: &Facts, part: Part, growth: &Growth<'_>) -> Vec<Step> {
    let name = facts.report.name.clone();
    let path = growth.beneath.path().to_owned();
    let metadata_file = metadata_of(&facts.report);
    let length = growth.beneath.size().unwrap_or(growth.from);
    let mut steps: Vec<Step> = Vec::new();
    if let Beneath::File(_) = growth.beneath
        && length < growth.to
    {
        let preallocate = preallocated(facts, part);
        steps.push(
            ExtendFile {
                path: path.clone(),
                pool: name.clone(),
                part,
                metadata_file: metadata_file.clone(),
                from: length,
                to: growth.to,
                preallocate,
            }
            .into(),
        );
    }
    steps.extend(growth.extend.clone().map(Step::from));
    if !matches!(growth.beneath, Beneath::Device(..)) {
        steps.push(SetCapacity { file: path, to: growth.to }.into());
    }
    let backing = part_of(&facts.report, part);
    if let (Some(linear), Some(entry), Some(size)) = (&backing.linear, &facts.entry, backing.size) {
        let uuid = match part {
            Part::Data => entry.uuid.data(),
            Part::Metadata => entry.uuid.metadata(),
        };
        steps.push(
            ReloadLinear {
                name: linear.clone(),
                uuid,
                pool: name.clone(),
                part,
                metadata_file,
                from: size,
                to: growth.to.sectors(),
            }
            .into(),
        );
    }
    steps
        .push(ReloadPool { name, metadata: metadata_of(&facts.report), part, from: growth.from, to: growth.to }.into());
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::docker_pool;

    #[test]
    fn metadata_that_is_as_large_as_the_kernel_uses_it_stays_so() {
        let pool = docker_pool("0 6211/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024", 1 << 40);
        let most = MAX_META_BLOCKS.bytes();
        let can = |from: Bytes, to: Bytes| size_can_be(&pool, Part::Metadata, from, to, &|why| Failure::refused(why));
        let more = Bytes::new(most.get() + (1 << 30));
        let full = can(most, more).map_err(|f| (f.kind, f.what));
        let said = "it has 15.9 GiB already, and the kernel uses no more".to_owned();
        assert_eq!(full, Err((crate::error::Kind::Refused, said)));
        assert!(can(Bytes::GIB, more).is_err_and(|f| f.next.is_some_and(|next| next.ends_with("--metadata 16256M"))));
        assert!(can(Bytes::GIB, most).is_ok() && can(most, most).is_ok());
    }
}
