//! For tests that run inside a guest: its life, programs with limits, the machine before and after, disks that fail,
//! writers that count, Docker as users start it.
//!
//! Everything made here is named `dmpool-test-*`, so that [`sweep`] finds what a failed test left behind.

pub mod boot;
pub mod bytes;
pub mod disk;
pub mod docker;
pub mod inmate;
pub mod inventory;
pub mod log_writes;
pub mod machine;
pub mod menagerie;
pub mod noise;
pub mod odd_tree;
pub mod run;
pub mod sweep;
pub mod sys;
pub mod wrap;
pub mod writer;
