//! The volumes made in the new pool, and filled with files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};

use super::{Anew, Named, Opened, found_nothing, named, node, sizes};
use crate::engine::docker_objects;
use crate::kernel::folder::Folder;
use crate::ops::contents::devicemapper::{FOUND, apply};
use crate::ops::contents::tree::{Layer, Marks, Tree};
use crate::ops::fault::{self, Point};
use crate::ops::migrate::blocks::{Family, Mark, Origin, Records, Source, Target, is_well};
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::steps::Kit;
use crate::units::Bytes;

/// Makes every volume that Docker has written down, from the first that is not whole; then the new pool's transaction id says so.
///
/// # Errors
/// [`crate::ops::progress::Interrupted`] when somebody wants an end; when a file cannot be read or kept, each by name; when there is
/// too little room, or a disk fails.
pub fn fill(kit: &Kit, root: &Path, source: &Source, family: &Family, target: &Target, anew: &Anew) -> Result<()> {
    target.sweep(kit)?;
    let seal = source.metadata.seal;
    let mark = |whole: usize| -> Result<u64> { Ok(Mark { seal, whole: u32::try_from(whole)? }.id()) };
    let members = named(family);
    let records = Records::read(&anew.records.folder)?;
    let sizes = sizes(&docker_objects::read(root)?, &records.volumes, anew.size);
    let details = source.metadata.details()?;
    let block = source.metadata.superblock.block_size;
    let mapped = |member: &Named<'_>| -> u64 {
        details.get(&u64::from(member.id.get())).map_or(0, |volume| block.bytes_of(volume.mapped).get())
    };
    let whole = go_on_from(kit, seal, &members, target)?;
    let total = members.iter().fold(0_u64, |sum, member| sum.saturating_add(mapped(member)));
    let mut progress = Progress { what: "copying files", done: Bytes::default(), total: Bytes::new(total) };
    let mut opened = Opened::new(kit, root);
    for (number, member) in members.iter().enumerate() {
        if number >= whole {
            may_go_on()?;
            target.set_transaction(kit, mark(number)?)?;
            let context = || format!("making the volume {} ({}) anew", member.id, member.name);
            one(kit, target, anew, &sizes, member, &mut opened).with_context(context)?;
            is_well(kit, target)?;
            target.set_transaction(kit, mark(number + 1)?)?;
        }
        progress.done = Bytes::new(progress.done.get().saturating_add(mapped(member)));
        kit.watcher.tell(&progress);
        if number >= whole {
            fault::reached(number, Point::Layer)?;
        }
    }
    target.set_transaction(kit, mark(members.len())?)
}

/// Returns how many volumes are whole in the pool. What is not is removed; all of it, when it is of another state of the old pool.
fn go_on_from(kit: &Kit, seal: u32, members: &[Named<'_>], target: &Target) -> Result<usize> {
    let there = Source::open(&kit.dm, &Origin::Pool(target.pool.clone()))?.metadata;
    let volumes: BTreeSet<u64> = there.details()?.into_keys().collect();
    let mark = Mark::of(there.superblock.transaction_id).filter(|mark| mark.seal == seal);
    let whole = mark.map_or(0, |mark| usize::try_from(mark.whole).unwrap_or(usize::MAX)).min(members.len());
    let done: BTreeSet<u64> = members.iter().take(whole).map(|member| u64::from(member.id.get())).collect();
    let whole = if done.is_subset(&volumes) { whole } else { 0 };
    target.set_transaction(kit, Mark { seal, whole: u32::try_from(whole)? }.id())?;
    for id in volumes.iter().filter(|id| whole == 0 || !done.contains(id)) {
        target.message(kit, &format!("delete {id}")).with_context(|| format!("removing the volume {id}"))?;
    }
    Ok(whole)
}

fn one(
    kit: &Kit,
    target: &Target,
    anew: &Anew,
    sizes: &BTreeMap<String, Bytes>,
    member: &Named<'_>,
    opened: &mut Opened<'_>,
) -> Result<()> {
    let id = member.id;
    let make = match member.parent {
        Some((parent, _)) => format!("create_snap {id} {parent}"),
        None => format!("create_thin {id}"),
    };
    target.message(kit, &make)?;
    let size_of = |name: &str| sizes.get(name).copied().unwrap_or(anew.size);
    let size = size_of(member.name);
    let longer = member.parent.filter(|(_, parent)| size > size_of(parent)).map(|_| size);
    let new = opened.open(member.name)?;
    let old = member.parent.map(|(_, parent)| opened.open(parent)).transpose()?;
    let device = target.device(kit, id, size.get(), false)?;
    let made = || -> Result<()> {
        let node = node(device.name());
        if old.is_none() {
            anew.inner.make(&node, &anew.arguments)?;
        }
        anew.inner.with_root(&node, longer, |folder: &Folder| {
            let old = match &old {
                Some(old) => Rc::clone(old),
                None => Rc::new(Tree::new(vec![Layer::new(folder.enter(".".as_ref())?, Marks::None)?])),
            };
            let stays = found_nothing(&old) && found_nothing(&new);
            apply(&old, &new, folder, &|path| stays && path.starts_with(FOUND))
        })
    };
    let made = made();
    let closed = device.close();
    made?;
    closed
}
