//! `dmpool show`

use crate::cli::{activate, show};
use crate::error::{Failure, Outcome};
use crate::ops::{State, gate, show as op};

/// Print what a pool of dmpool's is made of: its file, or the commands that do without dmpool
///
/// --toml prints the file that  dmpool create --file FILE --ensure  takes, with the sizes that the pool has now.
/// --commands prints a script of losetup and dmsetup that brings the pool up as  dmpool activate  does.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// The pool; may be left out when there is one
    pool: Option<String>,

    /// Its specification as TOML
    #[arg(long, group = "what")]
    toml: bool,

    /// The script
    #[arg(long, group = "what")]
    commands: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let entry = activate::registered(&kit, self.pool.as_deref(), "show")?;
        let text = match self.toml {
            true => op::spec(&kit, &entry)?.to_toml().map_err(|e| {
                Failure::refused(format!("cannot show pool `{}`: TOML cannot hold it", entry.name))
                    .fact("cause", e.to_string())
            })?,
            false => op::commands(&kit, &entry)?,
        };
        show::value(&text)
    }
}
