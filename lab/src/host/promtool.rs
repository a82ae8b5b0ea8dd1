//! Prometheus' own checker of metrics and rules, for guests: one program out of Debian's package `prometheus`.
//!
//! The rest of the package stays out of the guests' root image, which would be made anew and be larger by 100 MB.

use std::fs;
use std::path::PathBuf;

use super::cache;
use super::debian::Suite;
use super::image;
use super::place::Places;
use super::show;
use super::trouble::{OrTrouble, Result};

/// The program's file, fetched if it is not there.
///
/// # Errors
/// When it cannot be fetched.
pub fn file(places: &Places) -> Result<PathBuf> {
    let recipe = format!("1 {}", image::ROOT_SUITE);
    let piece = cache::piece(&places.cache(), "promtool", &recipe, |folder| {
        show::step("fetching promtool, which checks metrics (Debian's package prometheus)", || {
            let tree = folder.join("tree");
            fs::create_dir(&tree).or_trouble(|| format!("cannot create `{}`", tree.display()))?;
            Suite::open(&places.lab(), image::ROOT_SUITE)?.unpack(&["prometheus"], &tree)?;
            let (from, to) = (tree.join("usr/bin/promtool"), folder.join("promtool"));
            fs::rename(&from, &to).or_trouble(|| format!("cannot move `{}`", from.display()))?;
            fs::remove_dir_all(&tree).or_trouble(|| format!("cannot remove `{}`", tree.display()))
        })
    })?;
    Ok(piece.join("promtool"))
}
