//! A pool read by its metadata, from its files or devices: nothing is written, and no volume need be active.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::spans::Extent;
use crate::kernel::block;
use crate::kernel::dm::Dm;
use crate::metadata::mapping::{self, Run};
use crate::metadata::{BLOCK, BadTree, Details, Superblock, Times, devices, times};
use crate::ops::{sight, volumes};
use crate::units::{DataBlocks, META_BLOCK_BYTES, MetaBlock};

/// How long a loop device is waited for that nobody uses any more.
const LOOKED_AT: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What a pool lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Two files or devices, of a pool that is down.
    Parts {
        /// The one with the data.
        data: PathBuf,
        /// The one with the metadata.
        metadata: PathBuf,
    },
    /// A pool that is active, of that dm name.
    Pool(String),
}

/// The metadata of a pool.
#[derive(Debug)]
pub struct Metadata {
    file: File,
    /// What its superblock says.
    pub superblock: Superblock,
    /// What tells this superblock from any other: its sum.
    pub seal: u32,
}

/// A pool whose volumes are read.
#[derive(Debug)]
pub struct Source {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its data.
    pub data: File,
}

impl Metadata {
    /// Reads the superblock of an open file or device.
    pub fn of(file: File) -> Result<Self> {
        let bytes = block::read_direct(&file, 0, BLOCK)?;
        let superblock = Superblock::parse(&bytes).context("reading the superblock")?;
        Ok(Self { file, superblock, seal: crc32c::crc32c(&bytes) })
    }

    fn block(&self, at: MetaBlock) -> Result<Vec<u8>, String> {
        let offset = at.get().checked_mul(META_BLOCK_BYTES).ok_or("it is beyond every disk")?;
        block::read_direct(&self.file, offset, BLOCK).map_err(|e| format!("{e:#}"))
    }

    /// Returns what is said of every volume, by its id.
    pub fn details(&self) -> Result<BTreeMap<u64, Details>> {
        devices(&self.superblock, |at| self.block(at)).context("reading which volumes the pool has")
    }

    /// Makes what was read durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().context("writing out the old pool's metadata")
    }

    /// Returns when every volume was made and shared last, by its id.
    pub(super) fn times(&self) -> Result<BTreeMap<u64, Times>> {
        times(&self.superblock, |at| self.block(at)).context("reading when the volumes were made")
    }

    /// Returns where the tree of each volume begins.
    pub fn roots(&self) -> Result<BTreeMap<u64, MetaBlock>> {
        mapping::roots(&self.superblock, |at| self.block(at)).context("reading where the volumes' blocks are")
    }

    /// Returns of every volume how many bytes there are up to the end of the last block that it maps.
    pub fn ends(&self) -> Result<BTreeMap<u64, u64>> {
        let ends = mapping::ends(&self.superblock, |at| self.block(at)).context("reading how long the volumes are")?;
        Ok(ends.into_iter().map(|(id, end)| (id, self.bytes(end.get()))).collect())
    }

    fn bytes(&self, blocks: u64) -> u64 {
        self.superblock.block_size.bytes_of(DataBlocks::new(blocks)).get()
    }

    /// Returns what a volume maps whose tree begins there; nothing without one.
    pub(super) fn extents(&self, root: Option<MetaBlock>) -> impl Iterator<Item = Result<Extent, BadTree>> + use<'_> {
        let runs = root.map(|root| mapping::runs(&self.superblock, root, |at| self.block(at)));
        let extent = |run: Run| Extent {
            at: self.bytes(run.begin.get()),
            from: self.bytes(run.data.get()),
            length: self.bytes(run.length.get()),
            time: run.time,
        };
        runs.into_iter().flatten().map(move |run| run.map(extent))
    }
}

impl Source {
    /// Opens a pool that nobody can write to.
    ///
    /// # Errors
    /// When somebody uses it, or it cannot be read.
    pub fn idle(dm: &Dm, origin: &Origin) -> Result<Self> {
        match origin {
            Origin::Parts { data, metadata } => {
                for path in [data, metadata] {
                    is_free(path)?;
                }
            }
            Origin::Pool(name) => {
                let live =
                    sight::live(dm, name)?.with_context(|| format!("looking for the pool `{name}`: it is down"))?;
                let open = volumes::devices(dm, live.info.devno)?;
                if let Some(open) = open.into_iter().find(|thin| thin.info.open_count > 0) {
                    bail!("the volume {} of `{name}` is open, as {}", open.id, open.info.name);
                }
            }
        }
        Self::open(dm, origin)
    }

    /// Opens a pool, whoever uses it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(dm: &Dm, origin: &Origin) -> Result<Self> {
        let [data, metadata] = match origin {
            Origin::Parts { data, metadata } => [part(data)?, part(metadata)?],
            Origin::Pool(name) => {
                let live =
                    sight::live(dm, name)?.with_context(|| format!("looking for the pool `{name}`: it is down"))?;
                [block::open_direct(live.table.data)?, block::open_direct(live.table.metadata)?]
            }
        };
        let metadata = Metadata::of(metadata).with_context(|| match origin {
            Origin::Parts { metadata, .. } => format!("reading {}", metadata.display()),
            Origin::Pool(name) => format!("reading the metadata of `{name}`"),
        })?;
        Ok(Self { metadata, data })
    }

    /// Reads some of the data; fewer bytes where it ends.
    pub(super) fn read(&self, from: u64, length: usize) -> Result<Vec<u8>> {
        block::read_direct(&self.data, from, length)
    }
}

fn part(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if found.file_type().is_block_device() {
        return block::open_direct(block::devno_of(path)?);
    }
    ensure!(found.is_file(), "{} is neither file nor disk", path.display());
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// Makes sure that nobody has a file or device in use.
pub(super) fn is_free(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if found.file_type().is_block_device() {
        ensure!(!block::is_claimed(block::devno_of(path)?)?, "{} is in use by somebody", path.display());
        return Ok(());
    }
    // A loop device goes when its last user has closed it: udev may be looking at it still.
    let until = Instant::now() + LOOKED_AT;
    while let Some(user) = sight::loops_on(path)?.first() {
        if Instant::now() >= until {
            bail!("{} is attached to {}: its pool is up", path.display(), user.path().display());
        }
        sleep(BETWEEN_LOOKS);
    }
    Ok(())
}
