//! How much there is to be copied, before it is.

use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use super::{Opener, Part, records};
use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::ops::contents::archive::{Change, changes, measure_changes, unfit};
use crate::ops::contents::layer;
use crate::ops::contents::source::Reach;
use crate::ops::contents::tree::{Lost, Tree, shown};
use crate::units::Bytes;

/// How many files are named that cannot be copied.
const NAMED: usize = 5;

/// How much it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of files, without holes.
    pub bytes: u64,
    /// Files, directories and all else.
    pub entries: u64,
}

/// What was measured last, and of what: a plan is made several times, and opening layers takes long.
static MEASURED: Mutex<Option<(String, Size)>> = Mutex::new(None);

/// Measures images by what Docker has written down of them, and what containers have changed by their files.
///
/// # Errors
/// When a container cannot be read whole, or has what overlayfs cannot hold.
pub(in crate::ops) fn measured(objects: &Objects, parts: &[Part], reach: &Reach) -> Result<Size> {
    let records = records(&objects.path)?;
    let known = || MEASURED.lock().ok().and_then(|known| known.clone());
    if let Some((_, size)) = known().filter(|(of, _)| *of == records) {
        return Ok(size);
    }
    let size = measure(objects, parts, reach)?;
    if let Ok(mut known) = MEASURED.lock() {
        *known = Some((records, size));
    }
    Ok(size)
}

fn measure(objects: &Objects, parts: &[Part], reach: &Reach) -> Result<Size> {
    let store = objects.stores.iter().find(|store| store.driver == Driver::Devicemapper.name());
    let store = store.context("there is nothing of devicemapper")?;
    let mut size = Size::default();
    for layer in store.layers.values() {
        size.bytes = size.bytes.saturating_add(layer.size.unwrap_or_default().get());
        if layer.tar_split {
            let entries = layer::entries(objects, store, layer).map_err(|why| anyhow::anyhow!(why))?;
            size.entries = size.entries.saturating_add(entries);
        }
    }
    let mut wrong = Vec::new();
    let parts: Vec<_> = parts.iter().filter(|part| part.chain.is_none()).collect();
    for container in containers(&parts) {
        let mut opener = Opener::while_used(&objects.path, Driver::Devicemapper, reach);
        for part in container {
            let over = changed(&mut opener, part, &mut |new, change| {
                size.entries += 1;
                if let Some(why) = change.entry.as_ref().and_then(|entry| unfit(new, entry)) {
                    wrong.push(format!("{}: `/{}`: {why}", part.whose, shown(&change.path)));
                }
            })?;
            size.bytes = size.bytes.saturating_add(over.bytes.get());
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        bail!("{}{more}", wrong.join("; "));
    }
    Ok(size)
}

/// What a layer has over those beneath it.
#[derive(Clone, Debug, Default)]
pub(in crate::ops) struct Over {
    /// Bytes of files, without holes.
    pub bytes: Bytes,
    /// How many paths cannot be compared, and are not in that.
    pub lost: usize,
    /// The first of them.
    pub first: Option<Lost>,
}

/// Returns the layers of each container together, of those that containers have, as [`super::parts_of`] has them in order. Who reads a
/// Docker that runs has an [`Opener`] for each: what is open keeps Docker from removing that container.
pub(in crate::ops) fn containers<'s, 'p>(parts: &'s [&'p Part]) -> impl Iterator<Item = &'s [&'p Part]> {
    parts.chunk_by(|before, _| !before.is_top)
}

/// Returns what a container's layer has over those beneath it; each change is shown to `look`.
///
/// # Errors
/// When one of the layers cannot be read whole.
pub(in crate::ops) fn changed(
    opener: &mut Opener<'_>,
    part: &Part,
    look: &mut dyn FnMut(&Tree, &Change),
) -> Result<Over> {
    let Some((beneath, below)) = part.below.split_first() else { return Ok(Over::default()) };
    let mut open = |id: &str, below: &[String]| opener.open(id, below).with_context(|| part.whose.clone());
    let (old, new) = (open(beneath, below)?, open(&part.id, &part.below)?);
    let mut over = Over::default();
    let found = changes(&old, &new).filter_map(|change| match change {
        Ok(change) => Some(change),
        Err(lost) => {
            over.lost += 1;
            over.first.get_or_insert(lost);
            None
        }
    });
    let bytes = measure_changes(found.inspect(|change| look(&new, change)));
    Ok(Over { bytes, ..over })
}
