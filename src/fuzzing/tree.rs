//! Whole Docker roots, made of files that the input describes.
//!
//! Each line of the input is one name in the root: which (a key of [`PLACES`], else a device's file of that name), a
//! blank, what it is (`=` a file, `>` a symbolic link, `/` a directory, `|` a FIFO, `#` a file that is a gigabyte long),
//! and for files their content, for links where they lead (a word of [`TARGETS`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::text;
use crate::engine::bookkeeping::{self, Device};
use crate::engine::docker_root::{About, DeviceCounts, DockerRoot, Standing, read_if_there};
use crate::ops::health::owners::Owners;

/// Names of places in a root.
const PLACES: [(&str, &str); 14] = [
    ("home", "devicemapper"),
    ("setup", "devicemapper/setup-config.json"),
    ("files", "devicemapper/devicemapper"),
    ("data", "devicemapper/devicemapper/data"),
    ("metadata", "devicemapper/devicemapper/metadata"),
    ("records", "devicemapper/metadata"),
    ("image", "image"),
    ("buildkit", "buildkit"),
    ("containers", "containers"),
    ("container", "containers/c1"),
    ("config", "containers/c1/config.v2.json"),
    ("mounts", "image/devicemapper/layerdb/mounts"),
    ("mount", "image/devicemapper/layerdb/mounts/c1"),
    ("mount-id", "image/devicemapper/layerdb/mounts/c1/mount-id"),
];

/// Where the devices' files are.
const RECORDS: &str = "devicemapper/metadata";

/// Where links may lead: to files and folders beside the root that hold the secret, or nowhere.
const TARGETS: [&str; 5] = ["secret", "folder", "fifo", "itself", "nowhere"];

/// What stands in every file outside of the root.
const SECRET: &str = "a-secret-beside-the-root";
const SECRET_NUMBER: u64 = 7_465_983_210_457;

#[derive(Clone, Debug)]
pub(super) enum Thing {
    File(Vec<u8>),
    Link(&'static str),
    Directory,
    Fifo,
    Huge,
}

impl Thing {
    /// Returns what a line of the input says is there; nothing for a word that is none of this.
    pub(super) fn of(kind: &[u8], content: &[u8]) -> Option<Self> {
        Some(match kind {
            b"=" => Self::File(content.to_vec()),
            b">" => Self::Link(TARGETS.iter().find(|word| word.as_bytes() == content).unwrap_or(&"nowhere")),
            b"/" => Self::Directory,
            b"|" => Self::Fifo,
            b"#" => Self::Huge,
            _ => return None,
        })
    }
}

/// A root that is removed again.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(super) path: PathBuf,
}

impl Sandbox {
    pub(crate) fn root(&self) -> PathBuf {
        self.path.join("root")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Links are removed, not followed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The root is read without harm; nothing beside it is; and what is there and not taken over is named.
pub(super) fn docker_root(bytes: &[u8]) -> bool {
    let things = things(bytes);
    // Where no temporary files can be made, nothing is learned, and nothing is wrong.
    lay_out(&things, &["devicemapper/metadata"]).is_ok_and(|sandbox| check(&things, &sandbox, bytes))
}

fn check(things: &BTreeMap<PathBuf, Thing>, sandbox: &Sandbox, bytes: &[u8]) -> bool {
    let path = sandbox.path.join("root");
    let Ok(Some(root)) = read_if_there(&path, About::only(Standing::Named)) else { return false };
    let counts = root.count_devices();
    let owners = Owners::read(&root);
    let seen = format!("{root:?} {counts:?} {owners:?}");
    assert!(!is_led_out(&seen, bytes), "it was led out: {seen}");
    all_is_named(things, &root, counts.as_ref().ok());
    true
}

fn all_is_named(things: &BTreeMap<PathBuf, Thing>, root: &DockerRoot, counts: Option<&DeviceCounts>) {
    let is_real = |path: &Path| match things.get(path) {
        None | Some(Thing::Directory) => true,
        Some(_) => false,
    };
    let named = |path: &str| root.problems.iter().any(|p| p.path == root.path.join(path));
    for folder in ["devicemapper", "devicemapper/devicemapper", "devicemapper/metadata"] {
        if !is_real(Path::new(folder)) {
            assert!(named(folder), "{folder} is not what it must be, and nobody is told: {:?}", root.problems);
            return;
        }
    }
    assert!(counts.is_some(), "the records are in a folder, and could not be listed");
    let Some(counts) = counts else { return };
    let record = |path: &Path| path.strip_prefix(RECORDS).ok().and_then(Path::to_str).unwrap_or_default().to_owned();
    let is_device = |name: &str| !name.is_empty() && bookkeeping::is_device_file(name);
    let has_devices = things.keys().map(|path| record(path)).any(|name| name != bookkeeping::BASE && is_device(&name));
    let must_be = |path: &str| path.starts_with(RECORDS);
    for (path, is_read) in [
        ("devicemapper/setup-config.json", root.direct_lvm.is_some()),
        ("devicemapper/metadata/base", root.base.is_some()),
        ("devicemapper/metadata/deviceset-metadata", root.device_set.is_some()),
        ("devicemapper/metadata/transaction-metadata", root.transaction.is_some()),
    ] {
        let must_be_named = !is_read && (things.contains_key(Path::new(path)) || (must_be(path) && has_devices));
        assert_eq!(must_be_named, named(path), "{path}: {:?}", root.problems);
    }
    let mut ids = BTreeMap::<u32, usize>::new();
    let (mut devices, mut broken) = (0, 0);
    for (path, thing) in things {
        if is_device(&record(path)) {
            devices += 1;
            match thing {
                Thing::File(json) if json.len() <= 64 << 10 => match Device::parse(json) {
                    Ok(device) => *ids.entry(device.id).or_default() += 1,
                    Err(_) => broken += 1,
                },
                _ => broken += 1,
            }
        }
    }
    let twice: usize = ids.values().map(|count| count - 1).sum();
    assert_eq!((counts.all, counts.problems.len(), counts.duplicates.len()), (devices, broken, twice));
}

/// Reads the input; the last line about a place counts.
fn things(bytes: &[u8]) -> BTreeMap<PathBuf, Thing> {
    let mut things = BTreeMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let mut words = line.splitn(3, |b| *b == b' ');
        let (Some(place), Some(kind)) = (words.next().map(text), words.next()) else { continue };
        let content = words.next().unwrap_or_default();
        let named = PLACES.iter().find(|(key, _)| *key == place).map(|(_, path)| PathBuf::from(path));
        let is_name = !place.is_empty() && place.len() < 200 && place != "." && place != "..";
        let of_device = is_name && !place.contains(['/', '\0']);
        let Some(path) = named.or_else(|| of_device.then(|| Path::new(RECORDS).join(place))) else {
            continue;
        };
        if let Some(thing) = Thing::of(kind, content) {
            things.insert(path, thing);
        }
    }
    drop_impossible(&mut things);
    things
}

/// What would have to be below something that is no directory cannot be made.
pub(super) fn drop_impossible(things: &mut BTreeMap<PathBuf, Thing>) {
    let below_no_directory =
        |path: &Path| path.ancestors().skip(1).any(|a| things.get(a).is_some_and(|t| !matches!(t, Thing::Directory)));
    let lost: Vec<PathBuf> = things.keys().filter(|path| below_no_directory(path)).cloned().collect();
    lost.iter().for_each(|path| drop(things.remove(path)));
}

/// Whether a text has what stands outside of the root, though the input does not.
pub(super) fn is_led_out(seen: &str, bytes: &[u8]) -> bool {
    let given = text(bytes);
    let is_in = |text: &str| text.contains(SECRET) || text.contains(&SECRET_NUMBER.to_string());
    !is_in(&given) && is_in(seen)
}

/// Makes a root of these, and of folders that it has in any case.
pub(super) fn lay_out(things: &BTreeMap<PathBuf, Thing>, folders: &[&str]) -> io::Result<Sandbox> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("dmpool-test-root-{}-{number}", std::process::id());
    // A whole root is made for every input: in memory, where there is such a place.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let sandbox = Sandbox { path: place.join(name) };
    let outside = sandbox.path.join("outside");
    let secret = format!(
        "{{\"device_id\":1,\"size\":{SECRET_NUMBER},\"transaction_id\":1,\"BaseDeviceUUID\":\"{SECRET}\",\"next_device_id\":1,\
         \"open_transaction_id\":1,\"device_hash\":\"{SECRET}\",\"Device\":\"{SECRET}\",\"Name\":\"{SECRET}\"}}"
    );
    fs::create_dir_all(outside.join("folder/c1"))?;
    fs::create_dir_all(sandbox.root())?;
    folders.iter().try_for_each(|folder| fs::create_dir_all(sandbox.root().join(folder)))?;
    let files = ["secret", "folder/base", "folder/deviceset-metadata", "folder/transaction-metadata", "folder/aa"];
    for file in files.into_iter().chain(["folder/c1/config.v2.json", "folder/c1/mount-id", "folder/config.v2.json"]) {
        fs::write(outside.join(file), &secret)?;
    }
    mkfifo(&outside.join("fifo"), Mode::S_IRUSR)?;
    for (path, thing) in things {
        make(&sandbox.path.join("root").join(path), thing, &outside)?;
    }
    Ok(sandbox)
}

/// Makes one name; its folders are real ones.
fn make(path: &Path, thing: &Thing, outside: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if !matches!(thing, Thing::Directory) && path.is_dir() {
        // The folders that every root has, empty so far.
        fs::remove_dir_all(path)?;
    }
    match thing {
        Thing::File(content) => fs::write(path, content),
        Thing::Link("itself") => symlink(path.file_name().unwrap_or_default(), path),
        Thing::Link(target) => symlink(outside.join(target), path),
        Thing::Directory => fs::create_dir_all(path),
        Thing::Fifo => mkfifo(path, Mode::S_IRUSR).map_err(io::Error::from),
        Thing::Huge => fs::File::create(path)?.set_len(1 << 30),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    #[test]
    fn nothing_beside_a_root_is_opened_whatever_leads_there() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/docker_root");
        for seed in fs::read_dir(seeds).unwrap() {
            let seed = seed.unwrap().path();
            let bytes = fs::read(&seed).unwrap();
            let things = things(&bytes);
            let sandbox = lay_out(&things, &["devicemapper/metadata"]).unwrap();
            let outside = sandbox.path.join("outside");
            let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
            for folder in ["", "folder", "folder/c1"] {
                watch.add_watch(&outside.join(folder), AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS).unwrap();
            }
            check(&things, &sandbox, &bytes);
            assert_eq!(watch.read_events().err(), Some(nix::Error::EAGAIN), "{}", seed.display());
            fs::read(outside.join("secret")).unwrap();
            assert!(!watch.read_events().unwrap().is_empty(), "the watch sees nothing");
        }
    }
}
