//! `dmpool list`

use clap::ValueEnum;

use crate::cli::{show, status as status_cli};
use crate::error::Outcome;
use crate::ops::{State, gate, status};
use crate::report::{json, table};

/// List every thin pool of this machine
///
/// Those that the kernel has, those registered and not active, and those of Docker roots: who made each, who uses it,
/// how full it is, and a verdict.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How pools are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line
    Text,
    /// For programs: what `status --format json` has, for each
    Json,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let all = status::all(&kit)?;
        let views: Vec<_> = all.iter().map(status_cli::view).collect();
        show::value(&match self.format {
            Format::Text => table::text(&views),
            Format::Json => json::list(&views),
        });
        Ok(())
    }
}
