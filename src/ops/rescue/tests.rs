use std::ffi::OsStr;
use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::engine::docker_objects::{CONTAINERS, Line, read};
use crate::fuzzing::objects::root;
use crate::ops::rescue::logs::{Told, Wanted};
use crate::process;
use crate::report::rescue::run_line;

#[test]
fn containers_are_meant_by_id_name_and_the_beginning_of_an_id() {
    let sandbox = root("20.10");
    let objects = read(&sandbox.root()).unwrap();
    let web = objects.containers.iter().find(|container| container.name() == Some("web")).unwrap();
    for name in ["web", "/web", web.id.as_str(), web.id.get(..4).unwrap()] {
        assert_eq!(container(&objects, name).unwrap().id, web.id, "{name}");
    }
    let failure = container(&objects, "wep").unwrap_err();
    assert_eq!((failure.kind, failure.what.as_str()), (Kind::Refused, "no such container: `wep`"));
    assert_eq!(container(&objects, "").unwrap_err().kind, Kind::Refused);

    // A name comes before the beginning of another's id, and several ids are one answer too many.
    let mut twins = objects.clone();
    let [first, second, ..] = twins.containers.as_mut_slice() else { unreachable!() };
    first.id.replace_range(..2, "aa");
    second.id.replace_range(..2, "aa");
    let failure = container(&twins, "aa").unwrap_err();
    assert_eq!(failure.kind, Kind::Usage);
    assert_eq!(failure.facts.first().unwrap().value.matches("aa").count(), 2);
    let [_, _, third, ..] = twins.containers.as_mut_slice() else { unreachable!() };
    *third.config.get_mut("Name").unwrap() = "/aa".into();
    let third = third.id.clone();
    assert_eq!(container(&twins, "aa").unwrap().id, third);
}

#[test]
fn the_root_of_a_docker_with_userns_remap_is_found_in_its_directory() {
    let sandbox = root("20.10");
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("1.x")).unwrap();
    fs::create_dir(above.path().join("7.7")).unwrap();
    assert_eq!(remapped(above.path()), None);
    let inner = above.path().join("100000.100000");
    process::run("cp", &[OsStr::new("-a"), sandbox.root().as_os_str(), inner.as_os_str()]).unwrap();
    assert_eq!(remapped(above.path()), Some(inner));
}

#[test]
fn images_are_meant_by_every_name_that_docker_takes() {
    let sandbox = root("20.10");
    let objects = read(&sandbox.root()).unwrap();
    let id = image(&objects, "busybox").unwrap().1.id.clone();
    let digest = image(&objects, "busybox").unwrap().1.digests.first().unwrap().clone();
    let names = ["busybox:latest", "busybox:1.32", "docker.io/library/busybox", "library/busybox:latest", &id, &digest];
    for name in names.into_iter().chain([digits(&id), digits(&id).get(..5).unwrap(), id.get(..12).unwrap()]) {
        assert_eq!(image(&objects, name).unwrap().1.id, id, "{name}");
    }
    assert!(image(&objects, "registry.lan:5000/web/nginx:1.19").is_ok());
    for name in ["registry.lan:5000/web/nginx", "busybox:2", "", "sha256:", "nginx"] {
        assert_eq!(image(&objects, name).unwrap_err().kind, Kind::Refused, "{name}");
    }
    let of_image = |name, only| matches!(object(&objects, name, only), Ok(Object::Image(..)));
    assert!(of_image("busybox", None) && !of_image("web", None) && !of_image("web", Some(Type::Image)));
    assert!(object(&objects, "busybox", Some(Type::Container)).is_err());
}

fn log_of(objects: &Objects, name: &str, wanted: Wanted) -> (String, Told) {
    let mut text = String::new();
    let told = logs::read(objects, container(objects, name).unwrap(), wanted, &mut |line: &Line| {
        text.push_str(&String::from_utf8_lossy(&line.bytes));
        true
    });
    (text, told.unwrap())
}

#[test]
fn a_log_is_read_through_its_rotated_and_packed_files() {
    let sandbox = root("20.10");
    let objects = read(&sandbox.root()).unwrap();
    let web = container(&objects, "web").unwrap().id.clone();
    let folder = sandbox.root().join(CONTAINERS).join(&web);
    let line = |text: &str, second: u8| {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2021-03-05T07:00:0{second}Z\"}}\n")
    };
    let packed = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let name = format!("{web}-json.log");
    fs::write(folder.join(format!("{name}.10.gz")), packed(&line("oldest", 0))).unwrap();
    fs::write(folder.join(format!("{name}.2")), line("older", 1)).unwrap();
    // Half packed when the power went: the one beside it counts.
    fs::write(folder.join(format!("{name}.2.gz")), "\x1f").unwrap();
    fs::write(folder.join(format!("{name}.1")), format!("{}damaged\n", line("old", 2))).unwrap();
    fs::write(folder.join(&name), line("new", 3) + &line("newest", 4)).unwrap();
    fs::write(folder.join(format!("{name}.old")), "no piece of it").unwrap();

    let (text, told) = log_of(&objects, "web", Wanted::default());
    assert_eq!((text.as_str(), told), ("oldest\nolder\nold\nnew\nnewest\n", Told { damaged: 1, unread: Vec::new() }));
    let tail = |count| log_of(&objects, "web", Wanted { tail: Some(count), since: None }).0;
    assert_eq!((tail(0).as_str(), tail(3).as_str()), ("", "old\nnew\nnewest\n"));
    let since = Time::parse("2021-03-05T07:00:03Z");
    assert_eq!(log_of(&objects, "web", Wanted { tail: None, since }).0, "new\nnewest\n");
    assert_eq!(log_of(&objects, "web", Wanted { tail: Some(1), since }).0, "newest\n");

    fs::write(folder.join(format!("{name}.11.gz")), packed(&line("cut", 0)).get(..20).unwrap()).unwrap();
    let (text, told) = log_of(&objects, "web", Wanted::default());
    assert_eq!((text.lines().count(), told.unread.len()), (5, 1), "{told:?}");
}

#[test]
fn a_log_that_is_elsewhere_is_refused_with_where() {
    let sandbox = root("20.10");
    let objects = read(&sandbox.root()).unwrap();
    let refused = |name: &str| {
        let found = container(&objects, name).unwrap();
        logs::read(&objects, found, Wanted::default(), &mut |_| true).unwrap_err()
    };
    let failure = refused("side");
    let id = &container(&objects, "side").unwrap().id;
    assert_eq!(failure.next, Some(format!("journalctl -o cat CONTAINER_ID_FULL={id}")));
    assert!(refused("never").facts.iter().any(|fact| fact.value == "it was never started"));

    // What Docker 20.10 keeps of such a log for itself.
    let cached = sandbox.root().join(CONTAINERS).join(id).join("container-cached.log");
    let message: &[u8] = b"\x0a\x06stdout\x1a\x03abc";
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    fs::write(cached, [&length, message, &length].concat()).unwrap();
    assert_eq!(log_of(&objects, "side", Wanted::default()).0, "abc\n");
}

#[test]
fn a_line_makes_the_network_again_too() {
    let sandbox = root("20.10");
    let folder = sandbox.root().join("network/files");
    fs::create_dir_all(&folder).unwrap();
    let value = br#"12345678{"id":"aa","name":"frontnet","networkType":"macvlan","internal":true,"labels":{"a":"b c"},
        "ipamV4Config":"[{\"PreferredPool\":\"172.28.0.0/16\",\"Gateway\":\"172.28.0.1\"}]"}"#;
    let key = "docker/network/v1.0/network/aa/";
    fs::write(folder.join("local-kv.db"), crate::engine::bolt::tests::database("libnetwork", &[(key, value)])).unwrap();
    let mut objects = read(&sandbox.root()).unwrap();
    let made = "# its network must be there:  docker network create --driver macvlan --subnet 172.28.0.0/16 --gateway \
                172.28.0.1 --label 'a=b c' --internal frontnet\n";
    let text = run_line::text(&objects, container(&objects, "web").unwrap());
    assert!(text.starts_with(made), "{text}");
    // A container may name it by its id.
    let at = objects.containers.iter().position(|container| container.name() == Some("web")).unwrap();
    *objects.containers.get_mut(at).unwrap().host_config.get_mut("NetworkMode").unwrap() = "aa".into();
    assert_eq!(run_line::text(&objects, container(&objects, "web").unwrap()), text);
}
