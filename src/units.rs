//! Counts and addresses, each with its unit in its type, and the sizes people type.
//!
//! A count of sectors, a count of data blocks and the address of a data block are different types. Going from
//! blocks to sectors needs the pool's block size in hand, so there is no method that does it without one.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Bytes in one sector, the unit of every device-mapper table (`SECTOR_SHIFT` 9 in the kernel).
pub const SECTOR_BYTES: u64 = 512;

/// Bytes in one block of a thin pool's metadata (`THIN_METADATA_BLOCK_SIZE`, drivers/md/dm-thin-metadata.h: 8 sectors).
pub const META_BLOCK_BYTES: u64 = 4096;

/// The most metadata blocks the kernel uses: 255 bitmaps of 16320 entries, 15.875 GiB
/// (`THIN_METADATA_MAX_SECTORS`, drivers/md/dm-thin-metadata.h). A larger device is legal, the rest is not used.
pub const MAX_META_BLOCKS: MetaBlocks = MetaBlocks::new(255 * 16320);

/// The fewest metadata blocks a pool is made with: 2 MiB (the thin-provisioning document's minimum).
pub const MIN_META_BLOCKS: MetaBlocks = MetaBlocks::new(512);

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Takes a number that is known to be in this unit.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the bare number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.0, $word)
            }
        }
    };
}

macro_rules! count {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        unit!($(#[$doc])* $name, $word);

        impl $name {
            /// Returns the sum, or nothing when it does not fit 64 bits.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// Returns the difference, or zero when `other` is larger.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

count!(
    /// A count of bytes.
    Bytes,
    "bytes"
);
count!(
    /// A count of 512-byte sectors.
    Sectors,
    "sectors"
);
count!(
    /// A count of data blocks; how long one is, the pool's [`BlockSize`] says.
    DataBlocks,
    "data blocks"
);
count!(
    /// A count of 4096-byte metadata blocks.
    MetaBlocks,
    "metadata blocks"
);
unit!(
    /// The address of a block on the data device.
    DataBlock,
    "(data block)"
);
unit!(
    /// The address of a block on the metadata device.
    MetaBlock,
    "(metadata block)"
);
unit!(
    /// The address of a block inside a thin volume.
    ThinBlock,
    "(thin block)"
);

impl Bytes {
    /// One kibibyte.
    pub const KIB: Self = Self(1 << 10);
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);
    /// One gibibyte.
    pub const GIB: Self = Self(1 << 30);

    /// Returns the whole sectors that fit in this many bytes.
    pub const fn sectors(self) -> Sectors {
        Sectors(self.0 / SECTOR_BYTES)
    }

    /// Returns the whole metadata blocks that fit in this many bytes.
    pub const fn meta_blocks(self) -> MetaBlocks {
        MetaBlocks(self.0 / META_BLOCK_BYTES)
    }
}

impl Bytes {
    /// Returns the size as people read it: in the largest of bytes, KiB, MiB and GiB that leaves a number of at least
    /// 1, with one decimal: `96.0 GiB`. TiB begins at 10 TiB, so that a pool's size keeps its gibibytes.
    pub fn human(self) -> String {
        // The shift of the unit, and the size from which it is used.
        const UNITS: [(u32, u128, &str); 4] =
            [(40, 10 << 40, "TiB"), (30, 1 << 30, "GiB"), (20, 1 << 20, "MiB"), (10, 1 << 10, "KiB")];
        let bytes = u128::from(self.0);
        for (shift, from, unit) in UNITS {
            if bytes >= from {
                let tenths = (bytes * 10 + (1 << shift) / 2) >> shift;
                return format!("{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        match bytes {
            1 => "1 byte".to_owned(),
            _ => format!("{bytes} bytes"),
        }
    }

    /// Returns [`Self::human`] with the exact count behind it: `96.0 GiB (103079215104 bytes)`.
    pub fn exact(self) -> String {
        if self < Self::KIB { self.human() } else { format!("{} ({} bytes)", self.human(), self.0) }
    }

    /// Returns the shortest text that [`Bytes::parse`] reads as exactly this: `96G`, `1536M`, `1000`.
    pub fn typed(self) -> String {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let unit = units.into_iter().find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        unit.map_or_else(|| self.0.to_string(), |(shift, letter)| format!("{}{letter}", self.0 >> shift))
    }
}

impl Sectors {
    /// Returns the bytes in this many sectors, or the largest count when they do not fit.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(SECTOR_BYTES))
    }

    /// Returns the whole metadata blocks that fit in this many sectors.
    pub const fn meta_blocks(self) -> MetaBlocks {
        MetaBlocks(self.0 / (META_BLOCK_BYTES / SECTOR_BYTES))
    }
}

impl MetaBlocks {
    /// Returns the bytes in this many metadata blocks, or the largest count when they do not fit.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(META_BLOCK_BYTES))
    }
}

/// The length of one data block of a pool: 64 KiB to 1 GiB, a multiple of 64 KiB
/// (`DATA_DEV_BLOCK_SIZE_MIN_SECTORS` and `_MAX_SECTORS`, drivers/md/dm-thin.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BlockSize(Sectors);

/// Why a length is not a block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABlockSize(pub Bytes);

impl fmt::Display for NotABlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BlockSize::DEFAULT.bytes().get();
        let [least, most] = [BlockSize::RANGE.start(), BlockSize::RANGE.end()].map(|size| Sectors(*size).bytes().get());
        let down = (self.0.get() / unit * unit).clamp(least, most);
        let up = down.saturating_add(unit).clamp(least, most);
        let nearest = match self.0.get() {
            bytes if bytes < least => Bytes(least).typed(),
            bytes if bytes > most => Bytes(most).typed(),
            _ => format!("{} or {}", Bytes(down).typed(), Bytes(up).typed()),
        };
        write!(
            f,
            "{} is not a block size: the kernel takes multiples of 64K from 64K to 1G; the nearest is {nearest}",
            self.0.exact()
        )
    }
}

impl std::error::Error for NotABlockSize {}

impl BlockSize {
    const RANGE: RangeInclusive<u64> = 128..=2_097_152;

    /// Docker's and dmpool's default, 64 KiB (`DefaultThinpBlockSize`, daemon/graphdriver/devmapper/deviceset.go).
    pub const DEFAULT: Self = Self(Sectors(128));

    /// Takes a block size in sectors.
    ///
    /// # Errors
    /// When the kernel would not take it.
    pub fn new(sectors: Sectors) -> Result<Self, NotABlockSize> {
        if Self::RANGE.contains(&sectors.get()) && sectors.get().is_multiple_of(128) {
            Ok(Self(sectors))
        } else {
            Err(NotABlockSize(sectors.bytes()))
        }
    }

    /// Takes a block size in bytes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_bytes(bytes: Bytes) -> Result<Self, NotABlockSize> {
        if bytes.sectors().bytes() == bytes { Self::new(bytes.sectors()) } else { Err(NotABlockSize(bytes)) }
    }

    /// Returns the block size in sectors.
    pub const fn sectors(self) -> Sectors {
        self.0
    }

    /// Returns the block size in bytes.
    pub const fn bytes(self) -> Bytes {
        self.0.bytes()
    }

    /// Returns how many bytes that many blocks are, or the largest count when they do not fit.
    pub const fn bytes_of(self, blocks: DataBlocks) -> Bytes {
        Bytes(blocks.get().saturating_mul(self.0.bytes().get()))
    }

    /// Returns the whole blocks that fit in a device of that length.
    pub const fn blocks_in(self, length: Sectors) -> DataBlocks {
        DataBlocks(length.get() / self.0.get())
    }
}

impl TryFrom<u64> for BlockSize {
    type Error = NotABlockSize;

    fn try_from(sectors: u64) -> Result<Self, NotABlockSize> {
        Self::new(Sectors::new(sectors))
    }
}

impl From<BlockSize> for u64 {
    fn from(size: BlockSize) -> Self {
        size.0.get()
    }
}

/// A size as typed: `100G`, `+50G`, `+20%`, `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeArg {
    /// The size it shall have.
    To(Bytes),
    /// How much larger it shall become.
    By(Bytes),
    /// How much larger it shall become, in hundredths of what it is now.
    ByPercent(u32),
    /// How much larger it shall become, in hundredths of a volume group.
    ByShare(Share),
    /// As large as what lies beneath allows.
    Max,
}

/// A share of a volume group, as LVM counts it: `50%FREE`, `10%VG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many hundredths: 1 to 100.
    pub percent: u32,
    /// Of what.
    pub of: ShareOf,
}

/// What a [`Share`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareOf {
    /// What the group has left.
    Free,
    /// The whole group.
    Group,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            ShareOf::Free => "FREE",
            ShareOf::Group => "VG",
        };
        write!(f, "{}%{of}", self.percent)
    }
}

impl Share {
    /// Returns whether a text is meant as a share: it has a `%` with letters behind it.
    fn is_meant(text: &str) -> bool {
        text.split_once('%').is_some_and(|(_, of)| !of.trim().is_empty())
    }

    /// Reads a share as LVM does: `N%FREE` or `N%VG`, either case.
    ///
    /// # Errors
    /// When it is not one, is zero, or more than the whole.
    pub fn parse(text: &str) -> Result<Self, NotASize> {
        let fail = |why| NotASize { text: text.to_owned(), why };
        let (number, of) = text.trim().split_once('%').ok_or_else(|| fail("it has no %"))?;
        let of = match of.trim().to_ascii_uppercase().as_str() {
            "FREE" => ShareOf::Free,
            "VG" => ShareOf::Group,
            _ => return Err(fail("a share is of FREE or of VG (50%FREE, 10%VG)")),
        };
        match number.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Self { percent, of }),
            Ok(_) | Err(_) => Err(fail("its percentage is not a whole number from 1 to 100")),
        }
    }

    /// Returns how many of a group's extents it is, rounded down.
    pub fn extents(self, free: u64, all: u64) -> u64 {
        let whole = match self.of {
            ShareOf::Free => free,
            ShareOf::Group => all,
        };
        let share = u128::from(whole) * u128::from(self.percent) / 100;
        u64::try_from(share).unwrap_or(whole)
    }
}

/// The size of something that is to be made: `100G`, `50%FREE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSize {
    /// So large.
    Bytes(Bytes),
    /// So much of the volume group that it is made in.
    Share(Share),
}

impl NewSize {
    /// Reads what [`Bytes::parse`] or [`Share::parse`] takes.
    ///
    /// # Errors
    /// As these.
    pub fn parse(text: &str) -> Result<Self, NotASize> {
        match Share::is_meant(text) {
            true => Share::parse(text).map(Self::Share),
            false => Bytes::parse(text).map(Self::Bytes),
        }
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASize {
    text: String,
    why: &'static str,
}

impl fmt::Display for NotASize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a size: {}", self.text, self.why)
    }
}

impl std::error::Error for NotASize {}

impl Bytes {
    /// Reads a size as Docker (`units.RAMInBytes`) and LVM do: a whole number with an optional unit of
    /// `b k m g t p`, either case, with or without `i` and `B`; 1024 each time, so `100G` is 100 × 2^30.
    /// A bare number is bytes.
    ///
    /// # Errors
    /// When it is empty, zero, negative, a fraction, has an unknown unit, or is 2^63 bytes or more (the kernel's
    /// largest file offset).
    pub fn parse(text: &str) -> Result<Self, NotASize> {
        let fail = |why| NotASize { text: text.to_owned(), why };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(fail("it is empty"));
        }
        if trimmed.starts_with('-') {
            return Err(fail("it is negative"));
        }
        let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(digits_end);
        if unit.starts_with(['.', ',']) {
            return Err(fail("a whole number is wanted, with a smaller unit if need be (1536M for 1.5G)"));
        }
        if digits.is_empty() {
            return Err(fail("it does not begin with a number (100G, 512M)"));
        }
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 10,
            "m" | "mb" | "mi" | "mib" => 20,
            "g" | "gb" | "gi" | "gib" => 30,
            "t" | "tb" | "ti" | "tib" => 40,
            "p" | "pb" | "pi" | "pib" => 50,
            _ => return Err(fail("its unit is none of b, k, m, g, t, p")),
        };
        let too_large = "it is larger than any file or device can be (2^63 bytes)";
        let number: u64 = digits.parse().map_err(|_| fail(too_large))?;
        let bytes = number.checked_mul(1 << shift).filter(|b| *b < 1 << 63).ok_or_else(|| fail(too_large))?;
        if bytes == 0 {
            return Err(fail("it is zero"));
        }
        Ok(Self(bytes))
    }
}

impl SizeArg {
    /// Reads a size argument of `grow`: what [`Bytes::parse`] takes, the same behind a `+`, `+N%`, `+N%FREE`, `+N%VG`, or
    /// `max`.
    ///
    /// # Errors
    /// As [`Bytes::parse`]; and for a percentage that is zero, above 10000, or without the `+`.
    pub fn parse(text: &str) -> Result<Self, NotASize> {
        let fail = |why| NotASize { text: text.to_owned(), why };
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        if Share::is_meant(trimmed) {
            let Some(share) = trimmed.strip_prefix('+') else {
                return Err(fail("a share needs a + before it (+50%FREE): it comes to what the pool has now"));
            };
            return Share::parse(share).map(Self::ByShare).map_err(|e| fail(e.why));
        }
        if let Some(number) = trimmed.strip_suffix('%') {
            let Some(number) = number.strip_prefix('+') else {
                return Err(fail("a percentage needs a + before it (+20%): it is of what the pool has now"));
            };
            let percent: u32 = number.trim().parse().map_err(|_| fail("its percentage is not a whole number"))?;
            return match percent {
                0 => Err(fail("it is zero")),
                1..=10_000 => Ok(Self::ByPercent(percent)),
                _ => Err(fail("it is more than +10000%")),
            };
        }
        match trimmed.strip_prefix('+') {
            Some(rest) => Bytes::parse(rest).map(Self::By).map_err(|e| fail(e.why)),
            None => Bytes::parse(trimmed).map(Self::To).map_err(|e| fail(e.why)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_binary_as_docker_and_lvm_read_them() {
        for (text, bytes) in [
            ("100G", 100 << 30),
            ("100g", 100 << 30),
            ("100 GiB", 100 << 30),
            ("64k", 65536),
            ("2t", 2 << 40),
            ("4096", 4096),
            ("512b", 512),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes::new(bytes)), "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_why() {
        for (text, why) in [
            ("", "it is empty"),
            ("0", "it is zero"),
            ("0G", "it is zero"),
            ("-5G", "it is negative"),
            ("1.5G", "a whole number is wanted"),
            ("1,5G", "a whole number is wanted"),
            ("G", "it does not begin with a number"),
            ("10Q", "its unit is none of"),
            ("10GG", "its unit is none of"),
            ("9223372036854775808", "it is larger than any file"),
            ("99999999999999999999999", "it is larger than any file"),
            ("9000000P", "it is larger than any file"),
        ] {
            let error = Bytes::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn size_arguments_of_grow() {
        assert_eq!(SizeArg::parse("+50G"), Ok(SizeArg::By(Bytes::new(50 << 30))));
        assert_eq!(SizeArg::parse("+20%"), Ok(SizeArg::ByPercent(20)));
        assert_eq!(SizeArg::parse("MAX"), Ok(SizeArg::Max));
        let share = |percent, of| Share { percent, of };
        assert_eq!(SizeArg::parse("+50%FREE"), Ok(SizeArg::ByShare(share(50, ShareOf::Free))));
        assert_eq!(SizeArg::parse("+ 5%vg"), Ok(SizeArg::ByShare(share(5, ShareOf::Group))));
        let bad = ["20%", "+0%", "+-5G", "++5G", "+0", "+10001%", "+x%", "50%FREE", "+101%FREE", "+0%VG", "+5%PVS"];
        for bad in bad {
            assert!(SizeArg::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_of_a_group_are_whole_extents() {
        let parsed = |text: &str| match NewSize::parse(text) {
            Ok(NewSize::Share(share)) => share,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(parsed("100%FREE").extents(77, 100), 77);
        assert_eq!(parsed("50%free").extents(77, 100), 38);
        assert_eq!(parsed("10%VG").extents(77, 100), 10);
        assert_eq!(parsed("100%VG").extents(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(parsed("33%VG").to_string(), "33%VG");
        assert_eq!(NewSize::parse("5G"), Ok(NewSize::Bytes(Bytes::new(5 << 30))));
        for bad in ["50%", "%FREE", "x%FREE", "50%ORIGIN", "150%FREE"] {
            assert!(NewSize::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn block_sizes_are_the_kernels() {
        for good in [128, 256, 2_097_152] {
            assert!(BlockSize::new(Sectors::new(good)).is_ok(), "{good}");
        }
        for bad in [0, 1, 64, 127, 129, 192, 2_097_152 + 128, u64::MAX] {
            assert!(BlockSize::new(Sectors::new(bad)).is_err(), "{bad}");
        }
        for (bad, nearest) in [
            (0, "64K"),
            (10 << 10, "64K"),
            (65537, "64K or 128K"),
            (100 << 10, "64K or 128K"),
            ((1 << 30) - 512, "1048512K or 1G"),
            (2 << 30, "1G"),
        ] {
            let said = BlockSize::of_bytes(Bytes::new(bad)).unwrap_err().to_string();
            assert!(said.ends_with(&format!("the nearest is {nearest}")), "{said}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_size_never_panics(text in ".{0,24}") {
            let _ = SizeArg::parse(&text);
        }

        #[test]
        fn whole_sizes_round_trip(number in 1_u64..1 << 20, unit in "[kmgKMG]") {
            let shift = match unit.to_ascii_lowercase().as_str() { "k" => 10, "m" => 20, _ => 30 };
            prop_assert_eq!(Bytes::parse(&format!("{number}{unit}")), Ok(Bytes::new(number << shift)));
        }

        #[test]
        fn blocks_never_exceed_the_device(length in 0_u64..1 << 50, k in 1_u64..1000) {
            let size = BlockSize::new(Sectors::new(k * 128)).unwrap();
            prop_assert!(size.bytes_of(size.blocks_in(Sectors::new(length))) <= Sectors::new(length).bytes());
        }
    }
}
