//! `dmpool continue` and `dmpool undo`

use crate::cli::show;
use crate::error::Outcome;
use crate::ops::journal::Ended;
use crate::ops::resume::{self, Way};
use crate::ops::{State, gate};
use crate::report;

/// Finish an operation that was interrupted
///
/// Whichever command began it: dmpool was killed, or the power went. Until it is finished or taken back, commands that
/// would change that pool refuse.
#[derive(Debug, clap::Args)]
pub(super) struct ContinueArgs {
    /// Which, when there are several
    id: Option<String>,

    /// Finish a destroy also when its pool was brought up again since
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Take back an operation that was interrupted
///
/// As far as there is a way back; it says what stands.
#[derive(Debug, clap::Args)]
pub(super) struct UndoArgs {
    /// Which, when there are several
    id: Option<String>,
}

impl ContinueArgs {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        go(state, self.id.as_deref(), Way::Continue { data_may_go: self.yes })
    }
}

impl UndoArgs {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        go(state, self.id.as_deref(), Way::Undo)
    }
}

fn go(state: State, id: Option<&str>, way: Way) -> Outcome<()> {
    let kit = gate::open(state)?;
    let Some(done) = resume::resume(&kit, id, way)? else {
        return show::value("nothing was interrupted: there is nothing to do\n");
    };
    show::told(&match &done.ended {
        Ended::Whole => format!("finished: {}\n", done.what),
        Ended::TakenBack { stands, .. } if stands.is_empty() => format!("taken back: {}\n", done.what),
        Ended::TakenBack { stands, left } => report::resume::stands(&done.what, stands, left),
    });
    for note in &done.notes {
        show::error(&format!("note: {note}\n"));
    }
    Ok(())
}
