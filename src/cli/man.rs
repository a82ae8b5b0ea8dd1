//! `dmpool man`

use std::path::{Path, PathBuf};

use crate::cli::{command, show};
use crate::error::{Failure, Outcome};
use crate::kernel::fs;

/// Print the man page, or write those of all commands
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write dmpool.8 and one page for each command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Outcome<()> {
        let Some(dir) = self.dir else {
            return show::value(&String::from_utf8_lossy(&page(command(), "dmpool")?));
        };
        write_all(&dir, command(), "dmpool")
    }
}

/// Writes the page of a command and those of its own commands.
fn write_all(dir: &Path, command: clap::Command, name: &str) -> Outcome<()> {
    for sub in command.get_subcommands() {
        write_all(dir, sub.clone(), &format!("{name}-{}", sub.get_name()))?;
    }
    write(dir, command, name)
}

fn page(command: clap::Command, name: &str) -> Outcome<Vec<u8>> {
    let mut page = Vec::new();
    let named = command.name(name.to_owned()).bin_name(name.replace('-', " "));
    clap_mangen::Man::new(named)
        .section("8")
        .render(&mut page)
        .map_err(|e| Failure::failed(format!("cannot make the man page {name}.8")).because(e))?;
    Ok(page)
}

fn write(dir: &Path, command: clap::Command, name: &str) -> Outcome<()> {
    let path = dir.join(format!("{name}.8"));
    fs::write_replace(&path, &page(command, name)?, 0o644)
        .map_err(|e| Failure::failed(format!("cannot write {}", path.display())).because(e))
}
