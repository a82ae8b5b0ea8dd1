//! `dmpool rescue run-line`

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::{State, rescue};
use crate::report::rescue::run_line as report;

/// Print the `docker run` that would make a container again
///
/// With every option that it was given, as far as files tell, and that its image and Docker would not give it by themselves. A
/// volume that Docker named itself stands there by that name, so that what is in it is there again. What has no option is
/// said in a comment.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container: its name, id, or the beginning of its id
    name: String,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let container = rescue::container(&objects, &self.name)?;
        if !container.config.is_object() {
            let why =
                container.problems.first().map_or_else(String::new, |p| format!("{}: {}", p.path.display(), p.why));
            let what = format!(
                "cannot say how container `{}` was run: its configuration is not there",
                rescue::label(container)
            );
            return Err(Failure::new(Kind::Damaged, what)
                .fact("found", why)
                .next("look whether a backup has that file; what it was run with stands nowhere else"));
        }
        show::value(&report::text(&objects, container))
    }
}
