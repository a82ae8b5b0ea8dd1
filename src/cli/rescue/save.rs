//! `dmpool rescue save`

use std::io;
use std::path::PathBuf;

use super::archive;
use super::reach::ReachArgs;
use crate::error::Outcome;
use crate::ops::rescue::save::{Unsaved, save};
use crate::ops::{State, rescue};

/// Write images as an archive that `docker load` takes, as `docker save` would
///
/// A name without a tag is all images that have it with any; an id is the image without its names. Every layer comes out
/// byte for byte as it once went in, and its digest is compared. When one does not, it is named, and there is no archive.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The images: name, name and tag, digest, id, or the beginning of an id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Replace this file, whole or not at all, instead of writing to standard output; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let reach = self.reach.to(state);
        let save = save(&objects, &self.images, &reach)?;
        let file = archive::file(self.output.as_deref());
        if let Some(file) = file {
            save.may_go_to(file)?;
        }
        let mut broken = None;
        let written = archive::write(file, &mut |writer| {
            save.write(writer).map_err(|unsaved| match unsaved {
                Unsaved::Output(e) => e,
                Unsaved::Source(failure) => {
                    broken = Some(failure);
                    io::Error::other("the source is not whole")
                }
            })
        });
        broken.map_or(written, Err)
    }
}
