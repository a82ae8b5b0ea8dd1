//! dmpool dies while Docker's pool grows: the containers go on, and both ways out end well.

use lab::guest::run::End;

use crate::host::{Disk, G, Host, assert_refused};
use crate::support::Bench;

/// The steps of growing Docker's data, as `--dry-run` numbers them: the file, its loop device, the pool.
const STEPS: [usize; 3] = [1, 2, 3];

impl Host {
    /// Begins to grow Docker's pool by 1 GiB, with a fault.
    fn faulty_grow(&self, fault: &str) -> lab::guest::run::Ran {
        self.bench.cmd(&["grow", "docker", "+1G"]).env("DMPOOL_FAULT", fault).run()
    }

    /// Begins to grow Docker's pool by 1 GiB, and dies.
    #[track_caller]
    fn die(&self, fault: &str) {
        let ran = self.faulty_grow(fault);
        assert_eq!(ran.end, End::Signal(9), "{ran}");
    }

    /// How long the file of Docker's data is.
    fn length(&self) -> u64 {
        self.file("data").metadata().unwrap().len()
    }

    /// How many journals are open.
    fn journals(&self) -> usize {
        std::fs::read_dir(self.bench.state.join("journal")).unwrap().count()
    }
}

#[test]
fn docker_and_its_writer_survive_a_failure_and_a_death_at_every_step() {
    let host = Host::new(Bench::with_faults(), Disk::Large, &[]);
    let described = host.bench.ok(&["grow", "docker", "+1G", "--dry-run"]);
    for step in STEPS {
        assert!(described.contains(&format!("{step}.")), "{described}");
    }
    assert!(!described.contains("4."), "there are as many steps as are tried here: {described}");
    let writer = host.writer("writer", 256);
    let mut size = 100 * G;
    for step in STEPS {
        for point in ["before", "after"] {
            let taken = step == 3 && point == "after";
            let at = format!("step {step}, {point}");
            println!("{at}, at {} GiB", size / G);

            let failed = host.faulty_grow(&format!("{step}:{point}:fail"));
            if taken {
                // The kernel has taken the size, and nothing takes it back: it can only be finished.
                assert_eq!(failed.code(), Some(4), "{at}: {failed}");
                assert!(failed.stderr.contains("stands: ") && failed.stderr.contains("dmpool continue"), "{failed}");
                host.bench.ok(&["continue"]);
                size += G;
            } else {
                assert_eq!(failed.code(), Some(1), "{at}: {failed}");
                assert!(failed.stderr.contains("the machine is as it was"), "{at}: {failed}");
            }
            assert_eq!((host.size(), host.length(), host.journals()), (size, size, 0), "{at}, failed");

            host.die(&format!("{step}:{point}:die"));
            writer.writes(5);
            let ran = host.bench.run(&["continue"]);
            assert!(ran.ok() && ran.stdout.starts_with("finished: "), "{at}: {ran}");
            size += G;
            assert_eq!((host.size(), host.length(), host.journals()), (size, size, 0), "{at}, continued");

            host.die(&format!("{step}:{point}:die"));
            let ran = host.bench.run(&["undo"]);
            let said = if taken { "stands: " } else { "taken back: " };
            assert!(ran.ok() && ran.stdout.contains(said), "{at}: {ran}");
            size += if taken { G } else { 0 };
            assert_eq!((host.size(), host.length(), host.journals()), (size, size, 0), "{at}, undone");
            writer.writes(5);
        }
    }
    host.assert_parity();
    writer.stop_and_verify(&host);
}

#[test]
fn docker_restarted_or_stopped_in_the_middle_of_a_grow() {
    let mut host = Host::new(Bench::with_faults(), Disk::Large, &["dm.basesize=1G"]);
    let mut size = 100 * G;

    // Docker takes the length of its file by itself when it starts: nothing is left to be done, and nothing can be undone.
    for (way, said) in [("continue", "finished: "), ("undo", "stands: ")] {
        host.die("1:after:die");
        let refused = host.bench.run(&["grow", "docker", "+1G"]);
        assert_refused(&refused, 3, &["was interrupted", "dmpool continue", "dmpool undo"]);
        host.docker.stop().unwrap();
        host.docker.up().unwrap();
        size += G;
        assert_eq!(host.size(), size, "Docker took it");
        let ran = host.bench.run(&[way]);
        assert!(ran.ok() && ran.stdout.contains(said), "{ran}");
        assert_eq!((host.size(), host.length(), host.journals()), (size, size, 0), "{way}");
        host.assert_parity();
    }

    // With Docker stopped, the file alone decides which size it will start with.
    for (fault, way, gain) in [
        ("1:after:die", "continue", G),
        ("2:before:die", "continue", G),
        ("1:after:die", "undo", 0),
        ("2:after:die", "undo", 0),
    ] {
        host.die(fault);
        host.docker.stop().unwrap();
        let ran = host.bench.run(&[way]);
        assert!(ran.ok(), "{fault} {way}: {ran}");
        size += gain;
        assert_eq!((host.length(), host.journals()), (size, 0), "{fault} {way}: {ran}");
        host.docker.up().unwrap();
        assert_eq!(host.size(), size, "{fault} {way}");
        host.assert_parity();
    }
    host.bench.ok(&["grow", "docker", "+1G"]);
}
