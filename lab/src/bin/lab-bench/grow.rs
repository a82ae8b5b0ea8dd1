//! `dmpool grow` against the bare ioctls and against the documented dmsetup sequence: what a writer that syncs every write
//! feels of each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::guest::disk::{Kind, LoopDisk, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys;
use lab::guest::writer::{Plan, Writer};

use crate::ioctl::{Control, loop_set_capacity};
use crate::ratios::{Ratio, median};
use crate::report::{Line, Report, Verdict};

const MIB: u64 = 1 << 20;
const STEP: u64 = 64 * MIB;
const POOL: &str = "dmpool-test-bench-pool";
const VOLUME: &str = "dmpool-test-bench-volume";
const LIMIT: Duration = Duration::from_secs(60);

/// A way to grow, in the order in which a round takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing for as long as a grow takes: what the writer feels anyhow.
    Nothing,
    Ioctls,
    Dmsetup,
    Dmpool,
}

const WAYS: [Way; 4] = [Way::Nothing, Way::Ioctls, Way::Dmsetup, Way::Dmpool];

/// A pool shaped as Docker's, on two loop devices.
struct Pool {
    data: LoopDisk,
    metadata: LoopDisk,
    bytes: u64,
    control: Control,
}

/// Measures on `disk`, which is formatted, and adds its lines to the report.
pub(crate) fn measure(report: &mut Report, disk: &Path, rounds: u32) -> Result<()> {
    report.progress("grow under a writer");
    let dir = PathBuf::from("/var/tmp/dmpool-test-bench-grow");
    let mounted = Mounted::format(Kind::Ext4, disk, &dir)?;
    let mut pool = Pool::create(&dir)?;
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
            let wait = pool.grow_watched(*way, &writer)?;
            waits.get_mut(at).context("no such way")?.push(wait);
        }
        report.progress(&format!("grow: round {} of {rounds}", round + 1));
    }
    let tally = writer.stop(LIMIT)?;
    report.note(format!("the writer in all: {}", tally.line()));
    let verified = tally.verify(&plan);
    pool.remove()?;
    mounted.unmount()?;

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

impl Pool {
    fn create(dir: &Path) -> Result<Self> {
        let bytes = 1024 * MIB;
        let data = LoopDisk::create(&dir.join("data"), bytes)?;
        let metadata = LoopDisk::create(&dir.join("metadata"), 64 * MIB)?;
        let pool = Self { data, metadata, bytes, control: Control::open()? };
        let table = format!("0 {} thin-pool {}", bytes / 512, pool.params());
        sys::dmsetup(["create", POOL, "--table", &table]).run().checked()?;
        pool.control.message(POOL, "create_thin 0")?;
        let table = format!("0 {} thin /dev/mapper/{POOL} 0", 256 * MIB / 512);
        sys::dmsetup(["create", VOLUME, "--table", &table]).run().checked()?;
        sys::settle();
        Ok(pool)
    }

    /// The parameters of Docker's own table.
    fn params(&self) -> String {
        format!("{} {} 128 32768 1 skip_block_zeroing", self.metadata.device().display(), self.data.device().display())
    }

    /// Grows by one step in one way. Returns the writer's longest wait meanwhile, in seconds.
    fn grow_watched(&mut self, way: Way, writer: &Writer) -> Result<f64> {
        let goal = self.bytes + if way == Way::Nothing { 0 } else { STEP };
        writer.watch();
        self.grow(way, goal)?;
        self.bytes = goal;
        // The write under way at the end must be over before it is asked for.
        writer.wait_for(2, LIMIT)?;
        let wait = writer.tally().watched();
        let live = pool_bytes()?;
        ensure!(live == goal, "{way:?} left a pool of {live} bytes instead of {goal}");
        Ok(wait.as_secs_f64())
    }

    fn grow(&self, way: Way, goal: u64) -> Result<()> {
        let truncate = || -> Result<()> {
            let file = std::fs::OpenOptions::new().write(true).open(self.data.file())?;
            Ok(file.set_len(goal)?)
        };
        match way {
            Way::Nothing => std::thread::sleep(Duration::from_millis(200)),
            Way::Ioctls => {
                truncate()?;
                loop_set_capacity(self.data.device())?;
                self.control.load(POOL, goal / 512, "thin-pool", &self.params())?;
                self.control.resume(POOL)?;
            }
            Way::Dmsetup => {
                truncate()?;
                Cmd::new("losetup").arg("-c").arg(self.data.device()).run().checked()?;
                let table = format!("0 {} thin-pool {}", goal / 512, self.params());
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

    fn remove(self) -> Result<()> {
        for name in [VOLUME, POOL] {
            sys::dmsetup(["remove", "--retry", name]).run().checked()?;
        }
        Ok(())
    }
}

/// The length of the live table, in bytes.
fn pool_bytes() -> Result<u64> {
    let table = sys::dmsetup(["table", POOL]).run().checked()?.stdout;
    let sectors = table.split(' ').nth(1).and_then(|sectors| sectors.parse::<u64>().ok());
    Ok(sectors.with_context(|| format!("no length in the table {table:?}"))? * 512)
}
