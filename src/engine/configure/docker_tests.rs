//! Tests of where Docker's storage options go, on machines laid out in a directory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use super::*;

const JSON: &str = "etc/docker/daemon.json";
const UNIT: &str = "usr/lib/systemd/system/docker.service";
const CENTOS: &str = "[Service]\nEnvironmentFile=-/etc/sysconfig/docker\nEnvironmentFile=-/etc/sysconfig/docker-storage\n\
                      ExecStart=/usr/bin/dockerd-current --debug \\\n          $OPTIONS \\\n          $DOCKER_STORAGE_OPTIONS\n";
const STORAGE: &str = "etc/sysconfig/docker-storage";
const WANTED: Wanted<'static> = Wanted { pool: "p", discard: true };

struct Machine(tempfile::TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            machine.write(path, text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn tell(&self) -> Result<Telling, Obstacle> {
        tell(self.0.path(), &WANTED, &[])
    }

    /// The files that are written, by path below the machine, with what they shall say. Written, nothing is left to do.
    fn told(&self) -> Vec<(String, String)> {
        let telling = self.tell().unwrap();
        let name = |path: &Path| path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
        let told: Vec<_> = telling.edits.into_iter().map(|edit| (name(&edit.path), edit.after)).collect();
        for (path, text) in &told {
            self.write(path, text);
        }
        assert_eq!(self.tell().unwrap().edits, []);
        told
    }
}

#[test]
fn options_that_are_nowhere_go_to_the_json_file() {
    let both = "{\n    \"storage-driver\": \"devicemapper\",\n    \"storage-opts\": [\n        \
                \"dm.thinpooldev=/dev/mapper/p\",\n        \"dm.blkdiscard=true\"\n    ]\n}\n";
    assert_eq!(Machine::new(&[]).told(), [(JSON.to_owned(), both.to_owned())]);
    assert_eq!(Machine::new(&[(UNIT, CENTOS), (STORAGE, "DOCKER_STORAGE_OPTIONS=\n")]).told()[0].0, JSON);

    let unit = "[Service]\nExecStart=/usr/bin/dockerd --config-file /srv/d.json\n";
    let machine =
        Machine::new(&[(UNIT, unit), ("srv/d.json", "{\"storage-driver\": \"overlay2\", \"live-restore\": true}")]);
    machine.write("run/systemd/system/x", "");
    let telling = machine.tell().unwrap();
    assert_eq!((telling.driver_before.as_deref(), telling.live_restore), (Some("overlay2"), true));
    assert_eq!(telling.starter, Some(Starter::Unit("docker".to_owned())));
    assert_eq!(telling.root, machine.0.path().join("var/lib/docker"));
    let told = r#"{"storage-driver": "devicemapper", "live-restore": true, "storage-opts": ["dm.thinpooldev=/dev/mapper/p", "dm.blkdiscard=true"]}"#;
    assert_eq!(machine.told(), [("srv/d.json".to_owned(), told.to_owned())]);
}

#[test]
fn options_on_the_command_line_stay_there() {
    let text = "# Written by docker-storage-setup\nDOCKER_STORAGE_OPTIONS=\"--storage-driver overlay2 \"\n";
    let machine = Machine::new(&[(UNIT, CENTOS), (STORAGE, text), (JSON, "{}\n")]);
    let added =
        "--storage-driver devicemapper --storage-opt dm.thinpooldev=/dev/mapper/p --storage-opt dm.blkdiscard=true ";
    assert_eq!(machine.told(), [(STORAGE.to_owned(), text.replace("--storage-driver overlay2 ", added))]);

    // What the user has said of discards is left alone.
    let default = "DOCKER_OPTS=\"--storage-opt=dm.blkdiscard=false\"\n";
    let machine = Machine::new(&[("etc/default/docker", default)]);
    let told = "DOCKER_OPTS=\"--storage-opt=dm.blkdiscard=false --storage-driver devicemapper --storage-opt dm.thinpooldev=/dev/mapper/p\"\n";
    assert_eq!(machine.told(), [("etc/default/docker".to_owned(), told.to_owned())]);
}

#[test]
fn each_key_stays_in_its_own_place() {
    let unit = "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --storage-driver overlay2\n";
    let own = "etc/systemd/system/docker.service.d/override.conf";
    let reset = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --storage-driver=aufs -H fd://\n";
    let machine = Machine::new(&[(UNIT, unit), (own, reset), (JSON, "{\"storage-opts\": [\"dm.fs=xfs\"]}")]);
    let json = r#"{"storage-opts": ["dm.fs=xfs", "dm.thinpooldev=/dev/mapper/p", "dm.blkdiscard=true"]}"#;
    assert_eq!(
        machine.told(),
        [(JSON.to_owned(), json.to_owned()), (own.to_owned(), reset.replace("aufs", "devicemapper"))]
    );

    // As units of Docker 1.10 were: the command line is a shell's.
    let shell = "[Service]\nExecStart=/bin/sh -c '/usr/bin/docker daemon $O --storage-driver overlay2 2>&1'\n";
    let [(_, told)] = Machine::new(&[(UNIT, shell)]).told().try_into().unwrap();
    assert!(told.contains("--storage-driver devicemapper --storage-opt dm.thinpooldev=/dev/mapper/p"), "{told}");

    // A package's unit is not changed.
    let machine = Machine::new(&[(UNIT, unit)]);
    let told = machine.told();
    assert_eq!((told.len(), told[0].0.as_str()), (1, "etc/systemd/system/docker.service.d/dmpool.conf"));
    assert!(told[0].1.ends_with(
        "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --storage-driver devicemapper \
         --storage-opt dm.thinpooldev=/dev/mapper/p --storage-opt dm.blkdiscard=true\n"
    ));
}

#[test]
fn what_cannot_be_told_is_refused_with_the_reason() {
    let env = "[Service]\nEnvironment=\"O=--storage-driver overlay2\"\nExecStart=/usr/bin/dockerd $O\n";
    let line = "[Service]\nExecStart=/usr/bin/dockerd --storage-driver overlay2\n";
    let driver = "[Service]\nEnvironment=DOCKER_DRIVER=overlay2\nExecStart=/usr/bin/dockerd\n";
    for (files, why) in [
        (vec![(JSON, "{")], "cannot be read"),
        (vec![(JSON, r#"{"storage-driver": "a", "storage-driver": "b"}"#)], "has `storage-driver` twice"),
        (vec![(UNIT, line), (JSON, r#"{"storage-driver": "overlay2"}"#)], "does not start so"),
        (vec![(JSON, r#"{"storage-opts": ["dm.thinpooldev=/dev/mapper/other"]}"#)], "another storage"),
        (vec![(JSON, r#"{"storage-opts": ["dm.datadev=/dev/sdb"]}"#)], "another storage"),
        (vec![(JSON, r#"{"storage-opts": ["overlay2.size=10G"]}"#)], "does not start with"),
        (vec![(JSON, r#"{"features": {"buildkit": true, "containerd-snapshotter": true}}"#)], "no storage driver"),
        (vec![(UNIT, env)], "does not change"),
        (vec![(UNIT, driver)], "counts most"),
        (vec![(UNIT, CENTOS), (STORAGE, ""), ("etc/sysconfig/docker-storage-setup", "VG=vg\n")], "cannot be read"),
    ] {
        let obstacle = Machine::new(&files).tell().unwrap_err();
        assert!(obstacle.why.contains(why), "{files:?}: {obstacle:?}");
    }

    let flags = Flags::of_words(&["dockerd", "--storage-opt", "dm.basesize=20G"]).unwrap();
    let running = [Dockerd { pid: 7, flags, driver_variable: None }];
    let machine = Machine::new(&[]);
    let obstacle = tell(machine.0.path(), &WANTED, &running).unwrap_err();
    assert!(obstacle.why.contains("on its command line"), "{obstacle:?}");
    machine.write(UNIT, "[Service]\nExecStart=/usr/bin/dockerd\n");
    assert!(tell(machine.0.path(), &WANTED, &running).is_ok());
}

#[test]
fn overlay2_takes_the_place_of_devicemapper_and_its_options_go() {
    let overlay2 = |machine: &Machine| -> Result<Vec<String>, String> {
        let telling = tell_overlay2(machine.0.path(), &[]).map_err(|obstacle| obstacle.why)?;
        for edit in &telling.edits {
            fs::create_dir_all(edit.path.parent().unwrap()).unwrap();
            fs::write(&edit.path, &edit.after).unwrap();
        }
        assert!(tell_overlay2(machine.0.path(), &[]).unwrap().edits.is_empty());
        Ok(telling.edits.into_iter().map(|edit| edit.after).collect())
    };
    let json = Machine::new(&[(
        JSON,
        "{\n  \"debug\": true,\n  \"storage-opts\": [\n    \"dm.thinpooldev=/dev/mapper/p\",\n    \"overlay2.override_kernel_check=true\",\n    \"DM.fs=xfs\"\n  ],\n  \"storage-driver\": \"devicemapper\"\n}\n",
    )]);
    assert_eq!(
        overlay2(&json).unwrap(),
        [
            "{\n  \"debug\": true,\n  \"storage-opts\": [\n    \"overlay2.override_kernel_check=true\"\n  ],\n  \"storage-driver\": \"overlay2\"\n}\n"
        ]
    );
    let centos = Machine::new(&[
        (UNIT, CENTOS),
        (
            STORAGE,
            "DOCKER_STORAGE_OPTIONS=\"--storage-driver devicemapper --storage-opt dm.fs=xfs --storage-opt dm.basesize=20G \"\n",
        ),
    ]);
    assert_eq!(overlay2(&centos).unwrap(), ["DOCKER_STORAGE_OPTIONS=\"--storage-driver overlay2 \"\n"]);
    let mixed = Machine::new(&[
        (UNIT, "[Service]\nExecStart=/usr/bin/dockerd --storage-driver=devicemapper\n"),
        (JSON, "{\"storage-opts\": [\"dm.fs=xfs\"]}"),
    ]);
    assert_eq!(overlay2(&mixed).unwrap().len(), 2);
    assert_eq!(overlay2(&Machine::new(&[])).unwrap(), ["{\n    \"storage-driver\": \"overlay2\"\n}\n"]);
    let foreign = Machine::new(&[(JSON, "{\"storage-opts\": [\"zfs.fsname=z\"]}")]);
    assert!(overlay2(&foreign).unwrap_err().contains("does not start with"));
}
