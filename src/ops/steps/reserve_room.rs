//! The step that reserves the room for what is written while Docker is down, before it is stopped.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::ops::daemon::pids_on;
use crate::ops::progress::Interrupted;
use crate::ops::reserved;
use crate::ops::steps::{Act, Attempt, Hold, Kit, Reverted, WayBack};
use crate::units::Bytes;

/// Reserves room on a file system, for as long as this process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveRoom {
    /// What keeps Docker from starting afterwards.
    pub hold: Hold,
    /// A folder on that file system.
    pub folder: PathBuf,
    /// How much is needed at most.
    pub room: Bytes,
    /// What more of a pool's metadata file is reserved where that is free.
    #[serde(default)]
    pub also: Bytes,
}

/// The largest metadata that the kernel uses (`THIN_METADATA_MAX_SECTORS`, drivers/md/dm-thin-metadata.h).
const LARGEST: Bytes = Bytes::new(16 << 30);

/// How much of a pool's files is reserved in them while they are filled, from the beginning on. Data gets its blocks there one after the other. Metadata
/// wanders through its whole file: since Linux 5.14, and stable releases of older ones, a commit does not send the search for free blocks back to the
/// beginning (`sm_metadata_commit`, drivers/md/persistent-data/dm-space-map-metadata.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFiles {
    /// Of its data.
    pub data: Bytes,
    /// Of its metadata, where the file system has no room for all of it.
    pub metadata: Bytes,
}

impl InFiles {
    /// Gives the files that much, out of what is reserved and what is free: the one with the metadata, and that with the data beside it.
    ///
    /// # Errors
    /// When there is too little.
    pub(super) fn take(&self, kit: &Kit, metadata: &Path) -> Result<()> {
        kit.room.give_to_files(&self.files(metadata))?;
        kit.room.give_also(metadata, LARGEST)
    }

    /// Takes back what was reserved and not used; what cannot be is said, and is in nobody's way but for the space.
    ///
    /// # Errors
    /// [`Interrupted`] when somebody wants an end.
    pub(super) fn give_back(&self, kit: &Kit, metadata: &Path) -> Result<()> {
        let attached = match reserved::out_of_files(&Self { metadata: LARGEST, ..*self }.files(metadata)) {
            Err(why) if why.is::<Interrupted>() => return Err(why),
            Err(why) => {
                kit.say(format!("what was reserved for the copy and not used could not be given back: {why:#}"));
                return Ok(());
            }
            Ok(attached) => attached,
        };
        for path in attached {
            let path = path.display();
            kit.say(format!(
                "what was reserved in {path} and not used was not given back: it is attached to a loop device"
            ));
        }
        Ok(())
    }

    fn files(&self, metadata: &Path) -> [(PathBuf, Bytes); 2] {
        [(metadata.to_owned(), self.metadata), (metadata.with_file_name("data"), self.data)]
    }
}

impl Act for ReserveRoom {
    fn sentence(&self) -> String {
        let (room, folder) = (self.room.human(), self.folder.display());
        let also = match self.also == Bytes::default() {
            true => String::new(),
            false => format!(" ({} more for the new metadata, where that is free)", self.also.human()),
        };
        format!("reserve {room} at most for the copy{also}, on the file system of {folder}")
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("given back")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        kit.room.take(&self.folder, self.room, self.also, true)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        // After a death it is taken again before Docker is stopped; when that is down, what is written takes what it still needs.
        let is_past = || self.hold.was_dropped() || pids_on(&self.hold.root).is_empty();
        ensure!(kit.room.was_taken() || is_past(), "nothing is reserved any more");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        kit.room.give_up();
        Ok(Reverted::Gone)
    }
}
