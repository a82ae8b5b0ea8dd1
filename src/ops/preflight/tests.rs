#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::*;

fn facts() -> Facts {
    let container = json!({
        "Id": "1", "Name": "/web", "State": {"Running": true}, "HostConfig": {}, "MountLabel": "system_u:object_r:x",
    });
    let info = json!({"DockerRootDir": "/var/lib/docker", "Swarm": {"LocalNodeState": "inactive"}, "LiveRestoreEnabled": true});
    let stopped = json!({"Id": "2", "Name": "/old", "State": {}, "HostConfig": {"RestartPolicy": {"Name": "always"}}});
    let execs = vec![Exec { container: "web".to_owned(), command: "sh -c x".to_owned() }];
    let asked = Asked { info, containers: vec![container, stopped], plugins: vec!["nfs".to_owned()], execs };
    Facts {
        root: "/var/lib/docker".into(),
        pid: Some(7),
        is_stopped: false,
        socket: Some("/var/run/docker.sock".into()),
        asked: Some(Ok(asked)),
        active: vec!["docker.socket".to_owned(), "docker.service".to_owned()],
        with: vec!["web.service".to_owned()],
        open: Vec::new(),
        others: vec![(8, "/etc/docker/daemon.json".into())],
        starter: Some(Starter::Unit("docker".to_owned())),
        units: vec!["docker.service".to_owned()],
        files: Ok(vec![("/etc/docker/daemon.json".into(), None)]),
        builds: Vec::new(),
        orphans: Vec::new(),
        seers: vec![Seer { pid: 9, comm: "ntpd".to_owned() }],
        elsewhere: Vec::new(),
        missing: Vec::new(),
    }
}

fn asked(facts: &mut Facts) -> &mut Asked {
    facts.asked.as_mut().unwrap().as_mut().unwrap()
}

fn refusal(facts: &Facts) -> String {
    let failure = judge(facts, &Options::default()).unwrap_err();
    format!("{} {}", failure.what, failure.next.unwrap())
}

#[test]
fn what_should_be_known_is_said_and_keeps_nobody_from_going_on() {
    let judged = judge(&facts(), &Options::default()).unwrap();
    assert_eq!(judged.running.iter().map(|ran| ran.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(judged.daemon.unwrap().way.stops(), "systemctl stop docker.socket docker.service");
    let notes = judged.notes.join("\n");
    for said in [
        "`sh -c x` was started in `web`",
        "`always`, as it does whenever it starts: old",
        "live-restore",
        "nfs",
        "SELinux",
        "ntpd (process 9)",
        "what needs Docker before it, and starts it again at the end: web.service",
        "another Docker (process 8) reads /etc/docker/daemon.json",
    ] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
}

#[test]
fn only_what_somebody_has_agreed_to_is_stopped() {
    let agreed =
        |ids: &[&str]| Options { agreed: Some(ids.iter().map(|id| (*id).to_owned()).collect()), ..Options::default() };
    assert!(judge(&facts(), &agreed(&["1", "3"])).is_ok(), "one that has ended since is no reason");
    let why = judge(&facts(), &agreed(&["3"])).unwrap_err().what;
    assert!(why.contains("`web` was started since the question was asked"), "{why}");
}

#[test]
fn each_reason_not_to_stop_docker_is_told() {
    let mut swarm = facts();
    *asked(&mut swarm).info.pointer_mut("/Swarm/LocalNodeState").unwrap() = json!("active");
    assert!(refusal(&swarm).contains("part of a swarm"));
    let mut held = facts();
    held.files = Ok(vec![("/etc/docker/daemon.json".into(), Some(hold::held(None).unwrap()))]);
    assert!(refusal(&held).contains("it is held"));
    held.pid = None;
    assert!(refusal(&held).contains("dmpool continue"), "also one that is down");
    let mut other = facts();
    *asked(&mut other).info.pointer_mut("/DockerRootDir").unwrap() = json!("/srv/docker");
    assert!(refusal(&other).contains("has `/srv/docker`"));
    let mut network = facts();
    network.socket = None;
    assert!(refusal(&network).contains("listens on the network only"));
    let mut hangs = facts();
    hangs.asked = Some(Err("Docker did not answer".to_owned()));
    assert!(refusal(&hangs).contains("does not say what runs"));
    let mut by_hand = facts();
    by_hand.active.clear();
    assert!(refusal(&by_hand).contains("started by hand") && refusal(&by_hand).contains("--stop-command"));
    let mut orphaned = facts();
    orphaned.pid = None;
    orphaned.orphans.push((5, "containerd-shim".to_owned()));
    assert!(refusal(&orphaned).contains("no Docker daemon does"));
    let mut vanishes = facts();
    *asked(&mut vanishes).containers[0].pointer_mut("/HostConfig").unwrap() = json!({"AutoRemove": true});
    asked(&mut vanishes).containers[0]["Mounts"] =
        json!([{"Type": "volume", "Name": "ab".repeat(32), "Destination": "/x"}]);
    let failure = judge(&vanishes, &Options::default()).unwrap_err();
    assert!(failure.what.contains("1 container was made with --rm"), "{failure:?}");
    let facts_of: Vec<_> = failure.facts.iter().map(|fact| fact.value.as_str()).collect();
    assert!(facts_of.contains(&"web (with its volume at /x)"), "{failure:?}");
    assert!(failure.next.as_ref().is_some_and(|next| next.contains("--keep-rm saves them first")), "{failure:?}");
    let without = judge(&vanishes, &Options { without_rm: true, ..Options::default() }).unwrap();
    assert!(without.notes[0].contains("gone when Docker stops: web (with its volume at /x)"), "{:?}", without.notes);
    let keep = Options { keep_rm: true, ..Options::default() };
    let notes = judge(&vanishes, &keep).unwrap().notes;
    let first =
        "1 container is made with --rm, saved first as saved-NAME, then gone: web (with its volume at /x); before";
    assert!(notes[0].starts_with(first), "{notes:?}");
    assert!(notes[1..].iter().all(|note| !note.contains("--rm")), "{notes:?}");
    let saved = |id: &str| {
        let of = Saved { id: id.to_owned(), name: "n".to_owned(), as_name: "saved-n".to_owned(), volumes: Vec::new() };
        judge(&vanishes, &Options { saved: Some(vec![of]), ..keep.clone() })
    };
    assert!(!saved("1").unwrap().notes.iter().any(|note| note.contains("--rm")), "they are told of at the end");
    assert!(saved("3").unwrap_err().what.contains("`web` was made with --rm since the others were saved"));
    let none = judge(&vanishes, &Options { saved: Some(Vec::new()), ..keep.clone() }).unwrap_err();
    assert!(none.what.contains("since it was looked which are to be saved"), "{none:?}");
    let mut going = vanishes.clone();
    asked(&mut going).containers[0]["State"]["Dead"] = json!(true);
    assert!(judge(&going, &Options::default()).is_ok(), "nothing of it can be kept");
    let mut builds = facts();
    builds.builds.push(5);
    assert!(refusal(&builds).contains("an image is being built"));
    builds.elsewhere.push("/mnt/web 1".into());
    assert!(refusal(&builds).contains("mounted elsewhere too"));
    builds.asked.clone_from(&vanishes.asked);
    let prepare = Options { purpose: Purpose::Prepare, ..Options::default() };
    assert!(judge(&builds, &prepare).is_ok(), "who only prepares stops nothing");
}

#[test]
fn a_docker_that_is_down_is_left_down_and_commands_come_first() {
    let mut down = facts();
    (down.pid, down.asked) = (None, None);
    let judged = judge(&down, &Options::default()).unwrap();
    assert_eq!((judged.daemon, judged.notes.len()), (None, 2), "and the other Docker is told of");
    let words = |text: &str| Some(vec![text.to_owned()]);
    let told = Options { stop: words("/s"), start: words("/t"), ..Options::default() };
    assert_eq!(judge(&facts(), &told).unwrap().daemon.unwrap().way.starts(), "/t");
    let gone = Facts { missing: vec!["/t".to_owned()], ..facts() };
    assert!(
        judge(&gone, &told).unwrap_err().what.contains("the program `/t`, which shall stop or start it, cannot be run")
    );
    let half = Options { start: None, ..told };
    assert!(judge(&facts(), &half).is_err());
}

#[test]
fn whatever_is_answered_a_swarm_is_a_reason_and_what_can_be_answered_is_none() {
    let mut facts = facts();
    (facts.active, facts.starter) = (Vec::new(), None);
    (facts.builds, facts.elsewhere) = (vec![10], vec!["/mnt/web".into()]);
    *asked(&mut facts).containers[0].pointer_mut("/HostConfig").unwrap() = json!({"AutoRemove": true});
    judge(&facts, &Options::default()).unwrap_err();
    let answered = Options::default().answered(&facts);
    judge(&facts, &answered).unwrap();
    *asked(&mut facts).info.pointer_mut("/Swarm/LocalNodeState").unwrap() = json!("active");
    assert!(judge(&facts, &answered).unwrap_err().what.contains("swarm"));
    let half = Options { stop: Some(vec!["stop".to_owned()]), ..Options::default() };
    assert_eq!(half.answered(&facts).start, None);
}
