//! The files of containers, layers and volumes: how they are reached ([`source`]), walked ([`tree`]), packed and planted
//! ([`archive`]), and an image's layer as the tar that it once was ([`layer`]).
//! What several commands do with them begins here.

pub mod archive;
pub mod layer;
pub mod source;
pub mod tree;
