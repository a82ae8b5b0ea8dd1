//! containerd as Debian ships it: restarted once its pool is there, and once more when that is taken back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::support::Bench;
use crate::support::at_boot::AtBoot;

const CONFIG: &str = "/etc/containerd/config.toml";
const BACKUP: &str = "/etc/containerd/config.toml.before-dmpool";

fn systemctl(args: &[&str]) -> String {
    Cmd::new("systemctl").args(args).limit(Duration::from_secs(240)).run().checked().unwrap().stdout
}

fn process() -> String {
    systemctl(&["show", "--property", "MainPID", "--value", "containerd.service"])
}

/// How containerd says that its devmapper plugin is: `ok`, `skip`, `error`.
fn plugin() -> String {
    let plugins = Cmd::new("ctr").args(["plugins", "ls"]).limit(Duration::from_secs(60)).run().checked().unwrap();
    let line = plugins.stdout.lines().find(|line| line.contains("devmapper")).unwrap().trim_end().to_owned();
    line.rsplit(' ').next().unwrap().to_owned()
}

/// Puts the configuration back.
struct Kept(Vec<u8>);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::write(CONFIG, &self.0);
        let _ = fs::remove_file(BACKUP);
        let _ = Cmd::new("systemctl").args(["restart", "containerd.service"]).limit(Duration::from_secs(240)).run();
        let _ = fs::remove_dir_all("/var/lib/containerd/io.containerd.snapshotter.v1.devmapper");
    }
}

#[test]
fn containerd_is_restarted_for_its_pool_and_its_plugin_is_well() {
    let (bench, _at_boot) = (Bench::with_faults(), AtBoot::none());
    systemctl(&["start", "containerd.service"]);
    let kept = Kept(fs::read(CONFIG).unwrap());
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let create = ["create", &pool, "--dir", &dir, "--data-size", "1G", "--metadata-size", "16M", "--for", "containerd"];
    let described = bench.cmd(&create).arg("--dry-run").run().checked().unwrap().stdout;
    let restart = described.lines().find(|line| line.contains("restart containerd.service")).unwrap();
    let step = restart.trim().split('.').next().unwrap();

    let first = process();
    let failed = bench.cmd(&create).env("DMPOOL_FAULT", format!("{step}:after:fail")).run();
    assert_eq!(failed.code(), Some(1), "{failed}");
    assert_eq!(fs::read(CONFIG).unwrap(), kept.0);
    assert!(!Path::new(BACKUP).exists() && !sys::dm_exists(&pool).unwrap());
    let second = process();
    assert_ne!(first, second, "it runs with the configuration that it had");

    bench.ok(&create);
    assert_ne!(process(), second);
    assert_eq!(plugin(), "ok");
    assert_eq!(fs::read(BACKUP).unwrap(), kept.0);
    let third = process();
    let again = bench.cmd(&create).arg("--ensure").run().checked().unwrap();
    assert!(again.stdout.contains("unchanged") && process() == third, "{again}");
    drop(kept);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
