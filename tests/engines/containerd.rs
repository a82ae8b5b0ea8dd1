//! A real containerd with its devmapper snapshotter on a pool of dmpool's.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::guest::run::{Cmd, Ran, Running};
use lab::guest::sys;

use crate::support::Bench;

const CONFIG: &str = "/etc/containerd/config.toml";
const PATIENCE: Duration = Duration::from_secs(120);

/// containerd, its configuration in the place where everybody looks for it. Dropped, it is ended and its volumes are gone.
struct Containerd {
    before: Option<Vec<u8>>,
    socket: PathBuf,
    pool: String,
    daemon: Option<Running>,
}

impl Containerd {
    fn start(bench: &Bench, pool: &str) -> Self {
        let before = fs::read(CONFIG).ok();
        let dir = bench.sweep.dir();
        let socket = dir.join("containerd.sock");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{1}\"\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\n\
             root_path = \"{0}/devmapper\"\npool_name = \"{pool}\"\nbase_image_size = \"64MB\"\n",
            dir.display(),
            socket.display()
        );
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write(CONFIG, text).unwrap();
        let log = dir.join("containerd.log");
        let line = format!("exec containerd >>{} 2>&1", log.display());
        let daemon = Cmd::new("sh").args(["-c", &line]).limit(Duration::from_secs(86400)).start().unwrap();
        let containerd = Self { before, socket, pool: pool.to_owned(), daemon: Some(daemon) };
        let until = Instant::now() + PATIENCE;
        while !containerd.ctr(&["plugins", "ls"]).ok() {
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < until, "containerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Ran {
        Cmd::new("ctr").arg("--address").arg(&self.socket).args(args).limit(PATIENCE).run()
    }

    fn prepare(&self, key: &str) {
        self.ctr(&["snapshots", "--snapshotter", "devmapper", "prepare", key, ""]).checked().unwrap();
    }

    fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.kill();
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.kill();
        for name in sys::dm_names().unwrap_or_default().iter().filter(|n| n.starts_with(&format!("{}-snap", self.pool)))
        {
            let _ = sys::dmsetup(["remove", "--retry", name]).run();
        }
        let _ = match &self.before {
            Some(text) => fs::write(CONFIG, text),
            None => fs::remove_file(CONFIG),
        };
    }
}

#[test]
fn containerd_is_the_user_of_its_pool_and_its_devices_are_told() {
    let bench = Bench::new();
    let pool = bench.create();
    assert_eq!(json(&bench)["user"], "unknown");
    let mut containerd = Containerd::start(&bench, &pool);
    containerd.prepare("one");
    containerd.prepare("two");

    for state in ["running", "killed"] {
        let status = json(&bench);
        assert_eq!((&status["user"], &status["user_known_by"]), (&"containerd".into(), &"options".into()), "{state}");
        let root = bench.sweep.dir().join("devmapper");
        assert_eq!(status["containerd_root"], root.to_str().unwrap(), "{state}");
        let devices = status["containerd_devices"].as_array().unwrap();
        let told: Vec<_> = devices.iter().map(|d| (d["name"].as_str().unwrap(), d["size"].as_u64().unwrap())).collect();
        let (one, two) = (format!("{pool}-snap-1"), format!("{pool}-snap-2"));
        assert_eq!(told, [(one.as_str(), 64 << 20), (two.as_str(), 64 << 20)], "{state}: {status:#}");
        assert!(devices.iter().all(|device| device["state"] == "Activated"), "{state}: {status:#}");
        assert_eq!(status["not_read"], serde_json::json!([]), "{state}");
        let text = bench.ok(&["status", &pool]);
        assert!(text.contains(" Devices Known To containerd: 2: 2 Activated\n"), "{text}");
        assert!(bench.ok(&["list"]).lines().any(|line| line.contains(&pool) && line.contains("containerd")));
        containerd.kill();
    }

    // What it keeps is hostile until it is read: each damage is named, and nothing else is lost by it.
    let database = bench.sweep.dir().join("devmapper").join(format!("{pool}.db"));
    let whole = fs::read(&database).unwrap();
    for (damaged, said) in [(Vec::new(), "no bolt database"), (whole[..9000].to_vec(), "damaged")] {
        fs::write(&database, damaged).unwrap();
        let status = json(&bench);
        assert!(status["not_read"][0].as_str().unwrap().contains(said), "{status:#}");
        assert_eq!((&status["user"], &status["mode"]), (&"containerd".into(), &"rw".into()));
    }
    fs::write(CONFIG, "version = [").unwrap();
    let status = json(&bench);
    assert!(status["not_read"][0].as_str().unwrap().contains("not what containerd reads"), "{status:#}");
    assert_eq!(status["user"], "unknown");
    drop(containerd);
    bench.ok(&["destroy", &pool, "--yes"]);
}

fn json(bench: &Bench) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&bench.json()).unwrap();
    json["pool"].clone()
}
