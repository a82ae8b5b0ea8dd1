//! An operation of dmpool that was begun and has not ended: which, and how it can be ended.

use serde::{Deserialize, Serialize};

use super::Way;

/// An operation on a pool that was interrupted, and which ways out of it there are. At least one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its journal's id.
    pub id: String,
    /// What it does, as a sentence goes on after "cannot": "destroy pool `p0`".
    pub what: String,
    /// Whether finishing it deletes data that are still there, as it was asked to.
    pub destroys: bool,
    /// Whether finishing it deletes nothing that was written since it was interrupted.
    pub can_finish: bool,
    /// Whether it can be taken back whole: nothing stands that has no way back, and nothing written since is deleted.
    pub can_go_back: bool,
}

impl Interrupted {
    /// Returns whether somebody has to say that the data may go before it is finished.
    pub const fn is_asked_about(&self) -> bool {
        self.destroys || !self.can_finish
    }

    /// Returns the ways out as one line, the best first.
    pub fn ways(&self) -> String {
        let id = &self.id;
        match (self.is_asked_about(), self.can_go_back) {
            (false, true) => format!("dmpool continue {id}    # or go back with dmpool undo {id}"),
            (false, false) => format!("dmpool continue {id}    # there is no way back any more"),
            (true, _) => format!(
                "dmpool undo {id}    # keeps what it would delete; if that may go:  dmpool continue {id} {}",
                self.words()
            ),
        }
    }

    /// Returns the options of `continue` that say that data may go; those written since are asked about apart.
    const fn words(&self) -> &'static str {
        if self.can_finish { "--yes" } else { "--yes --used-since" }
    }

    /// Returns the ways out as those of a finding, the best first.
    pub fn ways_out(&self) -> Vec<Way> {
        let (finish, back) = (format!("dmpool continue {}", self.id), format!("dmpool undo {}", self.id));
        match (self.is_asked_about(), self.can_go_back) {
            (false, true) => vec![Way::run(finish, "finishes it"), Way::run(back, "takes it back")],
            (false, false) => vec![Way::run(finish, "finishes it; there is no way back any more")],
            (true, _) => {
                let goes = match self.can_finish {
                    true => "finishes it; what it deletes is gone for good",
                    false => "finishes it; deletes also what was written since",
                };
                vec![
                    Way::run(back, "takes it back; what it would delete is kept"),
                    Way::run(format!("{finish} {}", self.words()), goes),
                ]
            }
        }
    }
}
