//! `dmpool destroy`

use crate::cli::{activate, parse, show};
use crate::error::Outcome;
use crate::ops::{Change, State, destroy, gate};

/// Take a pool down for good: its devices, its registration, its files
///
/// Only for pools that dmpool made, and only when nothing has them open: otherwise it says what has. It asks first;
/// --yes answers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool
    pool: String,

    /// Keep the files
    #[arg(long)]
    keep_data: bool,

    /// Also when it has volumes that dmpool made: they go with it
    #[arg(long)]
    with_volumes: bool,

    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state.clone())?;
        let entry = activate::registered(&state, Some(&self.pool), "destroy")?;
        let options = destroy::Options { keep_data: self.keep_data, with_volumes: self.with_volumes };
        let change = parse::change(self.dry_run);
        let (what, goes) = match entry.files() {
            Some(_) => ("files", "are deleted"),
            None => ("devices", "are free for anything else then"),
        };
        let becomes = if self.keep_data { "stay" } else { goes };
        if change == Change::Make {
            // Every refusal comes before the question.
            destroy::destroy(&kit, &entry, options, Change::Describe)?;
            let files = entry.files().map(|[metadata, data]| vec![&data.file, &metadata.file]);
            let paths = files.unwrap_or_else(|| entry.devices().iter().map(|device| &device.path).collect());
            let paths: Vec<_> = paths.into_iter().map(|path| path.display().to_string()).collect();
            let question = format!("destroy pool `{}`? {} {becomes}.", entry.name, paths.join(" and "));
            show::confirm(&question, &format!("destroy pool `{}`", entry.name), self.yes)?;
        }
        let done = destroy::destroy(&kit, &entry, options, change)?;
        show::done(&done, change, &format!("destroyed pool `{}`; its {what} {becomes}", entry.name))
    }
}
