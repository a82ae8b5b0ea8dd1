//! overlay2 and overlay.
//!
//! ```text
//! overlay2/ID/diff, lower, link            l/SHORT -> ../ID/diff        (graphdriver/overlay2/overlay.go)
//! overlay/ID/root                          a layer of an image: a whole tree of hard links
//! overlay/ID/upper, lower-id               a container's, above one     (graphdriver/overlay/overlay.go)
//! ```

use std::ffi::OsStr;

use super::chain::{self, cache_id, lower_links};
use super::{Opened, Place, merged};
use crate::engine::small_file::Directory;
use crate::error::Outcome;
use crate::ops::contents::tree::{Layer, Marks, Namespace, Tree};

pub(super) fn overlay2(place: &Place<'_>) -> Outcome<Opened> {
    let marks = marks(place);
    let top = place.top(&[place.id, "diff"], marks)?;
    let record = [place.id, "lower"];
    let listed = place.text(&record).map(|text| lower_links(&text.unwrap_or_default()));
    let by_link = |link: &str| linked(place, link, marks);
    let by_id = |id: &str| place.layer(&[id, "diff"], marks).map_err(|e| e.to_string());
    Ok(merged(place, top, &record, listed, &by_link, &by_id))
}

/// Opens the layer that has a short name; the folder of links may be gone, and each layer has its name, too.
fn linked(place: &Place<'_>, link: &str, marks: Marks) -> Result<Layer, String> {
    let by_link = || {
        let target = place.folder(&["l"]).and_then(|folder| folder.target(OsStr::new(link)));
        target.ok().and_then(|target| cache_id(&target))
    };
    let id = by_link().or_else(|| by_name(place, link));
    let id = id.ok_or_else(|| format!("nothing says which one {} is", place.path(&["l", link]).display()))?;
    place.layer(&[&id, "diff"], marks).map_err(|e| e.to_string())
}

fn by_name(place: &Place<'_>, link: &str) -> Option<String> {
    let driver = Directory::open(place.root).and_then(|root| root.enter(place.driver)).ok()?;
    let names = driver.names().ok()?;
    let ids = names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| chain::is_name(name));
    let has_it = |id: &String| matches!(place.text(&[id, "link"]), Ok(Some(text)) if text.trim() == link);
    ids.into_iter().find(has_it)
}

pub(super) fn overlay(place: &Place<'_>) -> Outcome<Opened> {
    if let Ok(layer) = place.layer(&[place.id, "root"], Marks::None) {
        return Ok(Opened { tree: Tree::new(vec![layer]), lost: Vec::new(), notes: Vec::new(), mounted: None });
    }
    let mut layers = vec![place.top(&[place.id, "upper"], marks(place))?];
    let mut lost = Vec::new();
    match place.text(&[place.id, "lower-id"]) {
        Ok(Some(id)) if chain::is_name(id.trim()) => match place.layer(&[id.trim(), "root"], Marks::None) {
            Ok(layer) => layers.push(layer),
            Err(e) => lost.push(format!("the image below is missing: {e}")),
        },
        Ok(_) => lost.push(format!(
            "the image below is not known: {} has no name",
            place.path(&[place.id, "lower-id"]).display()
        )),
        Err(why) => lost.push(format!("the image below is not known: {why}")),
    }
    Ok(Opened { tree: Tree::new(layers), lost, notes: Vec::new(), mounted: None })
}

/// A Docker without root owns its root itself, and its overlayfs may not use `trusted.`. One with `userns-remap` gives its
/// root away to the user that containers' root is, calls it by both numbers (`UID.GID`), and mounts as root.
fn marks(place: &Place<'_>) -> Marks {
    let owner = place.folder(&[]).and_then(|folder| folder.own_status()).map_or(0, |status| status.uid);
    let is_remapped = || {
        let numbers = place.root.file_name().and_then(|name| name.to_str()?.split_once('.'));
        numbers.is_some_and(|(uid, gid)| uid.parse() == Ok(owner) && gid.parse::<u32>().is_ok())
    };
    // Who mounts makes it.
    let by_root = || {
        let work = place.folder(&[place.id, "work"]).and_then(|folder| folder.status(OsStr::new("work")));
        matches!(work, Ok(Some(status)) if status.uid == 0)
    };
    let is_trusted = owner == 0 || is_remapped() || by_root();
    Marks::Overlay(if is_trusted { Namespace::Trusted } else { Namespace::User })
}
