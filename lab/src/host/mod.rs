//! `cargo lab`: what runs on the developer's machine.

pub mod cache;
pub mod cpio;
pub mod debian;
pub mod image;
pub mod kernels;
pub mod packages;
pub mod place;
pub mod show;
pub mod tool;
pub mod trouble;
