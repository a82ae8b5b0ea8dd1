//! Deciding whether and how a pool grows: from facts alone.

use std::path::Path;

use crate::error::{Failure, Outcome};
use crate::ops::grow::room::{self, Room};
use crate::ops::grow::{Facts, FileFacts, Options, block_of, docker_note, metadata_of, part_of};
use crate::ops::health::logical_volume;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{ExtendFile, Part, ReloadLinear, ReloadPool, SetCapacity, Step};
use crate::pool::{Activity, Carrier, LoopDisk, LoopFile, Maker, PoolReport, PoolStatus, Space, Working};
use crate::units::{Bytes, MAX_META_BLOCKS, SizeArg};

/// What is behind the loop device.
#[derive(Clone, Copy)]
enum Beneath<'f> {
    File(&'f LoopFile),
    /// A disk: whoever owns it makes it larger, and nothing here shortens it.
    Disk(&'f LoopDisk),
}

impl Beneath<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            Self::Disk(disk) => &disk.path,
        }
    }

    fn size(&self) -> Option<Bytes> {
        match self {
            Self::File(file) => file.size,
            Self::Disk(disk) => disk.size,
        }
    }
}

/// What is grown, once the pool's own state allows it.
struct Growth<'f> {
    beneath: Beneath<'f>,
    room: Room,
    from: Bytes,
    to: Bytes,
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
    let working = state_allows(facts, part, &refuse)?;
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
    plan.notes.extend(after(facts, part, growth.to, working));
    Ok(plan)
}

/// Returns how LVM grows that part, with the pool by LVM's name for it where that can be told.
fn lvextend(report: &PoolReport, part: Part) -> String {
    let option = match part {
        Part::Data => "-L",
        Part::Metadata => "--poolmetadatasize",
    };
    format!("lvextend {option} +SIZE {}", logical_volume(report).unwrap_or_else(|| "VG/POOL".to_owned()))
}

/// The pool itself must be able to take a larger size.
pub(super) fn state_allows<'f>(
    facts: &'f Facts,
    part: Part,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<&'f Working> {
    let report = &facts.report;
    let name = &report.name;
    if report.maker == Maker::Lvm {
        return Err(refuse("LVM made it, and LVM must know its size".to_owned())
            .fact("found", format!("uuid {}", report.uuid.as_deref().unwrap_or("unknown")))
            .next(lvextend(report, part)));
    }
    match report.activity {
        Activity::Active => {}
        Activity::Suspended => {
            return Err(refuse("somebody left it suspended, and all I/O on it waits".to_owned())
                .fact("found", "the pool is suspended; dmpool did not do that now, and does not know why it was done")
                .next(format!("if nobody is working on it:  dmsetup resume {name}    then run this again")));
        }
        Activity::Inactive => {
            let next = match report.maker {
                Maker::Docker => "start Docker, then run this again",
                _ => "dmpool activate POOL, then run this again",
            };
            return Err(refuse("it is not active".to_owned()).next(next.replace("POOL", name)));
        }
    }
    let working = match &report.status {
        Some(PoolStatus::Working(working)) => working,
        Some(PoolStatus::Fail) => {
            return Err(refuse("it has failed, and every I/O on it ends with an error".to_owned())
                .fact("found", "status `Fail`: the kernel could not go on with its metadata")
                .next("stop what uses it, take it down, and check a copy of its metadata:  thin_check COPY"));
        }
        Some(PoolStatus::Error) => {
            return Err(refuse("the kernel cannot read its metadata".to_owned())
                .fact("found", "status `Error`")
                .next("dmesg | tail    says which device fails"));
        }
        Some(PoolStatus::Unreadable(line)) => {
            return Err(refuse("its status cannot be understood".to_owned())
                .fact("found", format!("`{line}`"))
                .next(format!("dmsetup status --noflush {name}    and dmesg | tail say more")));
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
            .next(
                "stop what uses it, take the pool down, then:  thin_check METADATA && thin_check --clear-needs-check-flag METADATA",
            ));
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

/// What carries the part must be a loop file that can be made longer, or a disk behind a loop device.
fn carrier_allows<'f>(facts: &'f Facts, part: Part, refuse: &impl Fn(String) -> Failure) -> Outcome<Beneath<'f>> {
    let backing = part_of(&facts.report, part);
    let beneath = match &backing.carrier {
        Carrier::Loop { file, .. } => Beneath::File(file),
        Carrier::LoopOverDevice { disk, .. } => Beneath::Disk(disk),
        Carrier::Device { path } => {
            return Err(refuse(format!("its {part} is on the device {}, not on a loop file", path.display()))
                .next("enlarge that device, then reload the pool's table; dmpool grows pools on loop files, and on devices that it has formatted"));
        }
        Carrier::Devices { paths } => {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(refuse(format!("its {part} is on the devices {}, not on a loop file", paths.join(" and ")))
                .next("enlarge one of them, then reload the tables over them; who made those tables must do it"));
        }
        Carrier::Unknown => {
            return Err(refuse(format!("it cannot be told what its {part} is kept on"))
                .fact("cause", facts.report.unread.join("; "))
                .next(format!("dmsetup table {}    names its devices", facts.report.name)));
        }
    };
    let path = beneath.path().display();
    if let Beneath::File(file) = beneath
        && file.deleted
    {
        return Err(refuse(format!("its loop file {path} is deleted; it lives only as long as the pool is active"))
            .next("copy what is on it away before anything is stopped or the machine reboots"));
    }
    match facts.file {
        FileFacts::Same => {}
        FileFacts::Device if matches!(beneath, Beneath::Disk(_)) => {}
        FileFacts::Another => {
            return Err(refuse(format!("{path} is another file than the loop device has"))
                .next("find the right file by its inode:  losetup -l -O NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE"));
        }
        FileFacts::Device => {
            return Err(refuse(format!("{path} is a disk behind a loop device, not a file"))
                .next("enlarge the disk, then losetup -c on the loop device; this dmpool grows loop files"));
        }
        FileFacts::Missing => {
            return Err(refuse(format!("its loop file {path} cannot be looked at"))
                .fact("cause", facts.report.unread.join("; "))
                .next(format!("ls -l {path}    says why; mount the file system that it is on where it was")));
        }
    }
    if let [first, second, ..] = facts.loops.as_slice() {
        return Err(refuse(format!("two loop devices have its file {path}"))
            .fact("found", format!("{} and {}", first.path().display(), second.path().display()))
            .next(format!("find out who uses the other one; losetup -d {}", second.path().display())));
    }
    if let Some(odd) = facts.loops.iter().find(|l| l.offset.get() != 0 || l.size_limit.get() != 0) {
        return Err(refuse(format!("its loop device {} shows only a part of {path}", odd.path().display()))
            .fact("found", format!("offset {}, size limit {}", odd.offset, odd.size_limit))
            .next("who attached it so must enlarge it: losetup -l says how it is"));
    }
    if backing.linear.is_some() && facts.entry.is_none() {
        let linear = backing.linear.as_deref().unwrap_or_default();
        return Err(refuse(format!("its {part} stands on the device `{linear}`, which dmpool did not make"))
            .next(format!("dmsetup table {linear}    shows it; who made it must enlarge it")));
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
    let to = room::wanted(options.size, &room, block).ok_or_else(too_large)?;
    if to < room.size {
        return Err(refuse("a pool cannot be made smaller".to_owned())
            .fact("found", format!("it has {}", room.size.exact()))
            .fact("needed", format!("at least that; {} was asked for", to.exact()))
            .next("save what is in it, and make a smaller pool"));
    }
    if part == Part::Metadata && to > MAX_META_BLOCKS.bytes() && to > room.size {
        return Err(refuse("the kernel uses no more than 15.875 GiB of metadata".to_owned())
            .fact("needed", format!("at most {}", MAX_META_BLOCKS.bytes().exact()))
            .next(format!("dmpool grow {} --metadata 16256M", facts.report.name)));
    }
    if let Beneath::Disk(disk) = beneath {
        disk_allows(facts, disk, to, refuse)?;
        return Ok(Growth { beneath, from: room.size, room, to });
    }
    let largest = facts.fs.as_ref().and_then(|fs| fs.max_file_size);
    if facts.holds == Some(false) || largest.is_some_and(|most| to > most) {
        let kind = facts.fs.as_ref().map_or("", |fs| fs.fs_type.as_str());
        return Err(refuse(format!("its file system ({kind}) cannot hold a file of that length"))
            .fact("needed", to.exact())
            .fact("found", format!("its largest file: {}", largest.map_or_else(|| "less".to_owned(), Bytes::exact)))
            .next(format!("choose a smaller size; dmpool grow {}    says what there is", facts.report.name)));
    }
    crate::ops::gate::file_size(to, facts.file_size_limit, refuse)?;
    Ok(Growth { beneath, from: room.size, room, to })
}

/// A disk must have the size already: it is never made longer or shorter here.
fn disk_allows(facts: &Facts, disk: &LoopDisk, to: Bytes, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let path = disk.path.display();
    let Some(size) = disk.size else {
        return Err(refuse(format!("the size of the disk {path} behind its loop device is not known")));
    };
    if to <= size {
        return Ok(());
    }
    let by = disk.link.as_ref().map(|link| format!("the symbolic link {}", link.at.display()));
    Err(refuse(format!("it is kept on the disk {path}, which is too small"))
        .fact("found", format!("{path} has {}{}", size.exact(), by.map(|by| format!(", by {by}")).unwrap_or_default()))
        .fact("needed", to.exact())
        .next(format!(
            "enlarge the disk (lvextend, or where it comes from), then  dmpool grow {} max    does the rest, losetup -c too",
            crate::process::quote(&facts.report.name)
        )))
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
                .next(format!("choose a smaller size; dmpool grow {}    says what there is", facts.report.name)));
        }
        return Ok(());
    }
    if unpromised.get() == 0 && !options.overcommit {
        return Err(refuse(format!("nothing would be gained: the file system {mount} fills up before the pool does"))
            .fact("file", path.display().to_string())
            .fact("free", format!("{} on {mount}", host.free.exact()))
            .fact("needed", format!("{} for what the pool may take already", growth.room.promised.exact()))
            .next(format!(
                "make room on {mount}; or, if room will be made later:  dmpool grow {} {}{} --overcommit",
                facts.report.name,
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
    steps.push(SetCapacity { file: path, to: growth.to }.into());
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

/// What the user should know of the pool at its new size.
pub(super) fn after(facts: &Facts, part: Part, to: Bytes, working: &Working) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.report.gave_up_queueing() {
        notes.push(
            "the pool was full for longer than the kernel queues writes: writes that had been acknowledged were lost; check the file systems on its volumes"
                .to_owned(),
        );
    }
    if let (Some(percent), Some(block), Some(metadata)) =
        (facts.docker_minimum, facts.report.block_size(), facts.report.metadata_space())
    {
        let (data, metadata) = match part {
            Part::Data => (block.blocks_in(to.sectors()), metadata),
            Part::Metadata => (working.data_total, Space { total: to, ..metadata }),
        };
        notes.extend(docker_note(working.data_used, data, metadata, block, percent));
    }
    notes
}
