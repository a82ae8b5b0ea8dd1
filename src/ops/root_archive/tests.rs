use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::check;
use super::contents::{CONTENTS, SUMS};
use crate::kernel::folder::{FileKind, Time};
use crate::ops::contents::archive::{Member, Writer, made};

/// An entry that somebody has put into an archive.
#[derive(Clone, Debug)]
struct Put {
    path: OsString,
    kind: FileKind,
    content: Vec<u8>,
    original: Option<PathBuf>,
}

fn put(path: &str, kind: FileKind) -> Put {
    Put { path: path.into(), kind, content: Vec::new(), original: None }
}

fn file(path: &str, text: &str) -> Put {
    Put { content: text.as_bytes().to_vec(), ..put(path, FileKind::File) }
}

fn write(out: &mut Writer<impl Write>, put: &Put) {
    let status = made(put.kind, 0o644, Time { seconds: 7, nanoseconds: 0 });
    let member = Member { path: Path::new(&put.path), status: &status, attributes: &[] };
    match (&put.original, put.kind) {
        (Some(original), _) => out.hard_link(member, original).unwrap(),
        (None, FileKind::File) => out.bytes(member, &put.content).unwrap(),
        (None, FileKind::Link) => out.other(member, Some(Path::new("/etc"))).unwrap(),
        (None, _) => out.other(member, None).unwrap(),
    }
}

const CONTAINER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// An archive with a part of most kinds.
struct Archive {
    contents: Value,
    /// Each part, and what is in it.
    parts: Vec<(String, Vec<Put>)>,
}

impl Archive {
    fn new() -> Self {
        let container = format!("containers/{CONTAINER}");
        let folder = |path: &str| put(path, FileKind::Directory);
        let parts = [
            ("image".to_owned(), vec![folder("image"), file("image/repositories.json", "{}")]),
            (container.clone(), vec![folder(&container), file(&format!("{container}/config.v2.json"), "{}")]),
            (
                "layers/aa/diff".to_owned(),
                vec![
                    folder("layers/aa/diff"),
                    file("layers/aa/diff/a", "1"),
                    put("layers/aa/diff/b", FileKind::Character),
                    folder("layers/aa/diff/c"),
                    file("layers/aa/diff/c/d", "2"),
                ],
            ),
            ("volumes/db".to_owned(), vec![folder("volumes/db"), folder("volumes/db/_data")]),
        ];
        let items = json!([
            {"is": "image"},
            {"is": "container", "id": CONTAINER, "name": "web"},
            {"is": "layer", "id": "aa", "of": "container web"},
            {"is": "volume", "name": "db"}
        ]);
        let contents = json!({
            "format": 1, "root": "/var/lib/docker", "driver": "devicemapper", "bytes": 3,
            "directories": {"": {"mode": 0o711, "uid": 0, "gid": 0}}, "items": items, "binds": [], "left_out": []
        });
        Self { contents, parts: parts.to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(Vec::new());
        let text = serde_json::to_vec(&self.contents).unwrap();
        let put = |name: &str, content: &[u8]| Put { content: content.to_vec(), ..put(name, FileKind::File) };
        write(&mut out, &put(CONTENTS, &text));
        let mut sums = BTreeMap::new();
        for (place, entries) in &self.parts {
            let start = out.inner().unwrap().len();
            entries.iter().for_each(|entry| write(&mut out, entry));
            sums.insert(place.clone(), format!("{:x}", Sha256::digest(&out.inner().unwrap()[start..])));
        }
        let sums = super::Sums::new(format!("{:x}", Sha256::digest(&text)), sums);
        write(&mut out, &put(SUMS, &serde_json::to_vec(&sums).unwrap()));
        let mut bytes = out.inner().unwrap().clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn checked(&self) -> Result<(), String> {
        checked(&self.bytes())
    }

    fn part(&mut self, number: usize) -> &mut Vec<Put> {
        &mut self.parts[number].1
    }
}

fn checked(bytes: &[u8]) -> Result<(), String> {
    let temp = tempfile::NamedTempFile::new().unwrap();
    fs::write(temp.path(), bytes).unwrap();
    check(temp.path()).map(drop).map_err(|failure| failure.what)
}

#[track_caller]
fn says(archive: &Archive, said: &str) {
    let why = archive.checked().unwrap_err();
    assert!(why.contains(said), "{said}: {why}");
}

#[test]
fn an_archive_that_is_whole_is_taken_and_each_damaged_byte_is_found() {
    let archive = Archive::new();
    archive.checked().unwrap();
    let bytes = archive.bytes();
    // What fills up the first and the last block is nobody's.
    let text = 512 + serde_json::to_vec(&archive.contents).unwrap().len();
    let sums = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let summed = (0..=sums).filter(|at| !(text..text.next_multiple_of(512)).contains(at));
    for at in summed {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        assert!(checked(&bytes).is_err(), "byte {at}");
    }
    for length in (0..bytes.len() - 1024).step_by(100) {
        checked(&bytes[..length]).unwrap_err();
    }
}

#[test]
fn what_is_damaged_is_named() {
    let archive = Archive::new();
    let bytes = archive.bytes();
    let at = |what: &[u8]| bytes.windows(what.len()).position(|found| found == what).unwrap();
    let damaged = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        checked(&bytes).unwrap_err()
    };
    let said = damaged(at(b"layers/aa/diff/a") + 512);
    assert!(said.contains("layer aa (container web) is damaged: its checksum is wrong"), "{said}");
    let said = damaged(at(b"volumes/db/_data"));
    assert!(said.contains("volume db: it is no tar archive, or damaged"), "{said}");
    let said = damaged(at(b"\"own\":\"") + 7);
    assert!(said.contains("dmpool-root-sums.json is damaged: its own sum is wrong"), "{said}");
    let said = damaged(at(b"\"volumes/db\":\"") + 14);
    assert!(said.contains("dmpool-root-sums.json is damaged"), "{said}");
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let with = |part: usize, change: &dyn Fn(&mut Vec<Put>)| {
        let mut archive = Archive::new();
        change(archive.part(part));
        archive
    };
    for path in ["../out", "/etc/passwd", "layers/aa/diff/../../../x", "layers/aa/diff/c/./../.."] {
        says(&with(2, &|part| part.push(file(path, "x"))), "leads out of it");
    }
    says(&with(2, &|part| part.push(file("layers/bb/diff", "x"))), "is not where it belongs");
    says(&with(2, &|part| part.push(file("layers/aa/diff/c/d", "x"))), "is in it twice");
    says(&with(2, &|part| part.push(file("layers/aa/diff/a", "x"))), "twice");
    // What was a file, or a link, is no directory.
    says(&with(2, &|part| part.insert(2, file("layers/aa/diff/a/x", "x"))), "is in no directory of it");
    says(
        &with(2, &|part| {
            part.push(put("layers/aa/diff/e", FileKind::Link));
            part.push(file("layers/aa/diff/e/passwd", "x"));
        }),
        "`layers/aa/diff/e/passwd` is in no directory of it",
    );
    let link = |to: &str| Put { original: Some(to.into()), ..put("layers/aa/diff/z", FileKind::File) };
    with(2, &|part| part.push(link("layers/aa/diff/a"))).checked().unwrap();
    says(&with(2, &|part| part.push(link("volumes/db/_data/a"))), "a file that is not of it");
    says(&with(2, &|part| part.push(link("../../etc/shadow"))), "leads out of it");
    // Docker's own files are files.
    for kind in [FileKind::Link, FileKind::Character, FileKind::Block, FileKind::Fifo] {
        let path = format!("containers/{CONTAINER}/hostname");
        says(&with(1, &|part| part.push(put(&path, kind))), "neither a file nor a directory");
        says(&with(0, &|part| part.push(put("image/x", kind))), "neither a file nor a directory");
        with(2, &|part| part.push(put("layers/aa/diff/z", kind))).checked().unwrap();
    }
    // What Docker acts upon when it starts.
    let folder = |path: &str| put(path, FileKind::Directory);
    let orphan = format!("image/layerdb/sha256/{CONTAINER}-x y-removing");
    says(
        &with(0, &|part| {
            part.splice(1..1, [folder("image/layerdb"), folder("image/layerdb/sha256"), folder(&orphan)]);
        }),
        "-x y-removing` is none that Docker needs in the database of layers",
    );
    says(&with(3, &|part| part[1].kind = FileKind::Link), "`volumes/db/_data` is no directory");
    for kind in [FileKind::Fifo, FileKind::Link, FileKind::Directory] {
        says(&with(3, &|part| part.push(put("volumes/db/opts.json", kind))), "is no plain small file");
    }
    with(3, &|part| part.push(file("volumes/db/opts.json", "{}"))).checked().unwrap();
    let long = |length: usize| format!("layers/aa/diff/z{}", "z".repeat(length - 16));
    with(2, &|part| part.push(file(&long(4096), ""))).checked().unwrap();
    says(&with(2, &|part| part.push(file(&long(4097), ""))), "a path in it is longer than 4096 bytes");
    let mut out = Writer::within(Vec::new(), 4096);
    let status = made(FileKind::File, 0o644, Time { seconds: 7, nanoseconds: 0 });
    let mut write = |path: &str| out.bytes(Member { path: Path::new(path), status: &status, attributes: &[] }, b"");
    write(&long(4096)).unwrap();
    assert_eq!(write(&long(4097)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    says(&with(3, &|part| part[0].kind = FileKind::Link), "`volumes/db` is not where it belongs");
    says(&with(3, &Vec::clear), "volume db is missing");
    says(&with(3, &|part| part.push(file("dmpool-root.json", "{}"))), "is not where it belongs");
}

#[test]
fn hostile_contents_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut archive = Archive::new();
        change(&mut archive.contents);
        archive
    };
    let item = |value: Value| with(&|contents| contents["items"].as_array_mut().unwrap().push(value.clone()));
    says(&item(json!({"is": "layer", "id": "aa", "of": "x"})), "twice");
    says(&item(json!({"is": "image"})), "has the image database twice");
    says(&item(json!({"is": "layer", "id": "bb", "of": "x"})), "layer bb (x) is missing");
    for id in ["..", "a/b", "", "l", "a.b"] {
        says(&item(json!({"is": "layer", "id": id, "of": "x"})), "is no name of a part");
    }
    for id in ["..", "short", "../../../../../../../../../../../../../../../../../../../../../../etc"] {
        says(&item(json!({"is": "container", "id": id, "name": null})), "is no name of a part");
    }
    for name in ["..", ".", "a/b", "", "metadata.db", "\u{1b}[2J"] {
        says(&item(json!({"is": "volume", "name": name})), "is no name of a part");
    }
    says(&item(json!({"is": "bind", "number": 0})), "is no name of a part");
    says(&item(json!({"is": "kernel"})), "unknown variant");
    says(&with(&|contents| contents["format"] = 2.into()), "format 2, which is not known");
    says(&with(&|contents| contents["items"] = json!([])), "is not where it belongs");
    says(&with(&|contents| contents["items"].as_array_mut().unwrap().swap(0, 1)), "is not where it belongs");
    let steering = with(&|contents| contents["items"][2]["of"] = "\u{1b}[2Jgone".into());
    let mut bytes = steering.bytes();
    let at = bytes.windows(16).position(|found| found == b"layers/aa/diff/a").unwrap();
    bytes[at + 512] ^= 1;
    let said = checked(&bytes).unwrap_err();
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_size_that_lies_ends_where_the_archive_ends() {
    let archive = Archive::new();
    let mut bytes = archive.bytes();
    let at = bytes.windows(16).position(|found| found == b"layers/aa/diff/a").unwrap();
    // The size of the entry, and the sum of its header anew.
    bytes[at + 124..at + 135].copy_from_slice(b"77777777777");
    bytes[at + 148..at + 156].fill(b' ');
    let sum: u32 = bytes[at..at + 512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let said = checked(&bytes).unwrap_err();
    assert!(said.contains("layer aa (container web): it is cut off"), "{said}");
}

#[test]
fn what_is_left_out_takes_only_what_nothing_else_needs() {
    let sandbox = crate::fuzzing::objects::root("20.10");
    let objects = crate::engine::docker_objects::read(&sandbox.root()).unwrap();
    let web = objects.containers.iter().find(|container| container.name() == Some("web")).unwrap();
    let store = objects.stores.iter().find(|store| store.mounts.contains_key(&web.id)).unwrap();
    let driver = crate::engine::driver::Driver::named(&store.driver).unwrap();
    let image = store.images.iter().find(|image| !image.tags.is_empty()).unwrap();
    let (tag, digits) = (image.tags[0].clone(), image.digits().to_owned());
    let mut less = objects.clone();
    let mut gone = super::taken::without(&mut less, driver, &["web".to_owned(), tag]).unwrap();
    super::taken::prune(&mut less, driver, &mut gone);
    assert!(gone.contains(&Path::new("layerdb/mounts").join(&web.id)));
    assert!(gone.contains(&Path::new("imagedb/content/sha256").join(digits)));
    assert!(less.containers.iter().all(|container| container.id != web.id));
    let left = less.stores.iter().find(|left| left.driver == store.driver).unwrap();
    assert_eq!((left.images.len() + 1, left.mounts.len() + 1), (store.images.len(), store.mounts.len()));
    // Whatever still stands on a layer keeps it, and those beneath.
    let tops = left.images.iter().filter_map(|image| image.top());
    for chain in tops.chain(left.mounts.values().filter_map(|mount| mount.parent.as_deref())) {
        assert_eq!(left.layers.contains_key(chain), store.layers.contains_key(chain), "{chain}");
    }
    let folder = |chain: &str| Path::new("layerdb").join(chain.replacen(':', "/", 1));
    for chain in store.layers.keys() {
        assert_ne!(left.layers.contains_key(chain), gone.contains(&folder(chain)), "{chain}");
    }
    assert!(super::taken::without(&mut less, driver, &["web".to_owned()]).is_err());
}

#[test]
fn an_image_that_is_left_out_has_no_name() {
    let json = json!({"Repositories": {
        "web": {"web:1": "sha256:aa", "web:2": "sha256:bb", "web@sha256:cc": "sha256:aa"},
        "db": {"db:1": "sha256:aa"}
    }});
    let gone = [Path::new("imagedb/content/sha256/aa").to_owned()].into_iter().collect();
    let left = super::taken::names_left(json.to_string().as_bytes(), &gone).unwrap();
    let left: Value = serde_json::from_slice(&left).unwrap();
    assert_eq!(left, json!({"Repositories": {"web": {"web:2": "sha256:bb"}}}));
    assert_eq!(super::taken::names_left(b"none", &gone), None);
}

#[test]
fn what_is_somebodys_is_no_empty_root() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("volumes/.backup")).unwrap();
    let load = || {
        super::load(&root, Path::new("/none.tar"), &super::Asked::Overlay2, &crate::ops::State::default())
            .map(drop)
            .unwrap_err()
    };
    for file in ["volumes/dump.sql", "volumes/.backup/db.tar"] {
        fs::write(root.join(file), "mine").unwrap();
        let failure = load();
        assert!(failure.what.contains("it is not empty"), "{failure:?}");
        assert!(format!("{failure:?}").contains(file), "{failure:?}");
        assert_eq!(fs::read(root.join(file)).unwrap(), b"mine");
        fs::remove_file(root.join(file)).unwrap();
    }
    assert!(!load().what.contains("it is not empty"));
}

/// A root of which some is missing or cannot be read, and what a save says of it.
fn saved(change: &dyn Fn(&Path), damaged: bool) -> Result<Vec<String>, String> {
    let sandbox = crate::fuzzing::objects::root("20.10");
    change(&sandbox.root());
    let objects = crate::engine::docker_objects::read(&sandbox.root()).unwrap();
    let options = super::Options { damaged, ..super::Options::default() };
    let reach = crate::ops::contents::source::Reach::default();
    let save = super::save(objects, &reach, &options).map_err(|failure| format!("{failure:?}"))?;
    let items = save.contents().items.iter().map(ToString::to_string);
    Ok(items.chain(save.contents().left_out.iter().cloned()).collect())
}

#[test]
fn what_cannot_be_read_ends_a_save_or_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let has = |found: &[String], what: &str| found.iter().any(|line| line.contains(what));
    let whole = saved(&|_| (), false).unwrap();
    assert!(has(&whole, "volume named"), "{whole:?}");
    let elsewhere = |root: &Path| {
        fs::rename(root.join("volumes"), root.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", root.join("volumes")).unwrap();
    };
    let refused = saved(&elsewhere, false).unwrap_err();
    assert!(refused.contains("volumes: it is a symbolic link to elsewhere, which is not followed"), "{refused}");
    let found = saved(&elsewhere, true).unwrap();
    assert!(has(&found, "volumes: it is a symbolic link") && !found.contains(&"volume named".to_owned()), "{found:?}");
    let database = |root: &Path| {
        fs::create_dir_all(root.join("network/files")).unwrap();
        fs::write(root.join("network/files/local-kv.db"), "none").unwrap();
    };
    assert!(saved(&database, false).unwrap_err().contains("local-kv.db"));
    let found = saved(&database, true).unwrap();
    assert!(!found.contains(&"the network database".to_owned()) && has(&found, "local-kv.db"), "{found:?}");
    let fifo = |root: &Path| {
        fs::remove_file(root.join("volumes/named/opts.json")).unwrap();
        fs::create_dir(root.join("volumes/named/opts.json")).unwrap();
    };
    assert!(saved(&fifo, false).unwrap_err().contains("named/opts.json"));
    assert!(has(&saved(&fifo, true).unwrap(), "volume named"));
    let found = saved(&|root| fs::remove_dir_all(root.join("volumes")).unwrap(), false).unwrap();
    assert!(has(&found, "has mounted: it is missing in the root"), "{found:?}");
}

#[test]
fn what_docker_has_left_of_layers_is_no_hindrance() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let left = |root: &Path| {
        let layers = root.join("image/devicemapper/layerdb/sha256");
        for name in [format!("{CONTAINER}-0-removing"), CONTAINER.to_owned()] {
            fs::create_dir(layers.join(&name)).unwrap();
            fs::write(layers.join(&name).join("cache-id"), "../../../../etc").unwrap();
        }
    };
    let found = saved(&left, false).unwrap();
    for name in [format!("{CONTAINER}-0-removing"), CONTAINER.to_owned()] {
        assert!(found.iter().any(|line| line.starts_with(&format!("layer sha256:{name}: no image"))), "{found:?}");
    }
}
