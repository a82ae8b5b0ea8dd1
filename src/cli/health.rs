//! `dmpool health`

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::show;
use crate::ops::State;
use crate::ops::health::{self, Options, Threshold, Thresholds};
use crate::pool::Severity;
use crate::report;

/// Say what is wrong with the pools, and what to type: for people and for monitoring
///
/// Looks at more than `status` does: every active volume, what LVM says of its pools, what fills the file system under
/// the loop files, and why Docker does not start. Changes nothing, and ends within its time limit whatever hangs. Ends
/// with 0 when all is well, 1 for a warning, 2 when it is critical, and 3 when it cannot be told; also for a wrong
/// command line.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool's dm name, `docker`, or the path of a Docker root; all pools when left out
    pool: Option<String>,

    /// From this share of the data in use on it is a warning, in percent
    #[arg(short, long, value_name = "PERCENT", default_value = "80", value_parser = percent)]
    warning: u8,

    /// From this share of the data in use on it is critical
    #[arg(short, long, value_name = "PERCENT", default_value = "95", value_parser = percent)]
    critical: u8,

    /// As --warning, of the metadata
    #[arg(long, value_name = "PERCENT", default_value = "80", value_parser = percent)]
    metadata_warning: u8,

    /// As --critical, of the metadata
    #[arg(long, value_name = "PERCENT", default_value = "95", value_parser = percent)]
    metadata_critical: u8,

    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// What it means that there is no thin pool at all
    #[arg(long, value_enum, default_value_t = NoPool::Unknown)]
    no_pool: NoPool,

    /// How long everything together may take; what was not seen by then is unknown
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Print nothing when all is well
    #[arg(short, long)]
    quiet: bool,
}

/// How the findings are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One line with values, as monitoring plugins print it
    Nagios,
    /// For programs
    Json,
}

/// What no pool means.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NoPool {
    /// That is as it should be
    Ok,
    /// Somebody expected one
    Unknown,
}

impl Args {
    /// Runs it and returns its exit code, which is always one of monitoring's.
    pub(super) fn run(self, state: State) -> u8 {
        let thresholds = Thresholds {
            data: Threshold { warning: self.warning, critical: self.critical },
            metadata: Threshold { warning: self.metadata_warning, critical: self.metadata_critical },
        };
        for (what, threshold) in [("", thresholds.data), ("metadata-", thresholds.metadata)] {
            if threshold.warning > threshold.critical {
                let error = format!("error: --{what}warning is more than --{what}critical");
                show::error(&format!("{error}\n"));
                if matches!(self.format, Format::Nagios) {
                    say_wrong(&error);
                }
                return Severity::Unknown.exit_code();
            }
        }
        let no_pool = match self.no_pool {
            NoPool::Ok => Severity::Info,
            NoPool::Unknown => Severity::Unknown,
        };
        let limit = Duration::from_secs(self.timeout);
        let health = health::health(state, &Options { pool: self.pool, thresholds, limit, no_pool });
        let severity = health.severity();
        if !self.quiet || severity > Severity::Info {
            let told = show::value(&match self.format {
                Format::Text => report::health::text(&health),
                Format::Nagios => report::health::nagios(&health, &thresholds),
                Format::Json => report::health::document(&health),
            });
            if let Err(failure) = told {
                show::error(&report::failure::text(&failure));
                // A pool that is critical stays so; what cannot be read may be anything else.
                return severity.max(Severity::Unknown).exit_code();
            }
        }
        severity.exit_code()
    }
}

/// Prints the line of a monitoring plugin for a command line that cannot be taken.
pub(super) fn say_wrong(error: &str) {
    if let Err(failure) = show::value(&report::health::nagios_wrong(error)) {
        show::error(&report::failure::text(&failure));
    }
}

/// Reads a share such as 80 or 80%.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(format!("`{text}` is no share from 1 to 100 percent")),
    }
}
