//! The bare ioctls: what dmpool's grow is measured against, and the quickest way to a thousand volumes.
//!
//! `struct dm_ioctl`, 312 bytes, and `struct dm_target_spec`, 40 bytes, as in the kernel's `include/uapi/linux/dm-ioctl.h`.
#![allow(unsafe_code, reason = "ioctls")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

const HEADER: usize = 312;
const SPEC: usize = 40;

/// `_IOWR(0xfd, N, struct dm_ioctl)`.
const BASE: libc::c_ulong = 0xc138_fd00;
const DEV_CREATE: libc::c_ulong = BASE | 3;
const DEV_REMOVE: libc::c_ulong = BASE | 4;
const DEV_SUSPEND: libc::c_ulong = BASE | 6;
const TABLE_LOAD: libc::c_ulong = BASE | 9;
const TARGET_MSG: libc::c_ulong = BASE | 14;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;

/// `/dev/mapper/control`.
#[derive(Debug)]
pub(crate) struct Control(File);

impl Control {
    pub(crate) fn open() -> Result<Self> {
        let path = "/dev/mapper/control";
        Ok(Self(OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("cannot open {path}"))?))
    }

    /// Creates a device with one target and activates it.
    pub(crate) fn create(&self, name: &str, sectors: u64, target: &str, params: &str) -> Result<()> {
        self.call(DEV_CREATE, "DM_DEV_CREATE", name, &[])?;
        self.load(name, sectors, target, params)?;
        self.resume(name)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.call(DEV_REMOVE, "DM_DEV_REMOVE", name, &[])
    }

    /// Loads a table of one target into the inactive slot.
    pub(crate) fn load(&self, name: &str, sectors: u64, target: &str, params: &str) -> Result<()> {
        let mut data = vec![0; SPEC];
        put(&mut data, 8, &sectors.to_ne_bytes());
        put(&mut data, 24, target.as_bytes());
        data.extend(params.as_bytes());
        // Ended by a zero, padded so that a following target would be aligned.
        data.resize((data.len() + 1).next_multiple_of(8), 0);
        let next = u32::try_from(data.len())?;
        put(&mut data, 20, &next.to_ne_bytes());
        self.call(TABLE_LOAD, "DM_TABLE_LOAD", name, &data)
    }

    /// Suspends, swaps the tables and resumes: the kernel does all three when a table is waiting.
    pub(crate) fn resume(&self, name: &str) -> Result<()> {
        self.call(DEV_SUSPEND, "DM_DEV_SUSPEND", name, &[])
    }

    /// A message to sector 0.
    pub(crate) fn message(&self, name: &str, text: &str) -> Result<()> {
        let mut data = vec![0; 8];
        data.extend(text.as_bytes());
        data.push(0);
        self.call(TARGET_MSG, "DM_TARGET_MSG", name, &data)
    }

    fn call(&self, request: libc::c_ulong, what: &str, name: &str, data: &[u8]) -> Result<()> {
        let size = HEADER + data.len().max(1024);
        // u64 so that the kernel's structure is aligned.
        let mut buffer = vec![0u64; size.div_ceil(8)];
        let mut bytes = vec![0u8; buffer.len() * 8];
        let total = u32::try_from(bytes.len())?;
        let targets = u32::from(request == TABLE_LOAD);
        for (at, number) in [(0, 4u32), (12, total), (16, u32::try_from(HEADER)?), (20, targets)] {
            put(&mut bytes, at, &number.to_ne_bytes());
        }
        put(&mut bytes, 48, name.as_bytes());
        put(&mut bytes, HEADER, data);
        for (word, chunk) in buffer.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        // SAFETY: the buffer is as long as its data_size field says, aligned, and lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, buffer.as_mut_ptr()) };
        if result != 0 {
            bail!("{what} on {name}: {}", std::io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Tells a loop device that its file has grown.
pub(crate) fn loop_set_capacity(device: &Path) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(device)?;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_SET_CAPACITY, 0) };
    if result != 0 {
        bail!("LOOP_SET_CAPACITY on {}: {}", device.display(), std::io::Error::last_os_error());
    }
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(what) {
        *place = *byte;
    }
}
