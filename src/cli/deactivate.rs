//! `dmpool deactivate`

use crate::cli::{activate, parse, show};
use crate::error::Outcome;
use crate::ops::{State, deactivate, gate};

/// Take a pool down; its files, or what is on its disks, stay
///
/// Only for pools that dmpool made, and only when nothing has them open: otherwise it says what has.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool; may be left out when one is registered
    pool: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let entry = activate::registered_here(&kit, self.pool.as_deref(), "deactivate");
        let entry = entry.map_err(|why| why.failure("deactivate"))?;
        let change = parse::change(self.dry_run);
        let done = deactivate::deactivate(&kit, &entry, change)?;
        let stays = if entry.files().is_some() { "its files stay" } else { "what is on its disks stays" };
        show::done(&done, change, &format!("deactivated pool `{}`; {stays}", entry.name))
    }
}
