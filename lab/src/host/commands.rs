//! What each command does.

use std::fs;
use std::process::ExitCode;

use super::cli::{Cli, Command, GuestOptions};
use super::hosttests;
use super::kernels;
use super::lab::Lab;
use super::place::Places;
use super::programs;
use super::runner;
use super::show;
use super::suites::{self, Group, Suite};
use super::tally::Tally;
use super::trouble::{OrTrouble, Result, Trouble};

/// Carries out a command; returns the status to exit with.
///
/// # Errors
/// What stopped it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Setup => setup(),
        Command::Test { filter, full, guests_only, write_proof, guest } => {
            let asked = Asked { filter, full, guests_only, write_proof, guest };
            test(&asked)
        }
        Command::Clean => clean(),
        _ => Err(Trouble::new("cannot do that yet")),
    }
}

/// What `cargo lab test` was asked for.
struct Asked {
    filter: Option<String>,
    full: bool,
    guests_only: bool,
    write_proof: bool,
    guest: GuestOptions,
}

fn setup() -> Result<ExitCode> {
    let lab = Lab::open(false)?;
    super::packages::install(super::packages::TO_RUN_QEMU)?;
    super::image::root(&lab.places)?;
    for group in suites::groups(None, None, false) {
        match group.lane {
            super::machine::Lane::Uml => kernels::for_uml(&lab.places, group.kernel)?,
            _ => kernels::for_qemu(&lab.places, group.kernel)?,
        };
    }
    show::line("everything is there");
    Ok(ExitCode::SUCCESS)
}

fn test(asked: &Asked) -> Result<ExitCode> {
    let lab = Lab::open(asked.guest.keep)?;
    let filter = asked.filter.as_deref();
    let groups = suites::groups(asked.guest.lane, asked.guest.kernel, asked.full);
    let mut tally = Tally::default();
    if !asked.guests_only && asked.guest.lane.is_none() && asked.guest.kernel.is_none() {
        tally.add(hosttests::run(&lab.places, filter)?);
    }
    tally.add(in_guests(&lab, &groups, filter)?);
    if tally.passed + tally.failed + tally.skipped == 0 {
        tally.fail("this run", "it ran nothing: no test has a name like that");
    }
    tally.finish();
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_guests(lab: &Lab, groups: &[Group], filter: Option<&str>) -> Result<Tally> {
    let suites: Vec<Suite> = suites::SUITES.to_vec();
    let programs = programs::build(&lab.places, &suites)?;
    let payload = programs.pack(lab.run.path(), &[])?;
    let mut tally = Tally::default();
    for group in groups {
        tally.add(runner::group(lab, group, &programs, &payload, filter)?);
    }
    Ok(tally)
}

fn clean() -> Result<ExitCode> {
    let lab = Places::find()?.lab();
    if lab.exists() {
        fs::remove_dir_all(&lab).or_trouble(|| format!("cannot remove `{}`", lab.display()))?;
    }
    show::line(&format!("removed {}", lab.display()));
    Ok(ExitCode::SUCCESS)
}
