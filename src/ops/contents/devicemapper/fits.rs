//! What has room in a pool and its volumes, and what is said where it has not.

use std::collections::BTreeMap;

use super::made::{Source, Wanted};
use super::{Tried, needed};
use crate::ops::contents::archive::Measure;
use crate::ops::contents::overlay2::Part;
use crate::ops::filesystem::{Used, growth};
use crate::pool::Working;
use crate::units::{BlockSize, Bytes, DataBlocks};

/// No volume is longer: an archive is a stranger's word, and the kernel lays out each group of a file system that becomes longer.
pub(in crate::ops) const LONGEST: Bytes = Bytes::new(16 << 40);

/// What fits.
#[derive(Debug)]
pub(in crate::ops) struct Fits<'a> {
    /// A file system as the base device will have one.
    pub(in crate::ops) tried: &'a Tried,
    /// How much of the pool's data may be in use.
    pub(in crate::ops) most: Bytes,
    /// What each volume takes beside its files.
    pub(in crate::ops) each: u64,
    /// How many hundredths Docker keeps free, of data and of metadata.
    pub(in crate::ops) kept: u8,
}

impl Fits<'_> {
    /// Refuses what is too much for its volume, or for the pool.
    pub(super) fn look(
        &self,
        from: &Source<'_>,
        wanted: &Wanted,
        sizes: &BTreeMap<String, Bytes>,
        measures: &BTreeMap<String, Measure>,
    ) -> Result<(), Unmade> {
        let (base, block) = (wanted.base, wanted.block);
        let size_of = |id: &String| sizes.get(id).copied().unwrap_or(base);
        let mut all = self.tried.takes.get();
        for part in from.parts {
            let (size, own) = (size_of(&part.id), measures.get(&part.id));
            let longest = LONGEST.min(wanted.data);
            if size > base && size > longest {
                return Err(Unmade::TooLong { whose: part.whose.clone(), size, longest });
            }
            let used = own.map(|own| Used { bytes: own.bytes, inodes: own.entries }).unwrap_or_default();
            if self.tried.lacks(used, size.saturating_sub(base)).is_some() {
                return Err(Unmade::TooSmall { whose: part.whose.clone(), size, holds: holds(measures, part) });
            }
            all = all.saturating_add(used.bytes.get()).saturating_add(self.each);
            if size > part.below.first().map_or(base, size_of) {
                let grown = growth(&self.tried.head, size, block.bytes()).unwrap_or_default();
                all = all.saturating_add(block.bytes_of(DataBlocks::new(grown.data)).get());
            }
        }
        if all > self.most.get() { Err(Unmade::PoolFull { needed: Bytes::new(all) }) } else { Ok(()) }
    }

    /// Refuses a pool in which Docker makes nothing more (`poolHasFreeSpace`, daemon/graphdriver/devmapper/deviceset.go).
    pub(super) fn leaves_room(&self, pool: &Working, block: BlockSize) -> Result<(), Unmade> {
        if is_short(pool.data_used.get(), pool.data_total.get(), self.kept) {
            return Err(Unmade::PoolFull { needed: block.bytes_of(pool.data_used) });
        }
        if lacks_metadata(pool, self.kept) {
            Err(Unmade::MetadataFull { used: pool.metadata_used.bytes() })
        } else {
            Ok(())
        }
    }

    /// Whether that little of a pool's metadata is left that something may have failed for it.
    pub(super) fn has_full_metadata(&self, pool: &Working) -> bool {
        lacks_metadata(pool, self.kept.max(1))
    }
}

fn lacks_metadata(pool: &Working, kept: u8) -> bool {
    is_short(pool.metadata_used.get(), pool.metadata_total.get(), kept)
}

/// Whether less than that share is free.
fn is_short(used: u64, total: u64, kept: u8) -> bool {
    let least = u128::from(total) * u128::from(kept) / 100;
    kept > 0 && u128::from(total.saturating_sub(used)) < least.max(1)
}

/// Why a volume was not made.
#[derive(Debug)]
pub(in crate::ops) enum Unmade {
    /// What is in it does not fit.
    TooSmall {
        /// Whose it is, in words.
        whose: String,
        /// How long the volume is.
        size: Bytes,
        /// How much is in its layer and those beneath, some of it in each other's place.
        holds: Bytes,
    },
    /// It would be longer than any may be.
    TooLong {
        /// Whose it is, in words.
        whose: String,
        /// How long.
        size: Bytes,
        /// How long it may be.
        longest: Bytes,
    },
    /// Nothing says how long it shall be.
    NoSize {
        /// The container.
        whose: String,
        /// What it was told.
        told: String,
    },
    /// The pool's data file has no room.
    PoolFull {
        /// How much there is in all layers.
        needed: Bytes,
    },
    /// Its metadata file has none.
    MetadataFull {
        /// How much of it is in use.
        used: Bytes,
    },
    /// The file system beneath has none.
    DiskFull {
        /// How much there is.
        free: Bytes,
        /// How much there must be, for what comes next.
        needed: Bytes,
    },
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Unmade {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Returns how much is in a layer and those beneath.
pub(super) fn holds(measures: &BTreeMap<String, Measure>, part: &Part) -> Bytes {
    let all = std::iter::once(&part.id).chain(&part.below).filter_map(|id| measures.get(id));
    Bytes::new(
        all.fold(0, |sum, measure| sum.saturating_add(needed(Used { bytes: measure.bytes, inodes: measure.entries }))),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_objects;
    use crate::ops::contents::devicemapper::Inner;
    use crate::ops::filesystem::HEAD;
    use crate::units::{DataBlocks, MetaBlocks};

    fn part(id: &str, below: &[&str]) -> Part {
        let below = below.iter().map(|id| (*id).to_owned()).collect();
        Part { id: id.to_owned(), below, chain: None, whose: format!("container {id}"), is_top: false }
    }

    /// An XFS of 1 GiB in groups of 64 MiB.
    fn tried() -> Tried {
        let mut head = vec![0; HEAD];
        let fields: [(usize, &[u8]); 4] = [
            (0, b"XFSB"),
            (4, &4096_u32.to_be_bytes()),
            (8, &262_144_u64.to_be_bytes()),
            (84, &16_384_u32.to_be_bytes()),
        ];
        for (at, bytes) in fields {
            head.splice(at..at + bytes.len(), bytes.iter().copied());
        }
        Tried { room: Bytes::new(1 << 30), inodes: None, takes: Bytes::new(16 << 20), head }
    }

    #[test]
    fn a_volume_that_an_archive_wants_long_is_counted_or_refused_by_name() {
        let (temp, tried) = (tempfile::tempdir().unwrap(), tried());
        let objects = docker_objects::read(temp.path()).unwrap();
        let parts = [part("image", &[]), part("c-init", &["image"]), part("c", &["c-init", "image"])];
        let from = Source { objects: &objects, parts: &parts, layers: temp.path() };
        let look = |gib: u64, data: u64, most: u64| {
            let wanted = Wanted {
                data: Bytes::new(data << 30),
                metadata: Bytes::new(2 << 30),
                block: BlockSize::DEFAULT,
                base: Bytes::new(1 << 30),
                inner: Inner::Xfs,
                arguments: Vec::new(),
            };
            let sizes = ["c-init", "c"].map(|id| (id.to_owned(), Bytes::new(gib << 30))).into_iter().collect();
            let fits = Fits { tried: &tried, most: Bytes::new(most << 20), each: 1 << 20, kept: 10 };
            fits.look(&from, &wanted, &sizes, &BTreeMap::new())
        };
        look(1, 100, 19).unwrap();
        // 320 groups, of which each has its head in two blocks of the pool; and the log.
        let needed = (16 << 20) + (3 << 20) + 640 * 65536 + (4 << 20);
        assert!(matches!(look(20, 100, 60), Err(Unmade::PoolFull { needed: found }) if found.get() == needed));
        look(20, 100, needed >> 20).unwrap();
        for (gib, data) in [(101, 100), (17 << 10, 1 << 20)] {
            assert!(
                matches!(look(gib, data, 1 << 30), Err(Unmade::TooLong { whose, .. }) if whose == "container c-init")
            );
        }
        // A base device may be longer than the pool, as Docker's may.
        assert!(look(1, 1, 19).is_ok());
    }

    #[test]
    fn what_docker_keeps_free_is_left_of_data_and_metadata() {
        let tried = tried();
        let left = |data: u64, metadata: u64, kept: u8| {
            let fits = Fits { tried: &tried, most: Bytes::new(0), each: 0, kept };
            let pool = Working {
                transaction_id: 1,
                metadata_used: MetaBlocks::new(metadata),
                metadata_total: MetaBlocks::new(1000),
                data_used: DataBlocks::new(data),
                data_total: DataBlocks::new(1000),
                held_root: None,
                mode: None,
                discard: None,
                no_space: None,
                needs_check: None,
                metadata_low_water: None,
                unknown: Vec::new(),
            };
            fits.leaves_room(&pool, BlockSize::DEFAULT)
        };
        left(900, 900, 10).unwrap();
        left(1000, 1000, 0).unwrap();
        assert!(matches!(left(901, 0, 10), Err(Unmade::PoolFull { needed }) if needed.get() == 901 << 16));
        assert!(matches!(left(0, 901, 10), Err(Unmade::MetadataFull { used }) if used.get() == 901 << 12));
        assert!(matches!(left(0, 1000, 1), Err(Unmade::MetadataFull { .. })));
    }

    #[test]
    fn what_a_volume_may_hold_is_its_own_and_what_lies_beneath() {
        let of = |mib: u64| Measure { entries: 2, bytes: Bytes::new(mib << 20) };
        let measures: BTreeMap<String, Measure> =
            [("a", 1), ("b", 2), ("other", 4)].into_iter().map(|(id, mib)| (id.to_owned(), of(mib))).collect();
        let own = |id, below: &[&str]| holds(&measures, &part(id, below));
        assert!(own("b", &["a"]) > own("b", &[]) && own("b", &["a"]).get() >= 3 << 20);
        assert!(own("b", &["a"]) < own("other", &["b", "a"]));
    }
}
