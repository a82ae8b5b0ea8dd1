//! `dmpool status` against `dmsetup status`, `lvs` and `docker info`, with more and more volumes on the pool.
#![allow(unsafe_code, reason = "wait4, the only call that tells the peak memory of one child")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::guest::run::Cmd;
use lab::guest::sys;

use crate::ioctl::Control;
use crate::ratios::{Ratio, median};
use crate::report::{Line, Report, Verdict};

/// Thin volumes on the pool.
const VOLUMES: [u32; 3] = [1, 100, 1000];
/// Ids far from those that Docker gives.
const FIRST_ID: u32 = 1_000_000;
/// `dmsetup` is asked as often as dmpool; what is much slower, once in so many rounds.
const SLOW_EVERY: u32 = 5;
const MIB: f64 = 1024.0;

/// One run of a program.
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) peak_kib: f64,
}

/// The pool that is asked about, and who else is asked.
pub(crate) struct Subject<'a> {
    /// The dm name.
    pub(crate) pool: &'a str,
    /// What to call it in the report.
    pub(crate) what: &'a str,
    /// Thin volumes that it has already.
    pub(crate) has: u32,
    /// Another program that tells of it, much slower than `dmsetup status`.
    pub(crate) other: &'a [&'a str],
}

/// Measures with more and more volumes, which are made on the pool and removed, and adds its lines to the report.
pub(crate) fn measure(report: &mut Report, subject: &Subject<'_>, rounds: u32) -> Result<()> {
    let Subject { pool, what, has, .. } = *subject;
    let control = Control::open()?;
    let node = node_of(pool)?;
    let (mut made, mut at_one, mut peak) = (has, None, 0f64);
    for volumes in VOLUMES {
        report.progress(&format!("status of {what} with {volumes} volumes"));
        while made < volumes {
            let id = FIRST_ID + made;
            control.message(pool, &format!("create_thin {id}"))?;
            control.create(&volume(made), 2048, "thin", &format!("{node} {id}"))?;
            made += 1;
        }
        quiet()?;
        let medians = one_size(report, subject, volumes, rounds, &mut peak)?;
        let first = *at_one.get_or_insert(medians);
        if volumes > 1 {
            let ratio = medians.0 / first.0;
            let line = Line::number(format!("{what}, {volumes} volumes / 1: dmpool status"), ratio, "x");
            report.add(line.goal(Verdict::at_most(ratio, 1.2), "flat: at most 1.2"));
            let line = format!("{what}, {volumes} volumes / 1: dmsetup status");
            report.add(Line::number(line, medians.1 / first.1, "x"));
        }
    }
    let peak = peak / MIB;
    let line = Line::number(format!("{what}: peak memory of dmpool status"), peak, " MiB");
    report.add(line.goal(Verdict::at_most(peak, 8.0), "under 8 MiB"));
    report.progress("removing the volumes");
    for number in has..made {
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
fn one_size(
    report: &mut Report,
    subject: &Subject<'_>,
    volumes: u32,
    rounds: u32,
    peak: &mut f64,
) -> Result<(f64, f64)> {
    let Subject { pool, what, other, .. } = *subject;
    let dmpool = ["dmpool", "status", pool];
    let dmsetup = ["dmsetup", "status", pool];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut beside, mut others) = (Vec::new(), Vec::new());
    // Each once, unmeasured, so that none pays for a cold cache.
    for program in [&dmpool[..], &dmsetup, other] {
        run(program)?;
    }
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
            others.push(run(other)?.seconds);
            beside.push(run(&dmpool)?.seconds);
        }
    }
    let ratio = Ratio::of(&ours, &theirs).context("no rounds")?;
    let met = Verdict::at_most(ratio.median, 1.0);
    let line = Line::ratio(format!("{what}, {volumes} volumes: dmpool / dmsetup status"), ratio);
    report.add(line.goal(met, "no slower: at most 1"));
    let ratio = Ratio::of(&beside, &others).context("no rounds")?;
    report.add(Line::ratio(format!("{what}, {volumes} volumes: dmpool / {}", other.join(" ")), ratio));
    let quickest = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min) * 1000.0;
    let (our_best, their_best) = (quickest(&ours), quickest(&theirs));
    report.note(format!("{what}, {volumes} volumes: quickest dmpool {our_best:.1} ms, dmsetup {their_best:.1} ms"));
    median(&ours).zip(median(&theirs)).context("no rounds")
}

/// The least peak memory that [`run`] can see, in MiB: that of a program that does nothing.
pub(crate) fn memory_floor() -> Result<f64> {
    Ok(run(&["true"])?.peak_kib / MIB)
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
pub(crate) fn run(argv: &[&str]) -> Result<Run> {
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
