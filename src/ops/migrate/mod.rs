//! `migrate`: what is done around it, so that Docker is stopped, held and started again.

pub mod around;
pub mod preflight;
