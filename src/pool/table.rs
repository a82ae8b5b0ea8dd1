//! The thin-pool target's table line.
//!
//! `META DATA BLOCK_SECTORS LOW_WATER_BLOCKS NFEAT FEAT…` behind `0 LENGTH thin-pool`
//! (Documentation/admin-guide/device-mapper/thin-provisioning.rst). A pool of others keeps its line but for the length,
//! so features are kept as they came, also ones nobody here knows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pool::DevNo;
use crate::units::{BlockSize, DataBlocks, Sectors};

/// The thin-pool target's name in tables.
pub const THIN_POOL: &str = "thin-pool";

/// What a thin-pool table says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTable {
    /// How long the pool is: as long as its data.
    pub length: Sectors,
    /// The device that holds the metadata.
    pub metadata: DevNo,
    /// The device that holds the data.
    pub data: DevNo,
    /// The length of a data block.
    pub block_size: BlockSize,
    /// With this many blocks left the kernel sends one event.
    pub low_water: DataBlocks,
    /// The feature words, in the order in which they came.
    pub features: Vec<String>,
}

/// Why a line is not a thin-pool table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPoolTable {
    line: String,
    why: String,
}

impl fmt::Display for NotAPoolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a thin-pool table: {}", self.line, self.why)
    }
}

impl std::error::Error for NotAPoolTable {}

impl PoolTable {
    /// Reads the parameters of a thin-pool target of that length.
    ///
    /// # Errors
    /// When a word is missing or is not what the kernel prints there.
    pub fn parse(length: Sectors, params: &str) -> Result<Self, NotAPoolTable> {
        let fail = |why: &str| NotAPoolTable { line: params.to_owned(), why: why.to_owned() };
        let mut words = params.split_whitespace();
        let mut word = |what: &str| words.next().ok_or_else(|| fail(&format!("its {what} is missing")));
        let metadata = word("metadata device")?.parse().map_err(|e| fail(&format!("{e}")))?;
        let data = word("data device")?.parse().map_err(|e| fail(&format!("{e}")))?;
        let block_size = word("block size")?.parse::<u64>().map_err(|_| fail("its block size is not a number"))?;
        let block_size = BlockSize::new(Sectors::new(block_size)).map_err(|e| fail(&e.to_string()))?;
        let low_water = word("low water mark")?.parse().map_err(|_| fail("its low water mark is not a number"))?;
        let count: usize = match words.next() {
            Some(word) => word.parse().map_err(|_| fail("its number of features is not a number"))?,
            None => 0,
        };
        let features: Vec<String> = words.map(str::to_owned).collect();
        if features.len() != count {
            return Err(fail(&format!("it announces {count} features and has {}", features.len())));
        }
        Ok(Self { length, metadata, data, block_size, low_water: DataBlocks::new(low_water), features })
    }

    /// Returns the target's parameters as the kernel takes them.
    pub fn params(&self) -> String {
        let mut line = format!(
            "{} {} {} {} {}",
            self.metadata,
            self.data,
            self.block_size.sectors().get(),
            self.low_water.get(),
            self.features.len()
        );
        for feature in &self.features {
            line.push(' ');
            line.push_str(feature);
        }
        line
    }

    /// Returns whether a feature word is there.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }

    /// Returns the same table with another length and nothing else changed.
    #[must_use]
    pub fn with_length(&self, length: Sectors) -> Self {
        Self { length, ..self.clone() }
    }
}

/// The whole line, as `dmsetup table` prints it.
impl fmt::Display for PoolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0 {} {THIN_POOL} {}", self.length.get(), self.params())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Docker 20.10's own pool on kernel 6.1.
    const DOCKER: &str = "7:1 7:0 128 32768 1 skip_block_zeroing";

    #[test]
    fn dockers_table_comes_back_word_for_word() {
        let table = PoolTable::parse(Sectors::new(209_715_200), DOCKER).unwrap();
        assert_eq!(table.params(), DOCKER);
        assert_eq!(table.to_string(), format!("0 209715200 thin-pool {DOCKER}"));
        assert!(table.has("skip_block_zeroing"));
        assert_eq!(table.with_length(Sectors::new(128)).params(), DOCKER);
    }

    #[test]
    fn features_are_optional_and_unknown_ones_are_kept() {
        let none = PoolTable::parse(Sectors::new(256), "7:1 7:0 128 0").unwrap();
        assert!(none.features.is_empty());
        let unknown = "7:1 7:0 128 0 2 skip_block_zeroing some_new_word";
        assert_eq!(PoolTable::parse(Sectors::new(256), unknown).unwrap().params(), unknown);
    }

    #[test]
    fn a_line_that_is_cut_or_odd_is_named() {
        for (line, why) in [
            ("", "metadata device is missing"),
            ("7:1", "data device is missing"),
            ("7:1 7:0", "block size is missing"),
            ("7:1 7:0 100 0", "not a block size"),
            ("7:1 7:0 128 x", "low water"),
            ("7:1 7:0 128 0 2 one", "announces 2 features and has 1"),
            ("sda 7:0 128 0", "not a device number"),
        ] {
            let error = PoolTable::parse(Sectors::new(1), line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in "[ -~]{0,80}") {
            let _ = PoolTable::parse(Sectors::new(1), &line);
        }

        #[test]
        fn tables_round_trip(k in 1_u64..16384, low in any::<u64>(), minor in any::<u32>(), features in prop::collection::vec("[a-z_]{1,12}", 0..4)) {
            let table = PoolTable {
                length: Sectors::new(k * 128),
                metadata: DevNo { major: 7, minor },
                data: DevNo { major: 253, minor },
                block_size: BlockSize::new(Sectors::new(k * 128)).unwrap(),
                low_water: DataBlocks::new(low),
                features,
            };
            prop_assert_eq!(PoolTable::parse(table.length, &table.params()), Ok(table));
        }
    }
}
