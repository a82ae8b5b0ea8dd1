//! `dmpool status`

use clap::ValueEnum;

use crate::cli::{parse, show};
use crate::error::Outcome;
use crate::ops::status::Status;
use crate::ops::{State, gate, status};
use crate::report::docker_info::{self, DockerView, Layout, Version};
use crate::report::status::StatusView;
use crate::report::{json, status as text};

/// Show a pool: the storage block of `docker info`, what that hides, and the way out
///
/// Reads the kernel and files only: it works with Docker stopped, hanging or gone, and changes nothing. What cannot be
/// known is printed as unknown. When a registry entry or a Docker root cannot be read, that is named, the pool is shown
/// all the same, and the exit code is 5.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool's dm name, `docker`, or the path of a Docker root; may be left out when there is one pool
    pool: Option<String>,

    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Print the block as this version of Docker does (1.13, 20.10), whichever one the root belongs to
    #[arg(long, value_name = "X.Y", value_parser = parse::docker_version)]
    docker_version: Option<Version>,
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// Only the storage block of `docker info`, byte for byte
    Docker,
    /// For programs: raw bytes, null for what is unknown
    Json,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let seen = status::status(&kit, self.pool.as_deref())?;
        let mut view = view(&seen.found);
        if let Some(version) = self.docker_version {
            view.docker.layout = Layout::of(version);
        }
        show::value(&match self.format {
            Format::Text => text::text(&view),
            Format::Docker => docker_info::block(view.pool, view.docker),
            Format::Json => json::status(&view),
        })?;
        show::lost(seen.broken)
    }
}

/// Returns what the reports show of a status.
pub(super) fn view(status: &Status) -> StatusView<'_> {
    StatusView {
        pool: &status.report,
        docker: DockerView {
            root: status.docker.as_ref(),
            devices: status.devices.as_ref(),
            driver_version: status.driver,
            layout: Layout::of_root(status.docker.as_ref()),
        },
        findings: &status.findings,
        forecast: status.forecast,
    }
}
