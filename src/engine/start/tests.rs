#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::symlink;

use super::*;

/// Lays out a machine's files and reads how it starts Docker.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Start) {
    let temp = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let start = read(temp.path());
    (temp, start)
}

const CENTOS: &str = "[Service]\nEnvironmentFile=-/etc/sysconfig/docker\nEnvironmentFile=-/etc/sysconfig/docker-storage\n\
                      ExecStart=/usr/bin/dockerd-current $OPTIONS $DOCKER_STORAGE_OPTIONS\n";

#[test]
fn centos_7_with_a_pool_that_docker_storage_setup_made() {
    let (_temp, start) = machine(&[
        ("usr/lib/systemd/system/docker.service", CENTOS),
        ("etc/sysconfig/docker", "OPTIONS='--selinux-enabled --graph=/srv/docker'\n"),
        (
            "etc/sysconfig/docker-storage",
            "DOCKER_STORAGE_OPTIONS=\"--storage-driver devicemapper --storage-opt dm.fs=xfs --storage-opt dm.thinpooldev=/dev/mapper/vg-docker--pool\"\n",
        ),
        ("etc/sysconfig/docker-storage-setup", "VG=vg\n"),
    ]);
    let flags = start.flags.unwrap();
    assert_eq!(flags.root.unwrap(), Path::new("/srv/docker"));
    assert_eq!(flags.storage_driver.as_deref(), Some("devicemapper"));
    assert_eq!(flags.storage_options, ["dm.fs=xfs", "dm.thinpooldev=/dev/mapper/vg-docker--pool"]);
    assert_eq!((start.sources.len(), start.problems), (3, vec![]));
}

#[test]
fn what_docker_storage_setup_will_write_is_not_known_yet() {
    let (_temp, start) = machine(&[
        ("usr/lib/systemd/system/docker.service", CENTOS),
        ("etc/sysconfig/docker-storage", "DOCKER_STORAGE_OPTIONS=\n"),
        ("etc/sysconfig/docker-storage-setup", "# comment\nVG=vg\n"),
    ]);
    assert_eq!(start.flags, None);
    assert!(start.problems[0].why.contains("sets VG"), "{:?}", start.problems);
}

#[test]
fn a_unit_is_put_together_as_systemd_does_it() {
    let (temp, start) = machine(&[
        ("usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n"),
        ("lib/systemd/system/docker.service", "[Service]\nExecStart=/not/this\n"),
        (
            "etc/systemd/system/docker.service.d/20-root.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd ${A}\n",
        ),
        ("run/systemd/system/docker.service.d/20-root.conf", "[Service]\nExecStart=/not/this/either\n"),
        ("usr/lib/systemd/system/docker.service.d/30-env.conf", "[Service]\nEnvironment=A=--graph=/a\n"),
        ("etc/systemd/system/docker.service.d/40-none.conf.bak", "[Service]\nExecStart=/nor/this\n"),
    ]);
    assert_eq!(start.flags.unwrap().root.unwrap(), Path::new("/a"));
    assert_eq!(start.from.unwrap(), temp.path().join("usr/lib/systemd/system/docker.service"));
    // The administrator's own unit stands before the package's, and one that is masked is none.
    fs::write(temp.path().join("etc/systemd/system/docker.service"), "[Service]\nExecStart=/usr/bin/dockerd -g /b\n")
        .unwrap();
    fs::remove_dir_all(temp.path().join("etc/systemd/system/docker.service.d")).unwrap();
    fs::remove_dir_all(temp.path().join("run")).unwrap();
    assert_eq!(read(temp.path()).flags.unwrap().root.unwrap(), Path::new("/b"));
    fs::remove_file(temp.path().join("etc/systemd/system/docker.service")).unwrap();
    symlink("/dev/null", temp.path().join("etc/systemd/system/docker.service")).unwrap();
    assert_eq!(read(temp.path()), Start::default());
}

#[test]
fn a_unit_that_is_a_link_is_read_with_the_drop_ins_of_all_its_names() {
    let (temp, start) = machine(&[
        ("opt/docker-ce.service", "[Service]\nExecStart=/usr/bin/dockerd ${A} ${B} ${C}\n"),
        ("etc/systemd/system/docker-ce.service.d/a.conf", "[Service]\nEnvironment=A=--graph=/a\n"),
        ("etc/systemd/system/docker-.service.d/b.conf", "[Service]\nEnvironment=B=--storage-opt=dm.fs=xfs\n"),
        ("etc/systemd/system/docker-.service.d/a.conf", "[Service]\nEnvironment=A=--graph=/not/this\n"),
        ("usr/lib/systemd/system/service.d/c.conf", "[Service]\nEnvironment=C=--storage-opt=dm.basesize=20G\n"),
        ("usr/lib/systemd/system/docker-ce.d/d.conf", "[Service]\nExecStart=\n"),
    ]);
    assert_eq!(start, Start::default());
    symlink(temp.path().join("opt/docker-ce.service"), temp.path().join("etc/systemd/system/docker.service")).unwrap();
    let flags = read(temp.path()).flags.unwrap();
    assert_eq!(flags.root.unwrap(), Path::new("/a"));
    assert_eq!(flags.storage_options, ["dm.fs=xfs", "dm.basesize=20G"]);
}

#[test]
fn what_starts_docker_is_what_runs_the_machine() {
    let unit = ("lib/systemd/system/docker-latest.service", "[Service]\nExecStart=/usr/bin/dockerd\n");
    let script = ("etc/init.d/docker", "#!/bin/sh\n");
    let command = |files: &[(&str, &str)]| {
        let (temp, start) = machine(files);
        start.starter(temp.path()).map(|starter| starter.command("stop"))
    };
    let booted = ("run/systemd/system/x", "");
    assert_eq!(command(&[unit, script, booted]).as_deref(), Some("systemctl stop docker-latest"));
    assert_eq!(command(&[unit, script]).as_deref(), Some("service docker stop"));
    assert_eq!(command(&[unit, ("etc/init/docker.conf", "")]).as_deref(), Some("service docker stop"));
    assert_eq!(command(&[unit]), None);
    assert_eq!(command(&[script, booted]), None);
}

#[test]
fn what_systemd_would_refuse_is_named() {
    let (_temp, start) = machine(&[(
        "etc/systemd/system/docker.service",
        "[Service]\nEnvironmentFile=/etc/none\nExecStart=/usr/bin/dockerd\nExecStart=/usr/bin/dockerd -D\n",
    )]);
    let why: Vec<_> = start.problems.iter().map(|problem| problem.why.as_str()).collect();
    assert!(why[0].contains("/etc/none, which is missing") && why[1].contains("more than one"), "{why:?}");
    assert_eq!(start.flags, None);
    let (_temp, start) = machine(&[("lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/sleep 1\n")]);
    assert!(start.problems[0].why.contains("no dockerd"), "{start:?}");
    assert_eq!(start.flags, None);
}

#[test]
fn machines_without_systemd() {
    let (_temp, start) = machine(&[(
        "etc/default/docker",
        "# upstart\nDOCKER_OPTS=\"-g /srv\"\nDOCKER_OPTS=\"$DOCKER_OPTS --storage-opt dm.basesize=20G\"\n",
    )]);
    let flags = start.flags.unwrap();
    assert_eq!(
        (flags.root.unwrap().as_path(), flags.storage_options),
        (Path::new("/srv"), vec!["dm.basesize=20G".into()])
    );
    let (_temp, start) = machine(&[("etc/sysconfig/docker", "other_args=\"--graph=/srv\"\n")]);
    assert_eq!(start.flags.unwrap().root.unwrap(), Path::new("/srv"));
    let (_temp, start) = machine(&[("etc/default/docker", "# nothing set\n")]);
    assert_eq!((start.flags, start.from), (None, None));
    let (_temp, start) = machine(&[]);
    assert_eq!(start, Start::default());
}

#[test]
fn files_that_are_no_text_are_named_and_not_followed_into_a_fifo() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("etc/systemd/system");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("docker.service"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let start = read(temp.path());
    assert!(start.problems[0].why.contains("longer than"), "{start:?}");
    fs::write(directory.join("docker.service"), [0xff, 0xfe, 0, b'\n', b'[']).unwrap();
    assert!(read(temp.path()).problems[0].why.contains("no ExecStart"));
    fs::remove_file(directory.join("docker.service")).unwrap();
    nix::unistd::mkfifo(&directory.join("docker.service"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(read(temp.path()).problems[0].why.contains("no ExecStart"), "nobody writes into it, and nobody waits");
    fs::remove_file(directory.join("docker.service")).unwrap();
    fs::create_dir(directory.join("docker.service")).unwrap();
    assert_eq!(read(temp.path()).problems.len(), 1);
}
