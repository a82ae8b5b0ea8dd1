//! Calls for the critical section: filled in beforehand, they allocate nothing and wait for no udev.

use anyhow::{Context, Result};
use devicemapper::DmFlags;
use nix::errno::Errno;

use super::header::{self, HeaderCall};
use super::{Dm, DmId, TargetLine};

/// A resume that was filled in beforehand.
#[derive(Debug)]
pub struct PreparedResume(HeaderCall);

impl PreparedResume {
    /// Resumes the device, swapping in the loaded table if there is one. Allocates nothing and waits for no udev.
    /// May be fired again.
    ///
    /// # Errors
    /// The kernel's errno from `DM_DEV_SUSPEND`; the device may then be suspended, its info says so.
    pub fn fire(&mut self) -> Result<(), Errno> {
        self.0.fire()
    }
}

/// A suspend that was filled in beforehand.
#[derive(Debug)]
pub struct PreparedSuspend(HeaderCall);

impl PreparedSuspend {
    /// Writes the file system on the device out, holds it still, and waits until all I/O has ended. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's errno from `DM_DEV_SUSPEND`: EINTR when a signal came first, EINVAL when the device is suspended
    /// already. The device runs then, or is as it was.
    pub fn fire(&mut self) -> Result<(), Errno> {
        self.0.fire()
    }
}

/// A message to a target that was filled in beforehand.
#[derive(Debug)]
pub struct PreparedMessage(HeaderCall);

impl PreparedMessage {
    /// Sends the message. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's errno from `DM_TARGET_MSG`.
    pub fn fire(&mut self) -> Result<(), Errno> {
        self.0.fire()
    }
}

/// A question whether a device is suspended, filled in beforehand.
#[derive(Debug)]
pub struct PreparedState(HeaderCall);

impl PreparedState {
    /// Returns whether I/O to the device waits.
    ///
    /// # Errors
    /// The kernel's errno from `DM_DEV_STATUS`.
    pub fn is_suspended(&mut self) -> Result<bool, Errno> {
        self.0.fire().map(|()| self.0.suspended())
    }
}

/// A table to be loaded, filled in beforehand: the way back when a resume with another one failed.
#[derive(Debug)]
pub struct PreparedLoad(HeaderCall);

impl PreparedLoad {
    /// Loads the table into the inactive slot. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's errno from `DM_TABLE_LOAD`.
    pub fn fire(&mut self) -> Result<(), Errno> {
        self.0.fire()
    }
}

impl Dm {
    /// Fills a resume in, to be fired where nothing may be allocated.
    ///
    /// # Errors
    /// When the kernel cannot be told the name.
    pub fn prepare_resume(&self, id: &DmId) -> Result<PreparedResume> {
        let call = HeaderCall::new(&self.control, header::DEV_SUSPEND, id, DmFlags::empty());
        call.map(PreparedResume).with_context(|| format!("preparing to resume {id}"))
    }

    /// Fills a suspend in.
    ///
    /// # Errors
    /// When the kernel cannot be told the name.
    pub fn prepare_suspend(&self, id: &DmId) -> Result<PreparedSuspend> {
        let call = HeaderCall::new(&self.control, header::DEV_SUSPEND, id, DmFlags::DM_SUSPEND);
        call.map(PreparedSuspend).with_context(|| format!("preparing to suspend {id}"))
    }

    /// Fills a message to the target at sector 0 in.
    ///
    /// # Errors
    /// When the kernel cannot be told the name or the text.
    pub fn prepare_message(&self, id: &DmId, message: &str) -> Result<PreparedMessage> {
        let call = HeaderCall::new(&self.control, header::TARGET_MSG, id, DmFlags::empty())
            .and_then(|call| call.with_message(message));
        call.map(PreparedMessage).with_context(|| format!("preparing `{message}` for {id}"))
    }

    /// Fills in the question whether a device is suspended.
    ///
    /// # Errors
    /// When the kernel cannot be told the name.
    pub fn prepare_state(&self, id: &DmId) -> Result<PreparedState> {
        let call = HeaderCall::new(&self.control, header::DEV_STATUS, id, DmFlags::empty());
        call.map(PreparedState).with_context(|| format!("preparing to look at {id}"))
    }

    /// Fills a load in, to be fired where nothing may be allocated.
    ///
    /// # Errors
    /// When the kernel cannot be told the name or the table.
    pub fn prepare_load(&self, id: &DmId, table: &[TargetLine], read_only: bool) -> Result<PreparedLoad> {
        let flags = if read_only { DmFlags::DM_READONLY } else { DmFlags::empty() };
        let call =
            HeaderCall::new(&self.control, header::TABLE_LOAD, id, flags).and_then(|call| call.with_table(table));
        call.map(PreparedLoad).with_context(|| format!("preparing the table of {id}"))
    }
}
