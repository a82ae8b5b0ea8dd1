use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::fuzzing::objects::{printed, root};

fn read_root(seed: &str) -> Objects {
    read(&root(seed).root()).unwrap()
}

fn named<'a>(objects: &'a Objects, name: &str) -> &'a Container {
    objects.containers.iter().find(|container| container.name() == Some(name)).unwrap()
}

/// Every problem: the last parts of its path, shortened, and why.
fn told<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<String> {
    let short = |problem: &Problem| {
        let parts: Vec<String> = problem
            .path
            .components()
            .rev()
            .take(2)
            .map(|part| part.as_os_str().to_string_lossy().chars().take(12).collect())
            .collect();
        let why: String = problem.why.split(" at line").next().unwrap().chars().take(60).collect();
        format!("{}/{}: {why}", parts[1], parts[0])
    };
    problems.into_iter().map(short).collect()
}

#[test]
fn a_root_of_docker_20_10_is_read_whole() {
    for (seed, driver) in [("20.10", Driver::Devicemapper), ("overlay2", Driver::Overlay2)] {
        let objects = read_root(seed);
        let [store] = objects.stores.as_slice() else { panic!("{:?}", objects.stores) };
        assert_eq!((objects.drivers.as_slice(), store.driver.as_str()), (&[driver][..], driver.name()));
        assert_eq!(told(&objects.problems), Vec::<String>::new());
        assert_eq!((objects.containers.len(), store.images.len(), store.layers.len()), (4, 4, 4));
        assert!(objects.containers.iter().all(|container| container.problems.is_empty()));
        assert!(store.images.iter().all(|image| image.problems.is_empty() && !image.is_short()));
        assert!(store.layers.values().all(|layer| layer.tar_split && layer.problems.is_empty()));
        assert_eq!(store.nameless(&objects.containers, &objects.volumes), Vec::<&str>::new());

        let web = named(&objects, "web");
        let (_, image) = objects.image_of(web).unwrap();
        assert_eq!(
            (image.tags.as_slice(), image.layers.len()),
            (&["registry.lan:5000/web/nginx:1.19".to_owned()][..], 3)
        );
        assert_eq!(image.size(&store.layers).unwrap().get(), 3_000_000 + 123_456 * (7 + 6 + 11));
        assert_eq!(web.mount.as_ref().unwrap().parent.as_deref(), image.top());
        let parent = store.images.iter().find(|other| Some(&other.id) == image.parent.as_ref()).unwrap();
        assert_eq!((parent.tags.len(), parent.parent.is_some()), (0, true));
        assert_eq!(web.command(), "/docker-entrypoint.sh nginx -g 'daemon off;'");
        let states: Vec<_> = ["web", "side", "db", "never"].map(|name| named(&objects, name).state()).to_vec();
        assert_eq!(states, [State::Running, State::Paused, State::Exited, State::Created]);
        // What dmpool does not know of is kept, in its order.
        assert_eq!(web.host_config.at(&["Annotations"]), &serde_json::Value::Null);
        assert_eq!(web.config.entries(&["Config"]).next().unwrap().0, "Hostname");
    }
}

#[test]
fn volumes_know_where_they_are_and_who_uses_them() {
    let objects = read_root("20.10");
    let seen: Vec<_> = objects
        .volumes
        .iter()
        .map(|volume| {
            let users: Vec<_> = volume
                .users
                .iter()
                .map(|user| format!("{}:{}", user.name.as_deref().unwrap(), user.destination))
                .collect();
            (
                volume.name.chars().take(8).collect::<String>(),
                volume.anonymous,
                matches!(volume.data, Data::Here(_)),
                users.join(" "),
            )
        })
        .collect();
    let anonymous = objects.volumes.iter().find(|volume| volume.anonymous).unwrap().name.chars().take(8).collect();
    let mut expected = vec![
        ("alone".to_owned(), false, true, String::new()),
        (anonymous, true, true, "web:/cache".to_owned()),
        ("far".to_owned(), false, false, "web:/far".to_owned()),
        ("named".to_owned(), false, true, "side:/data web:/data".to_owned()),
    ];
    expected.sort();
    let sorted = |mut users: Vec<(String, bool, bool, String)>| {
        for (.., users) in &mut users {
            let mut each: Vec<_> = users.split(' ').collect();
            each.sort_unstable();
            *users = each.join(" ");
        }
        users.sort();
        users
    };
    assert_eq!(sorted(seen), expected);
    let far = objects.volumes.iter().find(|volume| volume.name == "far").unwrap();
    assert_eq!(
        far.data,
        Data::Elsewhere(":/export, of type nfs (addr=10.0.0.1,rw), is mounted there when it is used".to_owned())
    );
}

#[test]
fn volumes_are_also_known_by_dockers_database() {
    let sandbox = root("20.10");
    let records: [(&str, &[u8]); 4] = [
        ("alone", br#"{"Name":"alone","Driver":"local","Labels":{"keep":"yes"},"Options":null}"#),
        ("share", br#"{"Name":"share","Driver":"rexray","Labels":null,"Options":{"size":"10"}}"#),
        ("lost", br#"{"Name":"lost","Driver":"local","Labels":null,"Options":{}}"#),
        ("broken", b"{"),
    ];
    fs::write(sandbox.root().join("volumes/metadata.db"), crate::engine::bolt::tests::database("volumes", &records))
        .unwrap();
    let objects = read(&sandbox.root()).unwrap();
    let of = |name: &str| objects.volumes.iter().find(|volume| volume.name == name).cloned();
    assert_eq!(of("alone").unwrap().labels["keep"], "yes");
    assert_eq!(of("share").unwrap().data, Data::Elsewhere("the driver rexray has them".to_owned()));
    assert_eq!((of("lost").unwrap().data, of("broken")), (Data::Missing, None));
    fs::write(sandbox.root().join("volumes/metadata.db"), [0; 8192]).unwrap();
    let objects = read(&sandbox.root()).unwrap();
    assert!(told(&objects.problems)[0].contains("it is no bolt database"), "{:?}", objects.problems);
    assert_eq!(objects.volumes.len(), 4);
}

#[test]
fn what_a_power_cut_leaves_is_named_and_the_rest_is_read() {
    let objects = read_root("broken");
    let store = &objects.stores[0];
    assert_eq!(objects.containers.len(), 4, "one by its name, three by their ids alone");
    let mut of_containers: Vec<String> = objects.containers.iter().flat_map(|c| told(&c.problems)).collect();
    of_containers.sort();
    let mut whys: Vec<_> = of_containers.iter().map(|line| line.split_once(": ").unwrap().1).collect();
    whys.sort_unstable();
    assert_eq!(
        whys,
        [
            "it is empty or holds NUL bytes only",
            "it is missing: only the container's layer is left",
            "it is missing: which layer is its own is not known",
            "it is not what Docker writes: EOF while parsing a value",
        ]
    );
    let of_images: Vec<_> = store.images.iter().flat_map(|image| told(&image.problems)).collect();
    assert_eq!(of_images.len(), 1, "{of_images:?}");
    assert!(of_images[0].contains("its layer sha256:"));
    let of_layers: Vec<_> = store.layers.values().flat_map(|layer| told(&layer.problems)).collect();
    assert_eq!(of_layers.len(), 1, "{of_layers:?}");
    assert!(of_layers[0].contains("the devicemapper driver has no such layer"));
    // Of the container whose mount is gone, of the layer whose entry is gone, and one that nobody ever had.
    assert_eq!(store.nameless(&objects.containers, &objects.volumes).len(), 4);
    let names: Vec<_> = told(&objects.problems);
    assert!(names.iter().any(|line| line.contains("`gone:1` names the image")), "{names:?}");
    let alone = objects.volumes.iter().find(|volume| volume.name == "alone").unwrap();
    assert_eq!((alone.data.clone(), alone.problems.len()), (Data::Missing, 2));
}

#[test]
fn roots_of_other_ages_are_read() {
    let objects = read_root("1.13");
    assert!(objects.containers[0].problems.is_empty());
    assert_eq!(objects.image_of(&objects.containers[0]).unwrap().1.tags, ["busybox:latest"]);

    let objects = read_root("28");
    assert_eq!(told(&objects.containers[0].problems).len(), 1);
    assert!(objects.containers[0].problems[0].why.contains("the overlayfs driver's, of which nothing is here"));

    for (seed, place) in [("1.6", "vfs"), ("1.9", "volumes")] {
        let objects = read_root(seed);
        assert_eq!(told(&objects.problems), Vec::<String>::new(), "{seed}");
        let (store, image) = objects.image_of(&objects.containers[0]).unwrap();
        assert_eq!(
            (store.driver.as_str(), image.tags.as_slice()),
            ("devicemapper", &["lan:5000/mine:v1".to_owned()][..])
        );
        assert_eq!((image.layers.len(), image.size(&store.layers).unwrap().get()), (3, 3 * 2_433_303));
        assert_eq!(objects.containers[0].mount.as_ref().unwrap().mount_id.as_ref(), Some(&objects.containers[0].id));
        assert!(
            objects.containers[0].problems.is_empty()
                && store.nameless(&objects.containers, &objects.volumes).is_empty()
        );
        let (used, dangling): (Vec<_>, Vec<_>) = objects.volumes.iter().partition(|volume| !volume.users.is_empty());
        let [volume] = used.as_slice() else { panic!("{:?}", objects.volumes) };
        assert_eq!(dangling.len(), usize::from(seed == "1.6"), "one that nothing names any more");
        let Data::Here(path) = &volume.data else { panic!("{volume:?}") };
        assert_eq!((path[0].as_str(), volume.anonymous, volume.users[0].destination.as_str()), (place, true, "/data"));
        assert!(volume.users[0].writable);
    }
}

#[test]
fn a_docker_that_was_brought_to_1_10_has_its_images_once() {
    let sandbox = root("1.13");
    let from = root("1.6");
    fs::rename(from.root().join("graph"), sandbox.root().join("graph")).unwrap();
    fs::copy(from.root().join("repositories-devicemapper"), sandbox.root().join("repositories-devicemapper")).unwrap();
    let objects = read(&sandbox.root()).unwrap();
    assert_eq!((objects.stores.len(), objects.stores[0].legacy), (1, false));
}

/// Bytes and times of all that is in a folder.
fn picture(folder: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let about = fs::metadata(&folder).unwrap();
        found.push(format!(
            "{} {:?} {:?} {}",
            folder.display(),
            about.accessed(),
            about.modified(),
            about.ctime_nsec()
        ));
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            if about.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(format!(
                    "{} {} {:?} {:?}",
                    entry.path().display(),
                    about.len(),
                    about.accessed(),
                    about.modified()
                ));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_in_a_root_is_touched() {
    for seed in ["20.10", "1.6", "broken"] {
        let sandbox = root(seed);
        let old = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        let mut folders = vec![sandbox.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => fs::File::open(path).unwrap().set_times(old).unwrap(),
                }
            }
            fs::File::open(folder).unwrap().set_times(old).unwrap();
        }
        // The picture itself reads folders, which relatime lets be seen only once.
        picture(&sandbox.root());
        let before = picture(&sandbox.root());
        let objects = read(&sandbox.root()).unwrap();
        assert!(!printed(&objects).is_empty());
        assert_eq!(picture(&sandbox.root()), before, "{seed}");
    }
}

#[test]
fn what_is_no_root_is_empty_or_cannot_be_opened() {
    let temp = tempfile::tempdir().unwrap();
    assert!(read(temp.path()).unwrap().is_empty());
    assert!(read(&temp.path().join("none")).is_err());
    fs::write(temp.path().join("file"), "").unwrap();
    assert!(read(&temp.path().join("file")).is_err());
}

#[test]
fn a_file_whose_values_would_take_all_memory_is_named_and_the_rest_is_read() {
    let sandbox = root("20.10");
    let id = named(&read(&sandbox.root()).unwrap(), "web").id.clone();
    fs::write(sandbox.root().join("containers").join(&id).join("config.v2.json"), ",".repeat(9 << 20)).unwrap();
    let objects = read(&sandbox.root()).unwrap();
    let container = objects.containers.iter().find(|container| container.id == id).unwrap();
    let told = told(&container.problems);
    assert!(told.iter().any(|line| line.contains("config.v2.js: its values may take 2736 MiB of memory")), "{told:?}");
    assert_eq!((objects.containers.len(), objects.stores.len()), (4, 1));
}
