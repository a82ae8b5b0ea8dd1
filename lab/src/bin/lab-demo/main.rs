//! What `cargo lab demo` shows in its guest: Docker's full life on a loop-file pool that grows, then a pool of dmpool's own.
//!
//! `lab-demo [DISK]`: DISK (or the largest scratch disk of the guest) is formatted. Exits with 1 when anything was not as
//! promised, with 2 when the demo could not go on.

mod docker_part;
mod own_part;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::find;
use lab::guest::run::Cmd;
use lab::guest::sys;

use terminal::Terminal;

#[allow(clippy::print_stderr, reason = "the output of a program")]
fn main() -> ExitCode {
    let began = Instant::now();
    let mut terminal = Terminal::default();
    let result = show(&mut terminal);
    let all_kept = terminal.summary(began.elapsed());
    match result {
        Ok(()) if all_kept => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab-demo: the demo stopped: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn show(terminal: &mut Terminal) -> Result<()> {
    let disk = disk()?;
    let dmpool = find("dmpool")?;
    terminal.chapter("A machine with device-mapper and Docker");
    terminal.run(Cmd::new("uname").arg("-sr"))?;
    terminal.run(Cmd::new("docker").arg("--version"))?;
    terminal.run(Cmd::new("dmpool").arg("--version"))?;
    terminal.remark(&format!("dmpool is one static file of {:.1} MB", megabytes(&dmpool)));

    // XFS, as CentOS 7 has it, for Docker's root and for dmpool's own pool.
    let srv = Path::new("/srv");
    terminal.typed(&format!("mkfs.xfs {0} && mount {0} {1}", disk.display(), srv.display()));
    let mounted = Mounted::format(Kind::Xfs, &disk, srv)?;
    terminal.run(Cmd::new("df").args(["-h", "--output=source,fstype,size,avail,target"]).arg(srv))?;

    docker_part::show(terminal, &srv.join("docker"))?;
    own_part::show(terminal, &srv.join("pools"))?;
    mounted.unmount()
}

/// The disk to use: the argument, or the largest of the guest's scratch disks.
fn disk() -> Result<PathBuf> {
    if let Some(disk) = std::env::args_os().nth(1) {
        return Ok(disk.into());
    }
    let scratch = std::env::var("LAB_SCRATCH").context("no disk given, and this is no guest of the lab")?;
    let disks = scratch.split(':').map(PathBuf::from);
    disks.max_by_key(|disk| sys::size_of(disk).unwrap_or(0)).context("the guest has no scratch disk")
}

#[allow(clippy::cast_precision_loss, reason = "one decimal of a size for people")]
fn megabytes(path: &Path) -> f64 {
    sys::size_of(path).unwrap_or(0) as f64 / 1e6
}
