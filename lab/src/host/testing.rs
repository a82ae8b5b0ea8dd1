//! `cargo lab test`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::cli::GuestOptions;
use super::fuzz;
use super::hosttests;
use super::lab::Lab;
use super::machine::Lane;
use super::native;
use super::place::Places;
use super::programs::{self, Programs};
use super::runner;
use super::suites::{self, SUITES};
use super::tally::Tally;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// What was asked for.
#[derive(Debug)]
pub struct Asked {
    /// Only tests whose `suite::name` contains this.
    pub filter: Option<String>,
    /// Every suite on every kernel and lane.
    pub full: bool,
    /// No tests of this machine.
    pub guests_only: bool,
    /// Write `docs/proof.md`.
    pub write_proof: bool,
    /// Use what `cargo lab dist` has built, in this folder.
    pub prebuilt: Option<PathBuf>,
    /// In which guests.
    pub guest: GuestOptions,
}

/// Tries the parsers whose `fuzz::NAME` contains the filter; fails if one is wrong about an input, or if none was tried.
///
/// # Errors
/// When the fuzzer cannot be built.
pub fn fuzz(filter: Option<&str>, seconds: u64) -> Result<ExitCode> {
    let lab = Lab::open(false)?;
    let mut tally = fuzz::run(&lab.places, filter, Duration::from_secs(seconds))?;
    if tally.is_empty() {
        tally.fail("this run", "it ran nothing: no parser has such a name");
    }
    tally.finish();
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs what was asked for; fails if a test did, or if nothing ran.
///
/// # Errors
/// When tests cannot be built or a guest does not come up.
pub fn run(asked: &Asked) -> Result<ExitCode> {
    let native = asked.guest.lane == Some(Lane::Native);
    if native {
        native::must_be_throwaway()?;
    }
    if asked.prebuilt.is_some() && !native {
        return Err(Trouble::new("cannot use prebuilt programs in a guest: `--prebuilt` goes with `--lane native`"));
    }
    let lab = match asked.prebuilt {
        Some(_) => Lab::without_cargo(asked.guest.keep)?,
        None => Lab::open(asked.guest.keep)?,
    };
    let lab = Lab { full: asked.full, ..lab };
    let groups = suites::groups(asked.guest.lane, asked.guest.kernel, asked.full);
    // With a filter, which of the others are needed is known only when the tests are built.
    let first = if asked.filter.is_some() { 1 } else { groups.len() };
    for group in groups.iter().take(first) {
        lab.prepare(group.lane, group.kernel)?;
    }
    let mut tally = Tally::default();
    if !asked.guests_only && asked.guest.lane.is_none() && asked.guest.kernel.is_none() {
        tally.add(hosttests::run(&lab.places, asked.filter.as_deref(), asked.full)?);
        if asked.full {
            tally.add(fuzz::run(&lab.places, asked.filter.as_deref(), fuzz::USUAL)?);
        }
    }
    tally.add(in_guests(&lab, asked)?);
    if tally.is_empty() {
        let all = asked.filter.is_none();
        tally.fail("this run", if all { "it ran nothing" } else { "it ran nothing: no test has such a name" });
    }
    let proof = if asked.write_proof { Some(write_proof(&lab.places, &tally)?) } else { None };
    tally.finish();
    Ok(if tally.failed == 0 && proof != Some(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_guests(lab: &Lab, asked: &Asked) -> Result<Tally> {
    let programs = match &asked.prebuilt {
        Some(dist) => Programs::prebuilt(dist)?,
        None => programs::build(&lab.places, SUITES)?,
    };
    let payload = match asked.guest.lane {
        Some(Lane::Native) => programs.stage(&lab.run.path().join("payload"))?,
        _ => programs.pack(lab.run.path(), &[])?,
    };
    let mut tally = Tally::default();
    for group in suites::groups(asked.guest.lane, asked.guest.kernel, asked.full) {
        tally.add(runner::group(lab, &group, &programs, &payload, asked.filter.as_deref())?);
    }
    Ok(tally)
}

/// Writes what has just been proved; returns whether it was worth writing.
fn write_proof(places: &Places, tally: &Tally) -> Result<bool> {
    if tally.failed > 0 {
        return Ok(false);
    }
    let git = |args: &[&str]| tool::run(Command::new("git").args(args).current_dir(&places.workspace));
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let date = tool::run(Command::new("date").args(["--utc", "+%Y-%m-%d %H:%M UTC"]))?;
    let host = tool::run(Command::new("uname").args(["-srm"]))?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let text = format!(
        "# Proof\n\nWritten by the lab after a run in which nothing failed, never by hand.\n\n\
         | | |\n|---|---|\n| date | {} |\n| commit | {}{} |\n| command | `cargo lab {}` |\n| this machine | {} |\n\
         | result | {} |\n\n{}",
        date.trim(),
        commit.trim(),
        if changed.trim().is_empty() { "" } else { ", with changes not committed" },
        words.join(" "),
        host.trim(),
        tally.line(),
        tally.places(),
    );
    let path = places.workspace.join("docs/proof.md");
    fs::write(&path, text).or_trouble(|| format!("cannot write `{}`", path.display()))?;
    Ok(true)
}
