//! `dmpool rescue ps`

use super::Format;
use crate::cli::show;
use crate::error::Outcome;
use crate::ops::{State, rescue};
use crate::report::rescue::ps as report;

/// List containers as `docker ps -a` would
///
/// The newest first. What a container was doing when its Docker last wrote it down stands under STATUS: `was running`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// As in docker ps; all are listed anyhow
    #[arg(short, long)]
    all: bool,

    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open_with_pool(state)?;
        show::value(&match self.format {
            Format::Text => report::text(&objects, rescue::now(), self.no_trunc),
            Format::Json => report::json(&objects),
        })?;
        show::lost(rescue::not_whole("the list of containers is", report::problems(&objects)))
    }
}
