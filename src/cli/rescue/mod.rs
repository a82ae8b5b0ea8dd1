//! `dmpool rescue`

pub(in crate::cli) mod archive;
mod cp;
mod diff;
mod export;
mod images;
mod inspect;
mod logs;
mod ps;
pub(in crate::cli) mod reach;
mod run_line;
mod save;

use clap::{Subcommand, ValueEnum};

use crate::error::Outcome;
use crate::ops::State;

/// Look into a Docker root whose Docker does not start, in Docker's own words
///
/// Nothing in the root is written: no file, no time, no lock. --root DIR names one that is not this machine's, such as that of
/// a disk from another. What is damaged is named and the rest is shown, with exit code 5.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ps(ps::Args),
    Images(images::Args),
    Inspect(inspect::Args),
    Logs(logs::Args),
    RunLine(run_line::Args),
    Cp(cp::Args),
    Export(export::Args),
    Diff(diff::Args),
    Save(save::Args),
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people, as Docker does
    Text,
    /// For programs
    Json,
}

impl Args {
    pub(in crate::cli) fn run(self, state: &State) -> Outcome<()> {
        match self.command {
            Command::Ps(args) => args.run(state),
            Command::Images(args) => args.run(state),
            Command::Inspect(args) => args.run(state),
            Command::Logs(args) => args.run(state),
            Command::RunLine(args) => args.run(state),
            Command::Cp(args) => args.run(state),
            Command::Export(args) => args.run(state),
            Command::Diff(args) => args.run(state),
            Command::Save(args) => args.run(state),
        }
    }
}
