//! What of its own files Docker needs, and what it would take for something to be done: it acts on what it finds in its root.

use std::path::Path;

use crate::engine::docker_objects::is_id;
use crate::ops::contents::overlay2::is_name;

/// The files of an image's layer, and of a container's (layer/filestore.go).
const LAYER: [&str; 6] = ["cache-id", "descriptor.json", "diff", "parent", "size", "tar-split.json.gz"];
const MOUNT: [&str; 3] = ["init-id", "mount-id", "parent"];

/// Whether a path below `image/DRIVER` is one that Docker needs. In the database of layers that is few: when it starts it removes the layer
/// that a file in a folder `…-removing` names, by whatever path (`getOrphan`, layer/filestore.go).
pub(super) fn is_of_images(path: &Path) -> bool {
    let names: Option<Vec<&str>> = path.iter().map(|name| name.to_str()).collect();
    match names.as_deref() {
        Some(["layerdb"] | ["layerdb", "sha256" | "mounts"]) => true,
        Some(["layerdb", "sha256", id, rest @ ..]) => is_id(id) && is_one_of(rest, &LAYER),
        Some(["layerdb", "mounts", name, rest @ ..]) => is_name(name) && is_one_of(rest, &MOUNT),
        _ => !path.starts_with("layerdb"),
    }
}

fn is_one_of(rest: &[&str], files: &[&str]) -> bool {
    match rest {
        [] => true,
        [file] => files.contains(file),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_layers_has_layers_alone() {
        let id = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let is = |path: String| is_of_images(Path::new(&path));
        let good = ["repositories.json", "imagedb/content/sha256/x", "layerdb", "layerdb/sha256", "layerdb/mounts"];
        assert!(good.iter().all(|path| is((*path).to_owned())));
        assert!(is(format!("layerdb/sha256/{id}/cache-id")) && is(format!("layerdb/mounts/{id}/mount-id")));
        assert!(is("layerdb/mounts/x1uzpdkaq8tpbnlmz2dpoc7jn".to_owned()));
        for bad in [
            format!("layerdb/sha256/{id}-x y-removing"),
            format!("layerdb/sha256/{id}-0-removing/cache-id"),
            format!("layerdb/sha256/{id}/cache-id/x"),
            format!("layerdb/sha256/{id}/other"),
            format!("layerdb/sha512/{id}"),
            "layerdb/mounts/.hidden/mount-id".to_owned(),
            "layerdb/tmp".to_owned(),
        ] {
            assert!(!is(bad.clone()), "{bad}");
        }
    }
}
