//! `create` in a volume group: the LVs that LVM makes, one for data and one for metadata, and the steps that format them.

use crate::error::{Failure, Outcome};
use crate::ops::lvm::{self, Group, Volume};
use crate::ops::on_devices::Planned;
use crate::ops::random;
use crate::ops::steps::{MakeVolume, NamedDevice, Step, WriteLabel};
use crate::pool::label::layout::{self, Extent};
use crate::pool::label::{AREA, DeviceUuid, Label, Purpose};
use crate::pool::{Behaviour, DeviceStore, PoolUuid, Spec, Store, sizing};
use crate::process::quote;
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors, Share, ShareOf};

/// All that the group has left.
const ALL: Share = Share { percent: 100, of: ShareOf::Free };

/// Words that LVM keeps for LVs of its own, wherever they stand in a name, and those that a name must not begin with (lvm(8),
/// VALID NAMES).
const RESERVED: [&str; 17] = [
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mlog", "_mimage", "_pmspare", "_rimage", "_rmeta",
    "_tdata", "_tmeta", "_vdata", "_vorigin", "_iorig", "_imeta",
];
const RESERVED_AT_THE_BEGINNING: [&str; 2] = ["snapshot", "pvmove"];

/// The longest name that the kernel takes.
const LONGEST: usize = 127;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'s> {
    /// The whole.
    pub spec: &'s Spec,
    /// What stands in the pool's table.
    pub behaviour: &'s Behaviour,
    /// The pool's identity.
    pub uuid: &'s PoolUuid,
    /// Which share of it the data takes.
    pub share: Option<Share>,
}

/// What decides whether LVs can be made.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The group.
    group: Group,
    /// Its LVs.
    volumes: Vec<Volume>,
    /// Which LVs may be activated on this machine, where not all may.
    volume_list: Option<String>,
    /// The identities of the devices, should they be made: metadata, data.
    devices: [DeviceUuid; 2],
}

/// Looks at what decides; LVM is asked, and changes nothing.
///
/// # Errors
/// Refused when LVM does not answer, or the group is not to be changed here.
pub(super) fn look(group: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<Facts> {
    let group = lvm::usable_group(group, refuse)?;
    let volumes = lvm::all_volumes(Some(&group.name)).map_err(|e| lvm::silent(e, refuse))?;
    let volume_list = lvm::volume_list().map_err(|e| lvm::silent(e, refuse))?;
    let drawn = || random::bits().map(DeviceUuid::from_random);
    let no_identities = |e: anyhow::Error| refuse("no identities can be drawn for its devices".to_owned()).because(e);
    let devices = [drawn().map_err(no_identities)?, drawn().map_err(no_identities)?];
    Ok(Facts { group, volumes, volume_list, devices })
}

impl Wanted<'_> {
    /// Returns the names of the LVs: metadata, data.
    fn names(&self) -> [String; 2] {
        ["meta", "data"].map(|part| format!("{}_{part}", self.spec.name))
    }

    /// Returns which LVs are made, and how they are formatted.
    ///
    /// # Errors
    /// Every reason not to make them.
    pub fn plan(&self, facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Planned> {
        let (group, names) = (&facts.group, self.names());
        for name in &names {
            self.name_is_free(facts, name, refuse)?;
        }
        let extents = self.extents(group, refuse)?;
        let [metadata, data] = extents.map(|extents| group.bytes_of(extents));
        let [on_metadata, on_data] = facts.devices;
        let extent = |device, length: Bytes| Extent { device, length: length.sectors() };
        let wanted = layout::Wanted {
            metadata: Some(extent(on_metadata, metadata)),
            data: vec![extent(on_data, data)],
            metadata_size: self.spec.metadata_size,
            chunk: None,
            block: self.spec.block_size,
        };
        let map = layout::of_new(&wanted).map_err(|small| {
            refuse(format!("what the volume group `{}` has left is too little for a pool", group.name))
                .fact("needed", format!("at least {} for one of its LVs", small.needed.exact()))
                .fact("free", free(group))
                .next(format!("vgextend {} DEV    # with a disk that dmpool disks shows", quote(&group.name)))
        })?;
        let length = |purpose| {
            let of_it = map.iter().filter(|segment| segment.purpose == purpose).map(|segment| segment.length.get());
            Sectors::new(of_it.fold(0, u64::saturating_add)).bytes()
        };
        let all = self.spec.block_size.bytes_of(self.spec.block_size.blocks_in(length(Purpose::Data).sectors()));
        let (mut made, mut labels, mut store) = (Vec::new(), Vec::new(), Vec::new());
        for ((name, device), size) in names.iter().zip(facts.devices).zip([metadata, data]) {
            let step = MakeVolume {
                group: group.name.clone(),
                group_uuid: group.uuid.clone(),
                name: name.clone(),
                size,
                pool: self.uuid.clone(),
                pool_name: self.spec.name.clone(),
                device,
            };
            let label = Label {
                sequence: 1,
                pool: self.uuid.clone(),
                name: self.spec.name.clone(),
                device,
                behaviour: self.behaviour.clone(),
                map: map.clone(),
            };
            let path = lvm::path(&group.name, name);
            let on = NamedDevice { path: path.clone(), length: size, boot: None };
            made.push(Step::from(step));
            labels.push(WriteLabel { on, label, slot: 0, before: None, over: None }.into());
            store.push(DeviceStore { uuid: device, path });
        }
        let steps: Vec<Step> = made.into_iter().chain::<Vec<Step>>(labels).collect();
        let left = group.free.saturating_sub(extents.iter().sum());
        let notes = match left {
            0 => vec![format!("the volume group `{}` is full then: nothing of it is left to grow into", group.name)],
            _ => Vec::new(),
        };
        let data = self.spec.data_size.unwrap_or(all);
        Ok(Planned { steps, notes, store: Store::Devices(store), data, metadata: length(Purpose::Metadata) })
    }

    fn name_is_free(&self, facts: &Facts, name: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
        let group = &facts.group;
        let other = "choose another name for the pool";
        if let Some(there) = facts.volumes.iter().find(|there| there.of.name == name) {
            let word = quote(&format!("{}/{name}", group.name));
            let refused = refuse(format!("the LV {}/{name} is there already", group.name));
            let next = format!("lvs -o +lv_tags {word}    # says more; {other}, or lvrename that LV");
            return Err(match lvm::pool_of(there) {
                None => refused.fact("state", "nothing was touched").next(next),
                Some(pool) => refused
                    .fact("found", format!("LVM made it for the pool `{pool}` of dmpool"))
                    .fact("state", "nothing was touched")
                    .next(format!(
                        "dmpool activate {pool} --register    # brings that pool back; if nobody needs it, {other}, or lvremove its LVs"
                    )),
            });
        }
        let reserved = RESERVED.iter().find(|word| name.contains(**word));
        let reserved = reserved.or(RESERVED_AT_THE_BEGINNING.iter().find(|word| name.starts_with(**word)));
        if let Some(word) = reserved {
            return Err(
                refuse(format!("LVM keeps names with `{word}` for itself, and its LV would be `{name}`")).next(other)
            );
        }
        let dm_name = lvm::dm_name(&group.name, name);
        if dm_name.len() > LONGEST {
            return Err(refuse(format!(
                "the name of its LV would be too long: {} bytes as the kernel has it",
                dm_name.len()
            ))
            .fact("needed", format!("{LONGEST} at most"))
            .next(other));
        }
        let tags = facts.devices.map(|device| lvm::tags(&self.spec.name, device)).concat();
        if let Some(list) = &facts.volume_list
            && lvm::may_activate(list, group, name, &tags) == Some(false)
        {
            return Err(refuse(format!("LVM is told not to activate {}/{name} on this machine", group.name))
                .fact("found", list.trim())
                .next(format!("add \"@{}\" to activation/volume_list in /etc/lvm/lvm.conf", lvm::TAG)));
        }
        Ok(())
    }

    /// Returns how many extents metadata and data take.
    fn extents(&self, group: &Group, refuse: &impl Fn(String) -> Failure) -> Outcome<[u64; 2]> {
        let block = self.spec.block_size;
        let with_label = |bytes: Bytes| Bytes::new(bytes.get().saturating_add(AREA.get()));
        // What is behind the label is in whole MiB (`layout`).
        let mebibytes = |bytes: Bytes| Bytes::new(bytes.get().div_ceil(1 << 20).saturating_mul(1 << 20));
        let metadata_for = |data: Bytes| {
            let rule = sizing::metadata_on_devices(block.blocks_in(data.sectors())).bytes();
            let size = self.spec.metadata_size.unwrap_or(rule).min(MAX_META_BLOCKS.bytes());
            group.extents_for(with_label(mebibytes(size)))
        };
        let extents = match self.spec.data_size {
            Some(data) => [metadata_for(data), group.extents_for(with_label(mebibytes(data)))],
            None => {
                let asked = self.share.unwrap_or(ALL).extents(group.free, group.extents);
                let metadata = metadata_for(group.bytes_of(asked));
                [metadata, asked.min(group.free.saturating_sub(metadata))]
            }
        };
        let [metadata, data] = extents;
        let needed = metadata.saturating_add(data);
        if needed > group.free || data == 0 {
            let needed = group.bytes_of(needed);
            return Err(refuse(format!("the volume group `{}` has too little left", group.name))
                .fact("needed", format!("{}: {} for data, {} for metadata", needed.exact(), group.bytes_of(data).human(), group.bytes_of(metadata).human()))
                .fact("free", free(group))
                .next(format!("vgextend {} DEV    # with a disk that dmpool disks shows; or a smaller --data-size, or none for all that there is", quote(&group.name))));
        }
        Ok(extents)
    }
}

fn free(group: &Group) -> String {
    format!("{} in extents of {}", group.free_bytes().exact(), group.extent.human())
}
