//! A real containerd with its devmapper snapshotter on a pool of dmpool's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::run::{Cmd, Ran, Running};
use lab::guest::sys;

use crate::support::Bench;

const CONFIG: &str = "/etc/containerd/config.toml";
const PATIENCE: Duration = Duration::from_secs(120);

/// Where containerd finds the section of its snapshotter.
#[derive(Clone, Copy)]
enum Place {
    /// In the configuration where everybody looks for it.
    Usual,
    /// In a file that another one imports, which `--config` names.
    Imported,
}

/// containerd with a configuration. Dropped, it is ended and its volumes are gone.
struct Containerd {
    before: Option<Vec<u8>>,
    socket: PathBuf,
    pool: String,
    config: PathBuf,
    daemon: Option<Running>,
}

impl Containerd {
    fn start(bench: &Bench, pool: &str, place: Place) -> Self {
        let before = fs::read(CONFIG).ok();
        let dir = bench.sweep.dir();
        let socket = dir.join("containerd.sock");
        let main = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            dir.display(),
        );
        let grpc = format!("[grpc]\naddress = \"{}\"\n", socket.display());
        let section = format!(
            "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\n\
             root_path = \"{}/devmapper\"\npool_name = \"{pool}\"\nbase_image_size = \"64MB\"\n",
            dir.display(),
        );
        let (config, text, option) = match place {
            Place::Usual => (PathBuf::from(CONFIG), format!("{main}{grpc}{section}"), String::new()),
            Place::Imported => {
                let (config, parts) = (dir.join("elsewhere.toml"), dir.join("conf.d"));
                fs::create_dir_all(&parts).unwrap();
                fs::write(parts.join("dm.toml"), format!("version = 2\n{section}")).unwrap();
                let text = format!("{main}imports = [\"{}/*.toml\"]\n{grpc}", parts.display());
                let option = format!(" --config {}", config.display());
                (config, text, option)
            }
        };
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write(&config, text).unwrap();
        let log = dir.join("containerd.log");
        let line = format!("exec containerd{option} >>{} 2>&1", log.display());
        let daemon = Cmd::new("sh").args(["-c", &line]).limit(Duration::from_secs(86400)).start().unwrap();
        let containerd = Self { before, socket, pool: pool.to_owned(), config, daemon: Some(daemon) };
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
        if self.config == Path::new(CONFIG) {
            let _ = match &self.before {
                Some(text) => fs::write(CONFIG, text),
                None => fs::remove_file(CONFIG),
            };
        }
    }
}

#[test]
fn containerd_is_the_user_of_its_pool_and_its_devices_are_told() {
    let bench = Bench::new();
    let pool = bench.create();
    assert_eq!(json(&bench)["user"], "unknown");
    let mut containerd = Containerd::start(&bench, &pool, Place::Usual);
    // No snapshot was ever made, so that one of its databases is not there.
    let status = json(&bench);
    let none = serde_json::json!([]);
    assert_eq!((&status["not_read"], &status["containerd_devices"]), (&none, &none), "{status:#}");
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
    assert_eq!((&status["user"], &status["user_known_by"]), (&"containerd".into(), &"volumes".into()));
    assert_eq!(status["containerd_root"], serde_json::Value::Null, "nothing says where it is");
    let text = bench.ok(&["status", &pool]);
    assert!(text.contains("used by containerd, by the names of its volumes"), "{text}");
    drop(containerd);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// The unit by which containerd will be started, as an admin would write it; gone when this is dropped.
struct Unit;

impl Unit {
    const DIR: &str = "/etc/systemd/system/containerd.service.d";

    fn with(config: &Path) -> Self {
        fs::create_dir_all(Self::DIR).unwrap();
        let text = format!("[Service]\nExecStart=\nExecStart=/usr/bin/containerd --config {}\n", config.display());
        fs::write(Path::new(Self::DIR).join("dmpool-test.conf"), text).unwrap();
        Self
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Self::DIR);
    }
}

/// Packs an image with one file and hands it to containerd, which unpacks it on the pool.
fn import(containerd: &Containerd, dir: &Path, name: &str) {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        let path = blobs.join("new");
        fs::write(&path, bytes).unwrap();
        let sum = Cmd::new("sha256sum").arg(&path).run().checked().unwrap().stdout;
        let sum = sum.split(' ').next().unwrap().to_owned();
        fs::rename(path, blobs.join(&sum)).unwrap();
        format!("sha256:{sum}")
    };
    let tar = dir.join("layer.tar");
    fs::write(dir.join("file"), "x").unwrap();
    Cmd::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir).arg("file").run().checked().unwrap();
    let layer = fs::read(&tar).unwrap();
    let described = |kind: &str, digest: &str, bytes: usize| {
        let media = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({"mediaType": media, "digest": digest, "size": bytes})
    };
    let layer = described("layer.v1.tar", &blob(&layer), layer.len());
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/file"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = config.to_string();
    let config = described("config.v1+json", &blob(config.as_bytes()), config.len());
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let mut manifest = described("manifest.v1+json", &blob(manifest.as_bytes()), manifest.len());
    manifest["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let archive = dir.join("image.tar");
    Cmd::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&layout).arg(".").run().checked().unwrap();
    let archive = archive.to_str().unwrap();
    containerd.ctr(&["images", "import", "--snapshotter", "devmapper", archive]).checked().unwrap();
}

#[test]
fn containerd_with_its_configuration_elsewhere_is_found_running_and_stopped_and_its_containers_are_named() {
    let bench = Bench::new();
    let pool = bench.create();
    let mut containerd = Containerd::start(&bench, &pool, Place::Imported);
    let image = "dmpool.test/file:1";
    import(&containerd, bench.sweep.dir(), image);
    containerd.ctr(&["containers", "create", "--snapshotter", "devmapper", image, "web"]).checked().unwrap();

    let elsewhere = containerd.config.clone();
    for (state, known_by) in [("running", "options"), ("killed", "volumes"), ("its unit says it", "options")] {
        let _unit = (state == "its unit says it").then(|| Unit::with(&elsewhere));
        let status = json(&bench);
        assert_eq!((&status["user"], &status["user_known_by"]), (&"containerd".into(), &known_by.into()), "{state}");
        assert_eq!(status["not_read"], serde_json::json!([]), "{state}");
        if known_by == "options" {
            let devices = status["containerd_devices"].as_array().unwrap();
            let of =
                |wanted: Option<&str>| devices.iter().find(|d| d["owner"]["container"].as_str() == wanted).unwrap();
            let web = serde_json::json!({"namespace": "default", "key": "web", "container": "web", "image": image});
            assert_eq!(of(Some("web"))["owner"], web, "{state}: {status:#}");
            assert_eq!(of(None)["owner"]["namespace"], "default", "the image's layer");
            let text = bench.ok(&["status", &pool]);
            assert!(text.contains(&format!(" Containers Of containerd: default/web ({image})\n")), "{text}");
        }
        containerd.kill();
    }
    drop(containerd);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

fn json(bench: &Bench) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&bench.json()).unwrap();
    json["pool"].clone()
}
