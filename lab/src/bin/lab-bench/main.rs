//! What `cargo lab bench` measures in its guest: ratios only, both sides in one run, turn about.
//!
//! `lab-bench [--json] [--rounds N] [--only status|export|migrate] [--root-mib N]` on the guest's scratch disks, which are formatted. Exits with 0 also when a goal is not
//! met (the table says so), with 2 when measuring was not possible.

mod export;
mod grow;
mod ioctl;
mod migrate;
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
    let Asked { json, rounds, only, root_mib } = arguments(std::env::args().skip(1))?;
    for program in ["dmpool", "dmsetup", "lvs", "docker"] {
        find(program)?;
    }
    let (docker_disk, pool_disk) = disks()?;
    let mut report = Report::default();

    let floor = status::memory_floor()?;
    report.note(format!("the smallest peak memory that can be measured here is {floor:.1} MiB (of `true`)"));

    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("status") {
        let mounted = Mounted::format(Kind::Ext4, &pool_disk, Path::new("/var/tmp/dmpool-test-bench"))?;
        let mut pool = Pool::create(mounted.dir())?;
        let plain = Subject { pool: POOL, what: "a pool", has: 1, other: &["lvs"] };
        status::measure(&mut report, &plain, rounds)?;
        grow::measure(&mut report, &mut pool, rounds)?;
        pool.remove()?;
        mounted.unmount()?;
    }

    report.progress("Docker on its default pool");
    let mounted = Mounted::format(Kind::Xfs, &docker_disk, Path::new("/var/lib/docker"))?;
    if wanted("status") || wanted("export") {
        let docker = Docker::start(Config::new(mounted.dir()))?;
        if wanted("status") {
            let name = docker.pool()?;
            // Its base device.
            let dockers = Subject { pool: &name, what: "Docker's pool", has: 1, other: &["docker", "info"] };
            status::measure(&mut report, &dockers, rounds)?;
        }
        if wanted("export") {
            export::measure(&mut report, &docker, rounds)?;
        }
    }
    if wanted("migrate") {
        migrate::measure(&mut report, mounted.dir(), rounds, root_mib)?;
    }
    mounted.unmount()?;

    let all_met = report.all_met();
    report.note(if all_met { "all goals met".into() } else { "not all goals met".into() });
    report.print(json);
    Ok(())
}

/// What is to be measured.
struct Asked {
    json: bool,
    rounds: u32,
    only: Option<String>,
    /// What `migrate` has in its Docker root, about.
    root_mib: u32,
}

/// What `--only` takes.
const PARTS: [&str; 3] = ["status", "export", "migrate"];

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Asked> {
    let mut asked = Asked { json: false, rounds: ROUNDS, only: None, root_mib: migrate::SMALLEST_MIB };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => asked.json = true,
            "--rounds" => {
                let number = args.next().and_then(|number| number.parse().ok());
                asked.rounds = number.filter(|n| *n > 0).context("--rounds needs a number above 0")?;
            }
            "--root-mib" => {
                let number = args.next().and_then(|number| number.parse().ok());
                let least = migrate::SMALLEST_MIB;
                asked.root_mib = number
                    .filter(|n| *n >= least)
                    .with_context(|| format!("--root-mib needs a number from {least} on"))?;
            }
            "--only" => {
                let part = args.next().filter(|part| PARTS.contains(&part.as_str()));
                asked.only = Some(part.with_context(|| format!("--only needs one of {}", PARTS.join(", ")))?);
            }
            _ => bail!("unknown argument {arg}"),
        }
    }
    Ok(asked)
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
