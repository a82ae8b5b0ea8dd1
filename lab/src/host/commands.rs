//! What each command does.

use std::fs;
use std::process::ExitCode;

use super::cli::{Cli, Command};
use super::dist;
use super::lab::Lab;
use super::place::Places;
use super::show;
use super::suites;
use super::testing::{self, Asked};
use super::trouble::{OrTrouble, Result};
use super::visit;

/// Carries out a command; returns the status to exit with.
///
/// # Errors
/// What stopped it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Setup => setup(),
        Command::Test { filter, full, guests_only, write_proof, prebuilt, guest } => {
            testing::run(&Asked { filter, full, guests_only, write_proof, prebuilt, guest })
        }
        Command::Fuzz { filter, seconds } => testing::fuzz(filter.as_deref(), seconds),
        Command::Demo { guest } => visit::program("lab-demo", &[], guest),
        Command::Bench { guest, arguments } => visit::program("lab-bench", &arguments, guest),
        Command::Shell { docker, systemd, guest } => visit::shell(docker, systemd, guest),
        Command::Dist => dist::run(),
        Command::Clean => clean(),
    }
}

/// Installs, fetches and makes what the usual tests need, so that nothing of it is left to do later.
fn setup() -> Result<ExitCode> {
    let lab = Lab::for_setup()?;
    for group in suites::groups(None, None, false) {
        lab.prepare(group.lane, group.kernel)?;
    }
    lab.places.give_back()?;
    show::line("everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Removes what the lab has fetched and made.
fn clean() -> Result<ExitCode> {
    let lab = Places::find()?.lab();
    if lab.exists() {
        fs::remove_dir_all(&lab).or_trouble(|| format!("cannot remove `{}`", lab.display()))?;
    }
    show::line(&format!("removed {}", lab.display()));
    Ok(ExitCode::SUCCESS)
}
