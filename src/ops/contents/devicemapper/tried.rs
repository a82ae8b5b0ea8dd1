//! What has room in a file system of a size: tried with one that is made in a file without a name.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Inner;
use crate::error::{Failure, Outcome};
use crate::kernel::fs::{FsFacts, nameless, room_in};
use crate::kernel::loopdev;
use crate::ops::filesystem::{HEAD, Used, has_whole_seconds};
use crate::units::Bytes;

/// What an inode takes at most beside its content, and what is kept free: directories and what leads to a file's blocks may need more
/// than they did.
const INODE: u64 = 512;
const SPARE: u64 = 8 << 20;
/// What a file system takes of its own at most where it is made: this share of it, for inodes and the journal, and what must stay free
/// beside it, since Docker's own pool may be growing there.
const OWN: u64 = 32;
const FREE: u64 = 256 << 20;

/// A file system that was made for a try.
#[derive(Debug)]
pub(in crate::ops) struct Tried {
    /// How much has room in it, and how many files, where it counts them.
    pub(in crate::ops) room: Bytes,
    pub(in crate::ops) inodes: Option<u64>,
    /// What it takes with nothing in it.
    pub(in crate::ops) takes: Bytes,
    /// What it begins with.
    pub(in crate::ops) head: Vec<u8>,
}

impl Tried {
    /// Makes one in a file without a name, and mounts it.
    ///
    /// # Errors
    /// When there is too little room for it, it cannot be made with these arguments, or not mounted.
    pub(in crate::ops) fn make(home: &Path, inner: Inner, arguments: &[String], size: Bytes) -> Result<Self> {
        let free = FsFacts::of(home)?.available;
        let takes = Bytes::new((size.get() / OWN).saturating_add(FREE));
        ensure!(
            free >= takes,
            "trying it may take {}, and {} has {} free",
            takes.human(),
            home.display(),
            free.human()
        );
        let file = nameless(home)?;
        file.set_len(size.get()).with_context(|| format!("making a file of {} in {}", size.human(), home.display()))?;
        let device = loopdev::attach(&file, &home.join("dmpool-try"), true, false)?;
        inner.make(&device.path, arguments)?;
        let (room, inodes) = inner.with_root(&device.path, None, |root| Ok(room_in(root)?))?;
        let mut head = vec![0; HEAD];
        file.read_exact_at(&mut head, 0).context("reading its beginning")?;
        let takes = Bytes::new(file.metadata().context("looking at it")?.blocks().saturating_mul(512));
        Ok(Self { room, inodes, takes, head })
    }

    /// Makes one, and refuses where it cannot be, or would not keep what is to be in it.
    ///
    /// # Errors
    /// What of it; nothing is left of the try.
    pub(in crate::ops) fn or_refused(
        home: &Path,
        inner: Inner,
        arguments: &[String],
        size: Bytes,
        refuse: &dyn Fn(String) -> Failure,
    ) -> Outcome<Self> {
        let where_it_was = format!("in a file without a name in {}", home.display());
        let tried = Self::make(home, inner, arguments, size).map_err(|e| {
            refuse(format!("no {} of {} can be made here", inner.name(), size.human()))
                .because(e)
                .fact("tried", &where_it_was)
                .next(
                    "free some room where it was tried, or another --base-size, or --fs; a base device of less than 300 MiB takes \
                     no XFS",
                )
        })?;
        if has_whole_seconds(&tried.head) {
            return Err(refuse(format!(
                "an ext4 of {} that is made here keeps the times of files in whole seconds",
                size.human()
            ))
            .fact("found", "inodes of 128 bytes, by mke2fs.conf or dm.mkfsarg")
            .fact("tried", &where_it_was)
            .next("--base-size 512M or more, without `-I 128` in dm.mkfsarg; or --fs xfs"));
        }
        Ok(tried)
    }

    /// Returns how many bytes are missing for what is in a volume that is longer by that; nothing when it fits.
    pub(in crate::ops) fn lacks(&self, used: Used, longer: Bytes) -> Option<Bytes> {
        let needed = needed(used);
        let room = self.room.get().saturating_add(longer.get());
        let of_inodes = self.inodes.filter(|inodes| used.inodes > *inodes).map(|inodes| {
            // A file system with as many more is as much longer as its own share of inodes says.
            let each = self.room.get().checked_div(inodes.max(1)).unwrap_or(0);
            Bytes::new(used.inodes.saturating_sub(inodes).saturating_mul(each))
        });
        let of_bytes = (needed > room).then(|| Bytes::new(needed.saturating_sub(room)));
        of_bytes.max(of_inodes)
    }
}

/// Returns how much room there must be for that.
pub(in crate::ops) fn needed(used: Used) -> u64 {
    used.bytes.get().saturating_add(used.inodes.saturating_mul(INODE)).saturating_add(SPARE)
}
