//! The layers of a devicemapper root written for Docker's overlay2 driver, below a directory of dmpool's own:
//!
//! ```text
//! overlay2/ID/diff, link, lower, work, committed    a layer, by the name that it has with devicemapper, too
//! overlay2/l/SHORT -> ../ID/diff                    (graphdriver/overlay2/overlay.go)
//! image/                                            what becomes image/overlay2: image/devicemapper, byte for byte
//! whole/ID                                          an empty file for each layer that is whole and synced
//! empty/                                            what lies beneath the lowest layer
//! ```
//!
//! Docker's names for layers (`cache-id`, `mount-id`) are random, and each driver has a directory of its own. With the same ones the layer
//! database is right as it is, and a copy that was interrupted finds again what it has.

mod ground;
mod made;
mod measure;
mod parts;
mod records;
mod remove;
mod shares;
mod verify;

pub(in crate::ops) use ground::{Ground, Host, has_no_default_acl};
pub(in crate::ops) use made::{always, copy_database, copy_layers, dress_layers, of_chain, remove_half_made};
pub use measure::Size;
pub(in crate::ops) use measure::{Over, changed, containers as of_containers, measured};
pub use parts::{Part, is_name, parts, parts_of};
pub(in crate::ops) use records::{records, with_driver};
pub(in crate::ops) use remove::remove_tree;
pub(in crate::ops) use shares::{Shares, shares};
pub(in crate::ops) use verify::{digest, verify};

use std::path::Path;
use std::rc::Rc;

use anyhow::{Result, bail};

use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::ops::contents::source::{self, Below, Reach};
use crate::ops::contents::tree::Tree;

/// The folders below dmpool's own.
pub(in crate::ops) const WHOLE: &str = "whole";
const EMPTY: &str = "empty";
/// The layer database and the images, until they are `image/overlay2`.
pub(in crate::ops) const IMAGE: &str = "image";
/// The layers.
pub(in crate::ops) const LAYERS: &str = "overlay2";

/// How many layers are open at once: one, the one beneath it, and the one that most lie on.
const OPEN: usize = 3;

/// The layers that were opened last.
pub(in crate::ops) struct Opener<'a> {
    root: &'a Path,
    driver: Driver,
    reach: &'a Reach,
    /// Whether one that is mounted will do: it may change while it is read.
    mounted_too: bool,
    open: Vec<(String, Rc<Tree>)>,
}

impl<'a> Opener<'a> {
    /// Begins with none.
    pub(in crate::ops) const fn new(root: &'a Path, driver: Driver, reach: &'a Reach) -> Self {
        Self { root, driver, reach, mounted_too: false, open: Vec::new() }
    }

    /// As [`Self::new`], also of layers that are mounted.
    pub(in crate::ops) fn while_used(root: &'a Path, driver: Driver, reach: &'a Reach) -> Self {
        Self { mounted_too: true, ..Self::new(root, driver, reach) }
    }

    /// Opens a layer with those below it.
    ///
    /// # Errors
    /// When it cannot be opened, anything of it is missing, or somebody may write to it meanwhile.
    pub(in crate::ops) fn open(&mut self, id: &str, below: &[String]) -> Result<Rc<Tree>> {
        if let Some(at) = self.open.iter().position(|(open, _)| open == id) {
            let found = self.open.remove(at);
            let tree = Rc::clone(&found.1);
            self.open.push(found);
            return Ok(tree);
        }
        let below = Below { ids: below.iter().cloned().map(Some).collect(), whole: true };
        let opened = source::open(self.root, self.driver.name(), id, &below, self.reach)?;
        if let Some(lost) = opened.lost.first() {
            bail!("layer {id} is not whole: {lost}");
        }
        if let Some(whose) = opened.mounted.filter(|_| !self.mounted_too) {
            bail!("layer {id} is mounted ({whose}), and may be written to meanwhile");
        }
        let tree = Rc::new(opened.tree);
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push((id.to_owned(), Rc::clone(&tree)));
        Ok(tree)
    }
}

/// Reads the objects of a root, and what of them is copied.
fn read(root: &Path) -> Result<(Objects, Vec<Part>)> {
    let objects = crate::engine::docker_objects::read(root)?;
    let parts = parts(&objects).map_err(|why| anyhow::anyhow!(why.join("; ")))?;
    Ok((objects, parts))
}

/// Returns how many layers are copied.
///
/// # Errors
/// When the root cannot be read, or is not whole.
pub(in crate::ops) fn count(root: &Path) -> Result<usize> {
    Ok(read(root)?.1.len())
}

/// Returns the containers that devicemapper has.
///
/// # Errors
/// When the root cannot be read.
pub(in crate::ops) fn containers(root: &Path) -> Result<Vec<String>> {
    let objects = crate::engine::docker_objects::read(root)?;
    let own = objects.containers.iter().filter(|container| container.driver() == Some(Driver::Devicemapper.name()));
    Ok(own.map(|container| container.id.clone()).collect())
}
