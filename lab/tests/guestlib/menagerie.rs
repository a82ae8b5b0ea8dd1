use std::fs;
use std::path::Path;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::Docker;
use lab::guest::inventory::{Except, Field, Inventory, Kind as Type};
use lab::guest::menagerie::{Container, Menagerie, names};
use lab::guest::odd_tree;

fn the_truth_holds(driver: &str) {
    let disk = Path::new("/var/tmp/dmpool-test-docker");
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], disk).unwrap();
    let mut docker = Docker::start(Menagerie::config(driver, disk.dir().join("root"))).unwrap();
    let small = 10_000;
    let made = Menagerie::make(&docker, small).unwrap();
    everything_is_there(&made);

    let plan = odd_tree::Plan { seed: 11, small, everything: true };
    let here = disk.dir().join("odd");
    odd_tree::make(&here, plan).unwrap();
    let here = Inventory::of(&here).unwrap();
    let odd = made.container(names::ODD).unwrap().root.below("odd");
    here.assert_is(&odd, &Except::nothing().field(Field::DirectorySize));
    assert_eq!(odd.get("times/before-1970").unwrap().mtime, (-1_000_000_000, 5));
    assert!(odd.get("sparse/islands").unwrap().sparse);
    for kind in [Type::Character, Type::Block, Type::Fifo, Type::Socket, Type::Symlink] {
        assert!(odd.iter().any(|(_, entry)| entry.kind == kind), "{kind:?}");
    }

    let file = disk.dir().join("truth");
    made.save(&file).unwrap();
    let made = Menagerie::load(&file).unwrap();
    docker.stop().unwrap();
    fs::write(docker.root().join("volumes/forgotten/_data/tree/contents/0-bytes"), "1").unwrap();
    docker.up().unwrap();
    let again = Menagerie::of(&docker).unwrap();
    let differences = made.differences(&again, &Except::nothing());
    let changed = "volume forgotten: tree/contents/0-bytes: ";
    let fields: Vec<_> = differences.iter().map(|line| line.strip_prefix(changed).unwrap_or(line)).collect();
    assert_eq!(fields[0], "size \"1\" instead of \"0\"");
    assert!(fields.len() == 3 && fields[1].starts_with("time ") && fields[2].starts_with("content "), "{fields:?}");
    let running: Vec<_> = again.containers.iter().filter(|c| c.state() == "running").map(|c| &c.name).collect();
    assert_eq!(running, [names::WEB], "what it restarts by itself");
}

fn everything_is_there(made: &Menagerie) {
    let container = |name: &str| -> &Container { made.container(name).unwrap() };
    let web = container(names::WEB);
    let states = [
        (names::WEB, "running", 0),
        (names::SIDECAR, "running", 0),
        (names::TERMINAL, "running", 0),
        (names::PAUSED, "paused", 0),
        (names::ODD, "exited", 0),
        (names::CHANGED, "exited", 3),
        (names::TALKER, "exited", 0),
        (names::LINKED, "exited", 137),
        (names::VOLUMES, "exited", 0),
        (names::READER, "exited", 0),
        (names::OPTIONS, "created", 0),
        (names::ORPHAN, "created", 0),
        (names::DANGLING, "created", 0),
        (&web.id[..names::NAME_LIKE_ID], "created", 0),
    ];
    for (name, state, code) in states {
        let found = container(name);
        assert_eq!((found.state(), found.inspect["State"]["ExitCode"].as_i64()), (state, Some(code)), "{name}");
        assert!(made.ps.contains(&found.id) && found.root.len() > 10, "{name}");
    }
    assert_eq!(made.containers.len(), states.len());

    assert_eq!(made.image(names::WEB_IMAGE).unwrap().id, made.image(names::WEB_AGAIN).unwrap().id);
    for tag in [names::COMMITTED_IMAGE, names::DECLARED_IMAGE] {
        assert!(made.image_list.contains(&made.image(tag).unwrap().id));
    }
    let dangling = container(names::DANGLING).inspect["Image"].clone();
    assert!(made.images.iter().any(|image| dangling == image.id.as_str() && image.tags().is_empty()));
    let orphaned = container(names::ORPHAN).inspect["Image"].clone();
    assert!(made.images.iter().all(|image| orphaned != image.id.as_str()));
    assert!(made.images.len() >= 6);

    let sidecar = &container(names::SIDECAR).inspect["HostConfig"];
    assert_eq!(sidecar["NetworkMode"], format!("container:{}", web.id));
    assert_eq!(sidecar["PidMode"], format!("container:{}", web.id));
    assert_eq!(container(names::LINKED).inspect["HostConfig"]["Links"].as_array().unwrap().len(), 2);
    let networks = &container(names::TERMINAL).inspect["NetworkSettings"]["Networks"];
    assert_eq!(networks[names::NETWORK]["IPAddress"], "10.77.0.9");
    assert_eq!(container(names::VOLUMES).inspect["Mounts"].as_array().unwrap().len(), 4);

    assert!(web.root.get("www/deleted-in-the-image.txt").is_none());
    assert_eq!(web.root.get("www/page.html").unwrap().size, 21);
    assert!(web.root.get("odd/attributes/capability").unwrap().xattrs.contains_key(&"security.capability".into()));
    let changes = &container(names::CHANGED).changes;
    for line in ["D /www/deleted.txt", "D /www/deleted", "C /www/appended.log", "A /www/added.txt", "C /www/mode"] {
        assert!(changes.iter().any(|change| change == line), "{line}: {changes:?}");
    }

    let (talker, reader) = (container(names::TALKER), container(names::READER));
    let said = String::from_utf8_lossy(&talker.stdout.0);
    let (head, tail) = (said.get(..20), said.lines().next_back());
    assert!(said.ends_with("unfinished on stdout") && !said.starts_with("out 0"), "{head:?} … {tail:?}");
    assert!(Path::new(talker.inspect["LogPath"].as_str().unwrap()).with_extension("log.1").exists());
    assert!(reader.stdout.0.starts_with(b"kept\nout 0 plain\n") && reader.stderr.0.starts_with(b"err 0 plain\n"));

    for (name, entries) in [(names::DATA_VOLUME, 100), (names::FORGOTTEN_VOLUME, 100), (names::READ_ONLY_VOLUME, 2)] {
        assert!(made.volume(name).unwrap().contents.as_ref().unwrap().len() >= entries, "{name}");
    }
    for name in [names::NFS_VOLUME, names::BOUND_VOLUME] {
        assert_eq!(made.volume(name).unwrap().contents, None, "{name}: not below Docker's root");
    }
    assert_eq!(made.volumes.iter().filter(|volume| volume.name.len() == 64).count(), 3, "anonymous");
}

#[test]
fn a_menagerie_is_the_same_after_a_restart() {
    // In the usual measure what comes out of a dead one is held against it.
    if !boot::full() {
        boot::skip("it is made three times, which takes minutes: --full");
    }
    for driver in ["devicemapper", "overlay2", "vfs"] {
        the_truth_holds(driver);
    }
}
