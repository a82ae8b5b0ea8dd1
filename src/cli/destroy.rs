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
        let options = destroy::Options { keep_data: self.keep_data };
        let change = parse::change(self.dry_run);
        let files = if self.keep_data { "stay" } else { "are deleted" };
        if change == Change::Make {
            // Every refusal comes before the question.
            destroy::destroy(&kit, &entry, options, Change::Describe)?;
            let question = format!(
                "destroy pool `{}`? {} and {} {files}.",
                entry.name,
                entry.data.file.display(),
                entry.metadata.file.display()
            );
            show::confirm(&question, &format!("destroy pool `{}`", entry.name), self.yes)?;
        }
        let done = destroy::destroy(&kit, &entry, options, change)?;
        show::done(&done, change, &format!("destroyed pool `{}`; its files {files}", entry.name));
        Ok(())
    }
}
