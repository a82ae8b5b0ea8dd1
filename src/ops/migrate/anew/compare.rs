//! The volumes of the new pool compared with the old one's, file by file.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Anew, Opened, found_nothing, named, node, sizes};
use crate::engine::docker_objects;
use crate::ops::contents::archive::{Difference, compare_with_flags};
use crate::ops::contents::devicemapper::FOUND;
use crate::ops::contents::tree::{Layer, Marks, Tree, shown};
use crate::ops::migrate::blocks::{Family, Records, Source, Target};
use crate::ops::progress::{Progress, may_go_on};
use crate::ops::steps::Kit;
use crate::units::Bytes;

/// How many differences are named.
const NAMED: usize = 5;

/// Compares every volume that Docker has written down: names, kinds, modes, owners, times, attributes, flags, links, and every byte. What a
/// volume shares with another one in both pools is read once.
///
/// # Errors
/// When one is not the same, naming it and what differs; when one cannot be read; [`crate::ops::progress::Interrupted`].
pub fn compare(kit: &Kit, root: &Path, source: &Source, family: &Family, target: &Target, anew: &Anew) -> Result<()> {
    target.sweep(kit)?;
    let members = named(family);
    let records = Records::read(&anew.records.folder)?;
    let sizes = sizes(&docker_objects::read(root)?, &records.volumes, anew.size);
    let details = source.metadata.details()?;
    let block = source.metadata.superblock.block_size;
    let mapped = members
        .iter()
        .map(|member| details.get(&u64::from(member.id.get())).map_or(0, |volume| block.bytes_of(volume.mapped).get()));
    let mapped: Vec<u64> = mapped.collect();
    let total = Bytes::new(mapped.iter().fold(0, |sum: u64, one| sum.saturating_add(*one)));
    let mut progress = Progress { what: "comparing files", done: Bytes::default(), total };
    let mut opened = Opened::new(kit, root);
    let mut known = HashSet::new();
    for (member, mapped) in members.iter().zip(mapped) {
        may_go_on()?;
        let context = || format!("comparing the volume {} ({}) with its copy", member.id, member.name);
        let size = sizes.get(member.name).copied().unwrap_or(anew.size);
        let old = opened.open(member.name).with_context(context)?;
        let device = target.device(kit, member.id, size.get(), false)?;
        let mut look = || -> Result<(u64, Vec<String>)> {
            let folder = anew.inner.to_read(&node(device.name()))?;
            let new = Tree::new(vec![Layer::new(folder, Marks::None)?]);
            let may_differ = found_nothing(&old) && found_nothing(&new);
            let (mut count, mut differing) = (0_u64, Vec::new());
            let mut tell = |Difference { path, what }: Difference| {
                if may_differ && path.starts_with(FOUND) {
                    return;
                }
                count += 1;
                if differing.len() < NAMED {
                    differing.push(format!("/{}: {what}", shown(&path)));
                }
            };
            compare_with_flags(&old, &new, &mut known, &may_go_on, &mut tell)?;
            Ok((count, differing))
        };
        let looked = look();
        let closed = device.close();
        let (count, differing) = looked.with_context(context)?;
        closed?;
        ensure!(
            count == 0,
            "comparing the volume {} ({}) with its copy: {count} differences: {}",
            member.id,
            member.name,
            differing.join("; ")
        );
        progress.done = Bytes::new(progress.done.get().saturating_add(mapped));
        kit.watcher.tell(&progress);
    }
    Ok(())
}
