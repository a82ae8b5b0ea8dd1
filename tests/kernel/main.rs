//! dmpool on a real kernel's device-mapper: every command, every refusal, failure and death at every step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod boot;
mod broken;
mod case;
mod chance;
mod death;
mod devices;
mod devices_faults;
mod devices_refused;
mod devices_register;
mod devices_reused;
mod devices_swapped;
mod devices_torn;
mod disks;
mod docs;
mod each_step;
mod examples;
mod faults;
mod grow_full;
mod health;
mod health_hung;
mod health_lvm;
mod life;
mod lvm;
mod lvm_faults;
mod metrics;
mod migrate_blocks;
mod migrate_prepared;
mod operation;
mod picture;
mod power;
mod refuse_input;
mod refuse_more;
mod refuse_place;
mod refuse_pool;
mod refuse_state;
mod refuse_udev;
mod replay;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod thin;
mod thin_reboot;
mod thin_refuse;
