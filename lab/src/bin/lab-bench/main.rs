//! What `cargo lab bench` measures in its guest: ratios only, both sides in one run, turn about.
//!
//! `lab-bench [--json] [--rounds N]` on the guest's scratch disks, which are formatted. Exits with 0 also when a goal is not
//! met (the table says so), with 2 when measuring was not possible.

mod export;
mod grow;
mod ioctl;
mod pool;
mod ratios;
mod report;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, Docker, find};
use lab::guest::sys;

use pool::{POOL, Pool};
use report::Report;
use status::Subject;

/// Rounds unless told otherwise: pairs of status at each number of volumes; grows in each way.
const ROUNDS: u32 = 30;

#[allow(clippy::print_stderr, reason = "the output of a program")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<()> {
    let (json, rounds) = arguments(std::env::args().skip(1))?;
    for program in ["dmpool", "dmsetup", "lvs", "docker"] {
        find(program)?;
    }
    let (docker_disk, pool_disk) = disks()?;
    let mut report = Report::default();

    let floor = status::memory_floor()?;
    report.note(format!("the smallest peak memory that can be measured here is {floor:.1} MiB (of `true`)"));

    let mounted = Mounted::format(Kind::Ext4, &pool_disk, Path::new("/var/tmp/dmpool-test-bench"))?;
    let mut pool = Pool::create(mounted.dir())?;
    let plain = Subject { pool: POOL, what: "a pool", has: 1, other: &["lvs"] };
    status::measure(&mut report, &plain, rounds)?;
    grow::measure(&mut report, &mut pool, rounds)?;
    pool.remove()?;
    mounted.unmount()?;

    report.progress("Docker on its default pool");
    let mounted = Mounted::format(Kind::Xfs, &docker_disk, Path::new("/var/lib/docker"))?;
    let docker = Docker::start(Config::new(mounted.dir()))?;
    let name = docker.pool()?;
    // Its base device.
    let dockers = Subject { pool: &name, what: "Docker's pool", has: 1, other: &["docker", "info"] };
    status::measure(&mut report, &dockers, rounds)?;
    export::measure(&mut report, &docker, rounds)?;
    drop(docker);
    mounted.unmount()?;

    let all_met = report.all_met();
    report.note(if all_met { "all goals met".into() } else { "not all goals met".into() });
    report.print(json);
    Ok(())
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<(bool, u32)> {
    let (mut json, mut rounds) = (false, ROUNDS);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = true,
            "--rounds" => {
                let number = args.next().and_then(|number| number.parse().ok());
                rounds = number.filter(|n| *n > 0).context("--rounds needs a number above 0")?;
            }
            _ => bail!("unknown argument {arg}"),
        }
    }
    Ok((json, rounds))
}

/// The largest scratch disk for Docker's root, the next one for the other pool.
fn disks() -> Result<(PathBuf, PathBuf)> {
    let scratch = std::env::var("LAB_SCRATCH").context("this is no guest of the lab: LAB_SCRATCH is not set")?;
    let mut disks: Vec<PathBuf> = scratch.split(':').map(PathBuf::from).collect();
    disks.sort_by_key(|disk| std::cmp::Reverse(sys::size_of(disk).unwrap_or(0)));
    ensure!(disks.len() >= 2, "two scratch disks are needed, there are {}", disks.len());
    let mut disks = disks.into_iter();
    disks.next().zip(disks.next()).context("no scratch disks")
}
