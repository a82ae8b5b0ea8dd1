//! `struct dm_ioctl` and `struct dm_target_spec` as bytes (linux/dm-ioctl.h): calls that are filled in beforehand.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Result, bail};
use devicemapper::DmFlags;
use nix::errno::Errno;

use super::{DmId, DmInfo, TargetLine};
use crate::kernel::{DevNo, raw};

/// `DM_DEV_SUSPEND_CMD`, which also resumes: the suspend flag says which.
pub(super) const DEV_SUSPEND: u8 = 6;
/// `DM_DEV_STATUS_CMD`.
pub(super) const DEV_STATUS: u8 = 7;
/// `DM_TABLE_LOAD_CMD`.
pub(super) const TABLE_LOAD: u8 = 9;
/// `DM_TARGET_MSG_CMD`.
pub(super) const TARGET_MSG: u8 = 14;

/// Length of `struct dm_target_spec`: start, length, status, offset of the next, then the type's name.
const SPEC: usize = 40;
/// Length of the type's name with its NUL (`DM_MAX_TYPE_NAME`).
const TYPE_NAME: usize = 16;

const VERSION: Range<usize> = 0..4;
const DATA_START: Range<usize> = 16..20;
const TARGET_COUNT: Range<usize> = 20..24;
const OPEN_COUNT: Range<usize> = 24..28;
const FLAGS: Range<usize> = 28..32;
const EVENT_NR: Range<usize> = 32..36;
const DEV: Range<usize> = 40..48;
const NAME: Range<usize> = 48..176;
const UUID: Range<usize> = 176..305;

/// A call on one device with everything filled in beforehand: firing it allocates nothing and waits for no udev.
#[derive(Debug)]
pub(super) struct HeaderCall {
    control: Arc<File>,
    command: u8,
    template: Box<[u8]>,
    answer: Box<[u8]>,
}

impl HeaderCall {
    /// Fills a header in.
    ///
    /// # Errors
    /// When the name or uuid is empty or too long for the kernel.
    pub(super) fn new(control: &Arc<File>, command: u8, id: &DmId, flags: DmFlags) -> Result<Self> {
        let mut template = [0_u8; raw::DM_HEADER];
        // Major 4 is all the kernel looks at, with a minor no newer than its own.
        put(&mut template, VERSION, &4_u32.to_ne_bytes());
        let header = u32::try_from(raw::DM_HEADER)?;
        put(&mut template, DATA_START, &header.to_ne_bytes());
        put(&mut template, FLAGS, &flags.bits().to_ne_bytes());
        match id {
            DmId::Name(name) => put_text(&mut template, NAME, name)?,
            DmId::Uuid(uuid) => put_text(&mut template, UUID, uuid)?,
            DmId::DevNo(devno) => put(&mut template, DEV, &devno.kernel().to_ne_bytes()),
        }
        Ok(Self { control: Arc::clone(control), command, template: template.into(), answer: template.into() })
    }

    /// Adds a table, for `DM_TABLE_LOAD`.
    ///
    /// # Errors
    /// When the kernel cannot be told it: a type's name that is too long, a NUL in the parameters.
    pub(super) fn with_table(mut self, table: &[TargetLine]) -> Result<Self> {
        let mut bytes = self.template.to_vec();
        put(&mut bytes, TARGET_COUNT, &u32::try_from(table.len())?.to_ne_bytes());
        for line in table {
            put_target(&mut bytes, line)?;
        }
        self.template = bytes.into();
        self.answer = self.template.clone();
        Ok(self)
    }

    /// Adds a message to the target at sector 0, for `DM_TARGET_MSG`: `struct dm_target_msg`, its text ended by a NUL.
    ///
    /// # Errors
    /// When the kernel cannot be told it: a NUL in the text.
    pub(super) fn with_message(mut self, message: &str) -> Result<Self> {
        if message.contains('\0') {
            bail!("{message:?} is no message: there is a NUL in it");
        }
        let mut bytes = self.template.to_vec();
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend(message.bytes());
        bytes.push(0);
        self.template = bytes.into();
        self.answer = self.template.clone();
        Ok(self)
    }

    /// Issues the ioctl. May be called again.
    ///
    /// # Errors
    /// The kernel's errno.
    pub(super) fn fire(&mut self) -> Result<(), Errno> {
        self.answer.copy_from_slice(&self.template);
        raw::dm(self.control.as_fd(), self.command, &mut self.answer)
    }

    /// Returns whether I/O to the device waits, by the last answer. Allocates nothing.
    pub(super) fn suspended(&self) -> bool {
        number(&self.answer, FLAGS) & DmFlags::DM_SUSPEND.bits() != 0
    }

    /// Returns what the kernel said about the device in the last answer.
    pub(super) fn info(&self) -> DmInfo {
        info_in(&self.answer)
    }
}

/// Reads a `struct dm_ioctl` that the kernel has answered with; of one that is too short, what is missing is zero.
pub(crate) fn info_in(answer: &[u8]) -> DmInfo {
    let flags = DmFlags::from_bits_retain(number(answer, FLAGS));
    let uuid = text(answer, UUID);
    DmInfo {
        name: text(answer, NAME),
        uuid: (!uuid.is_empty()).then_some(uuid),
        devno: DevNo::from_kernel(long(answer, DEV)),
        open_count: number(answer, OPEN_COUNT),
        suspended: flags.contains(DmFlags::DM_SUSPEND),
        read_only: flags.contains(DmFlags::DM_READONLY),
        live_table: flags.contains(DmFlags::DM_ACTIVE_PRESENT),
        inactive_table: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
        event_nr: number(answer, EVENT_NR),
        target_count: number(answer, TARGET_COUNT),
    }
}

/// Appends one target: its spec, its parameters with a NUL, and zeros up to a multiple of 8.
fn put_target(bytes: &mut Vec<u8>, line: &TargetLine) -> Result<()> {
    if line.kind.len() >= TYPE_NAME || line.params.contains('\0') {
        bail!("`{line}` is not a line of a table: the type is at most 15 bytes long, and no NUL is in it");
    }
    let next = (SPEC + line.params.len() + 1).next_multiple_of(8);
    let end = bytes.len() + next;
    bytes.extend(line.start.get().to_ne_bytes());
    bytes.extend(line.length.get().to_ne_bytes());
    bytes.extend(0_i32.to_ne_bytes());
    bytes.extend(u32::try_from(next)?.to_ne_bytes());
    bytes.extend(line.kind.bytes().chain(std::iter::repeat(0)).take(TYPE_NAME));
    bytes.extend(line.params.bytes());
    bytes.resize(end, 0);
    Ok(())
}

fn put(header: &mut [u8], at: Range<usize>, bytes: &[u8]) {
    for (slot, byte) in header.iter_mut().skip(at.start).take(at.len()).zip(bytes) {
        *slot = *byte;
    }
}

fn put_text(header: &mut [u8], at: Range<usize>, text: &str) -> Result<()> {
    // One byte stays for the NUL that the kernel puts there.
    if text.is_empty() || text.len() >= at.len() || text.contains('\0') {
        bail!("`{text}` is not a device-mapper name or uuid: 1 to {} bytes are", at.len() - 1);
    }
    put(header, at, text.as_bytes());
    Ok(())
}

fn number(header: &[u8], at: Range<usize>) -> u32 {
    header.get(at).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn long(header: &[u8], at: Range<usize>) -> u64 {
    header.get(at).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn text(header: &[u8], at: Range<usize>) -> String {
    let bytes = header.get(at).unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn call(id: &DmId) -> Result<HeaderCall> {
        let null = Arc::new(File::open("/dev/null").unwrap());
        HeaderCall::new(&null, DEV_STATUS, id, DmFlags::DM_SUSPEND)
    }

    #[test]
    fn a_header_says_what_was_put_in() {
        let named = call(&DmId::Name("p0".into())).unwrap().info();
        assert_eq!((named.name.as_str(), named.uuid, named.suspended), ("p0", None, true));
        let uuid = call(&DmId::Uuid("DMPOOL-x".into())).unwrap().info().uuid;
        assert_eq!(uuid.as_deref(), Some("DMPOOL-x"));
        let devno = DevNo::new(253, 1_000);
        assert_eq!(call(&DmId::DevNo(devno)).unwrap().info().devno, devno);
    }

    #[test]
    fn names_the_kernel_cannot_hold_are_refused() {
        for bad in [String::new(), "a".repeat(128), "a\0b".to_owned()] {
            assert!(call(&DmId::Name(bad.clone())).is_err(), "{bad}");
        }
        assert!(call(&DmId::Name("a".repeat(127))).is_ok());
    }

    #[test]
    fn the_kernels_answer_is_returned_as_errno() {
        let mut call = call(&DmId::Name("p0".into())).unwrap();
        assert_eq!(call.fire(), Err(Errno::ENOTTY));
    }
}
