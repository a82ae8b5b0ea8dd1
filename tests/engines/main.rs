//! dmpool beside the engines that use its pools.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod containerd;
mod dead_docker;
mod docs;
mod ephemeral;
mod full;
mod grow;
mod handover;
mod health;
mod health_link;
mod held;
mod interrupted;
mod load_devicemapper;
mod metrics;
mod migrate;
mod migrate_anew;
mod migrate_any_step;
mod migrate_base;
mod migrate_guide;
mod migrate_keep_rm;
mod migrate_menagerie;
mod migrate_overlay2;
mod migrate_power;
mod migrate_prepared;
mod migrate_room;
mod migrate_trouble;
mod named;
mod parity;
mod rescue_devicemapper;
mod rescue_files;
mod rescue_hurt;
mod save_load;
mod several;
mod shapes;
mod swapped;
mod udev;

#[path = "../support/monitoring.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod examples;
#[path = "../support/host.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod host;
#[allow(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;
