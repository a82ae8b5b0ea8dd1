//! The machine's block devices: which there are, what they are called, what is on them, and writing a label.
//!
//! Nothing here opens a device for writing but [`label::write`], and reading is asked of children that can be given up.

pub mod content;
mod inventory;
pub mod label;
pub mod signatures;

pub use inventory::{Roots, Scsi, inventory, rescannable};
