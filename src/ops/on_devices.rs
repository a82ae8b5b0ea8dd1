//! A pool on devices that have none yet: what is on them, what goes where, and the steps that format them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};

use crate::ops::random;
use crate::ops::steps::{Kit, Step, WriteLabel};
use crate::ops::taking::{self, Named};
use crate::pool::label::layout::{self, Extent};
use crate::pool::label::{DeviceUuid, Label, Purpose, Segment};
use crate::pool::{Behaviour, DeviceStore, PoolUuid, Spec, Store, sizing};
use crate::units::{Bytes, MAX_META_BLOCKS, MIN_META_BLOCKS, Sectors};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'s> {
    /// The whole.
    pub spec: &'s Spec,
    /// What stands in the pool's table.
    pub behaviour: &'s Behaviour,
    /// The pool's identity.
    pub uuid: &'s PoolUuid,
    /// How much of the data goes to a device before it is the next one's turn.
    pub stripe: Option<Bytes>,
    /// Whether what others have left on the devices goes.
    pub wipe: bool,
    /// Where what is cleared is kept.
    pub saved: &'s Path,
}

/// What decides whether the devices can be taken.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The devices, that for metadata first when it is one of its own.
    devices: Vec<(Named, DeviceUuid)>,
    /// Whether it is.
    apart: bool,
}

/// What is to be done, and what comes of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The steps that format them.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Where the pool is kept then.
    pub store: Store,
    /// How much data it has.
    pub data: Bytes,
    /// How much metadata.
    pub metadata: Bytes,
}

/// Looks at devices by the names that were given.
///
/// # Errors
/// When sysfs or /proc cannot be read.
pub fn look(kit: &Kit, pool: &str, data: &[PathBuf], metadata: Option<&Path>) -> Outcome<Facts> {
    let paths: Vec<_> = metadata.into_iter().chain(data.iter().map(PathBuf::as_path)).collect();
    let named = taking::look(kit, pool, &paths)?;
    let with_uuid = |named: Named| Ok((named, DeviceUuid::from_random(random::bits()?)));
    let devices: Result<_> = named.into_iter().map(with_uuid).collect();
    let devices = devices.map_err(|e| Failure::failed("cannot draw identities for devices").because(e))?;
    Ok(Facts { devices, apart: metadata.is_some() })
}

impl Facts {
    /// Returns the devices, that for metadata first when it is one of its own.
    pub fn named(&self) -> impl Iterator<Item = &Named> {
        self.devices.iter().map(|(named, _)| named)
    }

    /// Returns how large each of them is.
    pub fn sizes(&self) -> Vec<Bytes> {
        self.named().map(|named| named.device.as_ref().map(|device| device.size).unwrap_or_default()).collect()
    }
}

impl Wanted<'_> {
    /// Returns how the devices are formatted.
    ///
    /// # Errors
    /// Every reason not to take them.
    pub fn plan(&self, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Planned> {
        self.each_once(facts, refuse)?;
        for (named, _) in &facts.devices {
            named.fit(self.wipe, refuse)?;
        }
        let map = self.map(facts, refuse)?;
        let length = |purpose| {
            let of_it = map.iter().filter(|segment| segment.purpose == purpose).map(|segment| segment.length.get());
            Sectors::new(of_it.fold(0, u64::saturating_add)).bytes()
        };
        let all = self.spec.block_size.bytes_of(self.spec.block_size.blocks_in(length(Purpose::Data).sectors()));
        let data = self.spec.data_size.unwrap_or(all);
        if data > all {
            return Err(refuse(format!("its devices have less than {} for data", data.exact()))
                .fact("found", all.exact())
                .next(format!("--data-size {}, or none for all that there is", all.typed())));
        }
        let (mut steps, mut labels, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut store = Vec::new();
        for (named, uuid) in &facts.devices {
            let Some(device) = &named.device else { continue };
            let on = named.on(refuse)?;
            let clear = named.clear(self.saved, &self.spec.name, self.uuid, *uuid, on.clone());
            notes.extend(taking::kept(&clear));
            steps.push(clear.into());
            let label = self.label(*uuid, map.clone());
            label.encode().map_err(|e| refuse(format!("a label cannot hold where it lies: {e}")))?;
            labels.push(WriteLabel { on, label, slot: 0, before: None, over: None }.into());
            // An ephemeral one is found again by the name that was given: the disk that has it may be another.
            let path = if self.spec.ephemeral { named.given.clone() } else { device.path() };
            store.push(DeviceStore { uuid: *uuid, path });
        }
        steps.extend::<Vec<Step>>(labels);
        let metadata = length(Purpose::Metadata);
        sizes(self.spec, data, metadata, refuse)?;
        Ok(Planned { steps, notes, store: Store::Devices(store), data, metadata })
    }

    fn each_once(&self, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
        for (index, (named, _)) in facts.devices.iter().enumerate() {
            let Some(device) = &named.device else { continue };
            let mut before = facts.devices.iter().take(index);
            let same = before.find(|(other, _)| other.device.as_ref().is_some_and(|other| other.devno == device.devno));
            if let Some((other, _)) = same {
                return Err(refuse(format!("`{}` is named twice", named.given.display()))
                    .fact("found", format!("{} and {} are one device", other.given.display(), named.given.display()))
                    .next("name each device once; without --metadata-device the first one carries the metadata too"));
            }
        }
        let data = facts.devices.len() - usize::from(facts.apart);
        match self.stripe {
            Some(_) if data < 2 => Err(refuse("stripes need two devices for data at least".to_owned())
                .fact("found", data.to_string())
                .next("leave out --stripe, or name more with --data-device")),
            Some(chunk) if !chunk.get().is_power_of_two() || chunk < Bytes::new(4 << 10) || chunk > Bytes::GIB => {
                // Any kernel takes powers of two of at least a page (stripe_ctr, drivers/md/dm-stripe.c).
                Err(refuse(format!("stripes cannot be {} wide", chunk.human()))
                    .fact("needed", "a power of two from 4K to 1G")
                    .next("--stripe=64K"))
            }
            _ => Ok(()),
        }
    }

    fn map(&self, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Vec<Segment>> {
        let extents = facts.devices.iter().map(|(named, device)| {
            let length = named.device.as_ref().map(|device| device.size.sectors()).unwrap_or_default();
            Extent { device: *device, length }
        });
        let mut extents = extents.into_iter();
        let metadata = if facts.apart { extents.next() } else { None };
        let wanted = layout::Wanted {
            metadata,
            data: extents.collect(),
            metadata_size: self.spec.metadata_size,
            chunk: self.stripe.map(Bytes::sectors),
            block: self.spec.block_size,
        };
        layout::of_new(&wanted).map_err(|small| {
            let named = facts.devices.iter().find(|(_, device)| *device == small.device).map(|(named, _)| named);
            let name = named.map(|named| named.given.display().to_string()).unwrap_or_default();
            let found = named.and_then(|named| named.device.as_ref()).map(|device| device.size.exact());
            refuse(format!("`{name}` is too small"))
                .fact("needed", format!("at least {}", small.needed.exact()))
                .fact("found", found.unwrap_or_default())
                .next("name a larger device (dmpool disks shows them), or a smaller --metadata-size")
        })
    }

    fn label(&self, device: DeviceUuid, map: Vec<Segment>) -> Label {
        Label {
            sequence: 1,
            pool: self.uuid.clone(),
            name: self.spec.name.clone(),
            device,
            behaviour: self.behaviour.clone(),
            map,
        }
    }
}

/// Refuses sizes that a pool cannot have.
///
/// # Errors
/// Refused with what is wrong.
pub fn sizes(spec: &Spec, data: Bytes, metadata: Bytes, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let block = spec.block_size.bytes();
    if data < block {
        return Err(refuse(format!("its data, {}, is less than one block", data.human()))
            .fact("needed", format!("at least {}", block.human()))
            .next(format!("--data-size {}", block.get())));
    }
    if !data.get().is_multiple_of(block.get()) {
        let rounded = data.get() / block.get() * block.get();
        return Err(refuse(format!("its data, {} bytes, is no whole number of blocks", data.get()))
            .fact("needed", format!("a multiple of {}", block.exact()))
            .next(format!("--data-size {rounded}")));
    }
    if metadata.meta_blocks() < MIN_META_BLOCKS {
        return Err(refuse(format!("its metadata, {}, is too small", metadata.human()))
            .fact("needed", format!("at least {}", MIN_META_BLOCKS.bytes().human()))
            .next("leave out --metadata-size: dmpool chooses one that fits"));
    }
    if metadata > MAX_META_BLOCKS.bytes() {
        return Err(refuse(format!("its metadata, {}, is more than the kernel uses", metadata.human()))
            .fact("needed", format!("at most {}", MAX_META_BLOCKS.bytes().exact()))
            .next("--metadata-size 16256M"));
    }
    let rule = sizing::metadata_for(spec.block_size.blocks_in(data.sectors())).bytes();
    if metadata < rule {
        return Err(refuse(format!("{} of metadata cannot map its data", metadata.human()))
            .fact("needed", format!("at least {}: 48 bytes for each block of {}", rule.exact(), block.human()))
            .next(format!("--metadata-size {}M, or a larger --block-size", rule.get().div_ceil(1 << 20))));
    }
    Ok(())
}
