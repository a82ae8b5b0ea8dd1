//! dmpool on a real kernel's device-mapper: every command, every refusal, failure and death at every step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod life;
mod refuse_input;
#[path = "../support/mod.rs"]
mod support;
