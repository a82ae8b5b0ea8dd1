//! The command line: one file per command, each turning what was typed into the options of one operation and handing what
//! came back to `report`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

mod activate;
mod completions;
mod create;
mod deactivate;
mod destroy;
mod grow;
mod list;
mod man;
mod parse;
mod resume;
mod show;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{EXIT_DONE, EXIT_USAGE, Outcome};
use crate::ops::State;
use crate::report;

/// Own device-mapper thin pools: Docker's loop-file pool, and pools of your own
#[derive(Debug, Parser)]
#[command(name = "dmpool", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    /// Keep registry, journals and locks below this directory instead of /etc/dmpool and /var/lib/dmpool
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Look at this Docker root (/srv/docker), beside those that are found; it is what `docker` then means
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    #[command(visible_alias = "ls")]
    List(list::Args),
    Create(create::Args),
    Grow(grow::Args),
    Activate(activate::Args),
    Deactivate(deactivate::Args),
    #[command(visible_alias = "rm")]
    Destroy(destroy::Args),
    Continue(resume::ContinueArgs),
    Undo(resume::UndoArgs),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs a command line and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => {
            let asked = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A broken pipe is silence.
            let _ = e.print();
            return if asked { EXIT_DONE } else { EXIT_USAGE };
        }
    };
    match dispatch(cli) {
        Ok(()) => EXIT_DONE,
        Err(failure) => {
            show::error(&report::failure::text(&failure));
            failure.kind.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Outcome<()> {
    let state = cli.state_dir.as_deref().map_or_else(State::default, State::below).with_docker_root(cli.root);
    match cli.command {
        Command::Status(args) => args.run(state),
        Command::List(args) => args.run(state),
        Command::Create(args) => args.run(state),
        Command::Grow(args) => args.run(state),
        Command::Activate(args) => args.run(state),
        Command::Deactivate(args) => args.run(state),
        Command::Destroy(args) => args.run(state),
        Command::Continue(args) => args.run(state),
        Command::Undo(args) => args.run(state),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    }
}

/// Returns the whole command line as clap knows it: what completions, man pages and the guide's test are made from.
pub fn command() -> clap::Command {
    Cli::command()
}
