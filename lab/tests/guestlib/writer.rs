use std::time::Duration;

use lab::guest::disk::LoopDisk;
use lab::guest::sweep::Sweep;
use lab::guest::wrap::{Behaviour, Wrapped};
use lab::guest::writer::{Plan, Writer};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_device_that_loses_writes_is_caught() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 << 20).unwrap();
    let wrapped = Wrapped::new(&sweep.name("liar"), disk.device(), &Behaviour::Linear).unwrap();
    let plan = Plan { slots: 16, ..Plan::new(wrapped.device()) };
    let writer = Writer::start(plan.clone()).unwrap();
    writer.wait_for(20, LIMIT).unwrap();
    let good = writer.stop(LIMIT).unwrap();
    assert_eq!((good.errors, good.verify(&plan).unwrap()), (0, 16));

    wrapped.become_(&Behaviour::DropWrites).unwrap();
    let writer = Writer::start(plan.clone()).unwrap();
    writer.wait_for(20, LIMIT).unwrap();
    let lied_to = writer.stop(LIMIT).unwrap();
    assert_eq!(lied_to.errors, 0, "every write was acknowledged");
    // The page cache still holds what the disk never got.
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let lost = lied_to.verify(&plan).unwrap_err().to_string();
    assert!(lost.contains("16 of 16"), "{lost}");
}

#[test]
fn errors_are_counted_and_end_with_their_cause() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 << 20).unwrap();
    let wrapped = Wrapped::new(&sweep.name("bad"), disk.device(), &Behaviour::Linear).unwrap();
    let plan = Plan { slots: 16, ..Plan::new(wrapped.device()) };
    let writer = Writer::start(plan.clone()).unwrap();
    writer.wait_for(20, LIMIT).unwrap();
    wrapped.become_(&Behaviour::ErrorWrites).unwrap();
    writer.wait_for(5, LIMIT).unwrap();
    let during = writer.tally();
    assert!(during.errors > 0, "{during:?}");
    assert!(during.error_texts[0].contains("Input/output error"), "{:?}", during.error_texts);
    wrapped.become_(&Behaviour::Linear).unwrap();
    writer.wait_for(40, LIMIT).unwrap();
    let tally = writer.stop(LIMIT).unwrap();
    assert_eq!(tally.verify(&plan).unwrap(), 16, "written again, and there");
}
