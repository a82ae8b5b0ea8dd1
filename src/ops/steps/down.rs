//! Taking a registered pool's devices down: what `deactivate` and `destroy` share.

use crate::error::{Failure, Outcome};
use crate::kernel::dm::{DmId, DmInfo};
use crate::kernel::holders::{self, Holder};
use crate::ops::steps::{Kit, Step, TakeDown, devices_of};
use crate::pool::{DevNo, Entry};
use crate::units::Sectors;

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
    let holders = match &pool {
        Some(pool) if pool.info.open_count > 0 => holders_of(pool.info.devno, 0),
        _ => Vec::new(),
    };
    Ok(Facts {
        pool,
        data: device(&entry.name.data_device())?,
        metadata: device(&entry.name.metadata_device())?,
        holders,
    })
}

/// Returns who has a device open, devices followed by who has them open.
fn holders_of(device: DevNo, depth: usize) -> Vec<String> {
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
            found.extend(holders_of(devno, depth + 1));
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
    if let Some(pool) = &facts.pool
        && pool.info.open_count > 0
    {
        return Err(Kept::Open { count: pool.info.open_count, by: facts.holders.clone() });
    }
    let length = |device: &Option<Device>| device.as_ref().map(|d| d.length).unwrap_or_default();
    let [metadata, data, _] = devices_of(entry, length(&facts.metadata), length(&facts.data));
    // The device under the data may be longer than the pool: stripes are whole, and a grow may have been interrupted.
    let [_, _, pool] = devices_of(entry, length(&facts.metadata), length(&facts.pool));
    let there = [(&facts.pool, pool), (&facts.data, data), (&facts.metadata, metadata)];
    Ok(there
        .into_iter()
        .filter(|(device, _)| device.is_some())
        .map(|(_, made_by)| TakeDown { made_by: Box::new(made_by) }.into())
        .collect())
}

impl Kept {
    /// Returns the refusal.
    pub fn failure(self, what: &str) -> Failure {
        let refuse =
            |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
        match self {
            Self::Open { count, mut by } => {
                let more = by.len().saturating_sub(NAMED);
                by.truncate(NAMED);
                let mut named = by.join("\n");
                if more > 0 {
                    named.push_str(&format!("\nand {more} more"));
                }
                if named.is_empty() {
                    named = "nobody that can be seen: a mount in a namespace without processes, or the kernel itself"
                        .to_owned();
                }
                refuse(format!("it is open {count} {}", if count == 1 { "time" } else { "times" }))
                    .fact("open", named)
                    .next("unmount and remove its volumes first (umount …; dmsetup remove VOLUME)")
            }
            Self::NotOurs(name) => refuse(format!("the device {name} has its name and is not the one dmpool made"))
                .next("dmsetup info    says more"),
            Self::Suspended(name) => refuse(format!("somebody left the device {name} suspended, and I/O on it waits"))
                .next("if nobody is working on it, dmsetup resume it, then run this again"),
        }
    }
}
