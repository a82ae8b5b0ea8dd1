//! The command line: one file per command, each turning what was typed into the options of one operation and handing what
//! came back to `report`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

mod activate;
mod completions;
mod create;
mod deactivate;
mod destroy;
mod disks;
mod docker;
mod grow;
mod health;
mod list;
mod load;
mod man;
mod metrics;
mod migrate;
mod parse;
mod rescue;
mod resume;
mod save;
mod show;
mod show_pool;
mod status;
mod thin;
mod volumes;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{EXIT_DONE, EXIT_FAILED, EXIT_USAGE, Outcome};
use crate::ops::State;
use crate::pool::Severity;
use crate::report;

/// Own device-mapper thin pools: Docker's loop-file pool, and pools of your own
#[derive(Debug, Parser)]
#[command(name = "dmpool", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    /// Keep registry and journals below this directory instead of /etc/dmpool and /var/lib/dmpool
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
    Health(health::Args),
    Metrics(metrics::Args),
    Disks(disks::Args),
    Create(create::Args),
    Show(show_pool::Args),
    Grow(grow::Args),
    Migrate(Box<migrate::Args>),
    Thin(thin::Args),
    Activate(activate::Args),
    Deactivate(deactivate::Args),
    #[command(visible_alias = "rm")]
    Destroy(destroy::Args),
    Rescue(rescue::Args),
    Volumes(volumes::Args),
    Save(Box<save::Args>),
    Load(load::Args),
    Continue(resume::ContinueArgs),
    Undo(resume::UndoArgs),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs a command line and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(e) => {
            let asked = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let told = show::written(e.print());
            if asked && let Err(failure) = &told {
                show::error(&report::failure::text(failure));
            }
            if !asked && let Some(tip) = of_stripes(&arguments) {
                show::error(&tip);
            }
            if !asked && is_health(&arguments) && wants_nagios(&arguments) {
                health::say_wrong(e.to_string().lines().next().unwrap_or_default());
            }
            return match asked {
                true if told.is_ok() => EXIT_DONE,
                true if !is_health(&arguments) => EXIT_FAILED,
                true => Severity::Unknown.exit_code(),
                false if is_health(&arguments) => Severity::Unknown.exit_code(),
                false => EXIT_USAGE,
            };
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => {
            show::error(&report::failure::text(&failure));
            failure.kind.exit_code()
        }
    }
}

/// Whether a command line that clap does not take was meant for `health`: a wrong one must not read as CRITICAL.
fn is_health(arguments: &[OsString]) -> bool {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--state-dir" | "--root") => drop(rest.next()),
            Some(option) if option.starts_with('-') => {}
            command => return command == Some("health"),
        }
    }
    false
}

/// Returns what to say of a size behind `--stripe` that was taken for an argument of its own.
fn of_stripes(arguments: &[OsString]) -> Option<String> {
    let after = arguments.iter().skip_while(|word| *word != "--stripe").nth(1)?.to_str()?;
    parse::size(after).is_ok().then(|| format!("\n  tip: `--stripe` takes its size behind `=`:  --stripe={after}\n"))
}

/// Whether monitoring reads the answer: it sees what is on standard output only.
fn wants_nagios(arguments: &[OsString]) -> bool {
    let pairs = || arguments.iter().zip(arguments.iter().skip(1));
    arguments.iter().any(|word| word == "--format=nagios")
        || pairs().any(|(option, value)| option == "--format" && value == "nagios")
}

fn dispatch(cli: Cli) -> Outcome<u8> {
    let state = cli.state_dir.as_deref().map_or_else(State::default, State::below).with_docker_root(cli.root);
    match cli.command {
        // The one command that speaks monitoring's language, whatever happens.
        Command::Health(args) => return Ok(args.run(state)),
        Command::Status(args) => args.run(state),
        Command::List(args) => args.run(state),
        Command::Metrics(args) => args.run(state),
        Command::Disks(args) => args.run(),
        Command::Create(args) => args.run(state),
        Command::Show(args) => args.run(state),
        Command::Grow(args) => args.run(state),
        Command::Migrate(args) => args.run(state),
        Command::Thin(args) => args.run(state),
        Command::Activate(args) => args.run(state),
        Command::Deactivate(args) => args.run(state),
        Command::Destroy(args) => args.run(state),
        Command::Rescue(args) => args.run(&state),
        Command::Volumes(args) => args.run(&state),
        Command::Save(args) => args.run(state),
        Command::Load(args) => args.run(&state),
        Command::Continue(args) => args.run(state),
        Command::Undo(args) => args.run(state),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    }?;
    Ok(EXIT_DONE)
}

/// Returns the whole command line as clap knows it: what completions, man pages and the guide's test are made from.
pub fn command() -> clap::Command {
    Cli::command()
}
