//! How drivers write down which layers lie below one.

use std::path::{Component, Path};

/// Docker puts at most 125 layers on each other (layer/layer.go, `maxLayerDepth`), and two of the container's own.
const MOST: usize = 256;
/// No such file is longer: 256 ids with their separators.
pub(super) const LONGEST: u64 = 32 << 10;

/// Reads overlay2's `lower`: `l/SHORT:l/SHORT`, top first. What is no such name is an error, by itself; so is the first that
/// is too many.
pub fn lower_links(text: &str) -> Vec<Result<String, String>> {
    let text = text.trim();
    let names = text.split(':').filter(|_| !text.is_empty()).enumerate().take(MOST + 1);
    names
        .map(|(at, name)| match name.strip_prefix("l/").filter(|short| at < MOST && is_name(short)) {
            Some(short) => Ok(short.to_owned()),
            None => Err(name.to_owned()),
        })
        .collect()
}

/// Returns the layer that a link in overlay2's `l` leads to: `../CACHE-ID/diff`, and nothing else counts.
pub fn cache_id(target: &Path) -> Option<String> {
    let parts: Vec<_> = target.components().collect();
    match parts.as_slice() {
        [Component::ParentDir, Component::Normal(id), Component::Normal(diff)] if *diff == "diff" => {
            id.to_str().filter(|id| is_name(id)).map(str::to_owned)
        }
        _ => None,
    }
}

/// Reads the names of the layers below one of aufs's, top first; errors as in [`lower_links`].
pub fn aufs_layers(text: &str) -> Vec<Result<String, String>> {
    let names = text.lines().map(str::trim).enumerate().take(MOST + 1);
    names
        .map(|(at, name)| if at < MOST && is_name(name) { Ok(name.to_owned()) } else { Err(name.to_owned()) })
        .collect()
}

/// Whether a text is one name that Docker gives to a folder, so that it leads nowhere else.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
