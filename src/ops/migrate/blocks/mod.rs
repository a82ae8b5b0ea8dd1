//! A pool's volumes written into another pool, with the same ids, each as a snapshot of the one it comes from.
//!
//! ```text
//! source    the old pool, read by its metadata; never written
//! family    which volume each is a snapshot of, by Docker's records, and the order in which they are made
//! holds     what volumes hold, whoever says so, and what they are filled from
//! spans     where two volumes differ, and what of that is written into the new pool, piece by piece
//! fill      the copy: what is whole is counted in the new pool's transaction id
//! listing   what a pool in use holds that is final, copied while Docker runs
//! identity  what tells a pool from another one in its place
//! record    what was copied while Docker ran, and what of it is final
//! traces    where that lies, and whether somebody has written to it since
//! compare   the copy read back
//! longer    the file systems of the copy made as long as a larger base device
//! ```

mod compare;
mod family;
mod fill;
mod holds;
mod identity;
pub mod listing;
mod longer;
pub mod record;
mod source;
mod spans;
mod traces;

pub use compare::compare;
pub use family::{Family, Member};
pub use fill::{Mark, Target, fill, need};
pub use identity::identity;
pub(in crate::ops::migrate) use longer::is_well;
pub use longer::{Head, Records, are_long, heads, lengthen, wanted};
pub use source::{Origin, Source};
pub use traces::Own;
