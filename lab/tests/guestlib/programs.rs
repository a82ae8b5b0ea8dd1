use std::time::Duration;

use lab::guest::disk::LoopDisk;
use lab::guest::noise::KernelLog;
use lab::guest::run::{Cmd, End};
use lab::guest::sweep::Sweep;
use lab::guest::sys;
use lab::guest::wrap::{Behaviour, Wrapped};

#[test]
fn a_program_in_d_state_is_given_up_and_reported() {
    let sweep = Sweep::new().unwrap();
    let disk = LoopDisk::create(&sweep.path("disk"), 16 << 20).unwrap();
    let wrapped = Wrapped::new(&sweep.name("stuck"), disk.device(), &Behaviour::Linear).unwrap();
    sys::dmsetup(["suspend", wrapped.name()]).run().checked().unwrap();
    let read = Cmd::new("dd").arg(format!("if={}", wrapped.device().display())).args([
        "of=/dev/null",
        "bs=4096",
        "count=1",
        "iflag=direct",
    ]);
    let ran = read.limit(Duration::from_millis(500)).run();
    let End::Stuck(at) = &ran.end else { panic!("{ran}") };
    assert!(at.contains("state D"), "{at}");
    sys::dmsetup(["resume", wrapped.name()]).run().checked().unwrap();
}

#[test]
fn the_kernel_log_is_told_from_now_on() {
    let mut log = KernelLog::from_now().unwrap();
    assert_eq!(log.lines().unwrap(), Vec::<String>::new());
    std::fs::write("/dev/kmsg", "dmpool-test-message\n").unwrap();
    assert_eq!(log.lines().unwrap(), ["dmpool-test-message"]);
}
