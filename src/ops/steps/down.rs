//! Taking a registered pool's devices down: what `deactivate` and `destroy` share.

use crate::error::{Failure, Outcome};
use crate::kernel::dm::{DmId, DmInfo};
use crate::kernel::holders::{self, Holder};
use crate::ops::deleted::{self, Held};
use crate::ops::steps::{Kit, MapVolume, Part, Step, TakeDown, devices_of};
use crate::ops::volumes::{self, ThinDevice};
use crate::pool::{DevNo, Entry, VolumeId};
use crate::units::Sectors;

/// Who it is when nobody is seen.
const UNSEEN: &str = "nobody that can be seen: the kernel itself (exportfs -v, targetcli ls), or a mount in a namespace without processes";

/// How many holders a refusal names.
const NAMED: usize = 12;

/// What decides whether the devices can be taken down.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pool device, when it is there.
    pub pool: Option<Device>,
    /// The device under the data.
    pub data: Option<Device>,
    /// The device under the metadata.
    pub metadata: Option<Device>,
    /// Who has the pool open, with who has that open in turn: each a phrase.
    pub holders: Vec<String>,
    /// The devices of its volumes, whoever made them.
    pub volumes: Vec<ThinDevice>,
    /// What those under data and metadata stand on, when that is files.
    pub held: Vec<Held>,
}

/// One of the three.
#[derive(Clone, Debug)]
pub struct Device {
    /// What the kernel says of it.
    pub info: DmInfo,
    /// How long its table is.
    pub length: Sectors,
}

/// Why the devices cannot be taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Somebody has the pool open.
    Open {
        /// How often.
        count: u32,
        /// By whom, as far as that could be found out.
        by: Vec<String>,
        /// Whether these are its own volumes, which somebody has open in turn.
        by_its_volumes: bool,
    },
    /// A device has the name and is not ours.
    NotOurs(String),
    /// Somebody left it suspended.
    Suspended(String),
}

/// Looks at what decides.
///
/// # Errors
/// When the kernel does not answer.
pub fn look(kit: &Kit, entry: &Entry) -> Outcome<Facts> {
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot look at pool `{}`", entry.name)).because(e);
    let device = |name: &str| -> Outcome<Option<Device>> {
        let id = DmId::name(name);
        let Some(info) = kit.dm.info(&id).map_err(cannot)? else { return Ok(None) };
        let lines = kit.dm.table(&id).map_err(cannot)?;
        let length = lines.last().and_then(|line| line.start.checked_add(line.length)).unwrap_or_default();
        Ok(Some(Device { info, length }))
    };
    let pool = device(entry.name.as_str())?;
    let volumes = pool.as_ref().map_or(Ok(Vec::new()), |pool| volumes::devices(&kit.dm, pool.info.devno));
    let volumes = volumes.map_err(cannot)?;
    let mut holders = match &pool {
        Some(pool) if pool.info.open_count > 0 => holders_of(pool.info.devno),
        _ => Vec::new(),
    };
    for open in volumes.iter().filter(|volume| volume.info.open_count > 0) {
        if holders::of(open.info.devno).is_ok_and(|by| by.is_empty()) {
            holders.push(format!("  who has {} open: {UNSEEN}", open.info.name));
        }
    }
    Ok(Facts {
        volumes,
        held: deleted::held(&kit.dm, entry).map_err(cannot)?,
        pool,
        data: device(&entry.name.data_device())?,
        metadata: device(&entry.name.metadata_device())?,
        holders,
    })
}

/// Returns who has a device open, devices followed by who has them open: each a phrase.
pub fn holders_of(device: DevNo) -> Vec<String> {
    holders_below(device, 0)
}

fn holders_below(device: DevNo, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let holders = match holders::of(device) {
        Ok(holders) => holders,
        Err(e) => {
            found.push(format!("who it is cannot be told: {e:#}"));
            return found;
        }
    };
    for holder in holders {
        found.push(format!("{}{holder}", if depth == 0 { "" } else { "  its " }));
        if let Holder::Device { devno, .. } = holder
            && depth < 3
        {
            found.extend(holders_below(devno, depth + 1));
        }
    }
    found
}

/// Returns the steps that take the devices down: none when none is there.
///
/// # Errors
/// What keeps them.
pub fn steps(facts: &Facts, entry: &Entry) -> Result<Vec<Step>, Kept> {
    let uuids = [entry.uuid.pool(), entry.uuid.data(), entry.uuid.metadata()];
    for (device, uuid) in [&facts.pool, &facts.data, &facts.metadata].into_iter().zip(&uuids) {
        let Some(device) = device else { continue };
        let name = format!("`{}` ({})", device.info.name, device.info.devno);
        if device.info.uuid.as_ref() != Some(uuid) {
            return Err(Kept::NotOurs(name));
        }
        if device.info.suspended {
            return Err(Kept::Suspended(name));
        }
    }
    let mut down = Vec::new();
    if let Some(pool) = &facts.pool
        && pool.info.open_count > 0
    {
        down = volumes_down(facts, pool.info.open_count, entry)?;
    }
    let length = |device: &Option<Device>| device.as_ref().map(|d| d.length).unwrap_or_default();
    let [metadata, data, _] = devices_of(entry, length(&facts.metadata), length(&facts.data));
    // The device under the data may be longer than the pool: stripes are whole, and a grow may have been interrupted.
    let [_, _, pool] = devices_of(entry, length(&facts.metadata), length(&facts.pool));
    let there = [
        (&facts.pool, pool, None),
        (&facts.data, data, Some(Part::Data)),
        (&facts.metadata, metadata, Some(Part::Metadata)),
    ];
    let there = there.into_iter().filter(|(device, ..)| device.is_some()).map(|(_, made_by, part)| {
        let deleted = facts.held.iter().find(|held| held.is_deleted && Some(held.part) == part);
        (made_by, deleted.map(|held| held.path.clone()))
    });
    let down = down.into_iter().map(|made_by| (made_by, None)).chain(there);
    Ok(down.map(|(made_by, deletes)| TakeDown { made_by: Box::new(made_by), deletes }.into()).collect())
}

/// Returns the steps that made the volumes of a pool that only these keep open.
fn volumes_down(facts: &Facts, count: u32, entry: &Entry) -> Result<Vec<Step>, Kept> {
    let ours = |device: &ThinDevice| {
        let id = u32::try_from(device.id).ok().and_then(VolumeId::new)?;
        let uuid = entry.uuid.volume(id);
        let map = MapVolume {
            name: device.info.name.clone(),
            pool: entry.name.to_string(),
            id,
            length: device.length,
            uuid: uuid.clone(),
        };
        (device.info.uuid == Some(uuid)).then(|| map.into())
    };
    let maps: Vec<Step> = facts.volumes.iter().filter_map(ours).collect();
    let by_its_volumes = u32::try_from(maps.len()).is_ok_and(|ours| ours == count);
    if !by_its_volumes || facts.volumes.iter().any(|device| device.info.open_count > 0) {
        return Err(Kept::Open { count, by: facts.holders.clone(), by_its_volumes });
    }
    if let Some(device) = facts.volumes.iter().find(|device| device.info.suspended) {
        return Err(Kept::Suspended(format!("`{}` ({})", device.info.name, device.info.devno)));
    }
    Ok(maps)
}

/// Returns the refusal of what needs a device that is open so often, by these.
pub fn open(what: &str, count: u32, mut by: Vec<String>) -> Failure {
    let more = by.len().saturating_sub(NAMED);
    by.truncate(NAMED);
    let mut named = by.join("\n");
    if more > 0 {
        named.push_str(&format!("\nand {more} more"));
    }
    if named.is_empty() {
        named = UNSEEN.to_owned();
    }
    let times = if count == 1 { "time" } else { "times" };
    Failure::refused(format!("cannot {what}: it is open {count} {times}"))
        .fact("state", "nothing was touched")
        .fact("open", named)
}

impl Kept {
    /// Returns the refusal.
    pub fn failure(self, what: &str) -> Failure {
        let refuse =
            |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
        match self {
            Self::Open { count, by, by_its_volumes: true } => {
                open(what, count, by).next("unmount what is on its volumes first, or end who has them open")
            }
            Self::Open { count, by, by_its_volumes: false } => {
                open(what, count, by).next("unmount and remove its volumes first (umount …; dmsetup remove VOLUME)")
            }
            Self::NotOurs(name) => refuse(format!("the device {name} has its name and is not the one dmpool made"))
                .next("dmsetup info    # says more"),
            Self::Suspended(name) => refuse(format!("somebody left the device {name} suspended, and I/O on it waits"))
                .next("if nobody is working on it, dmsetup resume it, then run this again"),
        }
    }
}
