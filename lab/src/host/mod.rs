//! `cargo lab`: what runs on the developer's machine.

pub mod cache;
pub mod cli;
pub mod commands;
pub mod cpio;
pub mod debian;
pub mod guest;
pub mod hosttests;
pub mod image;
pub mod keeper;
pub mod kernels;
pub mod kvm;
pub mod lab;
pub mod machine;
pub mod packages;
pub mod place;
pub mod programs;
pub mod runner;
pub mod session;
pub mod show;
pub mod suites;
pub mod tally;
pub mod tool;
pub mod trouble;
