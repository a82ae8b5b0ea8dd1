//! `grow` where LVM is beneath: an LV is made longer first, and a thin pool of LVM's own by LVM alone.

use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::ops::grow::notes::after;
use crate::ops::grow::plan::{size_can_be, state_allows};
use crate::ops::grow::room::{self, GroupRoom, Room};
use crate::ops::grow::{Facts, Options, block_of, metadata_of};
use crate::ops::lvm::{self, Volume};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{ExtendThinPool, ExtendVolume, Part};
use crate::pool::{DevNo, Maker, PoolReport};
use crate::process::quote;
use crate::units::{Bytes, SizeArg};

/// The LV beneath a part of a pool; or LVM's thin pool itself.
#[derive(Clone, Debug)]
pub struct Under {
    /// The LV.
    pub volume: Volume,
    /// Whether LVM made it for this pool.
    pub is_its: bool,
    /// How large the LV is that LVM keeps in the group to repair a thin pool's metadata into: it makes that as large as
    /// the largest metadata, as long as there is room. Only looked for of a thin pool of LVM's own.
    pub spare: Option<Bytes>,
}

/// What LVM says of what is beneath: nothing where it has nothing to do with it, or why it did not say.
pub type Beneath = Result<Option<Under>, String>;

/// Returns the LV that a device is; its tag, when it is one that LVM made for this pool.
pub(super) fn under(dm: &Dm, device: DevNo, tag: Option<&str>) -> Beneath {
    let Some(volume) = lvm::of_device(dm, device).map_err(|e| e.to_string())? else { return Ok(None) };
    let is_its = tag.is_some_and(|tag| volume.has(tag));
    Ok(Some(Under { volume, is_its, spare: None }))
}

/// Returns LVM's own thin pool, by the identity in its dm uuid.
pub(super) fn thin_pool(report: &PoolReport) -> Beneath {
    let (Maker::Lvm, Some(uuid)) = (report.maker, &report.uuid) else { return Ok(None) };
    let public = uuid.strip_suffix("-tpool").unwrap_or(uuid);
    let all = lvm::all_volumes(None).map_err(|e| e.to_string())?;
    let Some(volume) = all.iter().find(|volume| volume.dm_uuid() == public).cloned() else { return Ok(None) };
    let is_spare = |other: &&Volume| {
        other.of.group_uuid == volume.of.group_uuid && other.of.name.trim_matches(['[', ']']).ends_with("_pmspare")
    };
    let spare = all.iter().find(is_spare).map(|spare| spare.size);
    Ok(Some(Under { volume, is_its: true, spare }))
}

/// Returns a part's room with what its volume group has left.
pub(super) fn with_room(room: Option<Room>, under: &Beneath) -> Option<Room> {
    let group = under.as_ref().ok().and_then(Option::as_ref).map(Under::room);
    room.map(|room| Room { group, ..room })
}

/// Refuses a share of a volume group where there is none.
///
/// # Errors
/// Refused with what there is instead.
pub(super) fn share_allows(
    options: &Options,
    under: &Beneath,
    report: &PoolReport,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    match (options.size, under) {
        (SizeArg::ByShare(share), Ok(None)) => {
            Err(refuse(format!("+{share} is a share of a volume group, and it is on no LV"))
                .next(format!("dmpool grow {}    # says what can be chosen", quote(&report.name))))
        }
        (SizeArg::ByShare(_), Err(why)) => Err(silent(why, refuse)),
        _ => Ok(()),
    }
}

fn silent(why: &str, refuse: &impl Fn(String) -> Failure) -> Failure {
    refuse("LVM does not say what its volume group has".to_owned())
        .fact("cause", why)
        .next("lvs    # by itself says what it waits for, or what is wrong")
}

/// Returns the LV beneath, to be extended.
///
/// # Errors
/// `none` when there is no LV; refused when LVM does not answer.
pub(super) fn to_extend<'u>(
    under: &'u Beneath,
    none: impl FnOnce() -> Failure,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<&'u Under> {
    match under {
        Ok(Some(under)) => Ok(under),
        Ok(None) => Err(none()),
        Err(why) => Err(silent(why, refuse)),
    }
}

impl Under {
    fn room(&self) -> GroupRoom {
        let group = &self.volume.group;
        let size = group.bytes_of(group.extents);
        GroupRoom { free: group.free_bytes(), size, extent: group.extent, is_its: self.is_its }
    }

    /// Returns how much longer LVM makes its spare, when a thin pool's metadata has so much then.
    fn spare_by(&self, part: Part, to: Bytes) -> Bytes {
        match (part, self.spare) {
            (Part::Metadata, Some(spare)) => to.saturating_sub(spare),
            _ => Bytes::default(),
        }
    }

    /// Returns the same room for the metadata of a thin pool, with what the spare takes of it as it becomes as large.
    fn beside_spare(&self, room: GroupRoom, has: Bytes) -> GroupRoom {
        let Some(spare) = self.spare else { return room };
        if has.get().saturating_add(room.free.get()) <= spare.get() {
            return room;
        }
        let more = room.free.get().saturating_add(spare.get()).saturating_sub(has.get()) / 2;
        let extent = room.extent.get().max(1);
        GroupRoom { free: Bytes::new((more / extent * extent).min(room.free.get())), ..room }
    }

    /// Returns the least length in whole extents with which the LV has `more`.
    pub fn longer_by(&self, more: Bytes) -> Bytes {
        let group = &self.volume.group;
        group.bytes_of(group.extents_for(Bytes::new(self.volume.size.get().saturating_add(more.get()))))
    }

    /// Refuses an LV that cannot be made so long, which is `more`.
    ///
    /// # Errors
    /// Refused with what its group has left.
    pub fn can_have(
        &self,
        to: Bytes,
        more: Bytes,
        report: &PoolReport,
        refuse: &impl Fn(String) -> Failure,
    ) -> Outcome<()> {
        let (group, word) = (self.volume.group.usable(refuse)?, quote(&self.volume.of.word()));
        if more > group.free_bytes() {
            return Err(refuse(format!("the volume group `{}` has too little left", group.name))
                .fact("needed", format!("{} more for the LV {word}", more.exact()))
                .fact("free", format!("{} in extents of {}", group.free_bytes().exact(), group.extent.human()))
                .next(format!(
                    "vgextend {} DEV    # with a disk that dmpool disks shows; or a smaller size",
                    quote(&group.name)
                )));
        }
        if report.maker != Maker::Lvm && !self.volume.is_linear() {
            return Err(refuse(format!("the LV {word} beneath it is not linear, and how it grows is yours to say"))
                .fact("found", format!("segments of type {}", self.volume.types.join(", ")))
                .next(format!(
                    "lvextend -L {}b {word} && dmpool grow {} max    # with what options lvextend needs",
                    to.get(),
                    quote(&report.name)
                )));
        }
        Ok(())
    }

    /// Returns what to say when `max` leaves its group nothing.
    pub fn full_after(&self, options: &Options, more: Bytes) -> Option<String> {
        let group = &self.volume.group;
        let left = group.free_bytes().saturating_sub(more);
        (options.size == SizeArg::Max && left < group.extent).then(|| {
            let other = if options.part == Part::Data { "metadata" } else { "data" };
            format!(
                "the volume group `{}` has nothing left then: the pool's {other} cannot grow in it either",
                group.name
            )
        })
    }

    /// Returns the step that makes the LV so long, for a part of a pool that has no labels.
    pub fn extend(&self, facts: &Facts, options: &Options, to: Bytes, part_size: Bytes) -> ExtendVolume {
        ExtendVolume {
            volume: self.volume.of.clone(),
            from: self.volume.size,
            to,
            pool: facts.report.name.clone(),
            part: options.part,
            part_size,
            metadata: metadata_of(&facts.report),
            label: None,
        }
    }
}

/// Decides how a thin pool of LVM's own grows.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn plan(facts: &Facts, options: &Options) -> Outcome<Plan> {
    let (report, part) = (&facts.report, options.part);
    let name = &report.name;
    let refuse = |why: String| {
        Failure::refused(format!("cannot grow the {part} of pool `{name}`: {why}")).fact("state", "nothing was touched")
    };
    let working = state_allows(facts, &refuse)?;
    let none = || refuse("LVM made it, and LVM does not know it".to_owned()).next("lvs -a    # shows what LVM knows");
    let under = to_extend(&facts.under, none, &refuse)?;
    let group = &under.volume.group;
    let room = room_of(report, part, under).ok_or_else(|| refuse("its size is not known".to_owned()))?;
    // LVM rounds up to its own unit.
    let to = room::wanted(options.size, &room, group.extent.max(block_of(report, part)))
        .ok_or_else(|| refuse("that size is larger than any device can be (2^63 bytes)".to_owned()))?;
    size_can_be(report, part, room.size, to, &refuse)?;
    let to = group.bytes_of(group.extents_for(to));
    let what = format!("grow the {part} of pool `{name}` from {} to {}", room.size.human(), to.human());
    let mut plan = Plan { operation: Operation::Grow, pool: name.clone(), what, steps: Vec::new(), notes: Vec::new() };
    if to.saturating_sub(room.size) < block_of(report, part) {
        plan.notes.push(format!("the {part} of pool `{name}` has {} already: unchanged", room.size.exact()));
        return Ok(plan);
    }
    under.can_have(to, to.saturating_sub(room.size), report, &refuse)?;
    plan.steps.push(
        ExtendThinPool {
            volume: under.volume.of.clone(),
            name: name.clone(),
            metadata: metadata_of(report),
            part,
            from: room.size,
            to,
        }
        .into(),
    );
    let (more, spare) = (to.saturating_sub(room.size), under.spare_by(part, to));
    if spare > group.free_bytes().saturating_sub(more) {
        plan.notes.push(format!(
            "the volume group `{}` has too little left for LVM's spare to become as large as the metadata: lvconvert --repair needs it",
            group.name
        ));
    }
    plan.notes.extend(under.full_after(options, Bytes::new(more.get().saturating_add(spare.get()))));
    plan.notes.extend(after(facts, options, to, working));
    Ok(plan)
}

/// Returns how much room LVM's own pool has: all that its group has left.
pub(super) fn room_of(report: &PoolReport, part: Part, under: &Under) -> Option<Room> {
    let room = room::room(report, part, Bytes::default())?;
    let group = match part {
        Part::Data => under.room(),
        Part::Metadata => under.beside_spare(under.room(), room.size),
    };
    Some(Room { disk: Some(room.size), host_free: None, group: Some(group), ..room })
}
