//! The files of containers, layers and volumes: how they are reached ([`source`]), walked ([`tree`]), packed and planted
//! ([`archive`]), an image's layer as the tar that it once was ([`layer`]), and all of
//! them written for another driver ([`overlay2`]), or into other volumes ([`devicemapper`]). What several commands do with them begins here.

pub mod archive;
pub mod devicemapper;
pub mod layer;
pub mod overlay2;
mod passing;
pub mod source;
pub mod tree;

pub(in crate::ops) use passing::sweep;
