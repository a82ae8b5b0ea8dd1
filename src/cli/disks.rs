//! `dmpool disks`

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::show;
use crate::error::Outcome;
use crate::ops::disks::{self, Disk};
use crate::ops::status;
use crate::report::disks as report;

/// List disks, and say which could carry a pool, and why the others could not
///
/// Disks, partitions, RAIDs, multipath devices and logical volumes, by the names that survive a reboot; those that can be
/// used first. Opens devices read-only and changes nothing. What could not be read is unknown and named, and the exit
/// code is 5.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Also what nobody would use: loop devices, RAM disks, optical drives, what device-mapper is made of inside
    #[arg(short, long)]
    all: bool,

    /// How long a device may take to answer; one that sleeps needs ten seconds to turn again
    #[arg(long, value_name = "SECONDS", default_value_t = disks::LIMIT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// How disks are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line, and how to look for more
    Table,
    /// For programs: with all reasons, names and numbers
    Json,
}

impl Args {
    pub(super) fn run(self) -> Outcome<()> {
        let found = disks::disks(Duration::from_secs(self.timeout))?;
        let shown = |disk: &Disk| self.all || disk.is_everyday();
        show::value(&match self.format {
            Format::Table => report::text(&found, &shown),
            Format::Json => report::json(&found, &shown, &status::origin()?),
        })?;
        show::lost(found.not_read(&shown))
    }
}
