//! `dmpool rescue inspect`

use clap::ValueEnum;

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::State;
use crate::ops::rescue::{self, Object, Type};
use crate::report;

/// Print all that files tell of containers and images, as `docker inspect` would
///
/// A JSON array with Docker's keys, in Docker's order. What only a daemon knows is null.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Containers and images: by name, id, or the beginning of an id
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// Of what kind they are; without, a container comes before an image
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kinds>,
}

/// What a name is of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kinds {
    /// A container
    Container,
    /// An image
    Image,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let kind = self.kind.map(|kind| match kind {
            Kinds::Container => Type::Container,
            Kinds::Image => Type::Image,
        });
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        for name in &self.names {
            match rescue::object(&objects, name, kind) {
                Ok(object) => found.push(object),
                Err(failure) => lost.push(failure),
            }
        }
        // One name that means nothing is an error of its own; beside others it is what is missing.
        if found.is_empty()
            && let Some(last) = lost.pop()
        {
            lost.iter().for_each(|failure| show::error(&report::failure::text(failure)));
            return Err(last);
        }
        show::value(&report::rescue::inspect::text(&objects, &found))?;
        let broken = found.iter().filter_map(|object| match object {
            Object::Container(container) => Some((rescue::label(container), container.problems.first()?)),
            Object::Image(_, image) => Some((image.id.clone(), image.problems.first()?)),
        });
        lost.extend(broken.map(|(label, problem)| {
            Failure::new(Kind::Damaged, format!("`{label}` is not whole: {}", problem.why))
                .fact("file", problem.path.display().to_string())
                .fact("state", "what could be read is shown; nothing was written")
        }));
        show::lost(lost)
    }
}
