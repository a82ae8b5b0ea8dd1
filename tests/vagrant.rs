//! The Vagrantfile, read by vagrant itself where it is installed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, ExitCode};

#[path = "support/own_harness.rs"]
mod own_harness;

use own_harness::Verdict;

fn main() -> ExitCode {
    own_harness::run("the_vagrantfile_is_valid", || {
        if Command::new("vagrant").arg("--version").output().is_err() {
            return Verdict::Skipped("vagrant is not installed here".to_owned());
        }
        let home = tempfile::tempdir().unwrap();
        // -p: without the providers, which need more than a CI machine has.
        let run = Command::new("vagrant")
            .args(["validate", "-p"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("VAGRANT_HOME", home.path().join("home"))
            .env("VAGRANT_DOTFILE_PATH", home.path().join("machines"))
            .output()
            .unwrap();
        if run.status.success() {
            return Verdict::Passed;
        }
        Verdict::Failed(format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr)))
    })
}
