//! Docker as Debian ships it: a unit and a socket, its options in `daemon.json`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dmpool::kernel::dm::Dm;
use dmpool::ops::State;
use dmpool::ops::around::around;
use dmpool::ops::preflight::{Options, judge, look};
use dmpool::ops::steps::{Attempt, Kit, Step};
use lab::guest::boot;
use lab::guest::docker::DAEMON_JSON;
use lab::guest::run::Cmd;
use lab::guest::writer::now_us;

use crate::host::{Disk, G, Host};
use crate::support::Bench;
use crate::support::health::Said;

/// A unit that systemd stops with Docker.
const NEEDS_DOCKER: &str = "dmpool-test-needs-docker.service";

fn systemctl(args: &[&str]) -> String {
    Cmd::new("systemctl").args(args).limit(Duration::from_secs(240)).run().checked().unwrap().stdout
}

#[test]
fn docker_run_by_systemd_grows_under_a_container_and_keeps_it_over_a_restart() {
    // An emulated CPU: each start of Docker takes most of a minute.
    boot::time_limit(Duration::from_secs(900));
    let host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
    for unit in ["docker.socket", "docker.service"] {
        assert_eq!(systemctl(&["is-active", unit]).trim(), "active");
    }
    host.assert_parity();

    let writer = host.writer("writer", 256);
    let began = now_us();
    host.bench.ok(&["grow", "docker", "200G"]);
    let ended = now_us();
    let wait = writer.writes(20).longest_between(began, ended).unwrap_or_default();
    println!("grow docker 200G took {} ms; the writer's longest wait: {} ms", (ended - began) / 1000, wait.as_millis());
    assert_eq!(host.docker.storage_value("Data Space Total").unwrap(), "214.7GB");
    writer.stop_and_verify(&host);

    systemctl(&["restart", "docker.service"]);
    assert_eq!(host.size(), 200 * G);
    host.assert_parity();
    writer.start(&host);

    units_are_held_and_started_again(&host);

    // With the service stopped the socket would start it again: dmpool does not so much as touch it.
    systemctl(&["stop", "docker.service"]);
    assert_eq!((host.json("/pool/activity"), host.size()), ("inactive".into(), 200 * G));
    let state = Cmd::new("systemctl").args(["is-active", "docker.service"]).run();
    assert_eq!(state.stdout.trim(), "inactive", "{state}");

    its_socket_is_closed_while_it_is_held(&host);
    why_the_service_does_not_start_is_in_the_journal(&host);
}

/// The socket of a Docker that is down is open again afterwards, and has started nobody in vain.
fn its_socket_is_closed_while_it_is_held(host: &Host) {
    let options = Options::default();
    let judged = judge(&look(host.docker.root(), &options), &options).unwrap();
    assert_eq!((judged.daemon.is_none(), judged.open.as_slice()), (true, &["docker.socket".to_owned()][..]));
    let kit = Kit::new(Dm::open().unwrap(), State::below(&host.bench.state));
    let around = around(&judged, &kit.state, "docker-test-2", Some(&host.pool()), &[], &[]).unwrap();
    let hold = around.before.iter().find(|step| matches!(step, Step::HoldDocker(_))).unwrap().act();
    hold.apply(&kit, Attempt::First).unwrap();
    let state = || Cmd::new("systemctl").args(["is-active", "docker.socket"]).run().stdout.trim().to_owned();
    assert_eq!(state(), "inactive");
    hold.revert(&kit).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while state() != "active" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Held, neither the service starts nor the socket, and systemd says why; let go, both are there again with what ran.
fn units_are_held_and_started_again(host: &Host) {
    let needs = "[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\nExecStart=/bin/sleep infinity\n";
    fs::write(Path::new("/run/systemd/system").join(NEEDS_DOCKER), needs).unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["start", NEEDS_DOCKER]);
    let options = Options::default();
    let judged = judge(&look(host.docker.root(), &options), &options).unwrap();
    assert_eq!(judged.daemon.as_ref().unwrap().with, [NEEDS_DOCKER]);
    let units = ["docker.socket", "docker.service"];
    assert_eq!(judged.daemon.as_ref().unwrap().way.stops(), format!("systemctl stop {}", units.join(" ")));
    let kit = Kit::new(Dm::open().unwrap(), State::below(&host.bench.state));
    let around = around(&judged, &kit.state, "docker-test", Some(&host.pool()), &[], &[]).unwrap();
    let apply = |steps: &[Step]| {
        for step in steps {
            step.act().apply(&kit, Attempt::First).unwrap();
            step.act().verify(&kit).unwrap();
        }
    };
    apply(&around.before);
    for unit in units {
        systemctl(&["start", unit]);
        let state = Cmd::new("systemctl").args(["is-active", unit]).run();
        assert_eq!(state.stdout.trim(), "inactive", "{unit}: {state}");
        let said = Cmd::new("systemctl").args(["status", "--no-pager", unit]).run().stdout;
        println!("  systemctl status {unit}: {}", said.lines().take(8).collect::<Vec<_>>().join(" | "));
        assert!(said.contains(around.hold.sign.to_str().unwrap()), "{said}");
    }
    let needs = Cmd::new("systemctl").args(["is-active", NEEDS_DOCKER]).run();
    assert_eq!(needs.stdout.trim(), "inactive", "{needs}");
    around.hold.still_stands().unwrap();
    apply(&around.after);
    assert_eq!(kit.said(), Vec::<String>::new());
    for unit in units.into_iter().chain([NEEDS_DOCKER]) {
        assert_eq!(systemctl(&["is-active", unit]).trim(), "active");
    }
    systemctl(&["stop", NEEDS_DOCKER]);
    fs::remove_file(Path::new("/run/systemd/system").join(NEEDS_DOCKER)).unwrap();
    assert!(around.hold.drop_ins.iter().all(|drop_in| !drop_in.exists()));
}

/// What people do first: `hosts` in `daemon.json`, beside the `-H` of the unit.
fn why_the_service_does_not_start_is_in_the_journal(host: &Host) {
    systemctl(&["stop", "docker.socket", "docker.service"]);
    let kept = fs::read_to_string(DAEMON_JSON).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&kept).unwrap();
    json["hosts"] = serde_json::json!(["unix:///var/run/docker.sock"]);
    fs::write(DAEMON_JSON, json.to_string()).unwrap();
    // It has been started several times within a minute, which systemd counts.
    systemctl(&["reset-failed", "docker.service"]);
    let started = Cmd::new("systemctl").args(["start", "docker.service"]).limit(Duration::from_secs(240)).run();
    // systemd tries again and again.
    let _ = Cmd::new("systemctl").args(["stop", "docker.socket", "docker.service"]).run();
    fs::write(DAEMON_JSON, kept).unwrap();
    assert!(!started.ok(), "{started}");
    let told = Said::about(&host.bench, "docker", &["--timeout", "60"]);
    let sentence = told.sentence("docker_down", "critical");
    assert_eq!(told.code, 2);
    assert!(sentence.contains("daemon.json") && sentence.contains("hosts"), "{sentence}");
}
