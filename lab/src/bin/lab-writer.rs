//! Writes and syncs block after block until SIGTERM or SIGINT, then prints what it saw as one line of JSON.
//!
//! `lab-writer PATH [--slots N] [--first N] [--pause-ms N] [--acks PATH] [--report FILE]`: see `lab::guest::writer`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::guest::writer::{Plan, Tally, write_until};
use nix::sys::signal::{SigSet, Signal};

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a program")]
fn main() -> ExitCode {
    match run() {
        Ok(tally) => {
            println!("{}", serde_json::to_string(&tally).unwrap_or_default());
            ExitCode::from(u8::from(tally.errors > 0))
        }
        Err(error) => {
            eprintln!("lab-writer: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Tally> {
    let (plan, report) = arguments(std::env::args_os().skip(1))?;
    // Blocked here, before any thread, and waited for: as PID 1 of a container nothing else would end this.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            told.store(true, Ordering::Relaxed);
        }
    });
    write_until(&plan, &stop, |tally| match &report {
        Some(path) => {
            // Renamed into place, so that a reader never meets half a report.
            let new = path.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(tally)?)?;
            std::fs::rename(&new, path).with_context(|| format!("cannot report to {}", path.display()))
        }
        None => Ok(()),
    })
}

fn arguments(mut args: impl Iterator<Item = OsString>) -> Result<(Plan, Option<PathBuf>)> {
    let mut plan = Plan::new(args.next().context("the path to write to is missing")?);
    let mut report = None;
    while let Some(option) = args.next() {
        let value = args.next().with_context(|| format!("{} needs a value", option.display()))?;
        let number = || value.to_str().and_then(|v| v.parse().ok()).context("not a number");
        match option.to_str() {
            Some("--slots") => plan.slots = number()?,
            Some("--first") => plan.first = number()?,
            Some("--pause-ms") => plan.pause = Duration::from_millis(number()?),
            Some("--acks") => plan.acks = Some(value.into()),
            Some("--report") => report = Some(value.into()),
            _ => bail!("unknown option {}", option.display()),
        }
    }
    Ok((plan, report))
}
