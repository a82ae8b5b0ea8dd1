//! `dmpool load`

use std::path::PathBuf;

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::contents::devicemapper::Inner;
use crate::ops::root_archive::{Asked, AskedPool};
use crate::ops::{State, rescue, root_archive};
use crate::report::root_archive as report;
use crate::units::Bytes;

/// Make a Docker root of an archive that dmpool save wrote, for the storage driver overlay2 or devicemapper
///
/// Only where none is: a root with images, containers, volumes or networks is refused, and so is one on which Docker runs. Every
/// checksum is compared before anything is made; with - the archive comes through a pipe, and is put in place once it was found right.
/// Ids, names, tags and contents are those that were saved, whatever storage driver they were saved from. Docker is started afterwards
/// by whoever wants it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The archive; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Which storage driver the root is for; devicemapper gets a pool on two sparse files, as Docker makes one by itself
    #[arg(long, value_name = "DRIVER", value_parser = ["overlay2", "devicemapper"], default_value = "overlay2")]
    driver: String,

    /// With devicemapper: how large the pool's data is [default: as Docker is told with dm.loopdatasize; 100G]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    data_size: Option<Bytes>,

    /// With devicemapper: how large its metadata is [default: as Docker is told with dm.loopmetadatasize; 2G]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    metadata_size: Option<Bytes>,

    /// With devicemapper: how large the base device is, and with it every image and container [default: as Docker is told with
    /// dm.basesize; 10G]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    base_size: Option<Bytes>,

    /// With devicemapper: which file system every image and container has [default: as Docker is told with dm.fs; XFS where there is one]
    #[arg(long, value_name = "FS", value_parser = ["xfs", "ext4"])]
    fs: Option<String>,

    /// Only read the archive, and compare its checksums
    #[arg(long, conflicts_with_all = ["dry_run", "yes", "driver", "data_size", "metadata_size", "base_size", "fs"])]
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
        let load = root_archive::load(&root, &self.file, &self.asked()?, state)?;
        let planned =
            report::planned(load.contents(), load.root(), load.driver(), &[&load.powers[..], &load.notes].concat());
        if self.dry_run {
            return show::value(&planned);
        }
        if !self.yes {
            show::error(&planned);
            show::confirm("Go on?", &format!("load `{}`", self.file.display()), self.yes)?;
        }
        let (root, notes, start) = (load.root().to_owned(), load.notes.clone(), load.start.clone());
        let loaded = load.run(&show::progress())?;
        show::told(&report::loaded(&loaded, &root, &notes, start.as_deref()));
        root_archive::outcome(&loaded)
    }

    fn asked(&self) -> Outcome<Asked> {
        let inner = self.fs.as_deref().and_then(Inner::named);
        let pool = AskedPool { data: self.data_size, metadata: self.metadata_size, base: self.base_size, inner };
        if self.driver == "devicemapper" {
            return Ok(Asked::Devicemapper(pool));
        }
        if pool == AskedPool::default() {
            return Ok(Asked::Overlay2);
        }
        let what = "--data-size, --metadata-size, --base-size and --fs say what a pool shall be, and overlay2 has none";
        Err(Failure::new(Kind::Usage, what).next("--driver devicemapper with them, or leave them out"))
    }
}
