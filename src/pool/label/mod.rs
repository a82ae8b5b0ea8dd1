//! What dmpool writes on a device that it formats for a pool: whose the device is, and where on which devices the whole
//! pool lies. Enough to bring the pool up without the registry.
//!
//! The bytes are described in docs/label-format.md; what the labels of several devices come to, in
//! [`assemble`].

mod bytes;
pub mod layout;
mod set;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use bytes::{BadLabel, FORMAT, SLOT_BYTES, TooLarge};
pub use set::{Assembly, Member, Unassembled, assemble};

use crate::pool::{Behaviour, PoolName, PoolUuid};
use crate::units::{Bytes, Sectors};

/// The beginning of a device that nothing of the pool is in: zeros, and the two slots of the label.
pub const AREA: Bytes = Bytes::MIB;

/// Where the two slots are. Behind everything that other formats begin with (boot code and partition tables, ext, XFS,
/// LVM's label, md, btrfs, ZFS: all below 512 KiB), off the powers of two that LUKS and GFS2 use, and far apart.
pub const SLOTS: [Bytes; 2] = [Bytes::new(600 << 10), Bytes::new(900 << 10)];

/// The identity of a device that dmpool has formatted: 128 random bits, not the disk's own, so that a copy has the same.
/// Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceUuid(u128);

impl DeviceUuid {
    /// Takes 128 random bits.
    pub const fn from_random(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TryFrom<String> for DeviceUuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let bits = if digits { u128::from_str_radix(&text, 16).ok() } else { None };
        bits.map(Self).ok_or_else(|| format!("{text:?} is not a device uuid (32 hexadecimal digits)"))
    }
}

impl From<DeviceUuid> for String {
    fn from(uuid: DeviceUuid) -> Self {
        uuid.to_string()
    }
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It is a piece of the metadata device.
    Metadata,
    /// It is kept free behind the metadata, which grows into it.
    Room,
    /// It is a piece of the data device.
    Data,
}

/// A place on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leg {
    /// The device.
    pub device: DeviceUuid,
    /// Where on it.
    pub start: Sectors,
}

/// A piece of one of a pool's two devices. The pieces of one purpose stand behind each other in the map's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What it is for.
    pub purpose: Purpose,
    /// Its length, all legs together.
    pub length: Sectors,
    /// Where it is: one leg for `linear`, several for `striped`.
    pub legs: Vec<Leg>,
    /// How much goes to a leg before it is the next one's turn; nothing for one leg.
    pub chunk: Option<Sectors>,
}

/// What a device carries of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Metadata, and perhaps room for more.
    Metadata,
    /// Data.
    Data,
    /// Both.
    Both,
}

impl Role {
    /// Returns the role in a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Data => "data",
            Self::Both => "metadata and data",
        }
    }
}

/// One label: the whole pool as one of its devices tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Counts the changes of the map; of several labels of one pool the highest is true.
    pub sequence: u64,
    /// The pool.
    pub pool: PoolUuid,
    /// Its name when this was written.
    pub name: PoolName,
    /// The device that this label is on.
    pub device: DeviceUuid,
    /// What stands in the pool's table beside its devices and its length.
    pub behaviour: Behaviour,
    /// Where the whole pool lies, on all its devices.
    pub map: Vec<Segment>,
}

impl Segment {
    /// Returns which sectors of each device it takes; nothing when its numbers do not fit a device.
    pub fn extents(&self) -> Option<Vec<(DeviceUuid, Range<u64>)>> {
        let width = self.length.get().checked_div(u64::try_from(self.legs.len()).ok()?)?;
        self.legs.iter().map(|leg| Some((leg.device, leg.start.get()..leg.start.get().checked_add(width)?))).collect()
    }

    /// Says what is wrong with it taken by itself, as device-mapper would.
    fn fault(&self) -> Option<&'static str> {
        let legs = u64::try_from(self.legs.len()).unwrap_or(u64::MAX);
        if self.length.get() == 0 || legs == 0 {
            return Some("it is empty");
        }
        // stripe_ctr (drivers/md/dm-stripe.c): the width of a leg is whole, and so are the chunks in it.
        match self.chunk.map(Sectors::get) {
            None if legs > 1 => Some("it has several legs and no chunk"),
            Some(_) if legs == 1 => Some("it has one leg and a chunk"),
            Some(0) => Some("its chunk is zero"),
            Some(chunk)
                if !self.length.get().is_multiple_of(legs) || !(self.length.get() / legs).is_multiple_of(chunk) =>
            {
                Some("its length is no whole number of chunks on each leg")
            }
            Some(_) | None => None,
        }
    }
}

impl Label {
    /// Returns the devices of the pool, in the order of their uuids.
    pub fn devices(&self) -> BTreeSet<DeviceUuid> {
        self.map.iter().flat_map(|segment| &segment.legs).map(|leg| leg.device).collect()
    }

    /// Returns what its own device carries; nothing when the map does not have it.
    pub fn role(&self) -> Option<Role> {
        let carries = |data: bool| {
            let of_it = self.map.iter().filter(|s| s.legs.iter().any(|leg| leg.device == self.device));
            of_it.into_iter().any(|s| (s.purpose == Purpose::Data) == data)
        };
        match (carries(false), carries(true)) {
            (true, true) => Some(Role::Both),
            (true, false) => Some(Role::Metadata),
            (false, true) => Some(Role::Data),
            (false, false) => None,
        }
    }

    /// Returns how long everything of that purpose is, or the largest count when it does not fit.
    pub fn length(&self, purpose: Purpose) -> Sectors {
        let of_it = self.map.iter().filter(|s| s.purpose == purpose);
        Sectors::new(of_it.fold(0, |sum, segment| segment.length.get().saturating_add(sum)))
    }

    /// Returns where on a device the map ends: it must be at least as long. Zero for a device that is not in it.
    pub fn end_on(&self, device: DeviceUuid) -> Sectors {
        let extents = self.map.iter().filter_map(Segment::extents).flatten();
        Sectors::new(extents.filter(|(on, _)| *on == device).map(|(_, range)| range.end).max().unwrap_or(0))
    }

    /// Says what makes the map one that no dmpool would have written: nothing is brought up from it.
    fn fault(&self) -> Option<String> {
        if let Some((index, why)) = self.map.iter().enumerate().find_map(|(i, s)| Some((i, s.fault()?))) {
            return Some(format!("segment {index} of its map cannot be: {why}"));
        }
        for (purpose, word) in [(Purpose::Metadata, "metadata"), (Purpose::Data, "data")] {
            if self.length(purpose).get() == 0 {
                return Some(format!("its map has no {word}"));
            }
        }
        if self.role().is_none() {
            return Some("its map does not have the device that it is on".to_owned());
        }
        let extents: Option<Vec<_>> = self.map.iter().map(Segment::extents).collect();
        let Some(extents) = extents else { return Some("its map reaches beyond any device".to_owned()) };
        let mut extents: Vec<_> = extents.into_iter().flatten().collect();
        extents.sort_by_key(|(device, range)| (*device, range.start));
        if extents.iter().any(|(_, range)| range.start < AREA.sectors().get()) {
            return Some("its map has a segment where the label itself is".to_owned());
        }
        let overlap = extents.windows(2).any(|pair| match pair {
            [(a, before), (b, after)] => a == b && after.start < before.end,
            _ => false,
        });
        overlap.then(|| "two segments of its map overlap".to_owned())
    }
}

/// The two slots of a device, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots([Result<Label, BadLabel>; 2]);

impl Slots {
    /// Reads the bytes of the two slots.
    pub fn decode(slots: [&[u8]; 2]) -> Self {
        Self(slots.map(Label::decode))
    }

    /// Returns the label that counts: the one with the highest sequence number, when the other is older, torn or was never
    /// written. Nothing when there has never been one.
    ///
    /// # Errors
    /// When both are damaged, when a newer dmpool wrote one of them, or when they are not of one device of one pool.
    pub fn newest(&self) -> Result<Option<&Label>, BadLabel> {
        if let Some(Err(newer)) = self.0.iter().find(|slot| matches!(slot, Err(BadLabel::Newer(_)))) {
            return Err(newer.clone());
        }
        match &self.0 {
            [Ok(a), Ok(b)] if (&a.pool, a.device) != (&b.pool, b.device) || (a.sequence == b.sequence && a != b) => {
                Err(BadLabel::Disagree)
            }
            [Ok(a), Ok(b)] => Ok(Some(if b.sequence > a.sequence { b } else { a })),
            [Ok(label), Err(_)] | [Err(_), Ok(label)] => Ok(Some(label)),
            [Err(BadLabel::Absent), Err(BadLabel::Absent)] => Ok(None),
            [Err(BadLabel::Absent), Err(bad)] | [Err(bad), Err(_)] => Err(bad.clone()),
        }
    }

    /// Returns what each slot has; nothing where it is no label that can be read.
    pub fn labels(&self) -> [Option<Label>; 2] {
        self.0.clone().map(Result::ok)
    }

    /// Returns the slot that the next label goes to: never the one that counts, since a write can be torn.
    pub fn next(&self) -> usize {
        match &self.0 {
            [Ok(a), Ok(b)] => usize::from(a.sequence >= b.sequence),
            [Ok(_), Err(_)] => 1,
            [Err(_), Ok(_) | Err(_)] => 0,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
