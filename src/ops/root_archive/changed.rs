//! How much containers have changed, measured while they run: Docker writes down how large images are, and nothing of these.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;

use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::ops::contents::overlay2::{self, Opener, Over, Part};
use crate::ops::contents::source::{self, Reach};
use crate::ops::contents::tree::shown;
use crate::ops::progress::{Watcher, may_go_on};
use crate::units::Bytes;

/// How much it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Bytes of files as the archive has them, but for small ones with holes, which it may have with less.
    pub bytes: Bytes,
    /// Why some of it is not in that, each a sentence.
    pub unmeasured: Vec<String>,
}

/// What was measured last, and of what: a plan is made twice, and opening layers takes long.
static MEASURED: Mutex<Option<(Vec<String>, Changed)>> = Mutex::new(None);

/// How many containers are named that are not measured whole.
const NAMED: usize = 5;

/// Measures what containers have changed, but for those of `without`, by their ids; says whether it was measured just now.
///
/// # Errors
/// When somebody wanted an end.
pub(super) fn changed(
    objects: &Objects,
    driver: Driver,
    parts: &[Part],
    reach: &Reach,
    without: &[&str],
    watcher: &Watcher,
) -> Result<(Changed, bool)> {
    let gone = layers_of(objects, driver, without);
    let parts: Vec<_> = parts.iter().filter(|part| part.chain.is_none() && !gone.contains(part.id.as_str())).collect();
    let of =
        || parts.iter().map(|part| part.id.clone()).chain([objects.path.display().to_string()]).collect::<Vec<_>>();
    let known = MEASURED.lock().ok().and_then(|known| known.clone());
    if let Some((_, changed)) = known.filter(|(known, _)| *known == of()) {
        return Ok((changed, false));
    }
    let changed = match out_of_service(&objects.path, driver) {
        // Each container would wait for the same, and be read some other way.
        Some(why) if !parts.is_empty() => Changed {
            unmeasured: vec![format!("what containers have changed is not in the size that is told: {why}")],
            ..Changed::default()
        },
        _ => measure(&objects.path, driver, &parts, reach, watcher)?,
    };
    if let Ok(mut known) = MEASURED.lock() {
        *known = Some((of(), changed.clone()));
    }
    Ok((changed, true))
}

fn out_of_service(root: &Path, driver: Driver) -> Option<String> {
    (driver == Driver::Devicemapper).then(|| source::out_of_service(root)).flatten()
}

fn measure(root: &Path, driver: Driver, parts: &[&Part], reach: &Reach, watcher: &Watcher) -> Result<Changed> {
    let mut found = Changed::default();
    let containers: Vec<_> = overlay2::of_containers(parts).collect();
    let tell = |done: usize| watcher.count("measuring what containers have changed", done, containers.len());
    for (done, container) in containers.iter().enumerate() {
        may_go_on()?;
        tell(done);
        let mut opener = Opener::while_used(root, driver, reach);
        let mut wrong = None;
        for part in *container {
            match overlay2::changed(&mut opener, part, &mut |_, _| ()) {
                Ok(over) => {
                    found.bytes = Bytes::new(found.bytes.get().saturating_add(over.bytes.get()));
                    wrong = wrong.or_else(|| unread(part, &over));
                }
                Err(why) => {
                    wrong = Some(format!("{why:#}; what it has changed is not in the size that is told"));
                    break;
                }
            }
        }
        found.unmeasured.extend(wrong);
    }
    if !containers.is_empty() {
        tell(containers.len());
    }
    let more = found.unmeasured.len().saturating_sub(NAMED);
    if more > 0 {
        found.unmeasured.truncate(NAMED);
        found.unmeasured.push(format!("and {more} more containers of which not all is in the size that is told"));
    }
    Ok(found)
}

/// Says what of a layer is not measured.
fn unread(part: &Part, over: &Over) -> Option<String> {
    let first = over.first.as_ref()?;
    let more = if over.lost > 1 { format!(", and {} more", over.lost - 1) } else { String::new() };
    let (whose, path, why) = (&part.whose, shown(&first.path), &first.why);
    Some(format!("{whose}: `/{path}`: {why}{more}; what could not be read is not in the size that is told"))
}

/// Returns the driver's names for the layers of containers.
fn layers_of<'o>(objects: &'o Objects, driver: Driver, containers: &[&str]) -> BTreeSet<&'o str> {
    let stores = objects.stores.iter().filter(|store| store.driver == driver.name());
    let mounts = stores.flat_map(|store| &store.mounts).filter(|(id, _)| containers.contains(&id.as_str()));
    mounts.flat_map(|(_, mount)| [&mount.mount_id, &mount.init_id]).flatten().map(String::as_str).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs::{File, create_dir_all, write};

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;
    use crate::kernel::folder::Content;

    fn part(id: &str, below: &[&str]) -> Part {
        let below = below.iter().map(|id| (*id).to_owned()).collect();
        Part { id: id.to_owned(), below, chain: None, whose: format!("container {id}"), is_top: true }
    }

    #[test]
    fn what_a_container_has_and_its_image_has_not_counts_without_holes() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = temp.path().canonicalize().unwrap();
        let diff = |id: &str| root.join("overlay2").join(id).join("diff");
        ["image", "web-init", "web"].iter().for_each(|id| create_dir_all(diff(id)).unwrap());
        write(diff("image").join("large"), vec![1; 1 << 20]).unwrap();
        write(diff("image").join("log"), "old").unwrap();
        write(diff("web").join("log"), vec![1; 5000]).unwrap();
        File::create(diff("web").join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let (init, web) = (part("web-init", &["image"]), part("web", &["web-init", "image"]));
        let measured =
            |parts: &[&Part]| measure(&root, Driver::Overlay2, parts, &Reach::default(), &Watcher::none()).unwrap();
        assert_eq!(measured(&[&init, &web]), Changed { bytes: Bytes::new(5000), unmeasured: Vec::new() });
        // What is allocated and was never written counts as it is written.
        let allocated = File::create(diff("web").join("allocated")).unwrap();
        allocated.set_len(16 << 20).unwrap();
        let _ = fallocate(&allocated, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 4 << 20);
        let content = Content::of(allocated).unwrap();
        let written: u64 = content.extents().iter().map(|extent| extent.end - extent.start).sum();
        assert_eq!(measured(&[&init, &web]).bytes, Bytes::new(5000 + written));
        // What cannot be read hides nothing of the others.
        let found = measured(&[&part("gone", &["image"]), &web]);
        assert_eq!((found.bytes, found.unmeasured.len()), (Bytes::new(5000 + written), 1));
        assert!(found.unmeasured.iter().all(|why| why.starts_with("container gone: ")), "{found:?}");
        // Where many cannot, some are named and the others counted.
        let gone: Vec<_> = (0..8).map(|number| part(&format!("gone{number}"), &["image"])).collect();
        let found = measured(&gone.iter().collect::<Vec<_>>()).unmeasured;
        assert_eq!(found.len(), NAMED + 1, "{found:?}");
        assert!(found[NAMED].starts_with("and 3 more containers"), "{found:?}");
        assert_eq!(out_of_service(&root, Driver::Overlay2), None);
    }
}
