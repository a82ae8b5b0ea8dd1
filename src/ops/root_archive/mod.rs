//! A whole Docker root as one archive, and a root out of it. The form is in docs/root-archive.md.
//!
//! ```text
//! dmpool-root.json              what is in it, in the order in which it stands there     (contents)
//! host/… image/… network/… volumes/metadata.db containers/ID/…                           Docker's own records
//! layers/ID/diff/…              what a layer has over those beneath it
//! volumes/NAME/… binds/N/…      files of users
//! dmpool-root-sums.json         the SHA-256 of each of them, last
//! ```

mod at_rest;
mod binds;
mod changed;
mod check;
mod complete;
mod contents;
mod docker_needs;
mod host;
mod load;
mod making;
mod place;
mod powers;
mod room;
pub mod running;
mod save;
mod taken;
mod target;
mod vacant;
mod walk;
mod weight;
mod whole;

pub use check::check;
pub use contents::{Bind, Contents, Item, Sums};
pub(in crate::ops) use host::Told;
pub use load::{Load, Loaded, load, outcome};
pub use save::{Options, Save, Unsaved, save};
pub use target::{Asked, AskedPool};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
mod tests;
