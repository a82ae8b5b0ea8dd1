//! What was begun and not ended survives a death: the journal, and the one runner that carries plans out by it.

mod log;
mod record;
mod run;
pub mod volumes;
mod ways;

pub use log::{Log, Unfinished, ended, find, of_id, of_pool, open_journals, others, pools, reopen, stamp};
pub use record::{BadJournal, Journal, Opened, Progress, Record};
pub use run::{Ended, carry_out, finish, take_back};
pub use ways::{
    destroys, ends_the_way_back, is_past_hold, is_start_unknown, used, used_past_hold, was_brought_up_since, ways_out,
};
