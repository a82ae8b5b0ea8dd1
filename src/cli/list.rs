//! `dmpool list`

use clap::ValueEnum;

use crate::cli::{show, status as status_cli};
use crate::error::Outcome;
use crate::ops::{State, gate, status};
use crate::report::{json, table};

/// List every thin pool of this machine
///
/// Those that the kernel has, those registered and not active, and those of Docker roots: who made each, who uses it,
/// how full it is, and a verdict. What cannot be read is named, the rest is listed, and the exit code is 5.
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
        let seen = status::all(&kit)?;
        show::value(&match self.format {
            Format::Text => {
                let reports: Vec<_> = seen.found.iter().map(|s| s.report.clone()).collect();
                table::text(&reports)
            }
            Format::Json => json::list(&seen.found.iter().map(status_cli::view).collect::<Vec<_>>()),
        });
        show::lost(seen.broken)
    }
}
