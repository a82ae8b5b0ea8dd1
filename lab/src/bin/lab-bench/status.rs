//! `dmpool status` against `dmsetup status`, `lvs` and `docker info`, on Docker's own pool with more and more volumes.
#![allow(unsafe_code, reason = "wait4, the only call that tells the peak memory of one child")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::ioctl::Control;
use crate::ratios::{Ratio, median};
use crate::report::{Line, Report, Verdict};

/// Thin volumes on the pool, all active.
const VOLUMES: [u32; 3] = [1, 100, 1000];
/// Ids far from those that Docker gives.
const FIRST_ID: u32 = 1_000_000;
/// `dmsetup` is asked as often as dmpool; what is much slower, once in so many rounds.
const SLOW_EVERY: u32 = 5;
const MIB: f64 = 1024.0;

/// One run of a program.
struct Run {
    seconds: f64,
    peak_kib: f64,
}

/// Measures, and adds its lines to the report. `pool` is the name of Docker's pool.
pub(crate) fn measure(report: &mut Report, pool: &str, rounds: u32) -> Result<()> {
    let control = Control::open()?;
    let node = node_of(pool)?;
    let floor = run(&["true"])?.peak_kib / MIB;
    report.note(format!("the smallest peak memory that can be measured here is {floor:.1} MiB (of `true`)"));
    let (mut made, mut at_one, mut peak) = (0, None, 0f64);
    for volumes in VOLUMES {
        report.progress(&format!("status with {volumes} volumes"));
        while made < volumes {
            let id = FIRST_ID + made;
            control.message(pool, &format!("create_thin {id}"))?;
            control.create(&volume(made), 2048, "thin", &format!("{node} {id}"))?;
            made += 1;
        }
        quiet()?;
        let medians = one_size(report, pool, volumes, rounds, &mut peak)?;
        let first = *at_one.get_or_insert(medians);
        if volumes > 1 {
            let ratio = medians.0 / first.0;
            let line = Line::number(format!("dmpool status: {volumes} volumes / 1 volume"), ratio, "x");
            report.add(line.goal(Verdict::at_most(ratio, 1.2), "flat: at most 1.2"));
            let line = format!("dmsetup status: {volumes} volumes / 1 volume");
            report.add(Line::number(line, medians.1 / first.1, "x"));
        }
    }
    let peak = peak / MIB;
    let line = Line::number("dmpool status: peak memory", peak, " MiB");
    report.add(line.goal(Verdict::at_most(peak, 8.0), "under 8 MiB"));
    report.progress("removing the volumes");
    for number in 0..made {
        control.remove(&volume(number))?;
        control.message(pool, &format!("delete {}", FIRST_ID + number))?;
    }
    quiet()
}

/// Waits until udev is done with every volume: it would take part in the race.
fn quiet() -> Result<()> {
    if sys::udev_answers() {
        Cmd::new("udevadm").args(["settle", "--timeout=300"]).limit(Duration::from_secs(310)).run().checked()?;
    }
    Ok(())
}

/// Measures with the volumes that are there. Returns the median seconds of `dmpool status` and of `dmsetup status`.
fn one_size(report: &mut Report, pool: &str, volumes: u32, rounds: u32, peak: &mut f64) -> Result<(f64, f64)> {
    let dmpool = ["dmpool", "status", pool];
    let dmsetup = ["dmsetup", "status", pool];
    let slow: [(&str, &[&str]); 2] = [("lvs", &["lvs"]), ("docker info", &["docker", "info"])];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut slow_pairs = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    // Both once, unmeasured, so that neither pays for a cold cache.
    run(&dmpool)?;
    run(&dmsetup)?;
    for round in 0..rounds {
        // Turn about, so that neither is always the one that comes second.
        let pair = if round % 2 == 0 {
            let first = run(&dmpool)?;
            (first, run(&dmsetup)?)
        } else {
            let first = run(&dmsetup)?;
            (run(&dmpool)?, first)
        };
        *peak = peak.max(pair.0.peak_kib);
        ours.push(pair.0.seconds);
        theirs.push(pair.1.seconds);
        if round % SLOW_EVERY == 0 {
            for ((_, program), (ours, theirs)) in slow.iter().zip(&mut slow_pairs) {
                theirs.push(run(program)?.seconds);
                ours.push(run(&dmpool)?.seconds);
            }
        }
    }
    let ratio = Ratio::of(&ours, &theirs).context("no rounds")?;
    let met = Verdict::at_most(ratio.median, 1.0);
    let line = Line::ratio(format!("dmpool status / dmsetup status, {volumes} volumes"), ratio);
    report.add(line.goal(met, "no slower: at most 1"));
    for ((name, _), (ours, theirs)) in slow.iter().zip(&slow_pairs) {
        let ratio = Ratio::of(ours, theirs).context("no rounds")?;
        report.add(Line::ratio(format!("dmpool status / {name}, {volumes} volumes"), ratio));
    }
    median(&ours).zip(median(&theirs)).context("no rounds")
}

fn volume(number: u32) -> String {
    format!("{}bench-{number}", sys::PREFIX)
}

/// `MAJOR:MINOR` of a dm device.
fn node_of(pool: &str) -> Result<String> {
    let args = ["info", "-c", "--noheadings", "--separator", ":", "-o", "major,minor", pool];
    Ok(sys::dmsetup(args).run().checked()?.stdout.trim().to_owned())
}

/// Runs a program to its end, its output thrown away.
fn run(argv: &[&str]) -> Result<Run> {
    let (program, args) = argv.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types; the child is ours and not yet waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let seconds = began.elapsed().as_secs_f64();
    ensure!(waited == pid, "wait4 for {program}: {}", std::io::Error::last_os_error());
    ensure!(status == 0, "`{}` ended with status {status:#x}", argv.join(" "));
    Ok(Run { seconds, peak_kib: f64::from(i32::try_from(usage.ru_maxrss)?) })
}
