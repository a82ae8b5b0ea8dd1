//! How much of all is done when so many layers are: a bar that counts layers says nothing of the time that is left.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Part, read};
use crate::engine::driver::Driver;
use crate::units::Bytes;

/// What is done behind each layer, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ops) struct Shares(Vec<u64>);

impl Shares {
    fn of(sizes: impl Iterator<Item = u64>) -> Self {
        let mut sum = 0_u64;
        Self(
            sizes
                .map(|size| {
                    sum = sum.saturating_add(size);
                    sum
                })
                .collect(),
        )
    }

    /// Returns how much is done once so many layers are.
    pub(in crate::ops) fn done(&self, layers: usize) -> Bytes {
        Bytes::new(layers.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or_default())
    }

    /// Returns how much it is in all.
    pub(in crate::ops) fn total(&self) -> Bytes {
        self.done(self.0.len())
    }
}

/// Returns what is copied, and what is compared, when `all` is what the files come to. Docker has written down how large an image's
/// layer is; containers have the rest, one as much as the other.
///
/// # Errors
/// When the root cannot be read.
pub(in crate::ops) fn shares(root: &Path, all: Bytes) -> Result<[Shares; 2]> {
    let (objects, parts) = read(root)?;
    let store = objects.stores.iter().find(|store| store.driver == Driver::Devicemapper.name());
    let store = store.context("there is nothing of devicemapper")?;
    let size = |part: &Part| {
        let layer = part.chain.as_ref().and_then(|chain| store.layers.get(chain));
        layer.map(|layer| layer.size.unwrap_or_default().get())
    };
    Ok(of_parts(&parts, all.get(), size))
}

fn of_parts(parts: &[Part], all: u64, size: impl Fn(&Part) -> Option<u64>) -> [Shares; 2] {
    let of_images: u64 = parts.iter().filter_map(&size).fold(0, u64::saturating_add);
    let is_container = |part: &&Part| part.chain.is_none() && part.is_top;
    let containers = u64::try_from(parts.iter().filter(is_container).count()).unwrap_or(u64::MAX);
    let each = all.saturating_sub(of_images).checked_div(containers).unwrap_or_default();
    let own: BTreeMap<&str, u64> = parts
        .iter()
        .map(|part| {
            let own = size(part).unwrap_or(if part.is_top { each } else { 0 });
            (part.id.as_str(), own)
        })
        .collect();
    let of = |id: &str| own.get(id).copied().unwrap_or_default();
    // A layer's tar is read for its digest, and of one with nothing on it all that is beneath it too.
    let compared = |part: &Part| {
        let digest = if part.chain.is_some() { of(&part.id) } else { 0 };
        let whole = std::iter::once(&part.id).chain(&part.below).map(|id| of(id)).fold(0, u64::saturating_add);
        if part.is_top { digest.saturating_add(whole) } else { digest }
    };
    [Shares::of(parts.iter().map(|part| of(&part.id))), Shares::of(parts.iter().map(compared))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_counts_as_much_as_it_holds() {
        let part = |id: &str, below: &[&str], is_image: bool, is_top: bool| Part {
            id: id.to_owned(),
            below: below.iter().map(|id| (*id).to_owned()).collect(),
            chain: is_image.then(|| id.to_owned()),
            whose: String::new(),
            is_top,
        };
        let parts = [
            part("base", &[], true, false),
            part("app", &["base"], true, true),
            part("web-init", &["app", "base"], false, false),
            part("web", &["web-init", "app", "base"], false, true),
        ];
        let size = |part: &Part| part.chain.as_ref().map(|_| if part.id == "base" { 700 } else { 100 });
        let [copied, compared] = of_parts(&parts, 1000, size);
        let done = |shares: &Shares| (0..=4).map(|layers| shares.done(layers).get()).collect::<Vec<_>>();
        assert_eq!(done(&copied), [0, 700, 800, 800, 1000]);
        assert_eq!(done(&compared), [0, 700, 1600, 1600, 2600]);
        assert_eq!(Shares::default().total(), Bytes::default());
    }
}
