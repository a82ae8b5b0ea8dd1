//! `dmpool rescue images`

use super::Format;
use crate::cli::show;
use crate::error::Outcome;
use crate::ops::{State, rescue};
use crate::report::rescue::{images as report, tree};

/// List images as `docker images` would, or the tree of their layers
///
/// Of each storage driver that has any. The tree also says which layers the driver has that nothing in the root names.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are printed; as JSON with all layers
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Also images without a name that others are built on
    #[arg(short, long)]
    all: bool,

    /// Draw the layers as a tree, as docker images --tree once did
    #[arg(long, conflicts_with = "format")]
    tree: bool,

    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open_with_pool(state)?;
        show::value(&match self.format {
            Format::Text if self.tree => tree::text(&objects, self.no_trunc),
            Format::Text => report::text(&objects, rescue::now(), self.all, self.no_trunc),
            Format::Json => report::json(&objects),
        })?;
        show::lost(rescue::not_whole("the list of images is", report::problems(&objects)))
    }
}
