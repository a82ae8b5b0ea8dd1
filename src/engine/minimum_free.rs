//! The share of a pool that Docker keeps free: below it, it makes no more layers
//! (`poolHasFreeSpace`, daemon/graphdriver/devmapper/deviceset.go; asked of the data and of the metadata).

use super::docker_root::Options;

/// Docker's share when `dm.min_free_space` was not given (`defaultMinFreeSpacePercent`; the same since 1.12, where it
/// came in).
const DEFAULT_PERCENT: u8 = 10;

impl Options {
    /// Returns how many hundredths of the pool the daemon keeps free; nothing when its options are not known.
    pub fn minimum_free_percent(&self) -> Option<u8> {
        self.known().map(|options| options.min_free_space_percent.unwrap_or(DEFAULT_PERCENT))
    }
}

/// Returns what that share is of `total` blocks, rounded down: what `docker info` shows.
pub fn share(total: u64, percent: u8) -> u64 {
    let share = u128::from(total) * u128::from(percent.min(100)) / 100;
    u64::try_from(share).unwrap_or(total)
}

/// Returns how many of `total` blocks Docker keeps free: the share rounded down, but at least one; none at 0 %.
pub fn kept_free(total: u64, percent: u8) -> u64 {
    if percent == 0 {
        return 0;
    }
    share(total, percent).max(1)
}

/// Returns whether Docker makes layers on a pool with that many blocks used of `total`.
pub fn lets_docker_work(used: u64, total: u64, percent: u8) -> bool {
    percent == 0 || total.saturating_sub(used) >= kept_free(total, percent)
}

/// Returns the fewest blocks a pool must have so that Docker makes layers with that many used; nothing when no size does
/// (100 %), or when none fits 64 bits.
pub fn smallest_total(used: u64, percent: u8) -> Option<u64> {
    if percent == 0 {
        return Some(used);
    }
    // What is not kept, total*left/100 rounded up, must reach `used`; and at least one block stays free.
    let left = 100_u64.checked_sub(u64::from(percent)).filter(|left| *left > 0)?;
    let rounded_up = u128::from(used.saturating_sub(1)) * 100 / u128::from(left) + 1;
    u64::try_from(rounded_up.max(u128::from(used) + 1)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_ten_percent_of_its_default_pool() {
        // 100 GiB of 64 KiB blocks.
        assert_eq!(kept_free(1_638_400, 10), 163_840);
        assert!(lets_docker_work(1_474_560, 1_638_400, 10));
        assert!(!lets_docker_work(1_474_561, 1_638_400, 10));
        assert_eq!(smallest_total(1_638_400, 10), Some(1_820_444));
    }

    #[test]
    fn the_edges() {
        assert_eq!(kept_free(5, 10), 1);
        assert!(lets_docker_work(9, 9, 0));
        assert_eq!(smallest_total(9, 0), Some(9));
        assert_eq!(smallest_total(0, 10), Some(1));
        assert_eq!(smallest_total(9, 100), None);
        assert_eq!(smallest_total(u64::MAX, 10), None);
    }

    proptest! {
        #[test]
        fn the_smallest_total_is_enough_and_one_less_is_not(used in 1_u64..1 << 40, percent in 1_u8..100) {
            let total = smallest_total(used, percent).unwrap();
            prop_assert!(lets_docker_work(used, total, percent));
            prop_assert!(!lets_docker_work(used, total - 1, percent));
        }
    }
}
