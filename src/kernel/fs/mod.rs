//! File systems: what one can hold, and changes to files that survive a power cut.

mod durable;
mod facts;

pub use self::durable::{
    create_file_durably, extend_file, make_dir_durably, punch, remove_durably, reserve, sync_dir, write_replace,
};
pub use self::facts::{FsFacts, allocated, file_size_limit};
