//! `dmpool volumes`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::cli::rescue::archive::{self, Teller};
use crate::cli::show;
use crate::error::Outcome;
use crate::ops::volumes_of_docker::save::save;
use crate::ops::volumes_of_docker::{into, list, restore};
use crate::ops::{State, rescue};
use crate::report::rescue::volumes as report;

/// Docker's volumes, whether Docker runs or not
///
/// Of this machine's Docker, or of the root that --root names. Only restore writes in the root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "ls")]
    List(ListArgs),
    Save(SaveArgs),
    Restore(RestoreArgs),
}

/// List volumes: what is in them, how large they are, and who used them
///
/// Those with a name, those without, those that no container uses, and those that Docker before 1.9 had. Of one whose
/// files are elsewhere (another driver's, NFS) it says where. What is damaged is named, and the exit code is 5.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Do not count what their files occupy
    #[arg(long)]
    no_size: bool,
}

/// Write volumes to an archive, from which they can be restored
///
/// Their files with owners, times, attributes, ACLs, holes and hard links; their labels and options. A volume whose files are
/// elsewhere (another driver's, NFS) is refused by name. One that a running container may write to is named.
#[derive(Debug, clap::Args)]
struct SaveArgs {
    /// The volumes
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// Replace this file, whole or not at all; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Restore the volumes of an archive that `volumes save` wrote
///
/// None that is there is written to: one of the same name is refused before anything is made. A file's checksums are
/// compared first; with - the archive comes through a pipe, and a volume appears once its checksum was found right. With
/// Docker up it is Docker that makes the volumes.
#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The archive; - is standard input
    file: PathBuf,
}

/// How volumes are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line
    Text,
    /// For programs
    Json,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        match self.command {
            Command::List(args) => args.run(state),
            Command::Save(args) => args.run(state),
            Command::Restore(args) => args.run(state),
        }
    }
}

impl ListArgs {
    fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let rows = list::list(&objects, !self.no_size);
        show::value(&match self.format {
            Format::Text => report::text(&objects, &rows, rescue::now()),
            Format::Json => report::json(&objects, &rows),
        })?;
        show::lost(rescue::not_whole("the list of volumes is", report::problems(&objects, &rows)))
    }
}

impl SaveArgs {
    fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let save = save(&objects, &self.names)?;
        let file = archive::file(Some(&self.output));
        if let Some(file) = file {
            save.may_go_to(file)?;
        }
        for used in &save.in_use {
            show::error(&format!("note: {used}\n"));
        }
        let mut teller = Teller::default();
        archive::write(file, &mut |writer| save.write(writer, &mut |remark| teller.tell(&remark)))?;
        teller.outcome("the archive of volumes")
    }
}

impl RestoreArgs {
    fn run(self, state: &State) -> Outcome<()> {
        let objects = into(&rescue::root(state))?;
        let mut teller = Teller::default();
        let restored = restore(&objects, &self.file, &mut |remark| teller.tell(&remark))?;
        show::told(&report::restored(&restored));
        teller.outcome("what was restored")
    }
}
