//! `dmpool load`

use std::path::PathBuf;

use crate::cli::show;
use crate::error::Outcome;
use crate::ops::{State, rescue, root_archive};
use crate::report::root_archive as report;

/// Make a Docker root of an archive that dmpool save wrote, for the storage driver overlay2
///
/// Only where none is: a root with images, containers, volumes or networks is refused, and so is one on which Docker runs. Every
/// checksum is compared before anything is made; with - the archive comes through a pipe, and is put in place once it was found right.
/// Ids, names, tags and contents are those that were saved. Docker is started afterwards by whoever wants it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only read the archive, and compare its checksums
    #[arg(long, conflicts_with_all = ["dry_run", "yes"])]
    check: bool,

    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        if self.check {
            let contents = root_archive::check(&self.file)?;
            return show::value(&report::checked(&contents, &self.file));
        }
        let root = rescue::root(state);
        let load = root_archive::load(&root, &self.file)?;
        let planned = report::planned(load.contents(), load.root(), &[&load.powers[..], &load.notes].concat());
        if self.dry_run {
            return show::value(&planned);
        }
        if !self.yes {
            show::error(&planned);
            show::confirm("Go on?", &format!("load `{}`", self.file.display()), self.yes)?;
        }
        let (root, notes) = (load.root().to_owned(), load.notes.clone());
        let loaded = load.run(&show::progress())?;
        show::told(&report::loaded(&loaded, &root, &notes));
        root_archive::outcome(&loaded)
    }
}
