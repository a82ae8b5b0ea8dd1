//! `create` on devices: what is on them, what goes where, and the steps that format them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};

use crate::ops::random;
use crate::ops::steps::{Kit, Step, WriteLabel};
use crate::ops::taking::{self, Named};
use crate::pool::label::layout::{self, Extent};
use crate::pool::label::{DeviceUuid, Label, Purpose, Segment};
use crate::pool::{Behaviour, DeviceStore, PoolUuid, Spec, Store};
use crate::units::{Bytes, Sectors};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'s> {
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
pub(super) struct Planned {
    pub steps: Vec<Step>,
    pub notes: Vec<String>,
    pub store: Store,
    pub data: Bytes,
    pub metadata: Bytes,
}

pub(super) fn look(data: &[PathBuf], metadata: Option<&Path>) -> Outcome<Facts> {
    let paths: Vec<_> = metadata.into_iter().chain(data.iter().map(PathBuf::as_path)).collect();
    let named = taking::look(&paths)?;
    let with_uuid = |named: Named| Ok((named, DeviceUuid::from_random(random::bits()?)));
    let devices: Result<_> = named.into_iter().map(with_uuid).collect();
    let devices = devices.map_err(|e| Failure::failed("cannot draw identities for devices").because(e))?;
    Ok(Facts { devices, apart: metadata.is_some() })
}

impl Wanted<'_> {
    /// Returns how the devices are formatted.
    ///
    /// # Errors
    /// Every reason not to take them.
    pub fn plan(&self, kit: &Kit, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Planned> {
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
            let clear = named.clear(&kit.state.saved, &self.spec.name, self.uuid, *uuid, on.clone());
            notes.extend(taking::kept(&clear));
            steps.push(clear.into());
            let label = self.label(*uuid, map.clone());
            label.encode().map_err(|e| refuse(format!("a label cannot hold where it lies: {e}")))?;
            labels.push(WriteLabel { on, label, slot: 0, before: None, over: None }.into());
            store.push(DeviceStore { uuid: *uuid, path: device.path() });
        }
        steps.extend::<Vec<Step>>(labels);
        Ok(Planned { steps, notes, store: Store::Devices(store), data, metadata: length(Purpose::Metadata) })
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
