//! Device-mapper: devices, their tables and status, and the calls that change them.
//!
//! Calls with a payload, and those that wait for udev, go through the crate `devicemapper`. Calls that are a header
//! only go through `header`: they take a device number as it is, and can be prepared beforehand.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use devicemapper::{DM, DevId, DmError, DmFlags, DmName, DmOptions, DmUuid, errors};
use nix::errno::Errno;

use self::header::HeaderCall;
use super::{Called, DevNo, KernelError, udev};
use crate::units::Sectors;

pub(crate) mod header;
pub(crate) mod open;
mod prepared;

pub use self::open::{CONTROL, DmUnavailable};
pub use self::prepared::{PreparedLoad, PreparedMessage, PreparedResume, PreparedState, PreparedSuspend};

/// How a device is named to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DmId {
    /// By the name below /dev/mapper.
    Name(String),
    /// By the uuid given at its creation.
    Uuid(String),
    /// By its number.
    DevNo(DevNo),
}

impl DmId {
    /// Takes a name.
    pub fn name(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }
}

impl fmt::Display for DmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Uuid(text) => f.write_str(text),
            Self::DevNo(devno) => devno.fmt(f),
        }
    }
}

impl From<DevNo> for DmId {
    fn from(devno: DevNo) -> Self {
        Self::DevNo(devno)
    }
}

/// One device in the list of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DmDevice {
    /// Its name.
    pub name: String,
    /// Its number.
    pub devno: DevNo,
}

/// What the kernel says about a device, without asking its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmInfo {
    /// Its name.
    pub name: String,
    /// Its uuid, if it was given one.
    pub uuid: Option<String>,
    /// Its number.
    pub devno: DevNo,
    /// How many times it is open, by processes, mounts and other devices.
    pub open_count: u32,
    /// Whether I/O to it waits.
    pub suspended: bool,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether it has a table.
    pub live_table: bool,
    /// Whether a table has been loaded that the next resume makes live.
    pub inactive_table: bool,
    /// The number of the last event.
    pub event_nr: u32,
    /// How many targets the live table has.
    pub target_count: u32,
}

/// One line of a table or a status: `0 209715200 thin-pool 7:1 7:0 128 32768 1 skip_block_zeroing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLine {
    /// Where the target begins.
    pub start: Sectors,
    /// How long it is.
    pub length: Sectors,
    /// The target's type: `thin-pool`.
    pub kind: String,
    /// What the target makes of it, or says about itself.
    pub params: String,
}

impl fmt::Display for TargetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.start.get(), self.length.get(), self.kind, self.params)
    }
}

/// Device-mapper, opened.
pub struct Dm {
    control: Arc<File>,
    calls: DM,
}

impl fmt::Debug for Dm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dm").field("control", &self.control).finish_non_exhaustive()
    }
}

impl Dm {
    /// Opens device-mapper and asks for its version, so that what is returned can be used.
    ///
    /// # Errors
    /// Why it cannot be used, by kind.
    pub fn open() -> Result<Self, DmUnavailable> {
        let control = Arc::new(open::control()?);
        let calls = DM::new().map_err(|_| DmUnavailable::Other { errno: Errno::EIO, call: "open" })?;
        let dm = Self { control, calls };
        match dm.calls.version() {
            Ok(_) => Ok(dm),
            Err(e) => Err(match ioctl_errno(&e) {
                // The ioctl says EACCES to who lacks CAP_SYS_ADMIN (ctl_ioctl, drivers/md/dm-ioctl.c).
                Some(Errno::EACCES) => DmUnavailable::NotRoot,
                errno => DmUnavailable::Other { errno: errno.unwrap_or(Errno::EIO), call: "DM_VERSION" },
            }),
        }
    }

    /// Returns the version of the ioctl interface: 4.47.0.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn version(&self) -> Result<(u32, u32, u32)> {
        self.calls
            .version()
            .map_err(|e| taken_apart(e, "DM_VERSION", CONTROL))
            .context("asking for the version of device-mapper")
    }

    /// Returns the version of a target type; nothing when it is not loaded (loading a table with it may load it).
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn has_target(&self, kind: &str) -> Result<Option<(u32, u32, u32)>> {
        let targets = self
            .calls
            .list_versions()
            .map_err(|e| taken_apart(e, "DM_LIST_VERSIONS", CONTROL))
            .context("listing the target types of device-mapper")?;
        Ok(targets.into_iter().find_map(|(name, x, y, z)| (name == kind).then_some((x, y, z))))
    }

    /// Returns all devices, by name.
    ///
    /// # Errors
    /// When the kernel does not answer, or with a name that is not UTF-8.
    pub fn list(&self) -> Result<Vec<DmDevice>> {
        let mut devices: Vec<DmDevice> = self
            .calls
            .list_devices()
            .map_err(|e| taken_apart(e, "DM_LIST_DEVICES", CONTROL))
            .context("listing device-mapper devices")?
            .into_iter()
            .map(|(name, d, _)| DmDevice { name: name.to_string(), devno: DevNo::new(d.major, d.minor) })
            .collect();
        devices.sort();
        Ok(devices)
    }

    /// Returns what the kernel says about a device, or nothing when there is none.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn info(&self, id: &DmId) -> Result<Option<DmInfo>> {
        let mut call = HeaderCall::new(&self.control, header::DEV_STATUS, id, DmFlags::empty())?;
        match call.fire() {
            Ok(()) => Ok(Some(call.info())),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno).called("DM_DEV_STATUS", id).with_context(|| format!("asking about {id}")),
        }
    }

    /// Returns the live table.
    ///
    /// # Errors
    /// When there is no such device or the kernel does not answer.
    pub fn table(&self, id: &DmId) -> Result<Vec<TargetLine>> {
        // NOFLUSH here too: what is asked is the table, and no target shall write because of it.
        self.lines(id, DmFlags::DM_STATUS_TABLE | DmFlags::DM_NOFLUSH)
            .with_context(|| format!("reading the table of {id}"))
    }

    /// Returns the status of each target, always with `DM_NOFLUSH_FLAG`: without it a thin pool commits its metadata
    /// before it answers.
    ///
    /// # Errors
    /// When there is no such device or the kernel does not answer.
    pub fn status(&self, id: &DmId) -> Result<Vec<TargetLine>> {
        self.lines(id, DmFlags::DM_NOFLUSH).with_context(|| format!("reading the status of {id}"))
    }

    fn lines(&self, id: &DmId, flags: DmFlags) -> Result<Vec<TargetLine>> {
        let options = DmOptions::default().set_flags(flags);
        let (_, lines) = self.with_id(id, "DM_TABLE_STATUS", |id| self.calls.table_status(id, options))?;
        Ok(lines
            .into_iter()
            .map(|(start, length, kind, params)| TargetLine {
                start: Sectors::new(start),
                length: Sectors::new(length),
                kind,
                // The thin pool's own words end in a blank.
                params: params.trim_end().to_owned(),
            })
            .collect())
    }

    /// Makes a device without a table, and returns its number. It has no node until its first resume.
    ///
    /// # Errors
    /// EBUSY when the name or uuid is taken; a name the kernel does not allow.
    pub fn create(&self, name: &str, uuid: Option<&str>) -> Result<DevNo> {
        let make = || {
            let object = format!("`{name}`");
            let dm_name = DmName::new(name).map_err(|e| taken_apart(e, "DM_DEV_CREATE", &object))?;
            let dm_uuid = uuid.map(DmUuid::new).transpose().map_err(|e| taken_apart(e, "DM_DEV_CREATE", &object))?;
            self.calls
                .device_create(dm_name, dm_uuid, DmOptions::default())
                .map_err(|e| taken_apart(e, "DM_DEV_CREATE", name))
        };
        let device = make().with_context(|| format!("making the device `{name}`"))?.device();
        Ok(DevNo::new(device.major, device.minor))
    }

    /// Loads a table into the inactive slot; the next resume makes it live.
    ///
    /// # Errors
    /// EBUSY when a device beneath is claimed by another, EINVAL when a target does not take its parameters.
    pub fn load(&self, id: &DmId, table: &[TargetLine], read_only: bool) -> Result<()> {
        let load = || {
            // The crate asserts this, the kernel has 16 bytes with the NUL (DM_MAX_TYPE_NAME).
            ensure!(table.iter().all(|line| line.kind.len() < 16), "a target type is longer than 15 bytes");
            let table: Vec<_> = table
                .iter()
                .map(|line| (line.start.get(), line.length.get(), line.kind.clone(), line.params.clone()))
                .collect();
            let flags = if read_only { DmFlags::DM_READONLY } else { DmFlags::empty() };
            let options = DmOptions::default().set_flags(flags);
            self.with_id(id, "DM_TABLE_LOAD", |id| self.calls.table_load(id, &table, options))
        };
        load().map(drop).with_context(|| format!("loading the table of {id}"))
    }

    /// Drops the table in the inactive slot. Nothing happens when there is none.
    ///
    /// # Errors
    /// When there is no such device or the kernel does not answer.
    pub fn clear(&self, id: &DmId) -> Result<()> {
        self.with_id(id, "DM_TABLE_CLEAR", |id| self.calls.table_clear(id))
            .map(drop)
            .with_context(|| format!("dropping the inactive table of {id}"))
    }

    /// Removes a device; tries for a second while something has it open (udev does, right after a write).
    ///
    /// # Errors
    /// EBUSY when it stays open, ENXIO when there is none.
    pub fn remove(&self, id: &DmId) -> Result<()> {
        let remove = || self.with_id(id, "DM_DEV_REMOVE", |id| self.calls.device_remove(id, DmOptions::default()));
        udev::bounded(remove).map(drop).with_context(|| format!("removing {id}"))
    }

    /// Removes a device as soon as nobody has it open, and at once when nobody has: the kernel does it, whatever becomes of
    /// this process (Linux 3.13, and the 3.10 of RHEL 7).
    ///
    /// # Errors
    /// ENXIO when there is none; EBUSY when it is open and the kernel cannot wait.
    pub fn remove_when_closed(&self, id: &DmId) -> Result<()> {
        let options = || DmOptions::default().set_flags(DmFlags::DM_DEFERRED_REMOVE);
        let remove = || self.with_id(id, "DM_DEV_REMOVE", |id| self.calls.device_remove(id, options()));
        udev::bounded(remove).map(drop).with_context(|| format!("removing {id} when it is closed"))
    }

    /// Resumes a device that others may look into (udev's rules run on it), and waits for udev to have made its node.
    /// See [`udev::ensure_node`] for machines without udev, [`udev::was_silent`] for those whose udev does nothing.
    ///
    /// # Errors
    /// The kernel's answer; look at the device's info then, it may be suspended.
    pub fn resume(&self, id: &DmId) -> Result<()> {
        self.resume_with(id, DmOptions::default())
    }

    /// As [`Self::resume`], for a device beneath a pool, or the pool: udev makes its node and leaves its contents alone.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_private(&self, id: &DmId) -> Result<()> {
        self.resume_with(id, DmOptions::private())
    }

    fn resume_with(&self, id: &DmId, options: DmOptions) -> Result<()> {
        let resume = || self.with_id(id, "DM_DEV_SUSPEND", |id| self.calls.device_suspend(id, options));
        udev::bounded(resume).map(drop).with_context(|| format!("resuming {id}"))
    }

    /// Sends a message to the target at sector 0 (`create_thin 1`), and returns what it answered, if anything.
    ///
    /// # Errors
    /// EEXIST, EINVAL, EOPNOTSUPP as the target sees it; a thin pool refuses all in read-only and failed mode.
    pub fn message(&self, id: &DmId, message: &str) -> Result<Option<String>> {
        self.with_id(id, "DM_TARGET_MSG", |id| self.calls.target_msg(id, None, message))
            .map(|(_, answer)| answer)
            .with_context(|| format!("sending `{message}` to {id}"))
    }

    /// Makes a call of the crate, which knows devices by name and uuid only.
    fn with_id<T>(&self, id: &DmId, call: &'static str, f: impl Fn(&DevId<'_>) -> Result<T, DmError>) -> Result<T> {
        let result = match id {
            DmId::Name(name) => DmName::new(name).and_then(|name| f(&DevId::Name(name))),
            DmId::Uuid(uuid) => DmUuid::new(uuid).and_then(|uuid| f(&DevId::Uuid(uuid))),
            DmId::DevNo(_) => {
                let info = self.info(id)?.ok_or(Errno::ENXIO).called(call, id)?;
                DmName::new(&info.name).and_then(|name| f(&DevId::Name(name)))
            }
        };
        result.map_err(|e| taken_apart(e, call, &self.described(id)))
    }

    /// Returns `p0 (253:2)`, or the id as it is when there is no such device.
    fn described(&self, id: &DmId) -> String {
        match self.info(id) {
            Ok(Some(info)) => format!("{} ({})", info.name, info.devno),
            _ => id.to_string(),
        }
    }
}

/// Takes the crate's error apart: its own text prints ioctl numbers and whole headers.
fn taken_apart(error: DmError, call: &'static str, object: &str) -> anyhow::Error {
    match error {
        DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => {
            KernelError { errno: *errno, call, object: object.to_owned() }.into()
        }
        DmError::Core(errors::Error::InvalidArgument(why)) => anyhow!("{why}"),
        DmError::Core(errors::Error::UdevSync(why)) => anyhow!("synchronising {call} on {object} with udev: {why}"),
        DmError::Core(errors::Error::GeneralIo(why) | errors::Error::ContextInit(why)) => {
            anyhow!("{call} on {object}: {why}")
        }
        DmError::Core(errors::Error::IoctlResultTooLarge) => anyhow!("{call} on {object}: the answer is over 4 GiB"),
        DmError::Core(errors::Error::MetadataIo(path, why)) => anyhow!("{call} on {object}: {}: {why}", path.display()),
        DmError::Dm(_, why) => anyhow!("{call} on {object}: {why}"),
    }
}

fn ioctl_errno(error: &DmError) -> Option<Errno> {
    match error {
        DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => Some(**errno),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_error_becomes_an_errno_with_its_call() {
        let error = DmError::Core(errors::Error::Ioctl(9, None, None, Box::new(Errno::EBUSY)));
        let error = taken_apart(error, "DM_TABLE_LOAD", "p0 (253:2)");
        assert_eq!(error.to_string(), "EBUSY (Device or resource busy) from DM_TABLE_LOAD on p0 (253:2)");
        assert_eq!(super::super::errno_of(&error), Some(Errno::EBUSY));
    }

    #[test]
    fn a_target_line_prints_as_dmsetup_does() {
        let line = TargetLine {
            start: Sectors::new(0),
            length: Sectors::new(209_715_200),
            kind: "thin-pool".to_owned(),
            params: "7:1 7:0 128 32768 1 skip_block_zeroing".to_owned(),
        };
        assert_eq!(line.to_string(), "0 209715200 thin-pool 7:1 7:0 128 32768 1 skip_block_zeroing");
    }
}
