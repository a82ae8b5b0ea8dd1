//! Numbers of one run, compared: medians, ratios of pairs, spread.

use serde::Serialize;

/// The ratios of pairs that were measured side by side.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Ratio {
    /// Number of pairs.
    pub(crate) pairs: usize,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Ratio {
    /// Each of `ours` over the one of `theirs` that was measured beside it; `None` without pairs.
    pub(crate) fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        Some(Self { pairs: ratios.len(), median: median(&ratios)?, min, max })
    }
}

/// The middle value, or the mean of the two middle ones; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(sorted.len() / 2 - 1)?, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs() {
        let ratio = Ratio::of(&[1.0, 4.0, 9.0], &[1.0, 2.0, 3.0]);
        assert_eq!(ratio, Some(Ratio { pairs: 3, median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Ratio::of(&[], &[]), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }
}
