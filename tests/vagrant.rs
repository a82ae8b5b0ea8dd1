//! The Vagrantfile, read by vagrant itself where it is installed.
//!
//! Without libtest's harness, because that cannot say at run time that a test was left out, and why.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test's own lines are what it is for")]

use std::process::{Command, ExitCode};

const NAME: &str = "the_vagrantfile_is_valid";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
    if filters.peek().is_some() && !filters.any(|filter| NAME.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if Command::new("vagrant").arg("--version").output().is_err() {
        println!("test {NAME} ... ignored, vagrant is not installed here");
        return ExitCode::SUCCESS;
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
        println!("test {NAME} ... ok");
        return ExitCode::SUCCESS;
    }
    println!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("test {NAME} ... FAILED");
    ExitCode::FAILURE
}
