//! Swapping the table of a live device without ever leaving it suspended.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;

use crate::kernel::critical::{CriticalSection, Guardian, Late};
use crate::kernel::dm::{DmId, DmInfo, PreparedLoad, PreparedResume, TargetLine};
use crate::kernel::{KernelError, block};
use crate::ops::steps::Kit;
use crate::units::Sectors;

/// How long a resume may take before the guardian steps in: far longer than any flush of what the pool has in flight.
const RESUME_LIMIT: Duration = Duration::from_secs(120);

/// What brings a device back that a failed resume left suspended; all of it prepared, so that nothing is allocated.
struct WaysBack {
    old: PreparedLoad,
    new: PreparedLoad,
    resume: PreparedResume,
}

impl WaysBack {
    fn prepare(kit: &Kit, id: &DmId, tables: [&[TargetLine]; 2], read_only: bool) -> Result<Self> {
        let [old, new] = tables.map(|table| kit.dm.prepare_load(id, table, read_only));
        Ok(Self { old: old?, new: new?, resume: kit.dm.prepare_resume(id)? })
    }

    /// Resumes with the old table; where the kernel refuses that, because it has taken the new size already, with the
    /// new one. A table that cannot be loaded leaves the live one, which the resume then runs.
    fn take(&mut self) -> Result<(), Errno> {
        let _ = self.old.fire();
        if self.resume.fire().is_ok() {
            return Ok(());
        }
        let _ = self.new.fire();
        self.resume.fire()
    }
}

/// Says of a linear or thin device, or of what is made of one, that its table is loaded anew with another length.
pub fn reload_sentence(device: &str, [from, to]: [Sectors; 2]) -> String {
    format!("reload the {device} with {} instead of {}", to.bytes().human(), from.bytes().human())
}

/// Makes sure that a device goes on with that length.
///
/// # Errors
/// When it is suspended, or has another length.
pub fn goes_on_with(info: &DmInfo, length: Sectors) -> Result<()> {
    ensure!(!info.suspended, "`{}` is suspended", info.name);
    let has = block::size(info.devno)?;
    ensure!(has == length, "`{}` has {has}, not {length}", info.name);
    Ok(())
}

/// Makes `new` the live table: load, then the one ioctl by which the kernel itself suspends, swaps and resumes.
///
/// A resume that fails may leave the device suspended with either table live: [`WaysBack`] are taken then. Between the
/// two nothing is read, written or allocated, and if this process is killed there, the guardian takes them.
///
/// # Errors
/// What loading or resuming said; whether the device may be suspended.
pub fn swap(kit: &Kit, info: &DmInfo, old: &[TargetLine], new: &[TargetLine]) -> Result<()> {
    let id = &DmId::name(&info.name);
    let ways_back = || WaysBack::prepare(kit, id, [old, new], info.read_only);
    let mut resume = kit.dm.prepare_resume(id)?;
    let mut ours = ways_back()?;
    let guardian = {
        let mut state = kit.dm.prepare_state(id)?;
        let mut resume = kit.dm.prepare_resume(id)?;
        let mut ways = ways_back()?;
        let put_right = move || match state.is_suspended() {
            Ok(false) => Ok(()),
            // First as it is: a resume that only takes long may end well before this one's turn comes, and a shorter
            // table must not follow it.
            _ => resume.fire().or_else(|_| ways.take()),
        };
        Guardian::start(put_right, RESUME_LIMIT, Late::Act)?
    };
    kit.dm.load(id, new, info.read_only)?;
    let (first, second) = {
        let _critical = CriticalSection::enter()?;
        let first = resume.fire();
        let second = if first.is_ok() { Ok(()) } else { ours.take() };
        (first, second)
    };
    // What the guardian did is seen in the device's state, which the caller looks at.
    let _ = guardian.done();
    let named = |errno| KernelError { errno, call: "DM_DEV_SUSPEND", object: id.to_string() };
    match (first, second) {
        (Ok(()), _) => Ok(()),
        (Err(errno), Ok(())) => Err(anyhow::Error::new(named(errno))
            .context(format!("resuming {id} with its new table; it has been resumed since"))),
        (Err(errno), Err(then)) => Err(anyhow::Error::new(named(errno)).context(format!(
            "resuming {id} with its new table; resuming it with its old one failed too ({}), so it may be suspended",
            named(then)
        ))),
    }
}
