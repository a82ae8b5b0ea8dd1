//! What of a root cannot be read, and what of it that ends a save or a load.

use std::path::{Path, PathBuf};

use crate::engine::docker_objects::{CONTAINERS, Objects, is_id, is_name_of_nothing};
use crate::engine::docker_root::Problem;
use crate::engine::driver::Driver;
use crate::ops::rescue::label;

use super::contents::VOLUMES;
use super::taken::is_taken;

/// What cannot be read of a root, as far as it is of this storage driver, by paths below the root. What is of its images' layers and of
/// its containers is not in it: without those there is no archive.
pub(super) fn unread(objects: &Objects, driver: Driver) -> Vec<Problem> {
    let known = objects.problems.iter().filter(|problem| !is_name_of_nothing(problem));
    let of_volumes = objects.volumes.iter().flat_map(|volume| &volume.problems);
    let below = |problem: &Problem| Problem { path: below(&problem.path, &objects.path), ..problem.clone() };
    let mut all: Vec<Problem> = known.chain(of_volumes).map(below).collect();
    all.retain(|problem| is_saved(&problem.path, driver));
    all
}

/// What is wrong with containers that have no layer, and so are no layer's problem.
pub(super) fn broken_containers(objects: &Objects, driver: Driver) -> Vec<String> {
    let store = objects.stores.iter().find(|store| store.driver == driver.name());
    let mut wrong = Vec::new();
    for container in objects.containers.iter().filter(|container| is_id(&container.id)) {
        let has_layer = store.is_some_and(|store| store.mounts.contains_key(&container.id));
        let is_ours = container.config.is_null() || store.is_some_and(|store| is_taken(container, store));
        if !has_layer && is_ours {
            let says = |problem: &Problem| {
                format!("container {}: {}: {}", label(container), problem.path.display(), problem.why)
            };
            wrong.extend(container.problems.iter().map(says));
        }
    }
    wrong
}

/// Returns the path below the root; a path of it may go through other links than the root's own.
fn below(path: &Path, root: &Path) -> PathBuf {
    let is_root = |above: &&Path| *above == root || above.canonicalize().is_ok_and(|real| real == root);
    let base = path.ancestors().find(is_root);
    base.and_then(|base| path.strip_prefix(base).ok()).unwrap_or(path).to_owned()
}

fn is_saved(path: &Path, driver: Driver) -> bool {
    let mut names = path.iter().filter_map(|name| name.to_str());
    match names.next() {
        Some("image") => names.next().is_none_or(|of| of == driver.name()),
        Some("graph" | "vfs") => driver == Driver::Vfs,
        Some(name) if name.starts_with("repositories-") => false,
        Some(name) => [CONTAINERS, VOLUMES, "network", driver.name()].contains(&name) || Driver::named(name).is_none(),
        None => true,
    }
}
