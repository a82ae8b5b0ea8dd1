//! Whether somebody has used a Docker root since it was last looked at: told by its files, with no daemon.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::engine::small_file;

/// More than `config.v2.json` or `repositories.json` ever has.
const LONGEST: u64 = 32 << 20;
/// A container's own file: from Docker 1.10 on, and before.
const CONFIGS: [&str; 2] = ["config.v2.json", "config.json"];

/// Docker's networks, which it writes whenever it starts, after all of its storage is there and before it answers.
const NETWORKS: &str = "network/files/local-kv.db";

/// What would be another had Docker come so far as to answer, a container run, or an image or container been made or removed: by name.
pub type Marks = BTreeMap<String, String>;

/// Looks at a root: when each container was started last, what tags there are, which images, and when what a container has was mounted.
pub fn look(root: &Path) -> Marks {
    let mut marks = Marks::new();
    for id in names(&root.join("containers")) {
        let folder = root.join("containers").join(&id);
        let config = CONFIGS.iter().find_map(|name| small_file::read_at(&folder.join(name), LONGEST).ok());
        let json: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let started = json.as_ref().and_then(|json| json.pointer("/State/StartedAt")).and_then(Value::as_str);
        marks.insert(format!("container {id}"), started.unwrap_or_default().to_owned());
    }
    for driver in names(&root.join("image")) {
        let image = root.join("image").join(&driver);
        let tags = small_file::read_at(&image.join("repositories.json"), LONGEST).unwrap_or_default();
        marks.insert(format!("tags of {driver}"), format!("{:x}", Sha256::digest(tags)));
        let images = names(&image.join("imagedb/content/sha256")).join(" ");
        marks.insert(format!("images of {driver}"), format!("{:x}", Sha256::digest(images)));
    }
    marks.insert("Docker's networks".to_owned(), written(&root.join(NETWORKS)));
    // A mount makes a folder in them, and the kernel another one in `work`.
    for layer in names(&root.join("overlay2")) {
        let folder = root.join("overlay2").join(&layer);
        marks.insert(format!("layer {layer}"), format!("{} {}", written(&folder), written(&folder.join("work"))));
    }
    marks.insert("mounts of volumes".to_owned(), written(&root.join("devicemapper/mnt")));
    marks
}

/// Returns when a file or folder was last written; nothing when it is not there.
fn written(path: &Path) -> String {
    path.symlink_metadata()
        .map_or_else(|_| String::new(), |found| format!("{}.{:09}", found.mtime(), found.mtime_nsec()))
}

/// Returns what is not as it was, each a few words; nothing when all is.
pub fn differences(before: &Marks, after: &Marks) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_start_and_a_new_image_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let (folder, image) = (root.path().join("containers/c1"), root.path().join("image/overlay2"));
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(image.join("imagedb/content/sha256")).unwrap();
        let started = |at: &str| {
            fs::write(folder.join("config.v2.json"), format!("{{\"State\": {{\"StartedAt\": \"{at}\"}}}}")).unwrap();
            look(root.path())
        };
        let before = started("then");
        assert_eq!(differences(&before, &started("then")), Vec::<String>::new());
        fs::write(image.join("imagedb/content/sha256/x"), "").unwrap();
        assert_eq!(differences(&before, &started("since")), ["container c1", "images of overlay2"]);
        assert_eq!(look(Path::new("/no-such-root")).into_values().collect::<String>(), "");
    }

    #[test]
    fn a_docker_that_came_up_and_a_layer_that_was_mounted_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("overlay2/x/work");
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(root.path().join("network/files")).unwrap();
        let networks = root.path().join(NETWORKS);
        fs::write(&networks, "").unwrap();
        let before = look(root.path());
        assert_eq!(differences(&before, &look(root.path())), Vec::<String>::new());
        let touch = |path: &Path| fs::File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        touch(&networks);
        touch(&work);
        assert_eq!(differences(&before, &look(root.path())), ["Docker's networks", "layer x"]);
    }
}
