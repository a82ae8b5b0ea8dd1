//! A pool of dmpool's own: made, used, grown, destroyed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lab::guest::disk::{Kind, Mounted};
use lab::guest::machine::content_hash;
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::terminal::Terminal;

const POOL: &str = "demo";
const VOLUME: &str = "demo-volume";
const GIB: u64 = 1 << 30;

pub(crate) fn show(terminal: &mut Terminal, dir: &Path) -> Result<()> {
    terminal.chapter("A pool of dmpool's own, on loop files");
    let place = dir.display().to_string();
    terminal.run(Cmd::new("mkdir").args(["-m", "700", &place]))?;
    let create = ["create", POOL, "--data-size", "10G", "--metadata-size", "128M", "--dir", &place];
    terminal.run(Cmd::new("dmpool").args(create))?;
    terminal.run(Cmd::new("ls").arg("-lsh").arg(dir.join(POOL)))?;
    terminal.try_run(Cmd::new("dmpool").arg("list"));

    terminal.chapter("A thin volume on it, with a file system and a file");
    let device = format!("/dev/mapper/{VOLUME}");
    let table = format!("0 {} thin /dev/mapper/{POOL} 0", GIB / 512);
    terminal.run(sys::dmsetup(["message", POOL, "0", "create_thin 0"]))?;
    terminal.run(sys::dmsetup(["create", VOLUME, "--table", &table]))?;
    sys::settle();
    let point = Path::new("/mnt");
    terminal.typed(&format!("mkfs.ext4 {device} && mount {device} {}", point.display()));
    let mounted = Mounted::format(Kind::Ext4, Path::new(&device), point)?;
    let file = point.join("file");
    terminal.run(
        Cmd::new("dd")
            .args(["if=/dev/urandom", "bs=1M", "count=64", "conv=fsync"])
            .arg(format!("of={}", file.display())),
    )?;
    let sum = terminal.run(Cmd::new("sha256sum").arg(&file))?.stdout;

    terminal.chapter("Refused while it is in use, grown while it is in use");
    let refused = terminal.try_run(Cmd::new("dmpool").args(["destroy", POOL, "--yes"]));
    terminal.promise("destroy refuses a pool in use, with exit status 3", refused.code() == Some(3));
    terminal.run(Cmd::new("dmpool").args(["grow", POOL, "20G"]))?;
    let length = pool_bytes()?;
    terminal.promise("the kernel has a pool of 20 GiB", length == 20 * GIB);
    terminal.try_run(Cmd::new("dmpool").args(["status", POOL]));
    let again = terminal.run(Cmd::new("sha256sum").arg(&file))?.stdout;
    terminal.promise("the file is the same", again == sum);
    // Once more from the disk, not from the page cache.
    mounted.unmount()?;
    let on_disk = content_hash(Path::new(&device))?;
    let mounted = Mounted::mount(Path::new(&device), point, "defaults")?;
    let read = terminal.run(Cmd::new("sha256sum").arg(&file))?.stdout;
    terminal.promise("and read from the disk as well", read == sum && on_disk != 0);

    terminal.chapter("Taken down for good");
    mounted.unmount()?;
    terminal.run(sys::dmsetup(["remove", "--retry", VOLUME]))?;
    let destroyed = terminal.try_run(Cmd::new("dmpool").args(["destroy", POOL, "--with-volumes", "--yes"]));
    terminal.promise("destroy ended with 0", destroyed.ok());
    let devices = sys::dm_names()?;
    terminal.promise("no device of it is left", !devices.iter().any(|name| name.starts_with(POOL)));
    let loops = sys::loops()?;
    terminal.promise("no loop device of it is left", !loops.iter().any(|l| Path::new(&l.file).starts_with(dir)));
    let files = fs::read_dir(dir).map_or(0, Iterator::count);
    terminal.promise("no file of it is left", files == 0);
    Ok(())
}

/// The length of the live table of the pool, in bytes.
fn pool_bytes() -> Result<u64> {
    let table = sys::dmsetup(["table", POOL]).run().checked()?.stdout;
    let sectors = table.split(' ').nth(1).and_then(|sectors| sectors.parse::<u64>().ok());
    Ok(sectors.with_context(|| format!("no length in the table {table:?}"))? * 512)
}
