//! How files of devicemapper are reached.

use std::path::PathBuf;

use crate::ops::State;
use crate::ops::contents::source::Reach;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Only for the storage driver devicemapper")]
pub(in crate::cli) struct ReachArgs {
    /// Read the pool's data here, when it is not where the root says: a file or a device, such as a copy from a dead machine
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Read the pool's metadata here, likewise
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,

    /// Copy the container's blocks to an image and mount that, as on a machine whose kernel has no device-mapper
    #[arg(long)]
    userspace: bool,

    /// Where such an image goes while it is read; else the first usual place that has room
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

impl ReachArgs {
    /// Returns whether anything is said.
    pub(in crate::cli) const fn is_told(&self) -> bool {
        self.userspace || self.data.is_some() || self.metadata.is_some() || self.work_dir.is_some()
    }

    pub(in crate::cli) fn to(self, state: &State) -> Reach {
        let Self { data, metadata, userspace, work_dir } = self;
        Reach { userspace, work_dir, data, metadata, state: state.clone(), ..Reach::default() }
    }
}
