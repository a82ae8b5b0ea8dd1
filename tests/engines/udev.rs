//! Docker on a machine without udevd.

use lab::guest::boot;

use crate::host::{Disk, G, Host};
use crate::support::Bench;

#[test]
fn docker_without_udev_is_shown_and_grown_all_the_same() {
    boot::stop_udev();
    let host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
    assert!(!boot::have_udev());
    // Docker says whether its library found a udev when it started; nobody else can know that.
    let without = |block: &str| {
        let rest = block.lines().filter(|line| !line.contains("Udev Sync Supported"));
        rest.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(without(&host.block()), without(&host.docker.storage_block().unwrap()));
    let writer = host.writer("writer", 256);
    host.bench.ok(&["grow", "docker", "200G"]);
    host.bench.ok(&["grow", "docker", "--metadata", "3G"]);
    writer.writes(20);
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    assert_eq!(host.size(), 200 * G);
    writer.stop_and_verify(&host);
    boot::start_udev();
}
