//! The files of containers, layers and volumes: how they are walked ([`tree`]), packed and planted ([`archive`]).
//! What several commands do with them begins here.

pub mod archive;
pub mod tree;
