//! The steps that operations are made of: data that a journal can hold, each with how it is done, seen and taken back.
//!
//! Doing and taking back may both be repeated: after a death nobody knows how far a step came.

pub mod at_boot;
pub mod configure;
mod copy_volumes;
mod delete_file;
mod delete_folder;
mod devices;
pub mod down;
mod files;
mod format;
mod grow_volumes;
mod hold_docker;
mod keep_records;
mod labelled;
mod layers;
mod lvextend;
mod named_device;
mod register;
mod reserve_room;
mod resize;
mod set_aside;
mod snapshot;
mod start_docker;
mod stop_docker;
mod superblock;
mod swap;
mod volume;
mod volume_device;
mod volume_record;
mod volumes_of_lvm;
mod whose;
pub mod write_archive;
mod write_records;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use at_boot::EnableAtBoot;
pub use configure::{RestartContainerd, WriteConfig};
pub use copy_volumes::{Carried, CopyVolumes, SettleCopy, Swap, VerifyVolumes};
pub(in crate::ops) use copy_volumes::{take_down, with_pool};
pub use delete_file::{DeleteFile, FileId};
pub use delete_folder::{DeleteFolder, in_use};
pub use devices::{MakePool, MapFile, TakeDown, devices_of};
pub(in crate::ops) use devices::{Seen, bring_up, remove_ours};
pub use files::{ExtendFile, MakeDirectory, MakeFile, RemoveDirectory};
pub use format::{Area, ClearDevice, EraseLabel, PIECE, WriteLabel, bytes_of};
pub use grow_volumes::GrowVolumes;
pub use hold_docker::{DropHold, HeldFile, Hold, HoldDocker, has_answered};
pub use keep_records::KeepRecords;
pub use labelled::{MapDevices, ReloadDevices, table_of_labels};
pub use layers::{CopyLayers, PlaceLayers, SetDriver, VerifyLayers};
pub use lvextend::{ExtendThinPool, ExtendVolume};
pub use named_device::NamedDevice;
pub use register::{Register, Unregister, UpdateEntry};
pub use reserve_room::{InFiles, ReserveRoom};
pub use resize::{Part, ReloadLinear, ReloadPool, SetCapacity};
pub use set_aside::SetAside;
pub use snapshot::MakeSnapshot;
pub use start_docker::StartDocker;
pub use stop_docker::{StopContainers, StopDocker};
pub use superblock::EraseSuperblock;
pub use volume::{DeleteThin, MakeThin, SetTransaction};
pub use volume_device::{GrowFileSystem, MapVolume, ReloadVolume, grower};
pub use volume_record::{AdoptVolumes, ForgetVolumes, RecordVolumes, ResizeVolume, SettleVolumes};
pub use volumes_of_lvm::{MakeVolume, RemoveVolume, WakeVolume, agreed_by_lvm, asleep};
pub(in crate::ops) use whose::is_bare;
pub use write_archive::WriteArchive;
pub use write_records::WriteRecords;

use crate::kernel::dm::Dm;
use crate::ops::State;
use crate::ops::progress::Watcher;
use crate::ops::reserved::Held;

/// What steps work with.
#[derive(Debug)]
pub struct Kit {
    /// The kernel's device-mapper.
    pub dm: Dm,
    /// Where the registry is.
    pub state: State,
    /// What steps have said of what they left as it is, each a sentence.
    said: RefCell<Vec<String>>,
    /// Who is told how far a long step has come.
    pub watcher: Watcher,
    /// The room that is reserved for what is written.
    pub(in crate::ops) room: Held,
}

impl Kit {
    /// Returns what steps work with.
    pub const fn new(dm: Dm, state: State) -> Self {
        Self { dm, state, said: RefCell::new(Vec::new()), watcher: Watcher::none(), room: Held::nothing() }
    }

    /// Keeps what a step has to say of what it left as it is.
    fn say(&self, what: String) {
        let mut said = self.said.borrow_mut();
        if !said.contains(&what) {
            said.push(what);
        }
    }

    /// Returns what steps have said until then, once.
    pub fn said(&self) -> Vec<String> {
        self.said.take()
    }
}

/// Whether a step may find its own effect already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may not: what is there is somebody else's.
    First,
    /// It may: an earlier attempt may have come that far.
    Again,
}

/// What became of taking a step back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverted {
    /// Its effect is gone, or never was.
    Gone,
    /// Its effect stands and cannot be taken back: what stands, in a sentence.
    Stands(String),
    /// What it was done to is gone, or somebody else's by now, and is left as it is: why, in a sentence. What came before is
    /// taken back all the same.
    Left(String),
}

/// Something that an operation would have removed, had it come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A file.
    File(PathBuf),
    /// A directory that is empty once what is in it and told of as well is gone.
    Directory(PathBuf),
    /// A directory with all that is in it.
    Tree(PathBuf),
    /// A logical volume, as LVM's programs take it.
    Volume(String),
}

/// How a step is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// In that way.
    By(&'static str),
    /// Not at all.
    None,
}

/// A text file that a step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<'s> {
    /// Which.
    pub path: &'s Path,
    /// What it says; empty when it is not there.
    pub before: &'s str,
    /// What it shall say.
    pub after: &'s str,
}

/// What every step can say and do.
pub trait Act {
    /// Returns what it does, as a sentence begins: "make the file /srv/p0/data, 100 GiB, sparse".
    fn sentence(&self) -> String;

    /// Returns the same in a few words, for who has seen the plan.
    fn brief(&self) -> String {
        self.sentence()
    }

    /// Returns whether its effect survives a reboot.
    fn lasts(&self) -> bool;

    /// Returns how it is taken back.
    fn way_back(&self) -> WayBack;

    /// Does it, and makes its effect durable. When `attempt` is [`Attempt::Again`], an effect that is already there is
    /// success.
    ///
    /// # Errors
    /// When it cannot be done.
    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()>;

    /// Returns whether it makes one thing, and nothing else: when that is there already, nothing was done.
    fn is_one_thing(&self) -> bool {
        true
    }

    /// Looks whether its effect is there: by reading the kernel or the disk again.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    fn verify(&self, kit: &Kit) -> Result<()>;

    /// Takes it back; an effect that is not there is success.
    ///
    /// # Errors
    /// When it cannot be taken back although it should.
    fn revert(&self, kit: &Kit) -> Result<Reverted>;

    /// Returns whether its effect is there, and stays when it is taken back.
    ///
    /// # Errors
    /// When that cannot be looked at.
    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(false)
    }

    /// Returns what it would have removed and is still there: nobody else will when its operation is given up.
    fn leftover(&self) -> Option<Leftover> {
        None
    }

    /// Returns the text that it writes over another one, for who wants to see it first.
    fn rewrite(&self) -> Option<Rewrite<'_>> {
        None
    }
}

macro_rules! steps {
    ($($name:ident),+ $(,)?) => {
        /// One step.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "step", rename_all = "snake_case")]
        #[allow(missing_docs, reason = "each variant carries the type of its own name")]
        pub enum Step {
            $($name($name)),+
        }

        impl Step {
            /// Returns the step as what it can do.
            pub fn act(&self) -> &dyn Act {
                match self {
                    $(Self::$name(step) => step),+
                }
            }
        }

        $(impl From<$name> for Step {
            fn from(step: $name) -> Self {
                Self::$name(step)
            }
        })+
    };
}

steps!(
    MakeDirectory,
    MakeFile,
    ExtendFile,
    DeleteFile,
    RemoveDirectory,
    MapFile,
    MakePool,
    TakeDown,
    Register,
    Unregister,
    SetCapacity,
    ReloadLinear,
    ReloadPool,
    ClearDevice,
    WriteLabel,
    EraseLabel,
    EraseSuperblock,
    MapDevices,
    ReloadDevices,
    UpdateEntry,
    RecordVolumes,
    SettleVolumes,
    ResizeVolume,
    ForgetVolumes,
    MakeThin,
    MakeSnapshot,
    DeleteThin,
    SetTransaction,
    MapVolume,
    ReloadVolume,
    GrowFileSystem,
    WriteConfig,
    RestartContainerd,
    EnableAtBoot,
    SetAside,
    MakeVolume,
    RemoveVolume,
    WakeVolume,
    ExtendVolume,
    ExtendThinPool,
    CopyVolumes,
    VerifyVolumes,
    GrowVolumes,
    WriteRecords,
    SettleCopy,
    AdoptVolumes,
    CopyLayers,
    VerifyLayers,
    PlaceLayers,
    SetDriver,
    KeepRecords,
    ReserveRoom,
    StopContainers,
    HoldDocker,
    StopDocker,
    DropHold,
    StartDocker,
    DeleteFolder,
    WriteArchive,
);
