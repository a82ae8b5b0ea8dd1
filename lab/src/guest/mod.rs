//! What a test inside a guest may ask of the lab.

pub mod boot;
