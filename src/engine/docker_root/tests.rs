use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::units::Bytes;

/// Lays out a root as Docker 20.10 leaves it, with sparse loop files of no length.
fn root() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("devicemapper");
    fs::create_dir_all(home.join("devicemapper")).unwrap();
    fs::create_dir_all(home.join("metadata")).unwrap();
    fs::write(home.join("devicemapper/data"), b"").unwrap();
    fs::write(home.join("devicemapper/metadata"), b"").unwrap();
    for (name, json) in [
        ("base", r#"{"device_id":1,"size":10737418240,"transaction_id":1,"initialized":true,"deleted":false}"#),
        ("aa", r#"{"device_id":2,"size":10737418240,"transaction_id":2,"initialized":false,"deleted":true}"#),
        ("aa-init", r#"{"device_id":3,"size":10737418240,"transaction_id":3,"initialized":false,"deleted":false}"#),
        ("deviceset-metadata", r#"{"next_device_id":3,"BaseDeviceUUID":"24cb","BaseDeviceFilesystem":"xfs"}"#),
        ("transaction-metadata", r#"{"open_transaction_id":3,"device_hash":"aa-init","device_id":3}"#),
        (".tmp1234", ""),
    ] {
        fs::write(home.join("metadata").join(name), json).unwrap();
    }
    temp
}

fn read(path: &Path) -> DockerRoot {
    read_if_there(path, About::only(Standing::Named)).unwrap().unwrap()
}

#[test]
fn a_root_of_docker_20_10_is_read_whole() {
    let temp = root();
    let found = read(temp.path());
    assert_eq!(found.problems, []);
    assert_eq!(found.base.as_ref().unwrap().size, Bytes::new(10 << 30));
    assert_eq!(found.device_set.as_ref().unwrap().base_filesystem, "xfs");
    assert_eq!(found.transaction.as_ref().unwrap().id, 3);
    assert!(found.data_file.as_ref().unwrap().ends_with("devicemapper/devicemapper/data"));
    assert_eq!(found.options, Options::Unknown);
    assert_eq!(found.pool().unwrap(), found.own_pool());
    assert_eq!(found.count_devices(), Ok(DeviceCounts { all: 3, deleted: 1, ..DeviceCounts::default() }));
}

#[test]
fn damage_is_named_and_the_rest_is_still_read() {
    let temp = root();
    let records = temp.path().join("devicemapper/metadata");
    fs::write(records.join("base"), b"").unwrap();
    fs::write(records.join("deviceset-metadata"), b"{\"next_device_id\":").unwrap();
    fs::remove_file(records.join("transaction-metadata")).unwrap();
    assert_eq!(read(temp.path()).problems[0].why, "it is missing, and there are devices");
    symlink("/etc/shadow", records.join("transaction-metadata")).unwrap();
    fs::write(records.join("huge"), vec![b' '; 70_000]).unwrap();
    let found = read(temp.path());
    assert_eq!((&found.base, &found.device_set, &found.transaction), (&None, &None, &None));
    let said: Vec<_> = found.problems.iter().map(|p| (p.path.file_name().unwrap().to_str().unwrap(), &p.why)).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].0 == "base" && said[0].1.contains("empty"), "{said:?}");
    assert!(said[1].1.contains("not what Docker writes"), "{said:?}");
    let counts = found.count_devices().unwrap();
    assert_eq!((counts.all, counts.deleted, counts.problems.len()), (4, 1, 2));
    assert!(counts.problems.iter().any(|p| p.why == "it is longer than 65536 bytes"));
}

#[test]
fn bookkeeping_that_cannot_be_listed_is_unknown_and_none_is_none() {
    let temp = root();
    let records = temp.path().join("devicemapper/metadata");
    fs::remove_dir_all(&records).unwrap();
    assert_eq!(read(temp.path()).count_devices(), Ok(DeviceCounts::default()));
    fs::write(&records, "no folder").unwrap();
    let problem = read(temp.path()).count_devices().unwrap_err();
    assert_eq!(problem.path, records);
}

#[test]
fn two_files_with_one_device_id_are_told() {
    let temp = root();
    let records = temp.path().join("devicemapper/metadata");
    fs::copy(records.join("aa"), records.join("bb")).unwrap();
    fs::write(records.join("cc"), r#"{"device_id":16777216,"size":1,"transaction_id":1}"#).unwrap();
    let counts = read(temp.path()).count_devices().unwrap();
    assert_eq!((counts.all, counts.deleted), (5, 2));
    assert_eq!(counts.duplicates[0].why, "its device id 2 is that of aa too");
    assert_eq!(counts.problems[0].why, "its device id 16777216 is larger than 16777215");
}

#[test]
fn roots_that_are_half_written_or_hostile_are_read_as_far_as_they_go() {
    for (make, is_there) in [
        (&["devicemapper"][..], true),
        (&["devicemapper/metadata"], true),
        (&["devicemapper/devicemapper/data/sub"], true),
        (&["devicemapper/metadata/base"], true),
        (&["image"], false),
    ] {
        let temp = tempfile::tempdir().unwrap();
        make.iter().for_each(|dir| fs::create_dir_all(temp.path().join(dir)).unwrap());
        let found = read_if_there(temp.path(), About::only(Standing::Named)).unwrap();
        assert_eq!(found.is_some(), is_there, "{make:?}");
        if let Some(found) = found {
            assert_eq!((&found.base, found.pool()), (&None, None), "{make:?}");
            let _ = found.count_devices();
        }
    }
    // A file in the driver's place is no root, and no panic.
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("devicemapper"), "").unwrap();
    assert!(read_if_there(temp.path(), About::only(Standing::Named)).is_err());
}

#[test]
fn another_driver_is_known_by_what_it_is_told_to_use_or_by_its_layers() {
    let temp = root();
    let mut found = read(temp.path());
    assert_eq!(found.other_driver(), None);
    found.storage_driver = Some("overlay2".to_owned());
    assert_eq!(found.other_driver(), Some("overlay2"));
    found.storage_driver = Some(DRIVER.to_owned());
    assert_eq!(found.other_driver(), None);

    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(DRIVER)).unwrap();
    let there = || read_if_there(temp.path(), About::only(Standing::Left)).unwrap().is_some();
    assert!(there(), "as Docker makes it");
    fs::create_dir_all(temp.path().join("overlay2/l")).unwrap();
    assert!(!there(), "an empty folder beside another driver's layers");
}

#[test]
fn a_folder_that_is_something_else_is_told_and_counts_nothing() {
    let other = root();
    for (is_link, why) in [(true, "is a symbolic link to"), (false, "it is not a directory")] {
        for name in ["devicemapper", "metadata"] {
            let temp = root();
            let folder = temp.path().join("devicemapper").join(name);
            fs::remove_dir_all(&folder).unwrap();
            if is_link {
                symlink(other.path(), &folder).unwrap();
            } else {
                fs::write(&folder, "").unwrap();
            }
            let found = read(temp.path());
            assert_eq!((found.problems.len(), &found.problems[0].path), (1, &folder));
            assert!(found.problems[0].why.contains(why), "{:?}", found.problems);
            let uncounted = found.count_devices().err().map(|problem| problem.path);
            assert_eq!(uncounted, (name == "metadata").then_some(folder));
        }
    }
}

#[test]
fn a_root_without_the_driver_is_none_and_a_missing_one_too() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(read_if_there(temp.path(), About::only(Standing::Named)).unwrap(), None);
    assert_eq!(read_if_there(&temp.path().join("no"), About::only(Standing::Named)).unwrap(), None);
}

#[test]
fn a_link_in_a_loop_files_place_is_told_and_not_opened() {
    let temp = root();
    let files = temp.path().join("devicemapper/devicemapper");
    fs::rename(files.join("data"), temp.path().join("elsewhere")).unwrap();
    symlink("../../elsewhere", files.join("data")).unwrap();
    fs::remove_file(files.join("metadata")).unwrap();
    symlink("/dev/no-such-disk", files.join("metadata")).unwrap();
    let found = read(temp.path());
    let link = found.data_link.as_ref().unwrap();
    assert_eq!((link.target.as_path(), &link.leads_to), (Path::new("../../elsewhere"), &LeadsTo::File));
    assert!(matches!(found.metadata_link.as_ref().unwrap().leads_to, LeadsTo::Nothing(_)));
    assert!(found.data_file.is_some() && found.metadata_file.is_some());
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].why.contains("/dev/no-such-disk"), "{:?}", found.problems);
    fs::remove_file(files.join("metadata")).unwrap();
    fs::create_dir(files.join("metadata")).unwrap();
    let found = read(temp.path());
    assert_eq!((found.metadata_file, found.problems[0].why.as_str()), (None, "it is not a regular file"));
}

#[test]
fn a_home_that_is_a_link_gives_its_numbers_and_is_not_read() {
    let (temp, other) = (tempfile::tempdir().unwrap(), root());
    symlink(other.path().join("devicemapper"), temp.path().join("devicemapper")).unwrap();
    let found = read(temp.path());
    assert_eq!(found.device_prefix, read(other.path()).device_prefix, "as Docker takes it");
    assert_eq!((&found.base, &found.data_file), (&None, &None));
    assert!(found.problems[0].why.contains("symbolic link"), "{:?}", found.problems);
}

#[test]
fn an_lvm_pool_of_dockers_own_making_is_told_by_its_file() {
    let temp = root();
    let setup = temp.path().join("devicemapper").join(SETUP);
    fs::write(&setup, r#"{"Device":"/dev/sdb","ThinpPercent":95,"AutoExtendThreshold":80}"#).unwrap();
    let found = read(temp.path());
    assert_eq!(found.direct_lvm.as_ref().unwrap().device, "/dev/sdb");
    assert_eq!(found.pool().as_deref(), Some("docker-thinpool"));
    fs::write(&setup, "").unwrap();
    assert!(read(temp.path()).problems[0].why.contains("empty"));
}

#[test]
fn the_prefix_takes_device_numbers_apart_as_docker_does() {
    assert_eq!(device_prefix((0xfe00, 13_785)), "docker-254:0-13785");
    assert_eq!(device_prefix((0x1000_1034, 7)), "docker-16:65588-7");
}
