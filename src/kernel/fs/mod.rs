//! File systems: what one can hold, and changes to files that survive a power cut.

mod alike;
mod durable;
pub(crate) mod facts;
mod longer;
mod nameless;
mod room;
mod tree;

pub use self::alike::write_alike;
pub use self::durable::{
    can_hold, create_file_durably, extend_file, make_dir, make_dir_durably, open_existing, read_limited,
    remove_dir_durably, remove_durably, reserve, settle_dir, shorten_file, sync_dir, sync_file_system, write_replace,
    write_replace_with,
};
pub use self::facts::{FsFacts, allocated, file_size_limit, is_network};
pub use self::longer::{longer_ext4, longer_xfs, room_in, sync_open};
pub use self::nameless::nameless;
pub use self::room::{give_blocks, occupies, take_unwritten};
pub use self::tree::{Bounds, Occupied, occupied, occupied_in};
