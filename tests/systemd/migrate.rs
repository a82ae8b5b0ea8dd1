//! A migration on a machine that reboots in the middle: Docker is held by its units, and its socket starts nobody.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE};
use lab::guest::run::{Cmd, Ran};

/// On the root's file system, which outlives the boot; not where sweeps look.
const STATE: &str = "/var/lib/dmpool-test-migrate";
const ROOT: &str = "/var/lib/dmpool-test-migrated";
const UNITS: [&str; 2] = ["docker.socket", "docker.service"];
/// A chain that looks like one of Docker's, and that nobody makes again after a reboot.
const CHAIN: &str = "DOCKER-BY-HAND";
/// From a command of Docker's on an emulated CPU to its end.
const SLOW: Duration = Duration::from_secs(300);
/// Where the new pool is written, and where it is in the old one's place.
const COPIED: &str = "read every volume of the new pool back";
const IN_PLACE: &str = "let Docker start again";

fn config() -> Config {
    Config { systemd: true, ..Config::new(ROOT) }
}

fn run(line: &str) -> Ran {
    Cmd::new("sh").args(["-c", line]).limit(SLOW).run()
}

fn ok(line: &str) -> String {
    run(line).checked().unwrap().stdout
}

fn dmpool(args: &[&str], fault: &str) -> Ran {
    let ran = Cmd::new("dmpool-faults").args(["--state-dir", STATE]).args(args).env("DMPOOL_FAULT", fault);
    let began = Instant::now();
    let ran = ran.limit(Duration::from_secs(900)).run();
    println!("{} s: {ran}", began.elapsed().as_secs());
    ran
}

/// Begins to migrate, and dies before the step that has these words.
fn dies_before(size: &str, words: &str) {
    let args = ["migrate", ROOT, "--data-size", size];
    let dry = dmpool(&[&args[..], &["--dry-run"]].concat(), "").checked().unwrap().stdout;
    let step = dry.lines().find_map(|line| line.trim_start().split_once(". ").filter(|(_, does)| does.contains(words)));
    let (step, _) = step.unwrap_or_else(|| panic!("no step has `{words}`:\n{dry}"));
    let ran = dmpool(&[&args[..], &["--yes"]].concat(), &format!("{step}:before:die"));
    assert_eq!(ran.code(), None, "{ran}");
}

/// The web server in the container answers at its published port with the page that was made by hand; what was made by hand in
/// another container is there, and so are Docker's chains.
#[track_caller]
fn is_as_it_was() {
    let until = Instant::now() + Duration::from_secs(60);
    while run("busybox wget -qO- http://127.0.0.1:8080/index.html").stdout != "by hand\n" {
        assert!(Instant::now() < until, "{}", ok("docker ps -a; docker logs web; iptables-save"));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(ok("docker exec other cat /notes.txt"), "written at night\n");
    assert_eq!(ok("docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' web other"), "always\nno\n");
    for unit in UNITS {
        assert_eq!(ok(&format!("systemctl is-active {unit}")).trim(), "active");
    }
    let chains = ok("iptables-save");
    for (table, chain) in [("nat", ":DOCKER "), ("filter", ":DOCKER "), ("filter", ":DOCKER-USER ")] {
        let own = chains.split(&format!("*{table}\n")).nth(1).and_then(|rest| rest.split("COMMIT").next());
        assert!(own.is_some_and(|own| own.contains(chain)), "{table}{chain}\n{chains}");
    }
}

/// Neither the boot nor anybody has started Docker, and nobody can.
#[track_caller]
fn is_held() {
    // What the boot starts has been started, or not.
    run("systemctl is-system-running --wait");
    let is_down = || {
        for unit in UNITS {
            assert_eq!(run(&format!("systemctl is-active {unit}")).stdout.trim(), "inactive", "{unit}");
        }
        assert!(!run("pidof dockerd").ok());
    };
    is_down();
    let asked = Cmd::new("docker").arg("ps").limit(Duration::from_secs(60)).run();
    assert!(!asked.ok(), "{asked}");
    for unit in UNITS {
        run(&format!("systemctl start {unit}"));
    }
    is_down();
    // By hand, and as a cron job would.
    let by_hand = run("timeout 120 dockerd 2>&1");
    assert!(!by_hand.ok() && by_hand.stdout.contains("dmpool has stopped this Docker"), "{by_hand}");
    is_down();
}

#[test]
fn a_machine_that_reboots_in_a_migration_starts_docker_on_neither_pool_until_somebody_ends_it() {
    if !boot::full() {
        boot::skip("three boots of an emulated CPU: with --full");
    }
    boot::time_limit(Duration::from_secs(2700));
    match boot::phase() {
        0 => {
            let docker = made();
            dies_before("3G", COPIED);
            is_held();
            // It goes down with the machine.
            std::mem::forget(docker);
            boot::reboot()
        }
        1 => {
            is_held();
            let ended = dmpool(&["continue", "--yes"], "");
            assert!(ended.code() == Some(5) && ended.stderr.contains(CHAIN), "all but the chain is as it was: {ended}");
            assert!(ok("docker info").contains("Data Space Total: 3.221GB"));
            is_as_it_was();
            dies_before("4G", IN_PLACE);
            boot::power_cut()
        }
        _ => {
            is_held();
            let undone = dmpool(&["undo"], "");
            assert!(undone.ok(), "{undone}");
            assert!(ok("docker info").contains("Data Space Total: 3.221GB"));
            is_as_it_was();
            assert_eq!(dmpool(&["undo"], "").stdout, "nothing was interrupted: there is nothing to do\n");
            drop(Docker::start_as_told(config(), None).unwrap());
            for folder in [STATE, ROOT] {
                fs::remove_dir_all(folder).unwrap();
            }
            ok(&format!("rm -f {DAEMON_JSON}.before-dmpool*"));
        }
    }
}

/// Docker by its unit and its socket, with a web server at a published port.
fn made() -> Docker {
    for folder in [STATE, ROOT] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
    }
    ok("systemctl stop docker.socket docker.service");
    let options = ["dm.basesize=1G", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M"];
    let json = serde_json::json!({"data-root": ROOT, "storage-driver": "devicemapper", "storage-opts": options});
    fs::create_dir_all(Path::new(DAEMON_JSON).parent().unwrap()).unwrap();
    fs::write(DAEMON_JSON, serde_json::to_string_pretty(&json).unwrap()).unwrap();
    let docker = Docker::start_as_told(config(), None).unwrap();
    docker.busybox(&[]).unwrap();
    let web = ["run", "-d", "--restart", "always", "-p", "8080:80", "--name", "web", IMAGE];
    docker.cmd(web).args(["busybox", "httpd", "-f", "-p", "80", "-h", "/data"]).run().checked().unwrap();
    let waits = "trap exit TERM; while :; do sleep 1; done";
    docker.run_detached(&["--name", "other"], &["sh", "-c", waits]).unwrap();
    for (name, line) in
        [("web", "echo by hand >/data/index.html; sync"), ("other", "echo written at night >/notes.txt; sync")]
    {
        docker.exec(name, &["sh", "-c", line]).checked().unwrap();
    }
    is_as_it_was();
    ok(&format!("iptables -t nat -N {CHAIN}"));
    docker
}
