//! Looking whether what was written is what was there.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::made::of_chain;
use super::{LAYERS, Opener, read};
use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::kernel::folder::Folder;
use crate::ops::contents::archive::{Difference, compare};
use crate::ops::contents::layer;
use crate::ops::contents::source::Reach;
use crate::ops::contents::tree::{Layer, Marks, Namespace, Tree, shown};

/// How many differences are kept of each layer; all are counted.
const KEPT: usize = 1000;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(in crate::ops) struct Report {
    /// Containers and images' uppermost layers that were compared file by file.
    pub(in crate::ops) compared: Vec<Compared>,
    /// Layers whose tar came out with the digest that Docker has of it.
    pub(in crate::ops) digests: u64,
    /// Layers whose tar does not come out, so that `docker save` will not write them.
    pub(in crate::ops) not_saved: Vec<NotSaved>,
    /// What is not compared, and why.
    pub(in crate::ops) not_compared: Vec<&'static str>,
}

/// A layer whose tar does not come out.
#[derive(Debug, Serialize)]
pub(in crate::ops) struct NotSaved {
    /// Which.
    pub(in crate::ops) of: String,
    /// Why.
    pub(in crate::ops) why: String,
    /// Whether its files were compared one by one; else only what of them those on it do not hide.
    pub(in crate::ops) compared: bool,
}

impl fmt::Display for NotSaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.compared {
            "its files are what they were"
        } else {
            "its files were compared only where the layers on it leave them as they are"
        };
        write!(f, "`docker save` will not write {}: {}; {files}", self.of, self.why)
    }
}

/// A tree that was compared.
#[derive(Debug, Serialize)]
pub(in crate::ops) struct Compared {
    /// Whose it is.
    pub(in crate::ops) of: String,
    /// The driver's name for it.
    pub(in crate::ops) layer: String,
    /// How many entries.
    pub(in crate::ops) entries: u64,
    /// How many of them differ.
    pub(in crate::ops) differences: u64,
    /// Which, as far as they are kept.
    pub(in crate::ops) differing: Vec<String>,
}

const NOT_COMPARED: [&str; 5] = [
    "flags of chattr (immutable, append-only, no dump, …): they are not copied",
    "inode numbers and times of the last change of an inode: the kernel gives them",
    "times of access: looking changes them",
    "security.selinux: the label is that of the mount",
    "sizes of directories and which parts of a file are holes: they are the file system's",
];

/// Compares every container's files and those of every image, by either driver, and puts every layer's tar together again.
/// `goes_on` is asked at each file; `said` gets how many of how many layers are done.
///
/// # Errors
/// When something cannot be opened, or nothing more is to be compared.
pub(in crate::ops) fn verify(
    root: &Path,
    to: &Path,
    reach: &Reach,
    goes_on: &dyn Fn() -> Result<()>,
    said: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    let (objects, parts) = read(root)?;
    let mut report = Report { not_compared: NOT_COMPARED.to_vec(), ..Report::default() };
    let mut old = Opener::new(root, Driver::Devicemapper, reach);
    let mut new = Opener::new(to, Driver::Overlay2, reach);
    for (number, part) in parts.iter().enumerate() {
        goes_on()?;
        if let Some(chain) = &part.chain {
            match digest(&objects, Driver::Devicemapper, chain, to, &part.id) {
                Ok(true) => report.digests += 1,
                Ok(false) => {}
                Err(why) => {
                    report.not_saved.push(NotSaved { of: part.whose.clone(), why, compared: part.is_top });
                }
            }
        }
        if part.is_top {
            let context = || format!("comparing {} ({})", part.whose, part.id);
            let was = old.open(&part.id, &part.below).with_context(context)?;
            let is = new.open(&part.id, &part.below).with_context(context)?;
            let mut differing = Vec::new();
            let mut tell = |Difference { path, what }: Difference| {
                if differing.len() < KEPT {
                    differing.push(format!("/{}: {what}", shown(&path)));
                }
            };
            let found = compare(&was, &is, goes_on, &mut tell).with_context(context)?;
            report.compared.push(Compared {
                of: part.whose.clone(),
                layer: part.id.clone(),
                entries: found.entries,
                differences: found.differences,
                differing,
            });
        }
        said(number + 1, parts.len());
    }
    Ok(report)
}

/// Puts a layer's tar together of the files in its own directory, where Docker looks for them; says whether there is one to
/// be put together.
///
/// # Errors
/// Why it is not what it was.
pub(in crate::ops) fn digest(
    objects: &Objects,
    driver: Driver,
    chain: &str,
    to: &Path,
    id: &str,
) -> Result<bool, String> {
    let Some((store, layer)) = of_chain(objects, driver, chain).filter(|(_, layer)| layer.tar_split) else {
        return Ok(false);
    };
    let own = Folder::open(&to.join(LAYERS).join(id).join("diff")).map_err(|e| e.to_string())?;
    let own = Layer::new(own, Marks::Overlay(Namespace::Trusted)).map_err(|e| e.to_string())?;
    layer::comes_out(objects, store, layer, Tree::new(vec![own])).map(|()| true)
}
