//! What Docker and containerd keep where, read without asking them.
//!
//! Nothing here knows device-mapper: a pool is a name, a device is a path. Parsers take `&str` or `&[u8]` and cannot
//! open anything; the readers beside them open below one directory, never follow a symbolic link there, and stop at a
//! size that no honest file reaches.

pub mod api;
pub mod bolt;
pub mod bookkeeping;
pub mod configuration;
pub mod configure;
pub mod containerd;
pub mod daemon_json;
pub mod deferred;
pub mod docker_objects;
pub mod docker_root;
pub mod dockerd;
pub mod driver;
pub mod libdm;
pub mod minimum_free;
pub mod options;
pub mod roots;
pub mod small_file;
pub mod start;
pub mod stuck;
pub mod version;
