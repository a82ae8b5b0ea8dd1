//! The binary that users get is killed at random moments; then it continues in one round and undoes in the next.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::disk::Kind;
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::dmsetup;

use crate::case::Case;
use crate::chance::Chance;
use crate::operation::{Busy, Operation, Subject};
use crate::support::refusals::{REFUSED, Table, row};
use crate::support::{Bench, volume};

/// Rounds for each operation.
const ROUNDS: u32 = 10;

#[test]
fn create_is_killed_at_random_moments() {
    killed(Operation::Create, None);
}

#[test]
fn grow_is_killed_at_random_moments() {
    killed(Operation::GrowData, Some(Kind::Ext4));
}

#[test]
fn activate_is_killed_at_random_moments() {
    killed(Operation::Activate, None);
}

#[test]
fn destroy_is_killed_at_random_moments() {
    killed(Operation::Destroy, None);
}

/// Runs an operation without disturbance; returns how it left things, and how long it took.
pub fn undisturbed(subject: &Subject) -> (String, Duration) {
    let case = Case::begin(subject, "undisturbed".to_owned());
    let began = Instant::now();
    let ran = subject.run(&case.args, None);
    assert!(ran.ok(), "{ran}");
    let took = began.elapsed();
    let end = subject.picture();
    assert_ne!(end, case.before, "{:?} does something", subject.operation);
    case.is_at_the_end(&end);
    (end, took)
}

/// An operation's command line, not yet run.
pub fn command(case: &Case<'_>) -> Cmd {
    case.subject.bench.cmd(&case.args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn killed(operation: Operation, io: Option<Kind>) {
    let subject = Subject::new(operation, Bench::new());
    let busy = io.map(|kind| Busy::on(&subject, kind));
    let mut chance = Chance::new();
    let (end, took) = undisturbed(&subject);
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let verb = if round.is_multiple_of(2) { "continue" } else { "undo" };
        let delay = chance.within(took);
        let case = Case::begin(&subject, format!("killed after {} us, {verb}", delay.as_micros()));
        let running = command(&case).start().unwrap();
        std::thread::sleep(delay);
        let ran = running.kill();
        if subject.journals().is_empty() {
            case.is_at_either_end(&end, &ran);
        } else {
            interrupted += 1;
            case.ended_as_said(&resume_alone(&case, verb), &end);
        }
        assert!(subject.journals().is_empty(), "{}", case.name);
    }
    println!("  {interrupted} of {ROUNDS} rounds left a journal");
    undisturbed(&subject);
    assert!(!subject.picture().contains(".new"), "temporary files are swept: {}", subject.picture());
    if let Some(busy) = busy {
        busy.finish();
    }
}

/// Continues or undoes once the guardian of the one that was killed has let go of the lock.
fn resume_alone(case: &Case<'_>, verb: &str) -> Ran {
    for _ in 0..200 {
        let ran = case.resume(verb, None);
        if !ran.stderr.contains("another dmpool is at work") {
            return ran;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{}: the lock is not let go of", case.name);
}

/// An operation that was interrupted, and whose pool has been used since: it does not end by deleting what was written.
#[test]
fn an_end_that_deletes_what_was_written_since_is_refused() {
    let bench = Bench::with_faults();
    let (pool, volume_name) = (bench.pool(), bench.sweep.name("v"));
    let dir = bench.dir.to_str().unwrap();
    let create = ["create", &pool, "--data-size", "1G", "--metadata-size", "16M", "--dir", dir];
    assert!(!bench.cmd(&create).env("DMPOOL_FAULT", "7:after:die").run().ok());
    let device = volume(&pool, 0, &volume_name, 64 << 20);
    Cmd::new("dd").args(["if=/dev/zero", "bs=1M", "count=4", "oflag=direct"]).arg(of(&device)).run().checked().unwrap();
    dmsetup(["remove", "--retry", &volume_name]).run().checked().unwrap();
    // A status without --noflush commits: nothing is written by itself from here on.
    dmsetup(["status", &pool]).run().checked().unwrap();
    let mut table = Table::new(&bench);
    table.refuse([row("undo of a create", bench.cmd(&["undo"]), REFUSED, ["has been used since", "dmpool continue"])]);
    offers(&bench, &["dmpool continue"], &["dmpool undo"]);
    bench.ok(&["continue"]);

    let destroy = ["destroy", &pool, "--with-volumes", "--yes"];
    assert!(!bench.cmd(&destroy).env("DMPOOL_FAULT", "3:after:die").run().ok());
    // Nobody has said yet that it may go: that was said of the whole.
    offers(&bench, &[&format!("interrupted: destroy pool `{pool}` ("), "dmpool undo", " --yes"], &[]);
    table.refuse([
        row("continue of a destroy: unasked", bench.cmd(&["continue"]), REFUSED, ["must be confirmed", "say --yes"]),
        row("create meanwhile", bench.cmd(&create), REFUSED, [&format!("destroy pool `{pool}`"), "dmpool undo"]),
    ]);
    let there = bench.ok(&["continue", "--dry-run"]);
    assert!(there.contains("would finish: destroy pool") && there.contains(". delete the file "), "{there}");
    let back = bench.ok(&["undo", "--dry-run"]);
    assert!(back.contains("3. remove the device") && back.contains("taken back: made again"), "{back}");
    assert!(!back.contains("delete the file") && bench.file("data").exists(), "{back}");
    bench.ok(&["activate", "--all"]);
    offers(&bench, &["dmpool undo", " --yes --used-since"], &[]);
    let says = ["brought it up since", "dmpool undo", "--yes --used-since"];
    table.refuse([
        row("continue of a destroy", bench.cmd(&["continue"]), REFUSED, says),
        row("continue of a destroy: --yes", bench.cmd(&["continue", "--yes"]), REFUSED, says),
        row("continue of a destroy: unasked", bench.cmd(&["continue", "--used-since"]), REFUSED, ["say --yes"]),
    ]);
    table.end();
    bench.ok(&["continue", "--yes", "--used-since"]);
    assert!(!bench.file("data").exists() && !Path::new("/dev/mapper").join(&pool).exists());
}

/// A pool that has its new size keeps it: who asks is not sent the way back, whether the pool is up or down.
#[test]
fn a_way_back_that_is_no_more_is_not_offered() {
    let bench = Bench::with_faults();
    let pool = bench.create();
    let grow = ["grow", &pool, "--overcommit", "+16M"];
    assert!(!bench.cmd(&grow).env("DMPOOL_FAULT", "1:after:die").run().ok());
    offers(&bench, &["dmpool continue", "dmpool undo"], &[]);
    bench.ok(&["undo"]);
    assert!(!bench.cmd(&grow).env("DMPOOL_FAULT", "4:after:die").run().ok());
    let mut table = Table::new(&bench);
    table.refuse([row("grow again", bench.cmd(&grow), REFUSED, ["dmpool continue", "there is no way back any more"])]);
    table.end();
    offers(&bench, &["dmpool continue"], &["dmpool undo"]);
    for device in [pool.clone(), format!("{pool}_tdata"), format!("{pool}_tmeta")] {
        dmsetup(["remove", "--retry", &device]).run().checked().unwrap();
    }
    offers(&bench, &["dmpool continue"], &["dmpool undo"]);
    bench.ok(&["continue"]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// What `status` and `health` say can be done about the interruption is this, and not that.
#[track_caller]
fn offers(bench: &Bench, these: &[&str], not: &[&str]) {
    for command in ["status", "health"] {
        let ran = bench.run(&[command, &bench.pool()]);
        assert!(these.iter().all(|way| ran.stdout.contains(way)), "{these:?}: {ran}");
        assert!(!not.iter().any(|way| ran.stdout.contains(way)), "not {not:?}: {ran}");
    }
}

fn of(device: &Path) -> String {
    format!("of={}", device.display())
}
