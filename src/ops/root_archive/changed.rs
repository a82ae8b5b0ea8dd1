//! How much containers have changed, measured while they run: Docker writes down how large images are, and nothing of these.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::ops::contents::overlay2::{self, Opener, Over, Part};
use crate::ops::contents::source::Reach;
use crate::ops::contents::tree::shown;
use crate::units::Bytes;

/// How much it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Bytes of files, without holes: what the archive has of them takes no less.
    pub bytes: Bytes,
    /// Why some of it is not in that, each a sentence.
    pub unmeasured: Vec<String>,
}

/// What was measured last, and of what: a plan is made twice, and opening layers takes long.
static MEASURED: Mutex<Option<(Vec<String>, Changed)>> = Mutex::new(None);

/// Measures what containers have changed, but for those of `without`, by their ids: they vanish when they are stopped.
pub(super) fn changed(objects: &Objects, driver: Driver, parts: &[Part], reach: &Reach, without: &[&str]) -> Changed {
    let gone = layers_of(objects, driver, without);
    let parts: Vec<_> = parts.iter().filter(|part| part.chain.is_none() && !gone.contains(part.id.as_str())).collect();
    let of =
        || parts.iter().map(|part| part.id.clone()).chain([objects.path.display().to_string()]).collect::<Vec<_>>();
    let known = MEASURED.lock().ok().and_then(|known| known.clone());
    if let Some((_, changed)) = known.filter(|(known, _)| *known == of()) {
        return changed;
    }
    let changed = measure(&objects.path, driver, &parts, reach);
    if let Ok(mut known) = MEASURED.lock() {
        *known = Some((of(), changed.clone()));
    }
    changed
}

fn measure(root: &Path, driver: Driver, parts: &[&Part], reach: &Reach) -> Changed {
    let mut found = Changed::default();
    for container in overlay2::of_containers(parts) {
        let mut opener = Opener::while_used(root, driver, reach);
        for part in container {
            match overlay2::changed(&mut opener, part, &mut |_, _| ()) {
                Ok(over) => {
                    found.bytes = Bytes::new(found.bytes.get().saturating_add(over.bytes.get()));
                    found.unmeasured.extend(unread(part, &over));
                }
                Err(why) => {
                    found.unmeasured.push(format!("{why:#}; what it has changed is not in the size that is told"));
                    break;
                }
            }
        }
    }
    found
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
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::{File, create_dir_all, write};

    use super::*;

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
        let measured = |parts: &[&Part]| measure(&root, Driver::Overlay2, parts, &Reach::default());
        assert_eq!(measured(&[&init, &web]), Changed { bytes: Bytes::new(5000), unmeasured: Vec::new() });
        // What cannot be read hides nothing of the others.
        let found = measured(&[&part("gone", &["image"]), &web]);
        assert_eq!((found.bytes, found.unmeasured.len()), (Bytes::new(5000), 1));
        assert!(found.unmeasured.iter().all(|why| why.starts_with("container gone: ")), "{found:?}");
    }
}
