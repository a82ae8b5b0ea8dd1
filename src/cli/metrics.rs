//! `dmpool metrics`

use std::path::PathBuf;

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::{State, metrics, named_file};
use crate::report::{failure, prometheus};

/// Write every pool's numbers for Prometheus, and remember them
///
/// Text for node_exporter's textfile collector: bytes, and no sample for what is not known. What was seen is added to the
/// history below /var/lib/dmpool, from which `status` and `list` tell how fast a pool fills: run it hourly.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Replace this file, whole or not at all, instead of writing to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        if let Some(path) = &self.output {
            named_file::may_replace(path)?;
        }
        let seen = metrics::gather(state);
        let text = prometheus::text(&seen);
        match &self.output {
            Some(path) => named_file::replace(path, text.as_bytes())?,
            None => show::value(&text)?,
        }
        for skipped in &seen.skipped {
            show::error(&failure::text(skipped));
        }
        match (seen.skipped.is_empty(), seen.history) {
            (true, None) => Ok(()),
            (true, Some(why)) => {
                Err(Failure::new(Kind::Damaged, why).fact("state", "the metrics themselves are whole"))
            }
            (false, history) => {
                let mut failure =
                    Failure::new(Kind::Damaged, "the metrics are not whole: what is named above is missing");
                if let Some(why) = history {
                    failure = failure.fact("history", why);
                }
                Err(failure)
            }
        }
    }
}
