//! What runs in the containers of a menagerie: `lab-inmate wait | talk LINES [wait] | change DIR | touch-middle FILE |
//! tree DIR SEED SMALL [everything]`, see `lab::guest::inmate` and `lab::guest::odd_tree`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lab::guest::{inmate, odd_tree};
use nix::sys::signal::{SigSet, Signal};

#[allow(clippy::print_stderr, reason = "the output of a program")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-inmate: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["wait"] => end_of(&held()?),
        ["talk", lines] => inmate::talk(lines.parse()?),
        ["talk", lines, "wait"] => {
            let signals = held()?;
            inmate::talk(lines.parse()?)?;
            end_of(&signals)
        }
        ["change", dir] => inmate::change(Path::new(dir)),
        ["touch-middle", file] => inmate::touch_middle(Path::new(file)),
        ["tree", dir, seed, small, rest @ ..] => {
            let plan =
                odd_tree::Plan { seed: seed.parse()?, small: small.parse()?, everything: rest == ["everything"] };
            odd_tree::make(Path::new(dir), plan)
        }
        _ => bail!("these words say nothing: {args:?}"),
    }
}

/// As process 1 of a container it gets only the signals it asks for.
fn held() -> Result<SigSet> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    Ok(signals)
}

/// Waits until somebody ends it.
fn end_of(signals: &SigSet) -> Result<()> {
    signals.wait().context("cannot wait")?;
    Ok(())
}
