//! Docker is stopped, held, and started again around what is changed while it is down.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dmpool::engine::configure::Edit;
use dmpool::error::{Failure, Kind};
use dmpool::kernel::dm::Dm;
use dmpool::ops::State;
use dmpool::ops::around::{Around, around};
use dmpool::ops::daemon::words_of;
use dmpool::ops::journal::{self, Ended, Log, Record};
use dmpool::ops::plan::{Operation, Plan};
use dmpool::ops::preflight::{Judged, Options, judge, look};
use dmpool::ops::resume::{self, Way};
use dmpool::ops::steps::{Attempt, Hold, Kit, MakeDirectory, Reverted, SetAside, Step};
use lab::guest::boot;
use lab::guest::docker::{DAEMON_JSON, IMAGE};
use lab::guest::run::Cmd;

use crate::host::{Disk, Host};
use crate::support::Bench;

const KEY: &str = "dmpool has stopped this Docker: dmpool continue, or dmpool undo";
const PID: &str = "/var/run/docker.pid";

/// Docker as dmpool has started it, which the lab does not know as its child: ended before the lab takes all down.
struct Restarted;

impl Drop for Restarted {
    fn drop(&mut self) {
        let running = Cmd::new("docker").args(["ps", "-q"]).run();
        if !running.stdout.trim().is_empty() {
            let _ = Cmd::new("docker").arg("kill").args(running.stdout.split_whitespace()).run();
        }
        end_daemon();
        let _ = fs::remove_file(format!("{DAEMON_JSON}.before-dmpool"));
    }
}

fn pid() -> Option<i32> {
    fs::read_to_string(PID).ok()?.trim().parse().ok()
}

fn end_daemon() {
    let Some(pid) = pid() else { return };
    let _ = Cmd::new("kill").arg(pid.to_string()).run();
    let until = Instant::now() + Duration::from_secs(60);
    let comm = format!("/proc/{pid}/cmdline");
    while fs::read(&comm).is_ok_and(|line| !line.is_empty()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn script(bench: &Bench, name: &str, text: &str) -> Option<Vec<String>> {
    let path = bench.dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(words_of(path.to_str().unwrap()).unwrap())
}

/// Every file below a folder with its size and when it was written and changed.
fn picture(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            found.insert(path.clone(), (meta.size(), meta.mtime_nsec(), meta.ctime_nsec()));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn plan(steps: Vec<Step>) -> Plan {
    let what = "try Docker".to_owned();
    Plan { operation: Operation::Activate, pool: "dmpool-test-held".to_owned(), what, steps, notes: Vec::new() }
}

fn state_of(host: &Host, name: &str) -> String {
    let format = "{{.Id}} {{.State.Status}} {{.HostConfig.NetworkMode}} {{.Config.Cmd}}";
    host.docker.cmd(["inspect", "-f", format, name]).run().checked().unwrap().stdout
}

fn states(host: &Host) -> Vec<String> {
    ["web", "paused", "deaf", "beside"].iter().map(|name| state_of(host, name)).collect()
}

fn judged(host: &Host, options: &Options) -> Judged {
    judge(&look(host.docker.root(), options), options).unwrap()
}

fn around_it(judged: &Judged, state: &State, pool: &str) -> Around {
    let text = fs::read_to_string(DAEMON_JSON).unwrap();
    let after = text.replacen('{', "{\n  \"labels\": [\"told=after\"],", 1);
    let edit = Edit { path: DAEMON_JSON.into(), before: Some(text), after };
    let mut steps = around(judged, state, "docker-test", Some(pool), &[edit], &[]).unwrap();
    // Nothing has to be between the two here.
    steps.before.insert(0, steps.kept.clone());
    steps
}

fn apply(kit: &Kit, steps: &[Step]) {
    for step in steps {
        println!("  {}", step.act().sentence());
        step.act().apply(kit, Attempt::First).unwrap();
        step.act().verify(kit).unwrap();
    }
}

/// A build by BuildKit is a reason to refuse as long as it runs a program.
fn a_build_is_found(host: &Host, options: &Options) {
    let context = host.bench.dir.join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), format!("FROM {IMAGE}\nRUN sleep 1000\n")).unwrap();
    let build = host.docker.cmd(["build", "--network", "none", context.to_str().unwrap()]);
    let build = build.env("DOCKER_BUILDKIT", "1").limit(Duration::from_secs(200)).start().unwrap();
    let until_builds = |builds: bool| {
        let until = Instant::now() + Duration::from_secs(90);
        while look(host.docker.root(), options).builds.is_empty() == builds {
            assert!(Instant::now() < until, "builds: {builds}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    until_builds(true);
    let refused = judge(&look(host.docker.root(), options), options).unwrap_err();
    assert!(refused.what.contains("an image is being built"), "{refused:?}");
    let _ = build.kill();
    until_builds(false);
}

/// Who starts it with another configuration is found.
fn is_started_with_another(host: &Host, json: &str, hold: &Hold) {
    let other = host.bench.dir.join("other.json");
    fs::write(&other, json).unwrap();
    let line = format!("exec dockerd --config-file {} >/dev/null 2>&1", other.display());
    let mut daemon = Cmd::new("sh").args(["-c", &line]).limit(Duration::from_secs(100)).start().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while pid().is_none() {
        assert!(Instant::now() < until && daemon.alive());
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = hold.still_stands().unwrap_err().to_string();
    assert!(found.contains("a Docker daemon runs on"), "{found}");
    end_daemon();
    let _ = daemon.kill();
}

#[test]
fn docker_is_stopped_held_and_started_again_with_all_that_ran() {
    let host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
    let _restarted = Restarted;
    let run = |args: &[&str], line: &str| {
        host.docker.cmd(["run", "-d"]).args(args).args([IMAGE, "sh", "-c", line]).run().checked().unwrap();
    };
    // Processes that are started ten times a second are most of what a guest has to do.
    let waits = "trap 'exit 0' TERM; sleep 100000 & wait";
    run(&["--network", "none", "--name", "web"], waits);
    run(&["--network", "container:web", "--name", "beside"], waits);
    run(&["--network", "none", "--name", "paused"], waits);
    run(&["--network", "none", "--name", "deaf", "--stop-timeout", "1"], "trap '' TERM; sleep 100000");
    host.docker.cmd(["pause", "paused"]).run().checked().unwrap();
    let vanishing = || {
        run(&["--network", "none", "--rm", "--name", "job", "-v", "/x"], waits);
        let created = ["create", "--network", "none", "--rm", "--name", "created", IMAGE, "true"];
        host.docker.cmd(created).run().checked().unwrap();
    };
    let volumes = || host.docker.cmd(["volume", "ls", "-q"]).run().checked().unwrap().stdout.lines().count();
    let there = volumes();
    vanishing();
    let before = states(&host);
    let json = fs::read_to_string(DAEMON_JSON).unwrap();

    let stop = script(&host.bench, "stop", &format!("kill $(cat {PID})"));
    let start = script(&host.bench, "start", "exec dockerd");
    let options = Options { stop, start, ..Options::default() };
    let refused = judge(&look(host.docker.root(), &options), &options).unwrap_err();
    assert!(refused.what.contains("2 containers were made with --rm"), "{refused:?}");
    assert!(refused.facts.iter().any(|fact| fact.value.contains("job (with its volume at /x)")), "{refused:?}");
    let options = Options { without_rm: true, ..options };
    a_build_is_found(&host, &options);
    host.docker.cmd(["exec", "-d", "web", "sleep", "1000"]).run().checked().unwrap();
    let judged_once = judged(&host, &options);
    let order: Vec<_> = judged_once.running.iter().map(|ran| ran.name.as_str()).collect();
    assert_eq!(order, ["web", "beside", "paused", "deaf", "job"]);
    assert!(
        judged_once.notes.iter().any(|note| note.contains("`sleep 1000` was started in `web`")),
        "{:?}",
        judged_once.notes
    );

    let state = State::below(&host.bench.state);
    let kit = Kit::new(Dm::open().unwrap(), state.clone());
    let pool = host.pool();
    let steps = around_it(&judged_once, &state, &pool);

    // What comes behind fails: Docker runs again as it did.
    let mut failing = steps.before.clone();
    failing.push(MakeDirectory { path: "/proc/none".into(), parents: false }.into());
    let failed = journal::carry_out(&kit, plan(failing)).unwrap_err();
    assert!(failed.kind == Kind::Failed && failed.what.contains("/proc/none"), "{failed:?}");
    assert_eq!(states(&host), before, "{failed:?}");
    assert!(failed.facts.iter().any(|fact| fact.value.contains("`job` is gone: it was run with --rm")), "{failed:?}");
    assert_eq!(volumes(), there);
    vanishing();
    assert_eq!(fs::read_to_string(DAEMON_JSON).unwrap(), json);
    assert!(!steps.records.exists() && !steps.hold.sign.exists());

    let steps = around_it(&judged(&host, &options), &state, &pool);
    apply(&kit, &steps.before);
    steps.hold.still_stands().unwrap();
    assert!(!Path::new("/dev/mapper").join(&pool).exists(), "its own pool goes with Docker");

    // Whoever starts it reads why it does not start, and nothing of its root is touched.
    let untouched = picture(host.docker.root());
    let refused = Cmd::new("dockerd").limit(Duration::from_secs(60)).run();
    println!("  dockerd says: {}", refused.stderr.trim());
    assert!(!refused.ok() && refused.stderr.contains(KEY), "{refused}");
    assert_eq!(picture(host.docker.root()), untouched);

    // Who writes its configuration again is found.
    let held = fs::read_to_string(DAEMON_JSON).unwrap();
    fs::write(DAEMON_JSON, &json).unwrap();
    let found = steps.hold.still_stands().unwrap_err().to_string();
    assert!(found.contains(DAEMON_JSON), "{found}");
    fs::write(DAEMON_JSON, held).unwrap();
    if boot::full() {
        is_started_with_another(&host, &json, &steps.hold);
    }

    // As long as nobody has used what was made, the hold comes back.
    let told = "told=after";
    apply(&kit, &steps.after[..1]);
    assert!(fs::read_to_string(DAEMON_JSON).unwrap().contains(told) && !steps.hold.sign.exists());
    assert_eq!(steps.after[0].act().revert(&kit).unwrap(), Reverted::Gone);
    steps.hold.still_stands().unwrap();
    apply(&kit, &steps.after);
    // Those of --rm are gone, with what was theirs, and that is no difference.
    assert_eq!(kit.said(), Vec::<String>::new());
    assert_eq!(states(&host), before);
    let gone = host.docker.cmd(["ps", "-aq", "-f", "name=job", "-f", "name=created"]).run().checked().unwrap().stdout;
    assert_eq!((gone.as_str(), volumes()), ("", there));
    let report = fs::read_to_string(steps.records.join("differences.txt")).unwrap();
    println!("{report}");
    assert!(report.contains("6 containers") && report.contains("nothing is other than it was"), "{report}");
    assert!(steps.records.join("docker-after.json").is_file());
    let info = host.docker.cmd(["info", "-f", "{{.Labels}}"]).run().checked().unwrap().stdout;
    assert!(info.contains(told) && !steps.hold.sign.exists(), "{info}");
    for step in &steps.before {
        step.act().verify(&kit).unwrap();
    }

    // From here on nothing leads back: what was written since would be lost.
    let started = steps.after.last().unwrap().act();
    assert!(started.stands(&kit).unwrap());
    assert!(matches!(started.revert(&kit).unwrap(), Reverted::Stands(why) if why.contains("Docker has run")));
    assert_eq!(states(&host), before);

    // Also by what Docker has written alone; and without the marks nobody can tell.
    let all = [&steps.before[..], &steps.after].concat();
    let mut log = Log::begin(&state, Plan { operation: Operation::Migrate, ..plan(all.clone()) }).unwrap();
    (0..all.len()).for_each(|step| log.write(Record::Done(step)).unwrap());
    drop(log);
    let undo = || resume::describe(&kit, None, Way::Undo).unwrap_err();
    assert!(undo().what.contains("Docker has run since"), "{:?}", undo());
    let found = |failure: &Failure| failure.facts.iter().map(|fact| fact.value.clone()).collect::<Vec<_>>();
    assert!(found(&undo()).contains(&"it has answered".to_owned()), "{:?}", undo());
    fs::remove_file(steps.records.join("docker-has-answered")).unwrap();
    let traces = steps.hold.used_since().unwrap();
    assert!(traces.contains(&"Docker's networks".to_owned()), "{traces:?}");
    steps.before[0].act().apply(&kit, Attempt::Again).unwrap();
    assert!(steps.hold.was_dropped(), "what is kept anew takes the marks away");
    assert!(matches!(started.revert(&kit).unwrap(), Reverted::Stands(_)));
    fs::remove_file(steps.hold.marks()).unwrap();
    let unknown = undo();
    assert!(unknown.kind == Kind::Refused && unknown.what.contains("cannot be told"), "{unknown:?}");
    assert!(matches!(started.revert(&kit).unwrap(), Reverted::Stands(why) if why.contains("cannot be told")));
    assert_eq!(states(&host), before);
}

#[test]
fn a_migration_that_meets_something_on_its_way_back_keeps_its_journal() {
    let bench = Bench::new();
    let kit = Kit::new(Dm::open().unwrap(), State::below(&bench.state));
    let [made, from, to] = ["made", "from", "to"].map(|name| bench.dir.join(name));
    fs::create_dir(&from).unwrap();
    let steps: Vec<Step> = vec![
        MakeDirectory { path: made.clone(), parents: false }.into(),
        SetAside { from: from.clone(), to: to.clone() }.into(),
    ];
    let plan = Plan { operation: Operation::Migrate, ..plan(steps.clone()) };
    let mut log = Log::begin(&kit.state, plan).unwrap();
    for (step, number) in steps.iter().zip(0..) {
        step.act().apply(&kit, Attempt::First).unwrap();
        log.write(Record::Done(number)).unwrap();
    }
    let id = log.journal.opened.id.clone();
    fs::create_dir(&from).unwrap();
    let mut begun = Some(log);
    for _ in 0..2 {
        let log = begun.take().unwrap_or_else(|| Log::resume(&kit.state, &id).unwrap());
        let failed = journal::take_back(&kit, log).unwrap_err();
        println!("  {failed:?}");
        assert!(failed.kind == Kind::Partial && failed.what.contains("in the way"), "{failed:?}");
        assert!(failed.next.is_some_and(|next| next.contains("dmpool undo")) && made.exists());
    }
    fs::remove_dir(&from).unwrap();
    let ended = journal::take_back(&kit, Log::resume(&kit.state, &id).unwrap()).unwrap();
    assert_eq!(ended, Ended::TakenBack { stands: Vec::new(), left: Vec::new() });
    assert!(from.exists() && !to.exists() && !made.exists());
    assert_eq!(journal::open_journals(&kit.state).unwrap(), Vec::<String>::new());
}
