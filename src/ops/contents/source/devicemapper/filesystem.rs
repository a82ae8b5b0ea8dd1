//! The file system on a thin device, or in an image of one, mounted where nobody sees it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::{Said, Volume};
use crate::kernel::dm::{Dm, TargetLine};
use crate::kernel::folder::Folder;
use crate::kernel::{KernelError, apart, block, loopdev, memory, udev};
use crate::ops::contents::passing::Device;
use crate::pool::{DevNo, THIN};
use crate::units::{Bytes, Sectors};

/// How much of the file system the replay of its log may change: the longest log that mkfs makes for Docker's sizes.
const REPLAY: Bytes = Bytes::new(2 << 30);
/// Sectors that are copied when one of them is written.
const CHUNK: u64 = 8;
/// Where both file systems have said what they are.
pub(super) const HEAD: usize = 4096;

/// What Docker puts on a thin device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Xfs,
    Ext4,
}

/// What a file system says of itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    kind: Kind,
    /// How long it is.
    pub length: Bytes,
}

impl Head {
    /// Reads the beginning of an XFS (`struct xfs_dsb`, fs/xfs/libxfs/xfs_format.h) or an ext4 (`struct ext4_super_block`,
    /// fs/ext4/ext4.h); nothing when it is neither.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
        let eight = |at: usize| bytes.get(at..at + 8)?.try_into().ok();
        if bytes.get(..4) == Some(b"XFSB") {
            let length = u64::from(u32::from_be_bytes(four(4)?)).checked_mul(u64::from_be_bytes(eight(8)?))?;
            return Some(Self { kind: Kind::Xfs, length: Bytes::new(length) });
        }
        if bytes.get(1080..1082) != Some(&[0x53, 0xef]) {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(four(at)?));
        // INCOMPAT_64BIT: the upper half counts.
        let upper = if number(1120)? & 0x80 == 0 { 0 } else { u64::from(number(1360)?) << 32 };
        let block = 1024_u64.checked_shl(number(1048)?).filter(|block| *block <= 65_536)?;
        let length = (upper | u64::from(number(1028)?)).checked_mul(block)?;
        Some(Self { kind: Kind::Ext4, length: Bytes::new(length) })
    }
}

impl Kind {
    fn of(device: &File, on: &str) -> Result<Self> {
        let mut head = vec![0; HEAD];
        device.read_exact_at(&mut head, 0).with_context(|| format!("reading the beginning of {on}"))?;
        let head = Head::parse(&head).with_context(|| format!("there is no XFS and no ext4 on {on}"))?;
        Ok(head.kind)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// All layers have one file system's UUID.
    const fn options(self) -> &'static str {
        match self {
            Self::Xfs => "nouuid",
            Self::Ext4 => "",
        }
    }

    const fn without_log(self) -> &'static str {
        match self {
            Self::Xfs => "nouuid,norecovery",
            Self::Ext4 => "noload",
        }
    }
}

/// Makes a read-only device for a volume of a pool, and mounts what is on it.
pub(super) fn on_thin(dm: &Dm, pool: DevNo, volume: Volume, said: &mut Said) -> Result<Folder> {
    let thin = thin(dm, pool, volume)?;
    let kind = Kind::of(&block::open_by_devno(thin.devno, false)?, "the thin device")?;
    let length = volume.size.sectors();
    let mount = |device: &Device<'_>, options| apart::mounted(&udev::node(&device.name), kind.name(), options);
    let replayed = || above(dm, &thin, length).and_then(|above| Ok(mount(&above, kind.options())?));
    let ways = Ways { plain: &|options| mount(&thin, options), replayed: &replayed, place: "in memory" };
    ways.mounted(kind, volume, said)
}

/// Returns the head of the file system on a volume of a pool; nothing when there is none that is known.
pub(super) fn head_on_thin(dm: &Dm, pool: DevNo, id: u32) -> Result<Option<Head>> {
    let thin = thin(dm, pool, Volume { id, size: Bytes::new(HEAD as u64) })?;
    let mut head = vec![0; HEAD];
    let file = block::open_by_devno(thin.devno, false)?;
    file.read_exact_at(&mut head, 0).context("reading the beginning of the thin device")?;
    Ok(Head::parse(&head))
}

fn thin(dm: &Dm, pool: DevNo, Volume { id, size }: Volume) -> Result<Device<'_>> {
    let line = TargetLine {
        start: Sectors::new(0),
        length: size.sectors(),
        kind: THIN.to_owned(),
        params: format!("{pool} {id}"),
    };
    Device::make(dm, "thin", &[line], true).with_context(|| format!("taking volume {id}"))
}

/// Mounts what is in an image of a volume, which is nobody else's.
pub(super) fn in_image(image: &File, volume: Volume, said: &mut Said) -> Result<Folder> {
    ensure!(volume.size.get() > 0, "volume {} has no length", volume.id);
    let kind = Kind::of(image, "the image")?;
    let mount = |read_only: bool, options| -> Result<Result<Folder, KernelError>> {
        let held = loopdev::attach(image, Path::new("dmpool-rescue-image"), true, read_only)?;
        Ok(apart::mounted(&held.path, kind.name(), options))
    };
    let attached = std::cell::RefCell::new(None);
    let plain = |options| {
        mount(true, options).unwrap_or_else(|e| {
            *attached.borrow_mut() = Some(e);
            Err(KernelError { errno: Errno::EIO, call: "mount", object: "the image".to_owned() })
        })
    };
    let replayed = || Ok(mount(false, kind.options())??);
    let ways = Ways { plain: &plain, replayed: &replayed, place: "in the image" };
    let mounted = ways.mounted(kind, volume, said);
    match attached.take() {
        Some(e) => Err(e),
        None => mounted,
    }
}

/// How a file system can be mounted.
struct Ways<'a> {
    /// Read-only, on what is read-only.
    plain: &'a dyn Fn(&'static str) -> Result<Folder, KernelError>,
    /// On what takes what the replay of the log writes.
    replayed: &'a dyn Fn() -> Result<Folder>,
    place: &'static str,
}

impl Ways<'_> {
    fn mounted(&self, kind: Kind, volume: Volume, said: &mut Said) -> Result<Folder> {
        let context = || format!("mounting volume {}", volume.id);
        match (self.plain)(kind.options()) {
            Ok(folder) => return Ok(folder),
            // The log is not empty, and the device cannot be written.
            Err(e) if e.errno == Errno::EROFS => {}
            Err(e) => return Err(e).with_context(context),
        }
        match (self.replayed)() {
            Ok(folder) => {
                said.notes.push(format!(
                    "the file system of volume {} was not unmounted: its log is replayed {}, not on the volume",
                    volume.id, self.place
                ));
                Ok(folder)
            }
            Err(e) => {
                said.lost.push(format!(
                    "the file system of volume {} was not unmounted, and its log cannot be replayed ({e:#}): what was \
                     written last may be missing or torn",
                    volume.id
                ));
                (self.plain)(kind.without_log()).with_context(context)
            }
        }
    }
}

/// Makes a device that takes what is written to it, into memory, and leaves what is beneath as it is.
fn above<'d>(dm: &'d Dm, thin: &Device<'d>, length: Sectors) -> Result<Device<'d>> {
    let room = REPLAY.get().min(memory::available()?.get() / 2);
    let store = memory::file("dmpool-rescue-changes", Bytes::new(room))?;
    let store = loopdev::attach(&store, Path::new("dmpool-rescue-changes"), true, false)?;
    let line = TargetLine {
        start: Sectors::new(0),
        length,
        kind: "snapshot".to_owned(),
        params: format!("{} {} N {CHUNK}", thin.devno, store.devno),
    };
    Device::make(dm, "above", &[line], false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_says_how_long_it_is() {
        let with = |fields: &[(usize, &[u8])]| -> Vec<u8> {
            let mut bytes = vec![0; HEAD];
            for (at, field) in fields {
                bytes.splice(*at..at + field.len(), field.iter().copied());
            }
            bytes
        };
        let head = |bytes: &[u8]| Head::parse(bytes).map(|head| (head.kind, head.length.get()));
        let xfs = with(&[(0, b"XFSB"), (4, &4096_u32.to_be_bytes()), (8, &100_u64.to_be_bytes())]);
        assert_eq!(head(&xfs), Some((Kind::Xfs, 409_600)));
        let magic: (usize, &[u8]) = (1080, &[0x53, 0xef]);
        let (blocks, block) = (100_u32.to_le_bytes(), 2_u32.to_le_bytes());
        let ext4: Vec<(usize, &[u8])> = vec![magic, (1028, &blocks), (1048, &block)];
        assert_eq!(head(&with(&ext4)), Some((Kind::Ext4, 409_600)));
        // The upper half counts only where the file system says that it has one.
        let upper = 1_u32.to_le_bytes();
        let long = [&ext4[..], &[(1360, &upper[..])]].concat();
        assert_eq!(head(&with(&long)), Some((Kind::Ext4, 409_600)));
        let flag = 0x80_u32.to_le_bytes();
        let long = [&long[..], &[(1120, &flag[..])]].concat();
        assert_eq!(head(&with(&long)), Some((Kind::Ext4, (1 << 44) + 409_600)));
        let absurd = [&ext4[..], &[(1048, &[0xff; 4])]].concat();
        assert_eq!((head(&with(&absurd)), head(&[0; HEAD]), head(b"XFSB")), (None, None, None));
    }
}
