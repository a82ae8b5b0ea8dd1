//! A device's label: read past the page cache, written one slot at a time.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::kernel::{Called, DevNo, block};
use crate::pool::label::{SLOT_BYTES, SLOTS};

/// Who has the device while its label is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody: it is claimed for the write, which fails when somebody has it.
    Free,
    /// The pool's own linear devices, which keep clear of the label.
    Pool,
}

/// Returns the bytes of the two slots, fewer where the device ends.
///
/// # Errors
/// When the device cannot be opened or read. One that hangs keeps its reader.
pub fn read(devno: DevNo) -> Result<[Vec<u8>; 2]> {
    let file = block::open_direct(devno).context("reading a label")?;
    let [first, second] = SLOTS.map(|slot| block::read_direct(&file, slot.get(), SLOT_BYTES));
    Ok([first.context("reading the first slot of a label")?, second.context("reading the second slot of a label")?])
}

/// Writes one slot with one write, flushes the device, and looks whether it is there. udev is kept from looking at the
/// device meanwhile (its lock is what systemd-udevd respects) and does so when it is closed.
///
/// # Errors
/// EBUSY when somebody has the device, EAGAIN when somebody has its lock for ten seconds; what writing said; when other bytes come back.
pub fn write(devno: DevNo, slot: usize, bytes: &[u8], claim: Claim) -> Result<()> {
    let context = || format!("writing slot {slot} of the label of block device {devno}");
    ensure!(bytes.len() == SLOT_BYTES, "{}: it has {} bytes", context(), bytes.len());
    let at = SLOTS.get(slot).with_context(context)?.get();
    let file = open(devno, claim).with_context(context)?;
    block::write_direct(&file, at, bytes).with_context(context)?;
    file.sync_all().called("fsync", devno).with_context(context)?;
    let found = block::read_direct(&file, at, SLOT_BYTES).with_context(context)?;
    ensure!(found == bytes, "{}: other bytes came back", context());
    Ok(())
}

/// Opens a device to write to it, with the lock that keeps udev from looking at it meanwhile.
///
/// # Errors
/// EBUSY when somebody has the device, EAGAIN when somebody has its lock for ten seconds.
pub fn open(devno: DevNo, claim: Claim) -> Result<Flock<File>> {
    let file = match claim {
        Claim::Free => block::open_exclusive(devno),
        Claim::Pool => block::open_for_writing(devno),
    };
    locked(file?, devno)
}

/// How long udev may look at a device, with its lock, before it is in the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the lock for us alone. udev shares it with others while it looks, and does not look while somebody has it alone.
fn locked(mut file: File, devno: DevNo) -> Result<Flock<File>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EAGAIN)) if Instant::now() < until => file = back,
            Err((_, errno)) => return Ok(Err(errno).called("flock", devno)?),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
