use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_64_GO_ISO, Crc};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::engine::docker_objects;
use crate::ops::contents::layer::Piece;
use crate::process;

/// A root of the driver vfs with the image `one:1`, whose layer came as `tar`.
struct Root {
    temp: TempDir,
    tar: Vec<u8>,
    id: String,
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// What Docker writes of a tar beside its files.
fn split(tar: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut from = 0;
    let payload = |bytes: &[u8]| STANDARD.encode(bytes);
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let entry = entry.unwrap();
        let size = usize::try_from(entry.size()).unwrap();
        if entry.header().entry_type() == tar::EntryType::Regular && size > 0 {
            let at = usize::try_from(entry.raw_file_position()).unwrap();
            let crc = Crc::<u64>::new(&CRC_64_GO_ISO).checksum(&tar[at..at + size]).to_be_bytes();
            lines.push(json!({"type": 2, "payload": payload(&tar[from..at]), "position": lines.len()}));
            let mut file = json!({"type": 1, "size": size, "payload": payload(&crc), "position": lines.len()});
            match String::from_utf8(entry.path_bytes().into_owned()) {
                Ok(name) => file["name"] = name.into(),
                Err(raw) => file["name_raw"] = payload(raw.as_bytes()).into(),
            }
            lines.push(file);
            from = at + size;
        }
    }
    lines.push(json!({"type": 2, "payload": payload(&tar[from..]), "position": lines.len()}));
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    lines.iter().for_each(|line| writeln!(packed, "{line}").unwrap());
    packed.finish().unwrap()
}

impl Root {
    fn new(format: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let files = temp.path().join("vfs/dir/cache");
        fs::create_dir_all(files.join("real/deep")).unwrap();
        fs::create_dir_all(files.join("d".repeat(90))).unwrap();
        fs::write(files.join("real/deep/file"), "x".repeat(1000)).unwrap();
        fs::write(files.join("real/empty"), "").unwrap();
        fs::write(files.join("d".repeat(90)).join("long name"), "y").unwrap();
        fs::write(files.join(OsStr::from_bytes(b"no\xfftext")), "z").unwrap();
        fs::hard_link(files.join("real/deep/file"), files.join("real/link")).unwrap();
        symlink("/etc", files.join("etc")).unwrap();
        let sparse = fs::File::create(files.join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 100_000).unwrap();
        sparse.set_len(300_000).unwrap();
        let mut words = vec![OsStr::new("-C"), files.as_os_str()];
        words.extend(["-cf", "-", "--sort=name", format, "--xattrs", "."].map(OsStr::new));
        let tar = process::run("tar", &words).unwrap();
        let diff = format!("sha256:{}", hex(&tar));
        let config = json!({"created": "2020-01-01T00:00:00Z", "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff]}})
        .to_string();
        let id = hex(config.as_bytes());
        let root = Self { temp, tar, id };
        let layer = format!("image/vfs/layerdb/{}", diff.replace(':', "/"));
        for (name, content) in [("diff", diff.as_bytes()), ("cache-id", b"cache"), ("size", b"301002")] {
            root.write(&format!("{layer}/{name}"), content);
        }
        root.write(&format!("{layer}/tar-split.json.gz"), &split(&root.tar));
        root.write(&format!("image/vfs/imagedb/content/sha256/{}", root.id), config.as_bytes());
        let names = json!({"Repositories": {"one": {"one:1": format!("sha256:{}", root.id), "one:2": format!("sha256:{}", root.id)}}});
        root.write("image/vfs/repositories.json", names.to_string().as_bytes());
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn tar_split(&self) -> String {
        format!("image/vfs/layerdb/sha256/{}/tar-split.json.gz", hex(&self.tar))
    }

    /// The archive, or why there is none.
    fn save(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let objects = docker_objects::read(self.temp.path()).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let reach = Reach::default();
        let save = save(&objects, &names, &reach).map_err(|failure| failure.what)?;
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        match save.write(&mut out) {
            Ok(()) => out.finish().unwrap(),
            Err(Unsaved::Source(failure)) => return Err(failure.what),
            Err(Unsaved::Output(e)) => panic!("{e}"),
        }
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            assert!(found.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content).is_none());
        }
        Ok(found)
    }
}

#[test]
fn a_layer_comes_out_byte_for_byte_whatever_wrote_its_tar() {
    for format in ["--format=gnu", "--format=pax", "--format=ustar"] {
        let root = Root::new(format);
        let layer = hex(&root.tar);
        let found = root.save(&["one"]).unwrap();
        assert!(found[&format!("{layer}/layer.tar")] == root.tar, "{format}");
        assert_eq!(hex(&found[&format!("{}.json", root.id)]), root.id);
        let manifest: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
        let wanted = json!([{"Config": format!("{}.json", root.id), "RepoTags": ["one:1", "one:2"],
            "Layers": [format!("{layer}/layer.tar")]}]);
        assert_eq!(manifest, wanted);
        let repositories: Value = serde_json::from_slice(&found["repositories"]).unwrap();
        assert_eq!(repositories, json!({"one": {"1": layer, "2": layer}}));
        let before: Value = serde_json::from_slice(&found[&format!("{layer}/json")]).unwrap();
        assert_eq!((&before["id"], &before["config"]["Cmd"][0]), (&layer.into(), &"sh".into()));
    }
}

#[test]
fn names_mean_what_they_mean_to_docker_save() {
    let root = Root::new("--format=gnu");
    let tags = |names: &[&str]| {
        let manifest: Value = serde_json::from_slice(&root.save(names).unwrap()["manifest.json"]).unwrap();
        assert_eq!(manifest.as_array().unwrap().len(), 1);
        manifest[0]["RepoTags"].clone()
    };
    assert_eq!(tags(&["one:2"]), json!(["one:2"]));
    assert_eq!(tags(&["one:2", "docker.io/library/one:1", "one:2"]), json!(["one:2", "one:1"]));
    assert_eq!(tags(&[&root.id[..7]]), json!([]));
    assert!(!root.save(&[&root.id]).unwrap().contains_key("repositories"));
    assert!(root.save(&["one:3"]).is_err() && root.save(&["on"]).is_err());
}

#[test]
fn what_does_not_come_out_as_it_was_is_named_and_makes_no_archive() {
    let changed = |change: &dyn Fn(&Root)| {
        let root = Root::new("--format=gnu");
        change(&root);
        root.save(&["one"]).unwrap_err()
    };
    let file = "vfs/dir/cache/real/deep/file";
    let why = changed(&|root| root.write(file, "X".repeat(1000).as_bytes()));
    assert!(why.starts_with("cannot save image `one:1`: its layer sha256:"), "{why}");
    assert!(why.ends_with("`/real/deep/file`: its content is not what it was: the checksum differs"), "{why}");
    let why = changed(&|root| root.write(file, b"short"));
    assert!(why.ends_with("`/real/deep/file`: it has 5 bytes, and had 1000"), "{why}");
    let why = changed(&|root| fs::remove_file(root.path(file)).unwrap());
    assert!(why.ends_with("`/real/deep/file`: there is no /real/deep/file"), "{why}");
    // A link that leads out leads nowhere.
    let why = changed(&|root| {
        fs::rename(root.path("vfs/dir/cache/real"), root.path("outside")).unwrap();
        symlink("../../../outside", root.path("vfs/dir/cache/real")).unwrap();
    });
    assert!(why.ends_with("`/real/deep/file`: there is no /outside"), "{why}");
    let why = changed(&|root| fs::remove_file(root.path(&root.tar_split())).unwrap());
    assert!(why.contains("tar-split.json.gz is missing"), "{why}");
    let why = changed(&|root| root.write(&root.tar_split(), b"no gzip"));
    assert!(why.contains("tar-split.json.gz cannot be read"), "{why}");
    let why = changed(&|root| {
        let mut tar = root.tar.clone();
        *tar.last_mut().unwrap() = 1;
        root.write(&root.tar_split(), &split(&tar));
    });
    assert!(why.contains("its digest would be sha256:"), "{why}");
    let why = changed(&|root| root.write(&format!("image/vfs/imagedb/content/sha256/{}", root.id), b"{}"));
    assert!(why.contains("its configuration is damaged"), "{why}");
}

#[test]
fn lines_are_read_as_they_are_written() {
    let read = |line: &str| Piece::parse(line.as_bytes());
    assert_eq!(read(r#"{"type":2,"payload":"YWI=","position":0}"#), Ok(Piece::Bytes(b"ab".to_vec())));
    assert_eq!(read(r#"{"type":1,"name":"./","payload":null,"position":1}"#), Ok(Piece::Nothing));
    let file = Piece::File { name: b"a\xff".to_vec(), size: 7, crc: Some(1) };
    assert_eq!(
        read(r#"{"type":1,"name":"a","name_raw":"Yf8=","size":7,"payload":"AAAAAAAAAAE=","position":2}"#),
        Ok(file)
    );
    for wrong in ["", "{}", r#"{"type":3}"#, r#"{"type":1,"name":"a","size":-1}"#, r#"{"type":2,"payload":"?"}"#] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
