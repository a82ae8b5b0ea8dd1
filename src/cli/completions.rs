//! `dmpool completions`

use clap_complete::Shell;

use crate::cli::{command, show};
use crate::error::Outcome;

/// Print the completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    pub(super) fn run(self) -> Outcome<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "dmpool", &mut script);
        show::value(&String::from_utf8_lossy(&script))
    }
}
