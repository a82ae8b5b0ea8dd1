//! What tests do inside a guest does what it says: run in a guest, on real device-mapper, against real disks and Docker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod disks;
mod docker;
mod log_writes;
mod machine;
mod menagerie;
mod programs;
mod writer;
