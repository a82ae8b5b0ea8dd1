//! `dmpool destroy`

use crate::cli::{activate, parse, show};
use crate::error::Outcome;
use crate::ops::migrate::delete_old::forget_destroyed;
use crate::ops::steps::Step;
use crate::ops::{Change, State, destroy, gate};

/// Take a pool down for good: its devices, its registration, its files
///
/// Only for pools that dmpool made, and only when nothing has them open: otherwise it says what has. It asks first;
/// --yes answers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool
    pool: String,

    /// Keep the files, or the labels on its disks
    #[arg(long)]
    keep_data: bool,

    /// Also when it has volumes: they go with it
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
        let entry =
            activate::registered_here(&kit, Some(&self.pool), "destroy").map_err(|why| why.failure("destroy"))?;
        let options = destroy::Options { keep_data: self.keep_data, with_volumes: self.with_volumes };
        let change = parse::change(self.dry_run);
        // Every refusal comes before the question.
        let described = destroy::destroy(&kit, &entry, options, Change::Describe)?;
        let by_lvm = described.plan.steps.iter().any(|step| matches!(step, Step::RemoveVolume(_)));
        let (what, goes, gone) = match entry.files() {
            _ if self.keep_data => (if entry.files().is_some() { "files" } else { "devices" }, "stay", "stay"),
            Some(_) => ("files", "are deleted", "are deleted"),
            None if by_lvm => ("LVs", "are removed", "are removed"),
            None => ("devices", "will be free for anything else", "are free for anything else"),
        };
        if change == Change::Make {
            if !self.yes {
                described.plan.notes.iter().for_each(|note| show::error(&format!("note: {note}\n")));
            }
            let files = entry.files().map(|[metadata, data]| vec![&data.file, &metadata.file]);
            let paths = files.unwrap_or_else(|| entry.devices().iter().map(|device| &device.path).collect());
            let paths: Vec<_> = paths.into_iter().map(|path| path.display().to_string()).collect();
            let question = format!("destroy pool `{}`? {} {goes}.", entry.name, paths.join(" and "));
            show::confirm(&question, &format!("destroy pool `{}`", entry.name), self.yes)?;
        }
        let mut done =
            if change == Change::Make { destroy::destroy(&kit, &entry, options, change)? } else { described };
        if change == Change::Make {
            forget_destroyed(&kit, &entry);
        }
        if change == Change::Make && !self.yes {
            done.plan.notes.clear();
        }
        show::done(&done, change, &format!("destroyed pool `{}`; its {what} {gone}", entry.name))
    }
}
