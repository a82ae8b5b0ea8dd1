//! What a thin pool is: values only, no I/O.

mod devno;
pub mod disk;
mod entry;
pub mod finding;
pub mod growth;
mod identity;
mod interrupted;
pub mod label;
mod name;
mod report;
#[cfg(test)]
pub(crate) mod samples;
pub mod sizing;
mod spec;
mod status;
mod table;
mod volume;

pub use devno::{DevNo, NotADevNo};
pub use entry::{Behaviour, DeviceStore, Entry, Ephemeral, FORMAT as ENTRY_FORMAT, FileStore, Store};
pub use finding::{Finding, Key, Severity, Way};
pub use growth::{BytesPerDay, Forecast, Full, Moment, Point};
pub use identity::{Identity, identities};
pub use interrupted::Interrupted;
pub use name::{BadName, MAX_NAME, PoolName, PoolUuid, UUID_PREFIX};
pub use report::{
    Activity, Backing, Carrier, HostFs, Limit, Link, LoopDisk, LoopFile, Maker, PoolReport, Recorded, Snapshot,
    SnapshotOwner, Space, Tie, User, VolumeGroup,
};
pub use spec::{DEFAULT_STRIPE, Place, Spec};
pub use status::{Discard, Mode, NoSpace, PoolStatus, Working};
pub use table::{NotAPoolTable, PoolTable, THIN_POOL};
pub use volume::{Edit, THIN, Volume, VolumeId, VolumeName, VolumeRecord, VolumeState};
