//! What a machine whose kernel has no device-mapper is told: most that build this project are one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Command, ExitCode};

#[path = "support/own_harness.rs"]
mod own_harness;

use own_harness::Verdict;

/// Whether the running kernel has device-mapper now, built in or loaded.
fn has_device_mapper() -> bool {
    fs::read_to_string("/proc/misc").unwrap().lines().any(|line| line.ends_with(" device-mapper"))
}

/// Old numbers in the collector's file would stand for this run's.
fn metrics_are_those_of_a_run_that_saw_nothing() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dmpool.prom");
    fs::write(&file, "dmpool_pools 3\ndmpool_run_success 1\n").unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_dmpool")).args(["metrics", "-o"]).arg(&file).output().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let right = text.contains("\ndmpool_run_success 0\n") && !text.contains("dmpool_pools");
    let said = String::from_utf8_lossy(&ran.stderr);
    if right && ran.status.code() == Some(5) && said.contains("cannot use device-mapper") {
        return Ok(());
    }
    Err(format!("metrics: {}\n{said}{text}", ran.status))
}

fn main() -> ExitCode {
    own_harness::run("without_device_mapper_status_names_the_module", || {
        if has_device_mapper() {
            return Verdict::Skipped("the kernel of this machine has device-mapper".to_owned());
        }
        if !nix::unistd::geteuid().is_root() {
            return Verdict::Skipped("only root is told what the kernel lacks".to_owned());
        }
        let ran = Command::new(env!("CARGO_BIN_EXE_dmpool")).arg("status").output().unwrap();
        if has_device_mapper() {
            return Verdict::Skipped(
                "the kernel of this machine has loaded device-mapper when it was asked".to_owned(),
            );
        }
        // A pool that was named is missed, whatever is said of machines without one.
        let named = Command::new(env!("CARGO_BIN_EXE_dmpool")).args(["health", "docker", "--no-pool", "ok"]).output();
        let named = named.unwrap();
        if named.status.code() != Some(3) {
            return Verdict::Failed(format!("health of a named pool: {}", named.status));
        }
        let hint = String::from_utf8_lossy(&named.stdout);
        if !hint.contains("next: $ modprobe dm_mod") && !hint.contains("next: boot the distribution's own kernel") {
            return Verdict::Failed(format!("health says no way out: {hint}"));
        }
        if let Err(why) = metrics_are_those_of_a_run_that_saw_nothing() {
            return Verdict::Failed(why);
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let told = said.starts_with("dmpool: cannot use device-mapper: ") && said.contains("`dm_mod`");
        if ran.status.code() == Some(3) && ran.stdout.is_empty() && told && said.contains("\n  next:") {
            return Verdict::Passed;
        }
        Verdict::Failed(format!("{}\n{}{said}", ran.status, String::from_utf8_lossy(&ran.stdout)))
    })
}
