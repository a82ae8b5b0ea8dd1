//! `dmpool rescue export`

use std::path::PathBuf;

use super::archive::{self, Teller};
use super::reach::ReachArgs;
use crate::error::Outcome;
use crate::ops::rescue::copy::export;
use crate::ops::{State, rescue};

/// Write a container's files as a tar archive, as `docker export` would
///
/// With what `docker export` leaves out: holes of sparse files, extended attributes, ACLs, fractions of seconds. As there,
/// volumes are not among them, and sockets are named and left out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container: its name, id, or the beginning of its id
    name: String,

    /// Replace this file, whole or not at all, instead of writing to standard output; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Only what the container has added, changed and deleted: a layer of an image
    #[arg(long)]
    changes_only: bool,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let container = rescue::container(&objects, &self.name)?;
        let export = export(&objects, container, self.changes_only, &self.reach.to(state))?;
        let file = archive::file(self.output.as_deref());
        if let Some(file) = file {
            export.may_go_to(&objects, file)?;
        }
        let mut teller = Teller::default();
        archive::write(file, &mut |writer| export.write(writer, &mut |remark| teller.tell(&remark)))?;
        teller.outcome(&format!("the archive of container `{}`", rescue::label(container)))
    }
}
