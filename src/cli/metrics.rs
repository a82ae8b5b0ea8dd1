//! `dmpool metrics`

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::{errno_of, fs};
use crate::ops::{State, gate, metrics};
use crate::process::quote;
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
        let kit = gate::open(state)?;
        if let Some(path) = &self.output {
            may_replace(path)?;
        }
        let seen = metrics::gather(&kit);
        let text = prometheus::text(&seen);
        match &self.output {
            Some(path) => fs::write_replace(path, text.as_bytes(), 0o644).map_err(|e| not_written(path, e))?,
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

/// Says what to do where the directory is missing, as it is before node_exporter is set up.
fn not_written(path: &Path, error: anyhow::Error) -> Failure {
    let missing = path.parent().filter(|dir| errno_of(&error) == Some(Errno::ENOENT) && !dir.exists());
    let failure = Failure::failed(format!("cannot write `{}`", path.display()));
    match missing {
        Some(dir) => {
            failure.fact("state", "nothing was written").next(format!("mkdir -p {}", quote(&dir.to_string_lossy())))
        }
        None => failure.fact("state", "the file is as it was"),
    }
    .because(error)
}

/// Refuses to put a file in the place of a device, a directory, or a link to somewhere else.
fn may_replace(path: &Path) -> Outcome<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => {
            let what = if found.is_symlink() { "a symbolic link" } else { "no regular file" };
            Err(Failure::refused(format!("cannot replace `{}`: it is {what}", path.display()))
                .fact("state", "nothing was touched")
                .next("name the file itself; without -o the metrics go to standard output"))
        }
        // Whether it can be made is seen when it is made.
        Err(_) => Ok(()),
    }
}
