//! Docker's pool grows under its containers, and everything stays grown.

use lab::guest::boot;
use lab::guest::writer::now_us;

use crate::host::{Disk, G, Host, assert_refused};
use crate::support::Bench;

/// A container's name that the test after the reboot finds again.
const WRITER: &str = "writer";

#[test]
fn docker_keeps_its_new_size_over_restart_and_reboot() {
    match boot::phase() {
        0 => grown_under_a_writer(),
        _ => after_the_reboot(),
    }
}

fn grown_under_a_writer() {
    let mut host = Host::new(Bench::new(), Disk::Large, &[]);
    let writer = host.writer(WRITER, 256);
    let kept = "echo precious > /data/kept; sync";
    assert!(host.docker.exec(WRITER, &["sh", "-c", kept]).ok());

    let described = host.bench.ok(&["grow", "docker", "200G", "--dry-run"]);
    assert!(described.contains("no way back"), "{described}");
    assert_eq!(host.size(), 100 * G, "nothing was done");

    let began = now_us();
    let ran = host.bench.run(&["grow", "docker", "200G"]);
    let ended = now_us();
    assert!(ran.ok(), "{ran}");
    assert!(ran.stderr.contains("Docker keeps 10% of its pool free, 20.0 GiB of 200.0 GiB"), "{ran}");
    let tally = writer.writes(20);
    let wait = tally.longest_between(began, ended).unwrap_or_default();
    println!("grow docker 200G took {} ms; the writer's longest wait: {} ms", (ended - began) / 1000, wait.as_millis());
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    assert_eq!(host.size(), 200 * G);

    host.bench.ok(&["grow", "docker", "--metadata", "4G"]);
    writer.writes(20);
    assert_eq!(host.docker.storage_value("Metadata Space Total").unwrap(), "4.295GB");

    let again = host.bench.run(&["grow", "docker", "200G"]);
    assert!(again.ok() && format!("{}{}", again.stdout, again.stderr).contains("unchanged"), "{again}");
    writer.stop_and_verify(&host);

    host.docker.stop().unwrap();
    assert_eq!(host.json("/pool/activity"), "inactive");
    assert_eq!((host.size(), host.number("/pool/metadata/total")), (200 * G, 4 * G), "from the superblock");
    let inactive = host.bench.run(&["grow", "docker", "300G"]);
    assert_refused(&inactive, 3, &["not active", "start Docker"]);
    host.docker.up().unwrap();
    host.assert_parity();
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    host.docker.cmd(["start", WRITER]).run().checked().unwrap();
    boot::reboot()
}

fn after_the_reboot() {
    let host = Host::again(Bench::new(), Disk::Large, &[]);
    host.assert_parity();
    assert_eq!((host.size(), host.number("/pool/metadata/total")), (200 * G, 4 * G));
    host.docker.cmd(["start", WRITER]).run().checked().unwrap();
    let kept = host.docker.exec(WRITER, &["cat", "/data/kept"]);
    assert_eq!(kept.stdout, "precious\n", "{kept}");
}

#[test]
fn docker_pool_that_its_host_cannot_carry_grows_only_when_told_to() {
    let host = Host::new(Bench::new(), Disk::Small, &["dm.basesize=1G"]);
    let (table, length) = (host.json("/pool/table"), host.file("data").metadata().unwrap().len());
    let refused = host.bench.run(&["grow", "docker", "200G"]);
    let free = host.number("/pool/data/file/host_filesystem/free");
    assert_refused(&refused, 3, &["nothing would be gained", "free:", "needed:", "GiB", "--overcommit"]);
    assert!(free < 8 * G && refused.stderr.contains(&format!("({free} bytes)")), "{free}: {refused}");
    assert_eq!((host.json("/pool/table"), host.file("data").metadata().unwrap().len()), (table, length));

    let grown = host.bench.run(&["grow", "docker", "200G", "--overcommit"]);
    assert!(grown.ok() && grown.stderr.contains("the file is sparse"), "{grown}");
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    host.assert_parity();
}
