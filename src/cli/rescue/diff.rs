//! `dmpool rescue diff`

use std::io::{self, BufWriter, Write, stdout};

use super::archive::Teller;
use super::reach::ReachArgs;
use crate::cli::show;
use crate::error::Outcome;
use crate::ops::rescue::copy::diff;
use crate::ops::{State, rescue};
use crate::report::rescue::diff as report;

/// List what a container has changed of its image, as `docker diff` would
///
/// A is what was added, C changed, D deleted; sorted by path.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container: its name, id, or the beginning of its id
    name: String,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let container = rescue::container(&objects, &self.name)?;
        let mut teller = Teller::default();
        let mut out = BufWriter::new(stdout().lock());
        let mut ended: io::Result<()> = Ok(());
        let mut take = |change| {
            ended = out.write_all(report::line(&change).as_bytes());
            ended.is_ok()
        };
        let reach = self.reach.to(state);
        diff(&objects, container, &reach, &mut take, &mut |remark| teller.tell(&remark))?;
        show::written(ended.and_then(|()| out.flush()))?;
        teller.outcome(&format!("the list of changes of container `{}`", rescue::label(container)))
    }
}
