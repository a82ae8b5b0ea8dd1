//! `dmpool grow` against the bare ioctls and against the documented dmsetup sequence: what a writer that syncs every write
//! feels of each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::guest::run::Cmd;
use lab::guest::sys;
use lab::guest::writer::{Plan, Writer};

use crate::ioctl::loop_set_capacity;
use crate::pool::{MIB, POOL, Pool, VOLUME};
use crate::ratios::{Ratio, median};
use crate::report::{Line, Report, Verdict};

const STEP: u64 = 64 * MIB;
const LIMIT: Duration = Duration::from_secs(60);
/// Every way is watched for this long, however quick it is: a longer watch meets more of the machine's own hiccups.
const WATCH: Duration = Duration::from_millis(800);

/// A way to grow, in the order in which a round takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No grow at all: what the writer feels anyhow.
    Nothing,
    Ioctls,
    Dmsetup,
    Dmpool,
}

const WAYS: [Way; 4] = [Way::Nothing, Way::Ioctls, Way::Dmsetup, Way::Dmpool];

/// Measures on this pool, and adds its lines to the report.
pub(crate) fn measure(report: &mut Report, pool: &mut Pool, rounds: u32) -> Result<()> {
    report.progress("grow under a writer");
    let plan = Plan { slots: 256, ..Plan::new(format!("/dev/mapper/{VOLUME}")) };
    let writer = Writer::start(plan.clone())?;
    // Once round its slots, so that no block is allocated while it is watched.
    writer.wait_for(300, LIMIT)?;
    let mut waits: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        for at in 0..WAYS.len() {
            // Each way comes at each place of a round.
            let at = (at + usize::try_from(round)?) % WAYS.len();
            let way = WAYS.get(at).context("no such way")?;
            let wait = grow_watched(pool, *way, &writer)?;
            waits.get_mut(at).context("no such way")?.push(wait);
        }
        report.progress(&format!("grow: round {} of {rounds}", round + 1));
    }
    let tally = writer.stop(LIMIT)?;
    report.note(format!("the writer in all: {}", tally.line()));
    let verified = tally.verify(&plan);

    let [nothing, ioctls, dmsetup, dmpool] = &waits;
    for (name, waits) in
        [("nothing", nothing), ("bare ioctls", ioctls), ("dmsetup sequence", dmsetup), ("dmpool", dmpool)]
    {
        let ms = median(waits).context("no rounds")? * 1000.0;
        report.note(format!("longest wait of a synced write, {name}: {ms:.1} ms (median of {} rounds)", waits.len()));
    }
    let against = |theirs: &[f64]| Ratio::of(dmpool, theirs).context("no rounds");
    let ratio = against(ioctls)?;
    let met = Verdict::at_most(ratio.median, 1.2);
    report.add(Line::ratio("longest wait: dmpool grow / bare ioctls", ratio).goal(met, "at most 1.2"));
    report.add(Line::ratio("longest wait: dmpool grow / dmsetup sequence", against(dmsetup)?));
    report.add(Line::ratio("longest wait: dmpool grow / nothing", against(nothing)?));
    let noise = Ratio::of(ioctls, nothing).context("no rounds")?;
    report.add(Line::ratio("longest wait: bare ioctls / nothing", noise));
    let errors = Line::number("errors of the writer", f64::from(u32::try_from(tally.errors)?), "");
    report.add(errors.goal(Verdict::of(tally.errors == 0), "none"));
    if let Err(lost) = &verified {
        report.note(format!("{lost:#}"));
    }
    let checked = *verified.as_ref().unwrap_or(&0);
    let there = Line::number("acknowledged blocks read back", f64::from(u32::try_from(checked)?), "");
    report.add(there.goal(Verdict::of(verified.is_ok()), "all of them"));
    Ok(())
}

/// Grows by one step in one way. Returns the writer's longest wait meanwhile, in seconds.
fn grow_watched(pool: &mut Pool, way: Way, writer: &Writer) -> Result<f64> {
    let goal = pool.bytes + if way == Way::Nothing { 0 } else { STEP };
    let began = Instant::now();
    writer.watch();
    grow(pool, way, goal)?;
    pool.bytes = goal;
    std::thread::sleep(WATCH.saturating_sub(began.elapsed()));
    // The write under way at the end must be over before it is asked for.
    writer.wait_for(2, LIMIT)?;
    let wait = writer.tally().watched();
    let live = pool.live_bytes()?;
    ensure!(live == goal, "{way:?} left a pool of {live} bytes instead of {goal}");
    Ok(wait.as_secs_f64())
}

fn grow(pool: &Pool, way: Way, goal: u64) -> Result<()> {
    let truncate = || -> Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(pool.data.file())?;
        Ok(file.set_len(goal)?)
    };
    match way {
        Way::Nothing => {}
        Way::Ioctls => {
            truncate()?;
            loop_set_capacity(pool.data.device())?;
            pool.control.load(POOL, goal / 512, "thin-pool", &pool.params())?;
            pool.control.resume(POOL)?;
        }
        Way::Dmsetup => {
            truncate()?;
            Cmd::new("losetup").arg("-c").arg(pool.data.device()).run().checked()?;
            let table = format!("0 {} thin-pool {}", goal / 512, pool.params());
            for args in [vec!["suspend", POOL], vec!["load", POOL, "--table", &table], vec!["resume", POOL]] {
                sys::dmsetup(args).run().checked()?;
            }
        }
        Way::Dmpool => {
            let size = format!("{}M", goal / MIB);
            Cmd::new("dmpool").args(["grow", POOL, &size]).run().checked()?;
        }
    }
    Ok(())
}
