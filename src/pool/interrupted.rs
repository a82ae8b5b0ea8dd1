//! An operation of dmpool that was begun and has not ended: which, and how it can be ended.

use serde::{Deserialize, Serialize};

use super::Way;

/// An operation on a pool that was interrupted, and which ways out of it there are. At least one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its journal's id.
    pub id: String,
    /// Whether finishing it deletes nothing that was written since it was interrupted.
    pub can_finish: bool,
    /// Whether it can be taken back whole: nothing stands that has no way back, and nothing written since is deleted.
    pub can_go_back: bool,
}

impl Interrupted {
    /// Returns the ways out as one line, the best first.
    pub fn ways(&self) -> String {
        let id = &self.id;
        match (self.can_finish, self.can_go_back) {
            (true, true) => format!("dmpool continue {id}    or go back with    dmpool undo {id}"),
            (true, false) => format!("dmpool continue {id}    # there is no way back any more"),
            (false, _) => format!("dmpool undo {id}    keeps the pool; if it may go:  dmpool continue {id} --yes"),
        }
    }

    /// Returns the ways out as those of a finding, the best first.
    pub fn ways_out(&self) -> Vec<Way> {
        let (finish, back) = (format!("dmpool continue {}", self.id), format!("dmpool undo {}", self.id));
        match (self.can_finish, self.can_go_back) {
            (true, true) => vec![Way::run(finish, "finishes it"), Way::run(back, "takes it back")],
            (true, false) => vec![Way::run(finish, "finishes it; there is no way back any more")],
            (false, _) => vec![
                Way::run(back, "takes it back; the pool is kept"),
                Way::run(format!("{finish} --yes"), "finishes it; deletes the pool, with what was written since"),
            ],
        }
    }
}
