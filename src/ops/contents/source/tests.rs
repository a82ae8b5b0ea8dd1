#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::*;
use crate::engine::docker_objects::{self, Container, Objects};
use crate::ops::contents::archive::Remark;
use crate::ops::contents::tree::{Follow, Walk};
use crate::ops::rescue::copy::{self, Wanted};
use crate::process;

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const MOUNT: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A root with the container `web`.
struct Root {
    temp: TempDir,
    objects: Objects,
}

impl Root {
    fn make(driver: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rescue/make.sh");
        process::run("sh", &[script.as_os_str(), OsStr::new(driver), temp.path().as_os_str()]).unwrap();
        let objects = docker_objects::read(temp.path()).unwrap();
        Self { temp, objects }
    }

    fn web(&self) -> &Container {
        self.objects.containers.iter().find(|container| container.name() == Some("web")).unwrap()
    }

    fn paths(&self) -> (Vec<String>, Vec<String>) {
        let Opened { tree, lost, .. } = copy::files(&self.objects, self.web(), &Reach::default()).unwrap();
        let root = tree.root_node().unwrap();
        let paths = Walk::below(&tree, Path::new(""), &root).map(|entry| entry.unwrap().path.display().to_string());
        (paths.collect(), lost)
    }

    fn diff(&self) -> Vec<String> {
        let (mut changes, mut told) = (Vec::new(), Vec::new());
        let mut take = |change: crate::ops::contents::archive::Change| {
            changes.push(format!("{} /{}", change.kind.letter(), change.path.display()));
            true
        };
        copy::diff(&self.objects, self.web(), &Reach::default(), &mut take, &mut |remark| told.push(remark)).unwrap();
        assert_eq!(told, []);
        changes
    }

    fn cp(&self, path: &str, to: &Path) -> Vec<String> {
        let wanted = Wanted { path: Path::new(path), follow: Follow::Parents };
        let picked =
            copy::pick(&self.objects, self.web(), &wanted, &Reach::default()).unwrap_or_else(|e| panic!("{}", e.what));
        let mut told = Vec::new();
        let tell = &mut |remark: Remark| told.push(remark.to_string());
        picked.to_directory(&self.objects, to, tell).unwrap_or_else(|e| panic!("{}", e.what));
        told
    }
}

#[test]
fn a_container_has_the_same_files_in_every_driver() {
    for driver in ["overlay2", "overlay", "aufs", "vfs"] {
        let root = Root::make(driver);
        let (paths, lost) = root.paths();
        assert_eq!(
            paths,
            [
                ".dockerenv",
                "bin",
                "covered",
                "covered/new",
                "etc",
                "etc/added",
                "etc/hosts",
                "etc/passwd",
                "log",
                "log/a",
                "log/b",
            ],
            "{driver}"
        );
        assert_eq!(lost, Vec::<String>::new(), "{driver}");
        let changes = ["C /bin", "D /bin/zcat", "C /etc", "A /etc/added", "D /gone", "C /log", "C /log/a"];
        assert_eq!(root.diff(), changes, "{driver}");
        let out = tempfile::tempdir().unwrap();
        assert_eq!(root.cp("/data", out.path()), Vec::<String>::new());
        assert_eq!(root.cp("/etc/hosts", &out.path().join("hosts")), Vec::<String>::new());
        assert_eq!(root.cp("/", &out.path().join("all")), ["`/`: /host is /srv/here of the host: copy it from there"]);
        let read = |path: &str| fs::read_to_string(out.path().join(path)).unwrap();
        let copied = [read("data/row"), read("hosts"), read("all/data/row"), read("all/etc/hosts"), read("all/log/a")];
        let hosts = "127.0.0.1 localhost\n".to_owned();
        let row = "a row\n".to_owned();
        assert_eq!(copied, [row.clone(), hosts.clone(), row, hosts, "log/a of web\n".to_owned()], "{driver}");
    }
}

#[test]
fn what_is_missing_of_overlay2_is_told_and_links_lead_nowhere_else() {
    let root = Root::make("overlay2");
    let home = root.temp.path().join("overlay2");
    // The folder of links gone: each layer has its name.
    fs::remove_dir_all(home.join("l")).unwrap();
    assert_eq!(root.paths().1, Vec::<String>::new());
    fs::remove_dir_all(home.join(ONE)).unwrap();
    let (paths, lost) = root.paths();
    assert!(paths.contains(&"etc/added".to_owned()) && !paths.contains(&"etc/passwd".to_owned()), "{paths:?}");
    let [why] = lost.as_slice() else { panic!("{lost:?}") };
    assert!(
        why.starts_with("a layer is missing: nothing says which one ") && why.contains("overlay2/l/11ABC"),
        "{why}"
    );
    // A hostile one.
    fs::create_dir_all(home.join("l")).unwrap();
    std::os::unix::fs::symlink("../../../../etc/diff", home.join("l/EVIL")).unwrap();
    fs::write(home.join(MOUNT).join("lower"), "l/EVIL:../../../etc:l/../../etc").unwrap();
    let (paths, lost) = root.paths();
    assert_eq!((paths.iter().filter(|path| path.contains("shadow")).count(), lost.len()), (0, 3), "{lost:?}");
}

/// What a power cut leaves of the driver's own lists is not taken for "nothing below".
#[test]
fn layers_below_are_found_where_the_drivers_list_is_lost() {
    for (driver, list) in [("overlay2", format!("overlay2/{MOUNT}/lower")), ("aufs", format!("aufs/layers/{MOUNT}"))] {
        let mut root = Root::make(driver);
        let whole = root.paths().0;
        let sound = fs::read_to_string(root.temp.path().join(&list)).unwrap();
        let separator = if driver == "aufs" { "\n" } else { ":" };
        let doubled = sound.replacen(separator, &separator.repeat(2), 1);
        let short = sound.split(separator).next().unwrap().to_owned();
        let damaged = [String::new(), "\0\0".to_owned(), doubled, short];
        // The layer database has nothing of the image: what is lost is said, and is no success.
        for text in &damaged {
            fs::write(root.temp.path().join(&list), text).unwrap();
            assert!(!root.paths().1.is_empty(), "{driver} {text:?}");
        }
        let layers = root.temp.path().join("image").join(driver).join("layerdb/sha256");
        let two = ONE.replace('1', "2");
        for (id, parent) in [(ONE, None), (two.as_str(), Some(ONE))] {
            let layer = layers.join(id);
            fs::create_dir_all(&layer).unwrap();
            for (name, text) in
                [("cache-id", id.to_owned()), ("diff", format!("sha256:{id}")), ("size", "1".to_owned())]
            {
                fs::write(layer.join(name), text).unwrap();
            }
            parent.iter().for_each(|parent| fs::write(layer.join("parent"), format!("sha256:{parent}")).unwrap());
        }
        root.objects = docker_objects::read(root.temp.path()).unwrap();
        for text in damaged {
            fs::write(root.temp.path().join(&list), &text).unwrap();
            assert_eq!(root.paths(), (whole.clone(), Vec::new()), "{driver} {text:?}");
        }
        fs::remove_file(root.temp.path().join(&list)).unwrap();
        let opened = copy::files(&root.objects, root.web(), &Reach::default()).unwrap();
        let [note] = opened.notes.as_slice() else { panic!("{:?}", opened.notes) };
        assert!(note.contains(&list) && note.contains("it is empty or missing"), "{note}");
        // A layer that is lost is lost by its name.
        let gone = layers.join(&two).join("cache-id");
        fs::remove_file(gone).unwrap();
        root.objects = docker_objects::read(root.temp.path()).unwrap();
        let [why] = root.paths().1.try_into().unwrap_or_else(|lost| panic!("{lost:?}"));
        assert!(why.contains(&list), "{why}");
    }
}

/// Volumes are where the container sees them: links of the image lead there, and Docker makes what is not there.
#[test]
fn volumes_are_mounted_where_their_path_leads() {
    let mut root = Root::make("overlay2");
    let diff = root.temp.path().join("overlay2").join(MOUNT).join("diff");
    fs::create_dir_all(diff.join("run")).unwrap();
    fs::create_dir_all(diff.join("var")).unwrap();
    std::os::unix::fs::symlink("/run", diff.join("var/run")).unwrap();
    let config = root.temp.path().join("containers").join(root.web().id.clone()).join("config.v2.json");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(r#""/data":"#, r#""/var/run/x":"#).replace(r#""/host":"#, r#""/bin/../var/run/host":"#);
    fs::write(&config, &text).unwrap();
    root.objects = docker_objects::read(root.temp.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let host = "`/`: /bin/../var/run/host is /srv/here of the host: copy it from there";
    assert_eq!(root.cp("/run", &out.path().join("run")), [host]);
    assert_eq!(fs::read_to_string(out.path().join("run/x/row")).unwrap(), "a row\n");
    assert_eq!(root.cp("/var/run/x/row", out.path()), Vec::<String>::new());
    let wanted = Wanted { path: Path::new("/run/host/file"), follow: Follow::Parents };
    let refused = copy::pick(&root.objects, root.web(), &wanted, &Reach::default()).unwrap_err();
    assert_eq!(refused.facts.len(), 1, "{refused:?}");
    // Never started: no layer has the directory above.
    fs::write(&config, text.replace("/var/run/x", "/a/b")).unwrap();
    // What is mounted over its folder is written down nowhere that can be read.
    fs::write(root.temp.path().join("volumes/named/opts.json"), "").unwrap();
    root.objects = docker_objects::read(root.temp.path()).unwrap();
    let [lost] = root.cp("/a", out.path()).try_into().unwrap_or_else(|lost| panic!("{lost:?}"));
    assert!(lost.contains("the volume at /a/b may have its files elsewhere: ") && lost.contains("opts.json"), "{lost}");
    assert_eq!(fs::read_to_string(out.path().join("a/b/row")).unwrap(), "a row\n");
}

/// Who owns a root does not tell whose attributes count.
#[test]
fn a_root_with_userns_remap_has_the_attributes_of_one_without() {
    let seen = |root: &Path| {
        let Opened { tree, .. } = open(root, "overlay2", MOUNT, &Below::default(), &Reach::default()).unwrap();
        let node = tree.root_node().unwrap();
        Walk::below(&tree, Path::new(""), &node).any(|entry| entry.unwrap().path == Path::new("covered/old"))
    };
    let root = Root::make("overlay2");
    let home = root.temp.path().join("overlay2");
    let give = |uid: u32| std::os::unix::fs::chown(&home, Some(uid), Some(uid)).unwrap();
    assert!(!seen(root.temp.path()));
    // A Docker without root has none in `trusted.`.
    give(1000);
    assert!(seen(root.temp.path()));
    // What the kernel has made there when root had it mounted.
    fs::create_dir_all(home.join(MOUNT).join("work/work")).unwrap();
    assert!(!seen(root.temp.path()));
    fs::remove_dir_all(home.join(MOUNT).join("work/work")).unwrap();
    give(100_000);
    let remapped = root.temp.path().join("100000.100000");
    fs::create_dir(&remapped).unwrap();
    fs::rename(&home, remapped.join("overlay2")).unwrap();
    assert!(!seen(&remapped));
}

#[test]
fn a_driver_that_cannot_be_read_is_refused_by_name() {
    let root = Root::make("vfs");
    let refused = |driver: &str, id: &str| {
        open(root.temp.path(), driver, id, &Below::default(), &Reach::default()).unwrap_err().what
    };
    let of = |why: &str| format!("cannot open layer `{ONE}`: {why}");
    assert_eq!(refused("zfs", ONE), of("files of the storage driver zfs cannot be read"));
    assert_eq!(refused("overlay2", ONE), of("the storage driver does not have it"));
    assert!(open(root.temp.path(), "vfs", "../..", &Below::default(), &Reach::default()).is_err());
}

#[test]
fn nothing_of_the_root_is_written_not_even_an_access_time() {
    let root = Root::make("overlay2");
    let listed = process::run("find", &[root.temp.path().to_str().unwrap(), "!", "-type", "l"]).unwrap();
    let paths: Vec<String> = String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect();
    // Older than the change, so that relatime would write a new one. A link's own time is the kernel's, unless the root is
    // mounted anew.
    let arguments = ["-a", "-d", "@1"].into_iter().chain(paths.iter().map(String::as_str)).collect::<Vec<_>>();
    process::run("touch", &arguments).unwrap();
    let state = || -> Vec<_> {
        let seen = |path: &String| {
            let found = fs::symlink_metadata(path).unwrap();
            (path.clone(), found.atime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec(), found.len())
        };
        paths.iter().map(seen).collect()
    };
    let before = state();
    let out = tempfile::tempdir().unwrap();
    root.cp("/etc", out.path());
    root.diff();
    root.paths();
    docker_objects::read(root.temp.path()).unwrap();
    assert_eq!(state(), before);
}
