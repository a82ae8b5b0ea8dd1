//! Pools are there before somebody needs them: disks and files that come late, and what runs at boot.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dmpool::pool::label::SLOTS;
use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::find;
use lab::guest::run::{Cmd, Ran, Running};
use nix::sys::signal::Signal;

use crate::case::died;
use crate::support::at_boot::AtBoot;
use crate::support::health::Said;
use crate::support::linear::Disk;
use crate::support::{Bench, exists};

/// Longer than any test, so that who waits for it in vain is seen.
const LONG: &str = "1h";

#[test]
fn pools_come_up_as_their_disks_and_files_come_and_none_waits_for_another() {
    let bench = Bench::new();
    let [first, second, third]: [PathBuf; 3] = boot::scratch_disks().try_into().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.sweep.name(name));
    let disk = Disk::new(&bench.sweep.name("disk-a"), &first, 64, 64);
    let late = bench.sweep.name("disk-b");
    let mounted = Mounted::format(Kind::Ext4, &third, &bench.sweep.path("mnt")).unwrap();
    let dir = mounted.dir().to_owned();
    bench.ok(&["create", &a, "--data-device", &disk.path()]);
    let other = Disk::new(&late, &second, 64, 64);
    bench.ok(&["create", &b, "--data-device", &other.path()]);
    bench.ok(&["create", &c, "--dir", dir.to_str().unwrap(), "--data-size", "1G", "--metadata-size", "16M"]);
    for pool in [&a, &b, &c] {
        bench.ok(&["deactivate", pool]);
    }
    drop(other);
    mounted.unmount().unwrap();

    // What comes next is there only once the one before is up: who waited for all would wait for ever.
    let all = ["activate", "--all", "--wait", LONG];
    let mut waiting = bench.cmd(&all).limit(Duration::from_secs(200)).start().unwrap();
    until(&mut waiting, |said| exists(&a) && said.matches("waiting up to 1h for ").count() == 2);
    let other = Disk::new(&late, &second, 64, 64);
    until(&mut waiting, |_| exists(&b));
    Cmd::new("mount").args([&third, &dir]).run().checked().unwrap();
    let ran = waiting.wait().checked().unwrap();
    let up = |pool: &String| format!("activated pool `{pool}`\n");
    assert_eq!(ran.stdout, [&a, &b, &c].map(up).concat(), "{ran}");
    let path = other.path();
    assert!(ran.stderr.contains(&format!("for {path} (pool `{b}`)\n")), "{ran}");
    assert!(ran.stderr.contains(&format!("/{c}/metadata (pool `{c}`)\n")), "{ran}");
    assert_eq!(ran.stderr.matches("waiting").count(), 2, "each is said once: {ran}");

    // Down once more, and not all of it is there.
    bench.ok(&["deactivate", &b]);
    drop(other);
    let over = bench.run(&["activate", "--all", "--wait", "1s"]);
    assert_eq!(over.code(), Some(5), "{over}");
    for said in ["none of its devices is here", &path, "1 of 3 pools did not come up"] {
        assert!(over.stderr.contains(said), "{over}");
    }
    let mut waits = bench.cmd(&all).start().unwrap();
    until(&mut waits, |said| said.contains("waiting"));
    waits.signal(Signal::SIGINT);
    let ended = waits.wait();
    assert!(ended.code() == Some(5) && ended.stderr.contains("by SIGINT"), "{ended}");

    // What time does not mend is not waited for.
    let other = Disk::new(&late, &second, 64, 64);
    let copy = Disk::new(&bench.sweep.name("copy"), &second, 64, 64);
    let one = ["activate", b.as_str(), "--wait", LONG];
    let refused = |said: &str| {
        let ran = bench.run(&one);
        assert!(ran.code() == Some(3) && ran.stderr.contains(said) && !ran.stderr.contains("waiting"), "{ran}");
    };
    refused("one is a copy of the other");
    drop(copy);
    flip(&path);
    refused("label that cannot be used");
    flip(&path);
    bench.ok(&one);
    for pool in [&a, &b, &c] {
        bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
    }
    drop((disk, other));
    Cmd::new("umount").arg(&dir).run().checked().unwrap();
}

/// Lets a program run until that is so of its standard error.
fn until(running: &mut Running, is_so: impl Fn(&str) -> bool) {
    while !is_so(&running.printed().1) {
        assert!(running.alive(), "{:?}", running.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Damages the label of a device, or mends it again.
fn flip(path: &str) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (SLOTS[0].get() + 300, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn an_init_script_brings_pools_up_and_each_of_its_steps_is_finished_or_taken_back() {
    let (bench, _at_boot) = (Bench::with_faults(), AtBoot::none());
    let pool = bench.create();
    let set_up = ["activate", "--all", "--at-boot"];
    let described = bench.cmd(&set_up).arg("--dry-run").run().checked().unwrap().stdout;
    let line =
        format!("+    /usr/local/bin/dmpool-faults activate --all --wait 60s --state-dir {}\n", bench.state.display());
    assert!(
        described.contains(&line) && described.contains("+# X-Start-Before:    docker containerd\n"),
        "{described}"
    );
    every_step(&bench, &set_up, 1);

    drop(AtBoot::none());
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    let dir = bench.dir.to_str().unwrap();
    let create = ["create", &pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M", "--at-boot"];
    let described = bench.cmd(&create).arg("--dry-run").run().checked().unwrap().stdout;
    let step = described.lines().find(|line| line.contains("make the file /etc/init.d/dmpool-activate")).unwrap();
    every_step(&bench, &create, step.trim().split('.').next().unwrap().parse().unwrap());
    assert!(exists(&pool));
    let again = bench.cmd(&create).arg("--ensure").run().checked().unwrap();
    assert!(again.stdout.contains("unchanged"), "{again}");

    // As init runs it, before Docker.
    let [link] = AtBoot::links().try_into().unwrap();
    assert!(Path::new("/etc/rc2.d/S01docker").exists() && link.as_str() < "S01docker", "{link}");
    let init = |verb: &str| Cmd::new(Path::new("/etc/rc2.d").join(&link)).arg(verb).run().checked().unwrap();
    bench.ok(&["deactivate", &pool]);
    init("start");
    assert!(exists(&pool));
    init("stop");
    assert!(exists(&pool) && init("status").stdout.contains(&pool));

    // What somebody has written is his.
    let [file] = AtBoot::files().try_into().unwrap();
    let mine = fs::read_to_string(&file).unwrap() + "# mine\n";
    fs::write(&file, &mine).unwrap();
    let refused = bench.run(&set_up);
    assert!(refused.code() == Some(3) && refused.stderr.contains("-# mine"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), mine);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

/// Each of two steps from that one on fails, dies and is finished, dies and is taken back; in the end all is done.
fn every_step(bench: &Bench, args: &[&str], first: usize) {
    let is_undone = |case: &str, ran: &Ran| {
        assert_eq!((AtBoot::files(), AtBoot::links()), (vec![], vec![]), "{case}: {ran}");
    };
    let cases = [("before:die", "undo"), ("after:fail", ""), ("after:die", "undo"), ("after:die", "continue")];
    // The steps are the same in every plan.
    let cases = if args[0] == "create" && !boot::full() { &cases[2..] } else { &cases };
    for step in [first, first + 1] {
        for &(fault, verb) in cases {
            let case = format!("{}: {step}:{fault} {verb}", args[0]);
            let ran = bench.cmd(args).env("DMPOOL_FAULT", format!("{step}:{fault}")).run();
            if verb.is_empty() {
                assert_eq!(ran.code(), Some(1), "{case}: {ran}");
                is_undone(&case, &ran);
                continue;
            }
            assert!(died(&ran), "{case}: {ran}");
            let ended = bench.run(&[verb]).checked().unwrap();
            if verb == "undo" {
                is_undone(&case, &ended);
                continue;
            }
            assert_eq!((AtBoot::files().len(), AtBoot::links().len()), (1, 1), "{case}: {ended}");
            if step == first {
                drop(AtBoot::none());
                if args[0] == "create" {
                    bench.ok(&["destroy", args[1], "--yes"]);
                }
            }
        }
    }
}

#[test]
fn only_a_dmpool_that_lasts_is_run_at_boot() {
    let (bench, _at_boot) = (Bench::new(), AtBoot::none());
    let pool = bench.create();
    bench.ok(&["thin", "create", &pool, "v", "--size", "512M"]);
    let device = Path::new("/dev/mapper").join(format!("{pool}-v"));
    let mounted = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("mnt")).unwrap();
    let place = PathBuf::from("/srv/dmpool-test-mnt");
    fs::create_dir_all(&place).unwrap();
    Cmd::new("mount").arg("--bind").arg(mounted.dir()).arg(&place).run().checked().unwrap();
    let set_up = |program: &Path| {
        fs::copy(find("dmpool").unwrap(), program).unwrap();
        let state = bench.state.to_str().unwrap();
        let ran = Cmd::new(program).args(["--state-dir", state, "activate", "--all", "--at-boot"]).run();
        fs::remove_file(program).unwrap();
        ran
    };
    for (program, said) in [
        (bench.sweep.path("dmpool"), "is below /var/tmp"),
        (PathBuf::from("/tmp/dmpool-test-dmpool"), "is below /tmp"),
        (place.join("dmpool"), "lies on the pool"),
    ] {
        let ran = set_up(&program);
        assert!(ran.code() == Some(3) && ran.stderr.contains(said), "{ran}");
        assert_eq!(AtBoot::files(), Vec::<PathBuf>::new());
    }
    Cmd::new("umount").arg(&place).run().checked().unwrap();
    fs::remove_dir(&place).unwrap();
    mounted.unmount().unwrap();

    Said::about(&bench, &pool, &[]).sentence("no_boot_activation", "warning");
    bench.ok(&["activate", "--all", "--at-boot"]);
    Said::about(&bench, &pool, &[]).without("no_boot_activation");
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn what_runs_at_boot_stays_as_long_as_another_pool_counts_on_it() {
    let (bench, _at_boot) = (Bench::with_faults(), AtBoot::none());
    let dir = bench.dir.to_str().unwrap();
    let [first, second] = ["a", "b"].map(|name| bench.sweep.name(name));
    let create = |pool: &str| {
        bench.cmd(&["create", pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M", "--at-boot"])
    };
    let described = create(&first).arg("--dry-run").run().checked().unwrap().stdout;
    let step = described.lines().find(|line| line.contains("run at boot")).unwrap().trim().split('.').next().unwrap();
    let ran = create(&first).env("DMPOOL_FAULT", format!("{step}:after:die")).run();
    assert!(died(&ran), "{ran}");
    create(&second).run().checked().unwrap();
    let there = (AtBoot::files(), AtBoot::links());
    assert!(there.0.len() == 1 && !there.1.is_empty());
    let said = bench.ok(&["undo"]);
    assert!(said.contains(&format!("stays: pool `{second}` is brought up by it")), "{said}");
    assert_eq!((AtBoot::files(), AtBoot::links()), there);
    assert!(exists(&second) && !exists(&first));
    bench.ok(&["destroy", &second, "--yes", "--with-volumes"]);
}
