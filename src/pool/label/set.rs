//! What the labels of several devices come to: one pool, or why it cannot be brought up from them.

use std::collections::BTreeMap;
use std::fmt;

use super::{DeviceUuid, Label};
use crate::pool::DevNo;
use crate::units::Sectors;

/// A device with a label of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub devno: DevNo,
    /// Its name, for messages.
    pub name: String,
    /// How long it is now.
    pub length: Sectors,
    /// Its label that counts.
    pub label: Label,
}

/// A pool whose devices are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// The label with the highest sequence number: the map that is true.
    pub label: Label,
    /// Which device is which.
    pub devices: BTreeMap<DeviceUuid, DevNo>,
    /// The devices whose labels are older than that, in the members' order: a change was interrupted.
    pub behind: Vec<DevNo>,
}

/// Why labels do not come to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unassembled {
    /// There is no label of it.
    None,
    /// Devices are missing: their uuids.
    Missing(Vec<DeviceUuid>),
    /// Two devices are the same one: one is a copy of the other, and nobody can tell which.
    Twice {
        /// What the label of both says.
        device: DeviceUuid,
        /// Their names.
        names: Vec<String>,
    },
    /// Two labels with one sequence number tell of different maps.
    Disagree {
        /// The names of two devices that do.
        names: [String; 2],
    },
    /// A device is shorter than what the map has on it.
    Short {
        /// Its name.
        name: String,
        /// How long it must be.
        needed: Sectors,
        /// How long it is.
        found: Sectors,
    },
}

impl fmt::Display for Unassembled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no device has its label"),
            Self::Missing(devices) => {
                let uuids: Vec<_> = devices.iter().map(ToString::to_string).collect();
                write!(f, "{} of its devices are missing: {}", uuids.len(), uuids.join(", "))
            }
            Self::Twice { names, .. } => {
                write!(f, "{} have one label: one is a copy of the other", names.join(" and "))
            }
            Self::Disagree { names: [a, b] } => write!(f, "the labels of {a} and {b} have one number and differ"),
            Self::Short { name, needed, found } => {
                write!(f, "{name} has {}, and the pool needs {} of it", found.bytes().exact(), needed.bytes().exact())
            }
        }
    }
}

impl std::error::Error for Unassembled {}

/// Puts a pool together from the labels of its devices, all of one pool uuid. Devices that the newest map no longer has
/// are left out.
///
/// # Errors
/// Why it cannot be: nothing is guessed.
pub fn assemble(members: &[Member]) -> Result<Assembly, Unassembled> {
    let newest = members.iter().max_by_key(|m| m.label.sequence).ok_or(Unassembled::None)?;
    let same_map = |m: &Member| m.label.map == newest.label.map && m.label.behaviour == newest.label.behaviour;
    if let Some(other) = members.iter().find(|m| m.label.sequence == newest.label.sequence && !same_map(m)) {
        return Err(Unassembled::Disagree { names: [other.name.clone(), newest.name.clone()] });
    }
    let mut devices = BTreeMap::new();
    let mut missing = Vec::new();
    for wanted in newest.label.devices() {
        let found: Vec<_> = members.iter().filter(|m| m.label.device == wanted).collect();
        match found.as_slice() {
            [] => missing.push(wanted),
            [one] => {
                let needed = newest.label.end_on(wanted);
                if one.length < needed {
                    return Err(Unassembled::Short { name: one.name.clone(), needed, found: one.length });
                }
                devices.insert(wanted, one.devno);
            }
            several => {
                let names = several.iter().map(|m| m.name.clone()).collect();
                return Err(Unassembled::Twice { device: wanted, names });
            }
        }
    }
    if !missing.is_empty() {
        return Err(Unassembled::Missing(missing));
    }
    let behind =
        members.iter().filter(|m| m.label.sequence < newest.label.sequence && devices.contains_key(&m.label.device));
    Ok(Assembly { behind: behind.map(|m| m.devno).collect(), label: newest.label.clone(), devices })
}
