//! `dmpool volumes`

use clap::{Subcommand, ValueEnum};

use crate::cli::show;
use crate::error::Outcome;
use crate::ops::volumes_of_docker::list;
use crate::ops::{State, rescue};
use crate::report::rescue::volumes as report;

/// Docker's volumes, whether Docker runs or not
///
/// Of this machine's Docker, or of the root that --root names.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

/// List volumes: what is in them, how large they are, and who used them
///
/// Those with a name, those without, those that no container uses, and those that Docker before 1.9 had. Of one whose
/// files are elsewhere (another driver's, NFS) it says where. What is damaged is named, and the exit code is 5.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Do not count what their files occupy
    #[arg(long)]
    no_size: bool,
}

/// How volumes are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line
    Text,
    /// For programs
    Json,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        match self.command {
            Command::List(args) => args.run(state),
        }
    }
}

impl ListArgs {
    fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let rows = list::list(&objects, !self.no_size);
        show::value(&match self.format {
            Format::Text => report::text(&objects, &rows, rescue::now()),
            Format::Json => report::json(&objects, &rows),
        })?;
        show::lost(rescue::not_whole("the list of volumes is", report::problems(&objects, &rows)))
    }
}
