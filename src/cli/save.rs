//! `dmpool save`

use std::io;
use std::path::PathBuf;

use crate::cli::rescue::archive::{self, Teller};
use crate::cli::rescue::reach::ReachArgs;
use crate::cli::show;
use crate::error::Outcome;
use crate::ops::root_archive::{Options, Unsaved, save};
use crate::ops::{State, rescue};
use crate::report::root_archive as report;

/// Save a whole Docker root in one archive, which dmpool load makes a root of again, also on another machine
///
/// Images with their names, containers with what they changed and their logs, volumes and networks, all as Docker has them, with ids
/// and every attribute. Docker must not run on the root; nothing in it is written. Each part has a checksum, and the file has its name
/// when it is whole. What of the host containers have mounted is listed, and what of the root is left out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Replace this file, whole or not at all; - is standard output
    #[arg(value_name = "FILE", required_unless_present = "output")]
    file: Option<PathBuf>,

    /// The same
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    output: Option<PathBuf>,

    /// Also directories and files of the host that containers have mounted; those that cannot be are named
    #[arg(long)]
    include_binds: bool,

    /// Leave a container or an image out, such as one that is damaged; once for each
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,

    /// Go on when something cannot be read whole: it is left out or filled with zeros, each named, and the exit code is 5
    #[arg(long)]
    damaged: bool,

    /// The storage driver, when several have images in the root
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let named = self.file.or(self.output);
        let file = archive::file(named.as_deref());
        let options = Options {
            driver: self.driver,
            without: self.without,
            damaged: self.damaged,
            include_binds: self.include_binds,
            file: file.map(ToOwned::to_owned),
        };
        let reach = self.reach.to(state);
        let save = save(objects, &reach, &options)?;
        let (mut teller, watcher) = (Teller::default(), show::progress());
        let mut broken = None;
        let written = archive::write(file, &mut |writer| {
            save.write(writer, &watcher, &mut |remark| teller.tell(&remark)).map_err(|unsaved| match unsaved {
                Unsaved::Output(e) => e,
                Unsaved::Source(failure) => {
                    broken = Some(failure);
                    io::Error::other("the source is not whole")
                }
            })
        });
        broken.map_or(written, Err)?;
        match file {
            Some(file) => show::told(&report::saved(save.contents(), file)),
            None => show::error(&report::remarks(save.contents())),
        }
        teller.outcome("the archive")
    }
}
