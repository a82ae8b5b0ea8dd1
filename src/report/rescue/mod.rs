//! What is in a Docker root, in the form in which Docker's own commands print it.

pub mod diff;
pub mod images;
pub mod inspect;
pub mod logs;
pub mod ps;
pub mod run_line;
pub mod tree;
pub mod volumes;
mod words;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
