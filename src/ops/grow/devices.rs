//! `grow` on devices that dmpool has formatted: into what they have, what they have gained, and what is added.
//!
//! Where the part ends on an LV that is too short, LVM makes that longer before all else. The labels come then, that of an added device before the others: in between the map has more than the pool uses, which
//! harms nothing. Then the device under the pool is reloaded, and the pool.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Failure, Outcome};
use crate::ops::find::Found;
use crate::ops::grow::notes::after;
use crate::ops::grow::plan::{size_can_be, state_allows};
use crate::ops::grow::room::{Room, wanted};
use crate::ops::grow::{Beneath, Facts, Options, block_of, lvm, metadata_of, part_of};
use crate::ops::lvm::tag_of;
use crate::ops::members::{self, Labelled};
use crate::ops::plan::{Operation, Plan};
use crate::ops::random;
use crate::ops::steps::{
    ExtendVolume, Kit, MapDevices, NamedDevice, Part, ReloadDevices, ReloadPool, Step, UpdateEntry, WriteLabel,
};
use crate::ops::taking::{self, Named};
use crate::pool::label::{Assembly, DeviceUuid, Label, Purpose, Segment, layout};
use crate::pool::{DeviceStore, Entry, PoolReport, Store};
use crate::process::quote;
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors};

/// What there is of the devices.
pub(super) struct OnDevices {
    entry: Entry,
    assembly: Assembly,
    labelled: Vec<Labelled>,
    added: Vec<(Named, DeviceUuid)>,
    /// The LV that the part ends on, when it is one.
    under: Beneath,
}

/// What a part needs to have a size.
struct Needed {
    map: Vec<Segment>,
    from: Bytes,
    to: Bytes,
    /// The LV that is made longer first.
    extend: Option<ExtendVolume>,
}

/// Looks at the devices of a pool, and at those that shall be added.
///
/// # Errors
/// Refused when they cannot be put together, or are not all there.
pub(super) fn look(kit: &Kit, entry: &Entry, part: Part, add: &[PathBuf]) -> Outcome<OnDevices> {
    let cannot = |e: anyhow::Error| {
        Failure::refused(format!("cannot grow pool `{}`: its devices cannot be put together", entry.name))
            .next("dmpool disks    # shows which labels are here")
            .because(e)
    };
    let sight = members::look(&kit.dm).map_err(cannot)?;
    let assembly = sight.assembled(&entry.uuid).map_err(cannot)?;
    let mut labelled = sight.labelled;
    labelled.retain(|one| one.member.label.pool == entry.uuid);
    let paths: Vec<_> = add.iter().map(PathBuf::as_path).collect();
    let named = if paths.is_empty() { Vec::new() } else { taking::look(kit, entry.name.as_str(), &paths)? };
    let with_uuid = |named: Named| Ok((named, DeviceUuid::from_random(random::bits()?)));
    let added = named.into_iter().map(with_uuid).collect::<Result<_, _>>().map_err(cannot)?;
    let under = match last_device(&assembly.label, part) {
        Some(device) => {
            let tag = tag_of(device);
            let found = assembly.devices.get(&device);
            found.map_or(Ok(None), |devno| lvm::under(&kit.dm, *devno, Some(&tag)))
        }
        None => Ok(None),
    };
    Ok(OnDevices { entry: entry.clone(), assembly, labelled, added, under })
}

/// Returns the device that a part ends on, when it can be given more by making that one longer: not one of stripes, and for
/// metadata not one with data behind it.
fn last_device(label: &Label, part: Part) -> Option<DeviceUuid> {
    let is_of = |segment: &&Segment| (segment.purpose == Purpose::Data) == (part == Part::Data);
    let device = match label.map.iter().rfind(is_of)?.legs.as_slice() {
        [one] => one.device,
        _ => return None,
    };
    let has_data =
        |segment: &Segment| segment.purpose == Purpose::Data && segment.legs.iter().any(|leg| leg.device == device);
    (part == Part::Data || !label.map.iter().any(has_data)).then_some(device)
}

/// Returns how much room a part has on its devices; nothing when that cannot be told.
pub(super) fn room_on(kit: &Kit, found: &Found, report: &PoolReport, part: Part) -> Option<Room> {
    let on = look(kit, found.entry.as_ref()?, part, &[]).ok()?;
    on.room(report, part, &on.map(part, &on.lengths()))
}

impl OnDevices {
    fn label(&self) -> &Label {
        &self.assembly.label
    }

    /// Returns how long each device is now, with those that are added.
    fn lengths(&self) -> BTreeMap<DeviceUuid, Sectors> {
        let there = self.labelled.iter().map(|one| (one.member.label.device, one.member.length));
        let added = self.added.iter().filter_map(|(named, uuid)| Some((*uuid, named.device.as_ref()?.size.sectors())));
        there.chain(added).collect()
    }

    /// Returns the map with all that a part can be given.
    fn map(&self, part: Part, lengths: &BTreeMap<DeviceUuid, Sectors>) -> Vec<Segment> {
        match part {
            Part::Data => layout::with_more_data(self.label(), lengths),
            Part::Metadata => layout::with_more_room(self.label(), lengths),
        }
    }

    /// Returns how large a part can be with such a map.
    fn most(&self, part: Part, map: &[Segment]) -> Bytes {
        let whole = Label { map: map.to_vec(), ..self.label().clone() };
        match part {
            Part::Data => whole.length(Purpose::Data).bytes(),
            Part::Metadata => layout::most_metadata(&whole),
        }
    }

    fn room(&self, report: &PoolReport, part: Part, map: &[Segment]) -> Option<Room> {
        let space = match part {
            Part::Data => report.data_space()?,
            Part::Metadata => report.metadata_space()?,
        };
        let room = Room {
            size: space.total,
            host_free: None,
            promised: Bytes::default(),
            most: (part == Part::Metadata).then_some(MAX_META_BLOCKS.bytes()),
            disk: Some(self.most(part, map)),
            group: None,
        };
        lvm::with_room(Some(room), &self.under)
    }

    /// Decides what is to be done.
    ///
    /// # Errors
    /// Every reason not to do it.
    pub fn plan(&self, kit: &Kit, facts: &Facts, options: &Options) -> Outcome<Plan> {
        let (name, part) = (&facts.report.name, options.part);
        let refuse = |why: String| {
            Failure::refused(format!("cannot grow the {part} of pool `{name}`: {why}"))
                .fact("state", "nothing was touched")
        };
        let working = state_allows(facts, &refuse)?;
        self.added_fit(options, &refuse)?;
        let Needed { map, from, to, extend } = self.size(facts, options, &refuse)?;
        let what = format!("grow the {part} of pool `{name}` from {} to {}", from.human(), to.human());
        let mut plan =
            Plan { operation: Operation::Grow, pool: name.clone(), what, steps: Vec::new(), notes: Vec::new() };
        if to == from && self.added.is_empty() {
            plan.notes.push(format!("the {part} of pool `{name}` has {} already: unchanged", to.exact()));
            return Ok(plan);
        }
        if let (Some(extend), Ok(Some(under))) = (&extend, &self.under) {
            plan.notes.extend(under.full_after(options, extend.to.saturating_sub(extend.from)));
        }
        plan.steps.extend(extend.map(Step::from));
        let is_needed = |map: &[Segment]| *map != *self.label().map;
        if is_needed(&map) {
            self.relabel(kit, &map, &mut plan, &refuse)?;
        }
        if to > from {
            plan.steps.extend(self.reload(facts, part, from, to));
        }
        plan.notes.extend(after(facts, options, to, working));
        Ok(plan)
    }

    fn added_fit(&self, options: &Options, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
        if self.entry.ephemeral.is_some() && !self.added.is_empty() {
            return Err(refuse("it is ephemeral, and made anew of the devices that it was made of".to_owned())
                .next("dmpool destroy it, and create it on all of them"));
        }
        if options.part == Part::Metadata && !self.added.is_empty() {
            return Err(refuse("a device is added for data".to_owned()).next("leave out --metadata, or --add-device"));
        }
        for (index, (named, _)) in self.added.iter().enumerate() {
            named.fit(options.wipe, refuse)?;
            let devno = named.device.as_ref().map(|device| device.devno);
            if self.added.iter().take(index).any(|(other, _)| other.device.as_ref().map(|d| d.devno) == devno) {
                let given = named.given.display();
                return Err(refuse(format!("`{given}` is named twice")).next("name each device once"));
            }
        }
        Ok(())
    }

    /// Returns what is needed for the size that is asked for.
    fn size(&self, facts: &Facts, options: &Options, refuse: &impl Fn(String) -> Failure) -> Outcome<Needed> {
        let part = options.part;
        let mut map = self.map(part, &self.lengths());
        let room = self.room(&facts.report, part, &map);
        let room = room.ok_or_else(|| refuse("its size is not known".to_owned()))?;
        let room = Room { group: room.group.filter(|_| options.takes_group), ..room };
        let block = block_of(&facts.report, part);
        lvm::share_allows(options, &self.under, &facts.report, refuse)?;
        let to = wanted(options.size, &room, block);
        let to = to.ok_or_else(|| refuse("that size is larger than any device can be (2^63 bytes)".to_owned()))?;
        size_can_be(&facts.report, part, room.size, to, refuse)?;
        let mut extend = None;
        if to > room.carried() && to > room.size {
            let none = || no_room(&facts.report.name, part, to, room.max(), refuse);
            let (longer, step) = self.extended(facts, options, (room.size, to), none, refuse)?;
            (map, extend) = (longer, Some(step));
        }
        for (named, uuid) in &self.added {
            if !map.iter().any(|segment| segment.legs.iter().any(|leg| leg.device == *uuid)) {
                return Err(refuse(format!("`{}` is too small", named.given.display()))
                    .fact("needed", "room for a label and one block")
                    .next("dmpool disks    # shows larger ones"));
            }
        }
        let map = match part {
            // What the map has already needs no new label.
            Part::Data if self.added.is_empty() && to.sectors() <= self.label().length(Purpose::Data) => {
                self.label().map.clone()
            }
            Part::Data => map,
            Part::Metadata => {
                let roomy = Label { map, ..self.label().clone() };
                layout::with_more_metadata(&roomy, to.sectors())
                    .ok_or_else(|| refuse("the room behind it is used up".to_owned()))?
            }
        };
        Ok(Needed { map, from: room.size, to, extend })
    }

    /// Returns the map for a size that the devices have no room for, and the step that makes the LV of the last one longer.
    fn extended(
        &self,
        facts: &Facts,
        options: &Options,
        (from, to): (Bytes, Bytes),
        none: impl FnOnce() -> Failure,
        refuse: &impl Fn(String) -> Failure,
    ) -> Outcome<(Vec<Segment>, ExtendVolume)> {
        let part = options.part;
        let under = lvm::to_extend(&self.under, none, refuse)?;
        let device = last_device(self.label(), part).ok_or_else(|| refuse("it ends on no one device".to_owned()))?;
        let mut lengths = self.lengths();
        let mut length = under.longer_by(to.saturating_sub(self.most(part, &self.map(part, &lengths))));
        loop {
            lengths.insert(device, length.sectors());
            let map = self.map(part, &lengths);
            under.can_have(length, length.saturating_sub(under.volume.size), &facts.report, refuse)?;
            if self.most(part, &map) >= to {
                let label = Some((self.entry.uuid.clone(), device));
                let step = ExtendVolume { label, ..under.extend(facts, options, length, from) };
                return Ok((map, step));
            }
            // Pieces are whole MiB and whole blocks, an LV is whole extents.
            length = Bytes::new(length.get().saturating_add(under.volume.group.extent.get()));
        }
    }

    /// Adds the steps that write the map into all labels, and into the registry which devices there are.
    fn relabel(&self, kit: &Kit, map: &[Segment], plan: &mut Plan, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
        let sequence = self.label().sequence.saturating_add(1);
        let label = |device| Label { sequence, device, map: map.to_vec(), ..self.label().clone() };
        let mut devices = self.entry.devices().to_vec();
        for (named, uuid) in &self.added {
            let on = named.on(refuse)?;
            let clear = named.clear(&kit.state.saved, &self.entry.name, &self.entry.uuid, *uuid, on.clone());
            plan.notes.extend(taking::kept(&clear));
            plan.steps.push(clear.into());
            devices.push(DeviceStore { uuid: *uuid, path: on.path.clone() });
            plan.steps.push(WriteLabel { on, label: label(*uuid), slot: 0, before: None, over: None }.into());
        }
        label(self.label().device).encode().map_err(|e| refuse(format!("a label cannot hold where it lies: {e}")))?;
        for one in &self.labelled {
            let member = &one.member;
            let on = NamedDevice::of(member.name.as_ref(), member.length.bytes())
                .map_err(|e| refuse("it cannot be told which boot this is".to_owned()).because(e))?;
            let slot = one.slots.next();
            let [first, second] = one.slots.labels();
            let over = if slot == 0 { first } else { second };
            let (before, label) = (Some(member.label.sequence), label(member.label.device));
            plan.steps.push(WriteLabel { on, label, slot, before, over }.into());
        }
        if !self.added.is_empty() {
            let to = Entry { store: Store::Devices(devices), ..self.entry.clone() };
            plan.steps.push(UpdateEntry { from: self.entry.clone(), to }.into());
        }
        Ok(())
    }

    fn reload(&self, facts: &Facts, part: Part, from: Bytes, to: Bytes) -> Vec<Step> {
        let (name, uuid) = match part {
            Part::Data => (self.entry.name.data_device(), self.entry.uuid.data()),
            Part::Metadata => (self.entry.name.metadata_device(), self.entry.uuid.metadata()),
        };
        let pool = facts.report.name.clone();
        let device = MapDevices { name, uuid, pool: self.entry.uuid.clone(), part, length: to.sectors() };
        let length = part_of(&facts.report, part).size.unwrap_or_else(|| from.sectors());
        vec![
            ReloadDevices { device, pool: pool.clone(), from: length }.into(),
            ReloadPool { name: pool, metadata: metadata_of(&facts.report), part, from, to }.into(),
        ]
    }
}

/// Returns the refusal of a size that the devices have no room for, where none of them is an LV that could be made longer.
fn no_room(pool: &str, part: Part, to: Bytes, most: Bytes, refuse: &impl Fn(String) -> Failure) -> Failure {
    let pool = quote(pool);
    let next = match part {
        Part::Data => format!(
            "dmpool grow {pool} --add-device DEV    # one that dmpool disks shows; or enlarge a device, and grow to max"
        ),
        Part::Metadata => format!("dmpool grow {pool} --metadata {}    # is the most that it can have", most.typed()),
    };
    refuse(format!("its devices have less than {} for it", to.exact()))
        .fact("found", format!("at most {}", most.exact()))
        .next(next)
}
