//! dmpool where systemd runs Docker, as its users have it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod boot;
mod containerd;
mod docker;
#[path = "../support/host.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod host;
mod metrics;
mod migrate;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod support;
