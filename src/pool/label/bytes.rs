//! A label's bytes, format 1 (docs/label-format.md): one 4096-byte block, little endian, uuids as they are read.
//!
//! Magic at 0, CRC-32C of everything behind it at 16, format at 20, sequence at 24, the pool's uuid at 32, the device's at 48,
//! role at 64, length of the name at 65, number of segments at 66, block size at 68, low water mark at 72, features at 80,
//! name at 128, segments from 256 on. What is not used is zero.

use std::fmt;

use super::{DeviceUuid, Label, Leg, Purpose, Role, Segment};
use crate::pool::{Behaviour, MAX_NAME, PoolName, PoolUuid};
use crate::units::{BlockSize, DataBlocks, Sectors};

/// Bytes in a slot: what every disk writes whole or not at all is less, so there are two slots and a checksum.
pub const SLOT_BYTES: usize = 4096;

/// The format that this dmpool writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

/// What a slot begins with, for those who look at it with `strings` too.
const MAGIC: &[u8; 16] = b"dmpool-label\n\0\0\0";

const CHECKSUM: usize = 16;
const CHECKED: usize = 20;
const NAME: usize = 128;
const SEGMENTS: usize = 256;

/// The feature words of a pool's table (Documentation/admin-guide/device-mapper/thin-provisioning.rst), by their bit.
/// `read_only` is no property of a pool that is kept.
const FEATURES: [&str; 4] = ["skip_block_zeroing", "ignore_discard", "no_discard_passdown", "error_if_no_space"];

/// Why bytes are not a label that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLabel {
    /// It does not begin as a label does: there is none.
    Absent,
    /// There are fewer bytes than a slot has.
    Short(usize),
    /// Its checksum is wrong: it was torn, or damaged since.
    Checksum,
    /// A newer dmpool wrote it.
    Newer(u32),
    /// It has something that no dmpool would have written.
    Field(String),
    /// Its two slots are not of one device of one pool.
    Disagree,
}

impl fmt::Display for BadLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no label"),
            Self::Short(bytes) => write!(f, "it has {bytes} bytes of {SLOT_BYTES}"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Newer(format) => {
                write!(f, "its format is {format}, this dmpool knows {FORMAT}: a newer dmpool wrote it")
            }
            Self::Field(why) => f.write_str(why),
            Self::Disagree => f.write_str("its two slots are not of one device of one pool"),
        }
    }
}

impl std::error::Error for BadLabel {}

/// Why a label cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Its map does not fit a slot: how many bytes it would have.
    Map(usize),
    /// It is one that would not be read: why.
    Field(String),
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(bytes) => write!(f, "its map is in too many pieces: {bytes} bytes, a label has {SLOT_BYTES}"),
            Self::Field(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TooLarge {}

impl Label {
    /// Returns the bytes of a slot.
    ///
    /// # Errors
    /// When the map is in too many pieces for a slot, or is one that [`Label::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, TooLarge> {
        if let Some(why) = self.fault() {
            return Err(TooLarge::Field(why));
        }
        let features = self.behaviour.features.iter().try_fold(0_u32, |bits, word| {
            let bit = FEATURES.iter().position(|known| known == word);
            bit.map(|bit| bits | 1 << bit).ok_or_else(|| TooLarge::Field(format!("a label has no feature `{word}`")))
        })?;
        let small = |number: usize| u8::try_from(number).map_err(|_| TooLarge::Map(usize::MAX));
        let name = self.name.as_str().as_bytes();
        let count = u16::try_from(self.map.len()).map_err(|_| TooLarge::Map(usize::MAX))?;
        let block_size = self.behaviour.block_size.sectors().get();

        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([0; 4]);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.pool.bits().to_be_bytes());
        bytes.extend(self.device.0.to_be_bytes());
        bytes.push(self.role().map_or(0, role_byte));
        bytes.push(small(name.len())?);
        bytes.extend(count.to_le_bytes());
        bytes.extend(u32::try_from(block_size).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.behaviour.low_water.get().to_le_bytes());
        bytes.extend(features.to_le_bytes());
        bytes.resize(NAME, 0);
        bytes.extend(name);
        bytes.resize(SEGMENTS, 0);
        for segment in &self.map {
            let chunk = u32::try_from(segment.chunk.map_or(0, Sectors::get));
            bytes.push(purpose_byte(segment.purpose));
            bytes.push(small(segment.legs.len())?);
            bytes.extend([0; 2]);
            bytes.extend(chunk.map_err(|_| TooLarge::Field("a chunk is too long".to_owned()))?.to_le_bytes());
            bytes.extend(segment.length.get().to_le_bytes());
            for leg in &segment.legs {
                bytes.extend(leg.device.0.to_be_bytes());
                bytes.extend(leg.start.get().to_le_bytes());
            }
        }
        if bytes.len() > SLOT_BYTES {
            return Err(TooLarge::Map(bytes.len()));
        }
        bytes.resize(SLOT_BYTES, 0);
        let sum = checksum(&bytes);
        if let Some(place) = bytes.get_mut(CHECKSUM..CHECKED) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads the bytes of a slot.
    ///
    /// # Errors
    /// When they are not a label that this dmpool can use.
    pub fn decode(slot: &[u8]) -> Result<Self, BadLabel> {
        let slot = slot.get(..SLOT_BYTES).ok_or(BadLabel::Short(slot.len()))?;
        if !slot.starts_with(MAGIC) {
            return Err(BadLabel::Absent);
        }
        let mut from = Cursor { bytes: slot, at: CHECKSUM };
        if from.u32()? != checksum(slot) {
            return Err(BadLabel::Checksum);
        }
        match from.u32()? {
            FORMAT => {}
            format if format > FORMAT => return Err(BadLabel::Newer(format)),
            format => return Err(field(format!("its format is {format}, which never was"))),
        }
        let sequence = from.u64()?;
        let pool = PoolUuid::from_random(from.u128()?);
        let device = DeviceUuid(from.u128()?);
        let role = from.u8()?;
        let name_length = usize::from(from.u8()?);
        let segments = from.u16()?;
        let block_size = Sectors::new(from.u32()?.into());
        let low_water = DataBlocks::new(from.u64()?);
        let features = features(from.u32()?)?;
        from.zeros_to(NAME)?;
        if name_length > MAX_NAME {
            return Err(field(format!("its name has {name_length} bytes")));
        }
        let name = std::str::from_utf8(from.take(name_length)?).map_err(|_| field("its name is no text"))?;
        let name = PoolName::new(name).map_err(|e| field(e.to_string()))?;
        from.zeros_to(SEGMENTS)?;
        let map = (0..segments).map(|_| segment(&mut from)).collect::<Result<_, _>>()?;
        from.zeros_to(SLOT_BYTES)?;
        let block_size = BlockSize::new(block_size).map_err(|e| field(e.to_string()))?;
        let behaviour = Behaviour { block_size, low_water, features };
        let label = Self { sequence, pool, name, device, behaviour, map };
        if let Some(why) = label.fault() {
            return Err(BadLabel::Field(why));
        }
        if label.role().map(role_byte) != Some(role) {
            return Err(field("role and map disagree"));
        }
        Ok(label)
    }
}

fn segment(from: &mut Cursor<'_>) -> Result<Segment, BadLabel> {
    let purpose = match from.u8()? {
        1 => Purpose::Metadata,
        2 => Purpose::Room,
        3 => Purpose::Data,
        other => return Err(field(format!("its map has a segment for {other}"))),
    };
    let legs = from.u8()?;
    if from.u16()? != 0 {
        return Err(field("its map has bytes where format 1 has none"));
    }
    let chunk = Some(Sectors::new(from.u32()?.into())).filter(|chunk| chunk.get() != 0);
    let length = Sectors::new(from.u64()?);
    let leg = |_| Ok(Leg { device: DeviceUuid(from.u128()?), start: Sectors::new(from.u64()?) });
    let legs = (0..legs).map(leg).collect::<Result<_, _>>()?;
    Ok(Segment { purpose, length, legs, chunk })
}

fn features(bits: u32) -> Result<Vec<String>, BadLabel> {
    if bits >> FEATURES.len() != 0 {
        return Err(field(format!("its features are {bits:#x}")));
    }
    let set = FEATURES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    Ok(set.map(|(_, word)| (*word).to_owned()).collect())
}

const fn purpose_byte(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Metadata => 1,
        Purpose::Room => 2,
        Purpose::Data => 3,
    }
}

const fn role_byte(role: Role) -> u8 {
    match role {
        Role::Metadata => 1,
        Role::Data => 2,
        Role::Both => 3,
    }
}

fn checksum(slot: &[u8]) -> u32 {
    crc32c::crc32c(slot.get(CHECKED..).unwrap_or_default())
}

fn field(why: impl Into<String>) -> BadLabel {
    BadLabel::Field(why.into())
}

/// Reads a slot from front to back.
struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], BadLabel> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(count));
        self.at = self.at.saturating_add(count);
        taken.ok_or_else(|| field("its map is longer than a label"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadLabel> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| BadLabel::Short(bytes.len()))
    }

    fn u8(&mut self) -> Result<u8, BadLabel> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, BadLabel> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadLabel> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadLabel> {
        self.array().map(u64::from_le_bytes)
    }

    /// As it is read: the first byte is the highest.
    fn u128(&mut self) -> Result<u128, BadLabel> {
        self.array().map(u128::from_be_bytes)
    }

    /// Goes on to an offset; a byte in between that is not zero means something that this dmpool does not know.
    fn zeros_to(&mut self, offset: usize) -> Result<(), BadLabel> {
        let between = self.take(offset.saturating_sub(self.at))?;
        if between.iter().any(|b| *b != 0) {
            return Err(field("it has bytes where format 1 has none"));
        }
        Ok(())
    }
}
