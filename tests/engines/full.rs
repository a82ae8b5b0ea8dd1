//! Docker's pool is full, a container waits, and a grow within the kernel's 60 seconds loses nothing.

use std::time::{Duration, Instant};

use lab::guest::docker::IMAGE;

use crate::host::{Disk, G, Host};
use crate::support::Bench;

const M: u64 = 1 << 20;

/// What making a container writes between Docker's two looks at the free space: the file system of its first layer.
const A_CONTAINER: u64 = 8 * M;

impl Host {
    /// Writes into a file of a container until the pool has only `left` bytes free.
    #[track_caller]
    fn fill(&self, container: &str, file: &str, left: u64) {
        let count = format!("count={}", (self.number("/pool/data/free") - left) / M);
        let (of, bs) = (format!("of=/data/{file}"), "bs=1M");
        let filled = self.docker.exec(container, &["dd", "if=/dev/zero", &of, bs, &count, "conv=fsync"]);
        assert!(filled.ok(), "{filled}");
    }
}

#[test]
fn docker_pool_that_is_full_is_rescued_with_no_write_lost() {
    let mut host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=2G", "dm.loopdatasize=512M"]);
    let fat = host.docker.run_detached(&["--name", "fat"], &["sleep", "100000"]).unwrap();
    // So many blocks that it never comes round: it asks for more space until there is none.
    let writer = host.idle_writer("writer", 1 << 30);

    // Docker refuses new containers before the pool is full, and dmpool says from which size on it does not.
    host.fill(&fat, "one", 32 * M);
    let refused = host.docker.cmd(["create", IMAGE, "sh"]).run();
    assert!(!refused.ok() && refused.stderr.contains("less than minimum required"), "{refused}");
    let grown = host.bench.run(&["grow", "docker", "+1M"]);
    assert!(grown.ok() && grown.stderr.contains("it still refuses pulls and new containers; from "), "{grown}");
    let enough = grown.stderr.rsplit("from ").next().and_then(|rest| rest.split(" bytes)").next()?.rsplit('(').next());
    let enough: u64 = enough.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{grown}"));
    let grown = host.bench.run(&["grow", "docker", &(enough + A_CONTAINER).to_string()]);
    assert!(grown.ok() && grown.stderr.contains("pulls and new containers work at that size"), "{grown}");
    host.docker.cmd(["create", IMAGE, "sh"]).run().checked().unwrap();

    host.fill(&fat, "two", 24 * M);
    writer.start(&host);
    let until = Instant::now() + Duration::from_secs(150);
    while host.json("/pool/mode") != "out_of_data_space" {
        assert!(Instant::now() < until, "the pool never filled up: {}", host.bench.ok(&["status", "docker"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    // First the rescue: the 60 seconds are running.
    let full = host.bench.run(&["status", "docker"]);
    let grown = host.bench.run(&["grow", "docker", "2G"]);
    assert!(grown.ok(), "{grown}");
    assert!(!grown.stderr.contains("were lost"), "it came in time: {grown}");
    assert!(full.ok() && full.stdout.contains("it is full") && full.stdout.contains("dmpool grow"), "{full}");
    writer.writes(50);
    assert_eq!(host.json("/pool/mode"), "rw");
    host.docker.cmd(["create", IMAGE, "sh"]).run().checked().unwrap();
    let tally = writer.stop_and_verify(&host);
    host.assert_parity();

    // Docker's option says 512 MiB to this day; it extends files and never shortens them.
    host.docker.stop().unwrap();
    host.docker.up().unwrap();
    assert_eq!(host.size(), 2 * G);
    writer.verify(&host, &tally);
}
