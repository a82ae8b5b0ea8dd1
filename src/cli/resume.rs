//! `dmpool continue` and `dmpool undo`

use crate::cli::{migrate as command, save, show};
use crate::error::Outcome;
use crate::ops::journal::Ended;
use crate::ops::migrate::over;
use crate::ops::resume::{self, Way};
use crate::ops::steps::Kit;
use crate::ops::{State, gate};
use crate::report;

/// Finish an operation that was interrupted
///
/// Whichever command began it: dmpool was killed, or the power went. Until it is finished or taken back, commands that
/// would change that pool refuse. What destroys data asks first; --yes answers.
#[derive(Debug, clap::Args)]
pub(super) struct ContinueArgs {
    /// Which, when there are several
    id: Option<String>,

    /// Do not ask where data go
    #[arg(long, short = 'y')]
    yes: bool,

    /// Delete also what may have been written since: the pool or volume that goes was brought up again
    #[arg(long)]
    used_since: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Take back an operation that was interrupted
///
/// As far as there is a way back; it says what stands. Where none was interrupted: the last migration, as long as nobody has started Docker
/// on what it made.
#[derive(Debug, clap::Args)]
pub(super) struct UndoArgs {
    /// Which, when there are several
    id: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl ContinueArgs {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let mut kit = gate::open(state)?;
        let way = Way::Continue { used_since: self.used_since };
        let Some(described) = resume::describe(&kit, self.id.as_deref(), way)? else { return nothing() };
        if self.dry_run {
            return show::value(&report::resume::would_finish(&described));
        }
        if described.destroys {
            let (id, what) = (&described.id, &described.what);
            let question =
                format!("finish to {what}? What it deletes does not come back; dmpool undo {id}    would keep it.");
            show::confirm(&question, &format!("finish to {what}"), self.yes)?;
        }
        kit.watcher = show::progress();
        go(&kit, Some(&described.id), way)
    }
}

impl UndoArgs {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let mut kit = gate::open(state)?;
        if self.dry_run {
            let described = resume::describe(&kit, self.id.as_deref(), Way::Undo)?;
            return described
                .map_or_else(nothing, |described| show::value(&report::resume::would_take_back(&described)));
        }
        let is_idle = self.id.is_none() && resume::describe(&kit, None, Way::Undo)?.is_none();
        if let Some(over) = over::last(&kit).filter(|_| is_idle) {
            show::error(&format!("note: {}\n", report::resume::over(&over)));
        }
        kit.watcher = show::progress();
        go(&kit, self.id.as_deref(), Way::Undo)
    }
}

fn nothing() -> Outcome<()> {
    show::value("nothing was interrupted: there is nothing to do\n")
}

fn go(kit: &Kit, id: Option<&str>, way: Way) -> Outcome<()> {
    let Some(done) = resume::resume(kit, id, way)? else { return nothing() };
    show::told(&match &done.ended {
        Ended::Whole => format!("finished: {}\n", done.what),
        Ended::TakenBack { stands, .. } if stands.is_empty() => format!("taken back: {}\n", done.what),
        Ended::TakenBack { stands, left } => report::resume::stands(&done.what, stands, left),
    });
    for note in &done.notes {
        show::error(&format!("note: {note}\n"));
    }
    if let Some(saved) = &done.saved {
        return save::told(saved);
    }
    command::has_ended(done.end.as_ref());
    command::differs(&done.differences, done.report.as_deref())
}
