//! Steps that let a live pool see that what is beneath it has grown.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::dm::{DmId, TargetLine};
use crate::kernel::{block, loopdev};
use crate::ops::sight::{self, Live};
use crate::ops::steps::swap::{goes_on_with, reload_sentence, swap};
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::pool::{DevNo, PoolTable, THIN_POOL};
use crate::units::{Bytes, MAX_META_BLOCKS, Sectors};

/// One of a pool's two spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Where volumes' blocks are.
    Data,
    /// Where the mappings are.
    Metadata,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Metadata => "metadata",
        })
    }
}

/// Tells the loop device on a file that the file is longer now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCapacity {
    /// The file.
    pub file: PathBuf,
    /// How long it shall at least be.
    pub to: Bytes,
}

/// Gives a linear device under a pool its new length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadLinear {
    /// Its dm name.
    pub name: String,
    /// Its dm uuid.
    pub uuid: String,
    /// The pool that stands on it, by dm name.
    pub pool: String,
    /// Which part of the pool it carries.
    pub part: Part,
    /// The file that holds the pool's superblock.
    pub metadata_file: PathBuf,
    /// How long it is.
    pub from: Sectors,
    /// How long it shall be.
    pub to: Sectors,
}

/// Lets a pool take possession of the longer device beneath: the one step of a grow with no way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadPool {
    /// The pool's dm name.
    pub name: String,
    /// The file or device with its metadata: what the pool's lock is named by.
    pub metadata: PathBuf,
    /// Which part grows.
    pub part: Part,
    /// How large that part is.
    pub from: Bytes,
    /// How large it shall be.
    pub to: Bytes,
}

impl Act for SetCapacity {
    fn sentence(&self) -> String {
        format!("tell the loop device on {} that it has {} now", self.file.display(), self.to.human())
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("with the file, when that is shortened")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        for user in sight::loops_on(&self.file)? {
            loopdev::set_capacity(user.devno)?;
        }
        Ok(())
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        for user in sight::loops_on(&self.file)? {
            let size = block::size(user.devno)?.bytes();
            ensure!(size >= self.to, "{} has {} bytes, not {}", user.devno, size.get(), self.to.get());
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        Ok(Reverted::Gone)
    }
}

impl ReloadLinear {
    /// Loads the device's live table with another length and makes it live.
    fn reload(&self, kit: &Kit, length: Sectors) -> Result<()> {
        let id = DmId::name(&self.name);
        let info = kit.dm.info(&id)?.with_context(|| format!("looking for `{}`: no such device", self.name))?;
        ensure!(info.uuid.as_deref() == Some(&self.uuid), "`{}` is not the device that dmpool made", self.name);
        let lines = kit.dm.table(&id)?;
        let [line] = lines.as_slice() else { bail!("`{}` has a table of {} lines", self.name, lines.len()) };
        ensure!(line.kind == "linear", "`{}` is a {} device", self.name, line.kind);
        let new = TargetLine { length, ..line.clone() };
        if info.inactive_table {
            // A death between load and resume leaves one, which the next resume of anybody's would make live.
            kit.dm.clear(&id)?;
        }
        if *line != new {
            ensure_room(line, length)?;
            swap(kit, &info, &lines, &[new])?;
        } else if info.suspended {
            kit.dm.resume(&id)?;
        }
        Ok(())
    }
}

impl Act for ReloadLinear {
    fn sentence(&self) -> String {
        reload_sentence(&format!("linear device {}", self.name), [self.from, self.to])
    }

    fn lasts(&self) -> bool {
        false
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("reloaded with the old length, as long as the pool has its old size")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.reload(kit, self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let info = kit.dm.info(&DmId::name(&self.name))?;
        goes_on_with(&info.with_context(|| format!("looking for `{}`: no such device", self.name))?, self.to)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        if kit.dm.info(&DmId::name(&self.name))?.is_none() {
            return Ok(Reverted::Gone);
        }
        let needed = sight::needed(&kit.dm, &self.pool, self.part, &self.metadata_file)?;
        if needed > self.from.bytes() {
            return Ok(Reverted::Stands(format!("`{}` keeps its new length: the pool uses it", self.name)));
        }
        self.reload(kit, self.from)?;
        Ok(Reverted::Gone)
    }
}

impl ReloadPool {
    fn live(&self, kit: &Kit) -> Result<Live> {
        sight::live(&kit.dm, &self.name)?
            .with_context(|| format!("looking for the pool `{}`: the kernel has no such device", self.name))
    }

    /// Returns what the kernel will say the part's size is once it has grown.
    fn wanted(&self) -> Bytes {
        match self.part {
            Part::Data => self.to,
            Part::Metadata => self.to.min(MAX_META_BLOCKS.bytes()),
        }
    }

    fn found(&self, kit: &Kit, live: &Live) -> Result<Bytes> {
        let status = sight::status(&kit.dm, &self.name)?;
        let Some(working) = status.working() else { bail!("the pool `{}` does not work: {status:?}", self.name) };
        Ok(match self.part {
            Part::Data => live.table.block_size.bytes_of(working.data_total),
            Part::Metadata => working.metadata_total.bytes(),
        })
    }
}

impl Act for ReloadPool {
    fn sentence(&self) -> String {
        format!("let the pool {} take the new {} size: {}", self.name, self.part, self.to.human())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        let live = self.live(kit)?;
        let new = match self.part {
            Part::Data => live.table.with_length(self.to.sectors().max(live.table.length)),
            Part::Metadata => live.table.clone(),
        };
        if live.info.suspended {
            ensure!(attempt == Attempt::Again, "the pool `{}` is suspended", self.name);
        } else if self.found(kit, &live)? >= self.wanted() {
            return Ok(());
        }
        let (device, needed) = match self.part {
            Part::Data => (live.table.data, new.length),
            Part::Metadata => (live.table.metadata, self.wanted().sectors()),
        };
        let room = block::size(device)?;
        ensure!(room >= needed, "the {} device {device} has {room}, {needed} are needed", self.part);
        swap(kit, &live.info, &[line(&live.table)], &[line(&new)])
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let live = self.live(kit)?;
        ensure!(!live.info.suspended, "the pool `{}` is suspended", self.name);
        let found = self.found(kit, &live)?;
        ensure!(
            found >= self.wanted(),
            "the kernel took the new table and the pool still has {} bytes of {}, not {}",
            found.get(),
            self.part,
            self.wanted().get()
        );
        Ok(())
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        let live = sight::live(&kit.dm, &self.name)?;
        live.map_or(Ok(false), |live| Ok(self.found(kit, &live)? > self.from))
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let Some(live) = sight::live(&kit.dm, &self.name)? else { return Ok(Reverted::Gone) };
        let id = DmId::name(&self.name);
        if live.info.inactive_table {
            kit.dm.clear(&id)?;
        }
        let found = self.found(kit, &live);
        if live.info.suspended {
            // A pool that has taken its new size refuses a shorter table, and would stay suspended.
            let old = match self.part {
                Part::Data => {
                    let length = found.as_ref().map_or(self.from, |found| self.from.max(*found));
                    live.table.with_length(length.sectors())
                }
                Part::Metadata => live.table.clone(),
            };
            swap(kit, &live.info, &[line(&live.table)], &[line(&old)])?;
        }
        if found? > self.from {
            return Ok(Reverted::Stands(format!(
                "the pool `{}` has its new {} size, {}",
                self.name,
                self.part,
                self.to.human()
            )));
        }
        Ok(Reverted::Gone)
    }
}

fn line(table: &PoolTable) -> TargetLine {
    TargetLine { start: Sectors::new(0), length: table.length, kind: THIN_POOL.to_owned(), params: table.params() }
}

fn ensure_room(linear: &TargetLine, length: Sectors) -> Result<()> {
    let mut words = linear.params.split_whitespace();
    let below: DevNo = words.next().unwrap_or_default().parse()?;
    let offset: u64 = words.next().unwrap_or_default().parse().context("reading the offset of a linear table")?;
    let room = block::size(below)?.saturating_sub(Sectors::new(offset));
    ensure!(room >= length, "{below} has {room} from sector {offset} on, {length} are needed");
    Ok(())
}
