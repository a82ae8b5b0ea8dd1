//! The example's unit and timer, run by systemd as they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lab::guest::docker::find;
use lab::guest::run::Cmd;

const SERVICE: &str = include_str!("../../examples/monitoring/dmpool-metrics.service");
const TIMER: &str = include_str!("../../examples/monitoring/dmpool-metrics.timer");
const UNITS: &str = "/etc/systemd/system";
const PROGRAM: &str = "/usr/local/sbin/dmpool";
const COLLECTED: &str = "/var/lib/prometheus/node-exporter";

/// Takes away what was installed.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = Cmd::new("systemctl").args(["disable", "--now", "dmpool-metrics.timer"]).run();
        for unit in ["service", "timer"] {
            let _ = fs::remove_file(format!("{UNITS}/dmpool-metrics.{unit}"));
        }
        let _ = Cmd::new("systemctl").arg("daemon-reload").run();
        let _ = fs::remove_file(PROGRAM);
        let _ = fs::remove_dir_all("/var/lib/prometheus");
    }
}

#[test]
fn the_timer_runs_the_unit_and_the_unit_writes_the_file() {
    let _installed = Installed;
    Cmd::new("modprobe").arg("dm_thin_pool").run().checked().unwrap();
    symlink(find("dmpool").unwrap(), PROGRAM).unwrap();
    fs::create_dir_all(COLLECTED).unwrap();
    fs::write(format!("{UNITS}/dmpool-metrics.service"), SERVICE).unwrap();
    fs::write(format!("{UNITS}/dmpool-metrics.timer"), TIMER).unwrap();
    let systemctl = |args: &[&str]| Cmd::new("systemctl").args(args).run().checked().unwrap().stdout;
    systemctl(&["daemon-reload"]);
    let timer = format!("{UNITS}/dmpool-metrics.timer");
    let verified = Cmd::new("systemd-analyze").args(["verify", "--man=no", &timer]).run().checked().unwrap();
    assert_eq!(verified.stderr, "", "{verified}");
    systemctl(&["enable", "--now", "dmpool-metrics.timer"]);
    assert_eq!(systemctl(&["is-active", "dmpool-metrics.timer"]).trim(), "active");
    systemctl(&["start", "dmpool-metrics.service"]);
    let text = fs::read_to_string(Path::new(COLLECTED).join("dmpool.prom")).unwrap();
    assert!(text.contains("\ndmpool_run_success 1\n"), "{text}");
}
