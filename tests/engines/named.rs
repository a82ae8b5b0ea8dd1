//! Every way to name Docker's pool, and what dmpool will not do to it.

use lab::guest::machine::{Scope, Snapshot, assert_same};

use crate::host::{Disk, G, Host, assert_refused};
use crate::support::Bench;

#[test]
fn docker_pool_goes_by_many_names_and_is_nobodys_to_destroy() {
    let host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
    let pool = host.pool();
    let node = format!("/dev/mapper/{pool}");
    let root = host.docker.root().to_str().unwrap().to_owned();
    let names = ["docker", &pool, &node, &root];

    let block = host.block();
    assert_eq!(host.bench.ok(&["status", "--format", "docker"]), block, "the only pool");
    for name in names {
        assert_eq!(host.bench.ok(&["status", name, "--format", "docker"]), block, "{name}");
    }
    host.bench.ok(&["grow", "101G"]);
    for (name, gib) in names.into_iter().zip(102..) {
        host.bench.ok(&["grow", name, "+1G"]);
        assert_eq!(host.size(), gib * G, "{name}");
    }
    assert!(host.bench.ok(&["grow"]).contains(&pool), "alone it prints the choices");

    let scope = Scope::new().content(host.file("metadata"));
    let before = Snapshot::take(&scope).unwrap();
    assert_refused(&host.bench.run(&["grow", "docker", "50G"]), 3, &[&pool, "smaller", "105"]);
    assert_refused(&host.bench.run(&["grow", "docker", "--metadata", "16G"]), 3, &[&pool, "15.875 GiB"]);
    assert_refused(&host.bench.run(&["grow", "docker", "--metadata", "1G"]), 3, &[&pool, "smaller"]);
    for verb in ["deactivate", "activate"] {
        for name in [pool.as_str(), "docker"] {
            assert_refused(&host.bench.run(&[verb, name]), 3, &[name, verb, "did not make it", "Docker"]);
        }
    }
    for name in [pool.as_str(), "docker"] {
        let refused = host.bench.run(&["destroy", name, "--yes"]);
        assert_refused(&refused, 3, &[name, "did not make it", "Docker"]);
    }
    assert_refused(&host.bench.run(&["status", "/var/tmp"]), 3, &["/var/tmp", "no Docker root"]);
    assert_refused(&host.bench.run(&["status", "/no/such/root"]), 3, &["/no/such/root"]);
    assert_same(&before, &Snapshot::take(&scope).unwrap());

    let own = host.bench.create();
    for args in [&["status"][..], &["grow", "110G"], &["grow", "--metadata", "3G"]] {
        assert_refused(&host.bench.run(args), 2, &["docker", &own, "say which"]);
    }
    let list = host.bench.ok(&["list"]);
    assert!(list.contains(&pool) && list.contains(&own), "{list}");
    assert_eq!(host.bench.ok(&["status", "docker", "--format", "docker"]), block_after(&host));
    host.bench.ok(&["destroy", &own, "--yes", "--with-volumes"]);
}

fn block_after(host: &Host) -> String {
    host.docker.storage_block().unwrap()
}
