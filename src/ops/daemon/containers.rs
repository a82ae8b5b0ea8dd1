//! Containers as Docker is asked to stop and start them, in an order that heeds who needs whom.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::saved::Saved;
use crate::engine::api::{Api, ApiError, SOON};
use crate::engine::docker_objects::CONTAINERS;
use crate::engine::stuck::{Stuck, is_killed, stuck};
use crate::kernel::processes;
use crate::ops::progress::Watcher;

/// What Docker waits for a container that has no timeout of its own (`DefaultStopTimeout`, daemon/config/config.go).
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Docker's own wait behind SIGKILL, and some for a slow machine.
const KILLED_WITHIN: Duration = Duration::from_secs(90);
/// A container that has no end of patience gets this.
const ENDLESS: Duration = Duration::from_secs(3600);
/// How many are stopped at once.
const AT_ONCE: usize = 16;
/// How long a process has not run that is said to wait in the kernel.
const WAITS: Duration = Duration::from_millis(300);
/// To start one: its file system is mounted, its network made.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// Returns the processes that hold a root's containers, with their names: they run on without a daemon (`live-restore`).
pub fn shims(root: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(root.join(CONTAINERS)).into_iter().flatten().flatten();
    let ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let holds = |pid: u32, comm: &str| {
        let is_one = ["containerd-shim", "docker-containe", "runc"].iter().any(|name| comm.starts_with(name));
        is_one && {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            ids.iter().any(|id| line.contains(id.as_str()))
        }
    };
    let all = processes::all().unwrap_or_default().into_iter().map(|pid| (pid, processes::comm(pid)));
    all.filter(|(pid, comm)| holds(*pid, comm)).collect()
}

/// A container that runs, and shall run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How many seconds it has to stop; nothing for Docker's own ten, a negative number for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Whether Docker removes it when it stops (`--rm`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vanishes: bool,
}

impl Ran {
    /// Reads what `docker inspect` says of a container; nothing when it does not run.
    pub fn of(inspected: &Value) -> Option<Self> {
        let state = inspected.get("State")?;
        let is = |key: &str| state.get(key).and_then(Value::as_bool).unwrap_or(false);
        // One that is between two tries of its restart policy runs too, as Docker counts.
        if !is("Running") && !is("Restarting") {
            return None;
        }
        Some(Self {
            id: text(inspected, "/Id")?,
            name: name_of(inspected),
            paused: is("Paused"),
            stop_timeout: inspected.pointer("/Config/StopTimeout").and_then(Value::as_i64),
            vanishes: inspected.pointer("/HostConfig/AutoRemove").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    fn limit(&self) -> Duration {
        let own = match self.stop_timeout.map(u64::try_from) {
            None => STOPS_WITHIN,
            Some(Ok(seconds)) => Duration::from_secs(seconds).min(ENDLESS),
            Some(Err(_)) => ENDLESS,
        };
        own + KILLED_WITHIN
    }
}

/// Returns a container's name, without the slash; its id when it has none.
pub fn name_of(inspected: &Value) -> String {
    let name = text(inspected, "/Name").map(|name| name.trim_start_matches('/').to_owned());
    name.filter(|name| !name.is_empty()).or_else(|| text(inspected, "/Id")).unwrap_or_default()
}

fn text(of: &Value, pointer: &str) -> Option<String> {
    of.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// Returns what `docker inspect` says of every container, running or not. One that goes meanwhile is left out.
///
/// # Errors
/// When Docker does not say it.
pub fn inspected(api: &Api) -> Result<Vec<Value>> {
    let listed = api.get("/containers/json?all=1", SOON).context("asking Docker for its containers")?;
    let mut all = Vec::new();
    for listed in listed.as_array().into_iter().flatten() {
        let Some(id) = text(listed, "/Id") else { continue };
        match api.get(&format!("/containers/{id}/json"), SOON) {
            Ok(inspected) => all.push(inspected),
            Err(why) if why.status() == Some(404) => {}
            Err(why) => return Err(why).with_context(|| format!("asking Docker for the container {id}")),
        }
    }
    Ok(all)
}

/// Returns the containers that run, each behind those that it needs to start, else as they were started.
pub fn in_order(inspected: &[Value]) -> Vec<Ran> {
    let mut running: Vec<(&Value, Ran)> = inspected.iter().filter_map(|it| Some((it, Ran::of(it)?))).collect();
    running.sort_by_cached_key(|(it, ran)| (text(it, "/State/StartedAt"), ran.id.clone()));
    let by_name: BTreeMap<String, usize> =
        running.iter().enumerate().flat_map(|(at, (_, ran))| [(ran.name.clone(), at), (ran.id.clone(), at)]).collect();
    let needs: Vec<Vec<usize>> = running
        .iter()
        .map(|(it, _)| needed_by(it).iter().filter_map(|name| by_name.get(name).copied()).collect())
        .collect();
    let mut order = Vec::new();
    let mut placed = vec![false; running.len()];
    while order.len() < running.len() {
        let open = |at: &usize| !placed.get(*at).copied().unwrap_or(true);
        let ready = |at: &usize| needs.get(*at).into_iter().flatten().all(|need| need == at || !open(need));
        // In a circle the one that was started first goes first, when all others are placed.
        let mut waiting = (0..running.len()).filter(open);
        let Some(next) = waiting.clone().find(ready).or_else(|| waiting.next()) else { break };
        placed.get_mut(next).into_iter().for_each(|placed| *placed = true);
        order.push(next);
    }
    order.into_iter().filter_map(|at| running.get(at).map(|(_, ran)| ran.clone())).collect()
}

/// Returns the containers, by name or id, that one needs to start: those of its links, whose network, IPC or processes it
/// shares, and whose volumes it has.
pub fn needed_by(inspected: &Value) -> Vec<String> {
    let host = inspected.get("HostConfig").unwrap_or(&Value::Null);
    let list = |key: &str| host.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let first = |entry: &str| entry.split(':').next().unwrap_or_default().trim_start_matches('/').to_owned();
    let shared = ["NetworkMode", "IpcMode", "PidMode"].into_iter().filter_map(|key| {
        let mode = host.get(key)?.as_str()?;
        mode.strip_prefix("container:").map(str::to_owned)
    });
    list("Links").map(first).chain(list("VolumesFrom").map(first)).chain(shared).collect()
}

/// Stops those of the containers that run, each with the time that it has: side by side, and none before those that need it, as
/// `inspected` says ([`no_others`]). Each is named before; `killed` is told of each that was killed and is still to end.
///
/// # Errors
/// When one does not stop, with its name.
pub fn stop(
    api: &Api,
    containers: &[Ran],
    inspected: &[Value],
    watcher: &Watcher,
    killed: &mut dyn FnMut(&RunsStill),
) -> Result<()> {
    for wave in waves(containers, inspected) {
        for some in wave.chunks(AT_ONCE) {
            let named = |ran: &&Ran| format!("stopping the container `{}`", ran.name);
            let mut found = Vec::new();
            for ran in some {
                let Some(state) = state_of(api, &ran.id).with_context(|| named(ran))? else { continue };
                if is(&state, "Running") {
                    watcher.next(&format!("  stopping the container {}", ran.name));
                }
                found.push((*ran, is(&state, "Paused")));
            }
            let ended: Vec<Result<()>> = thread::scope(|scope| {
                let stop = |(ran, is_paused)| {
                    thread::Builder::new()
                        .spawn_scoped(scope, move || stop_one(api, ran, is_paused).with_context(|| named(&ran)))
                };
                let begun: Vec<_> = found.into_iter().map(stop).collect();
                let end = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                    thread.join().unwrap_or_else(|_| Err(anyhow!("what stops it has ended")))
                };
                begun.into_iter().map(|begun| begun.map_err(Into::into).and_then(end)).collect()
            });
            let still = ended.iter().filter_map(|ended| ended.as_ref().err()?.downcast_ref::<RunsStill>());
            still.filter(|still| still.waits.is_some()).for_each(&mut *killed);
            ended.into_iter().collect::<Result<()>>()?;
        }
    }
    Ok(())
}

/// Returns the containers, which come in the order in which they are started, as they are stopped: none in a wave is needed by one
/// that is stopped in the same or behind it. Of a circle the last goes first.
fn waves<'r>(containers: &'r [Ran], inspected: &[Value]) -> Vec<Vec<&'r Ran>> {
    let is = |it: &Value, name: &str| name_of(it) == name || text(it, "/Id").as_deref() == Some(name);
    let needs = |ran: &Ran| -> Vec<String> {
        let own = inspected.iter().find(|it| is(it, &ran.id));
        let names = own.map(needed_by).unwrap_or_default().into_iter();
        names.filter_map(|name| text(inspected.iter().find(|it| is(it, &name))?, "/Id")).collect()
    };
    let mut left: Vec<(&Ran, Vec<String>)> = containers.iter().map(|ran| (ran, needs(ran))).collect();
    let mut waves = Vec::new();
    while let Some((last, _)) = left.last() {
        let needed = |ran: &Ran| left.iter().any(|(other, needs)| other.id != ran.id && needs.contains(&ran.id));
        let mut wave: Vec<&Ran> = left.iter().map(|(ran, _)| *ran).filter(|ran| !needed(ran)).collect();
        if wave.is_empty() {
            wave.push(*last);
        }
        left.retain(|(ran, _)| wave.iter().all(|gone| gone.id != ran.id));
        waves.push(wave);
    }
    waves
}

fn stop_one(api: &Api, ran: &Ran, is_paused: bool) -> Result<()> {
    if is_paused {
        // It could not answer a signal.
        api.post(&format!("/containers/{}/unpause", ran.id), SOON)?;
    }
    match api.post(&format!("/containers/{}/stop", ran.id), ran.limit()) {
        Err(why) if why.status() == Some(404) => return Ok(()),
        // Docker waits for ever for one that SIGKILL does not end, or gives it up (`did not receive an exit event`). Without a
        // process that has it before it, it is about something else.
        Err(why @ (ApiError::Silent(..) | ApiError::Refused(..))) => {
            let state = state_of(api, &ran.id).ok().flatten().filter(|state| is(state, "Running"));
            let still = state.map(|state| RunsStill::look(ran, &state)).filter(|still| still.waits.is_some());
            return Err(still.map_or_else(|| why.into(), Into::into));
        }
        answered => answered?,
    };
    match state_of(api, &ran.id)? {
        Some(state) if is(&state, "Running") => Err(RunsStill::look(ran, &state).into()),
        _ => Ok(()),
    }
}

/// A container that Docker has stopped and that runs: one of its processes was killed and waits in the kernel, or somebody has started it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsStill {
    /// Its name.
    pub container: String,
    /// The process that waits, with its name, where there is one.
    pub waits: Option<(u32, String)>,
}

impl fmt::Display for RunsStill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.waits {
            Some((pid, comm)) => write!(
                f,
                "the container `{}` was killed and runs still: process {pid} ({comm}) in it waits in the kernel, where no signal reaches it",
                self.container
            ),
            None => write!(
                f,
                "the container `{}` runs still, or again, though Docker says that it has stopped it",
                self.container
            ),
        }
    }
}

impl std::error::Error for RunsStill {}

impl RunsStill {
    fn look(ran: &Ran, state: &Value) -> Self {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = state.get("Pid").and_then(Value::as_u64).and_then(|pid| namespace(u32::try_from(pid).ok()?));
        let in_it = |pid: &u32| own.is_some() && namespace(*pid) == own;
        let mut processes = processes::all().unwrap_or_default().into_iter().filter(in_it);
        let waits = processes.find(|pid| is_killed(*pid) && matches!(stuck(*pid, WAITS), Some(Stuck::Waits(_))));
        Self { container: ran.name.clone(), waits: waits.map(|pid| (pid, processes::comm(pid))) }
    }
}

/// Returns the state of a container; nothing when there is no such container.
fn state_of(api: &Api, id: &str) -> Result<Option<Value>> {
    match api.get(&format!("/containers/{id}/json"), SOON) {
        Ok(inspected) => Ok(Some(inspected.get("State").cloned().unwrap_or_default())),
        Err(why) if why.status() == Some(404) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

fn is(state: &Value, key: &str) -> bool {
    state.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Starts the containers, the first first, and pauses those that were paused. Returns those that did not come back, each with a
/// sentence: one that fails keeps no other from starting. One that was run with `--rm` and is gone is none of them.
pub fn start<'r>(api: &Api, containers: &'r [Ran], watcher: &Watcher) -> Vec<(&'r Ran, String)> {
    containers.iter().filter_map(|ran| Some((ran, start_one(api, ran, watcher).err()?))).collect()
}

/// Returns those that Docker has removed since they were run with `--rm`, each a sentence; `saved` is what was saved for this, also of others.
pub fn vanished(api: &Api, containers: &[Ran], saved: &[Saved]) -> Vec<String> {
    // As they were saved: in that order they can be started.
    let first = saved.iter().map(|of| (of.id.as_str(), of.name.as_str()));
    let others = containers.iter().filter(|ran| ran.vanishes && saved.iter().all(|of| of.id != ran.id));
    let all = first.chain(others.map(|ran| (ran.id.as_str(), ran.name.as_str())));
    let gone = all.filter(|(id, _)| matches!(state_of(api, id), Ok(None)));
    let sentence = |(id, name): (&str, &str)| {
        let is = saved.iter().find(|of| of.id == id).map(|of| &of.as_name);
        let is = is.map(|is| format!("; what was in it before is in `{is}`:  docker start {is}"));
        let is = is.unwrap_or_default();
        format!("the container `{name}` is gone: it was run with --rm, and Docker removed it when it stopped{is}")
    };
    gone.map(sentence).collect()
}

fn start_one(api: &Api, ran: &Ran, watcher: &Watcher) -> Result<(), String> {
    let name = &ran.name;
    let failed = |why: &dyn std::fmt::Display| {
        format!(
            "the container `{name}` ran before and does not start ({why}); when that is mended:  docker start {name}"
        )
    };
    match state_of(api, &ran.id) {
        Ok(None) if ran.vanishes => return Ok(()),
        Ok(None) => return Err(format!("the container `{name}` ran before and is gone")),
        Ok(Some(state)) if is(&state, "Running") => {}
        Ok(Some(_)) => {
            watcher.next(&format!("  starting the container {name}"));
            api.post(&format!("/containers/{}/start", ran.id), STARTS_WITHIN).map_err(|why| failed(&why))?;
        }
        Err(why) => return Err(failed(&why)),
    }
    let paused = || -> Result<bool> { Ok(state_of(api, &ran.id)?.is_some_and(|state| is(&state, "Paused"))) };
    if ran.paused && !paused().unwrap_or(false) {
        let pause = api.post(&format!("/containers/{}/pause", ran.id), SOON);
        pause.map_err(|why| format!("the container `{name}` was paused before and runs: {why}"))?;
    }
    Ok(())
}

/// Returns those that were started and do not run, each a sentence.
pub fn ended_since<'r>(api: &Api, started: impl IntoIterator<Item = &'r Ran>) -> Vec<String> {
    let ended = |ran: &Ran| {
        let state = state_of(api, &ran.id).ok()??;
        let code = state.get("ExitCode").and_then(Value::as_i64).unwrap_or_default();
        let runs = is(&state, "Running") || is(&state, "Restarting");
        let name = &ran.name;
        (!runs).then(|| {
            format!("the container `{name}` was started and has ended since (exit code {code}):  docker logs {name}    # may say why")
        })
    };
    started.into_iter().filter_map(ended).collect()
}

/// Fails when a container runs that is none of these. Returns what `docker inspect` says of all.
///
/// # Errors
/// With its name.
pub fn no_others(api: &Api, known: &[Ran]) -> Result<Vec<Value>> {
    let all = inspected(api)?;
    for ran in all.iter().filter_map(Ran::of) {
        if known.iter().all(|it| it.id != ran.id) {
            bail!("the container `{}` was started since the plan was made", ran.name);
        }
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::engine::api::tests::answering;

    fn container(name: &str, started: u32, host: &Value) -> Value {
        json!({
            "Id": format!("{name}-id"), "Name": format!("/{name}"), "HostConfig": host, "Config": {"StopTimeout": 3},
            "State": {"Running": true, "StartedAt": format!("2026-11-21T00:00:{started:02}Z")},
        })
    }

    fn names(of: &[Value]) -> Vec<String> {
        in_order(of).into_iter().map(|ran| ran.name).collect()
    }

    #[test]
    fn a_container_comes_behind_those_that_it_needs() {
        let mut stopped = container("stopped", 0, &json!({}));
        *stopped.pointer_mut("/State/Running").unwrap() = json!(false);
        let all = [
            container("net", 1, &json!({"NetworkMode": "container:db-id"})),
            container("volumes", 2, &json!({"VolumesFrom": ["net:ro"], "NetworkMode": "bridge"})),
            container("web", 3, &json!({"Links": ["/db:/web/alias", "/stopped:/web/x"]})),
            container("db", 4, &json!({"Links": null, "IpcMode": "private"})),
            container("first", 0, &json!({})),
            stopped,
        ];
        assert_eq!(names(&all), ["first", "db", "net", "volumes", "web"]);
        let ran = Ran::of(&all[0]).unwrap();
        assert_eq!((ran.limit(), ran.paused, ran.vanishes), (Duration::from_secs(93), false, false));
    }

    #[test]
    fn a_circle_is_broken_where_it_was_begun_once_all_others_are_there() {
        let needs = |name: &str| json!({ "Links": [format!("/{name}:/x/y")] });
        let all = [container("a", 2, &needs("b")), container("b", 1, &needs("a")), container("c", 3, &needs("c"))];
        assert_eq!(names(&all), ["c", "b", "a"]);
    }

    fn named(name: &str) -> Ran {
        Ran::of(&container(name, 0, &json!({}))).unwrap()
    }

    const RUNS: &str = "HTTP/1.1 200 OK\r\n\r\n{\"State\":{\"Running\":true}}";
    const ENDED: &str = "HTTP/1.1 200 OK\r\n\r\n{\"State\":{\"Running\":false}}";
    const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    #[test]
    fn one_that_does_not_stop_is_named_with_dockers_words() {
        let mut killed = Vec::new();
        let mut stop_web = |api: &Api| {
            let ended =
                stop(api, &[named("web")], &[], &Watcher::none(), &mut |still| killed.push(still.container.clone()));
            format!("{:#}", ended.unwrap_err())
        };
        let (_dir, api, _server) = answering(&[RUNS, "HTTP/1.1 500 x\r\n\r\n{\"message\":\"no luck\"}", RUNS]);
        let why = stop_web(&api);
        assert_eq!(
            why,
            "stopping the container `web`: Docker answered `POST /containers/web-id/stop` with 500: no luck"
        );
        let (_dir, api, _server) = answering(&[RUNS, DONE, RUNS]);
        assert_eq!(
            stop_web(&api),
            "stopping the container `web`: the container `web` runs still, or again, though Docker says that it has stopped it"
        );
        assert_eq!(killed, [""; 0]);
    }

    #[test]
    fn none_is_stopped_before_those_that_need_it_and_all_others_at_once() {
        let all = [
            container("db", 1, &json!({})),
            container("other", 2, &json!({})),
            container("web", 3, &json!({"Links": ["/db:/web/db"]})),
            container("beside", 4, &json!({"NetworkMode": "container:web-id"})),
            container("a", 5, &json!({"Links": ["/b:/a/b"]})),
            container("b", 6, &json!({"Links": ["/a:/b/a"]})),
        ];
        let containers = in_order(&all);
        let names: Vec<Vec<&str>> =
            waves(&containers, &all).iter().map(|wave| wave.iter().map(|ran| ran.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["other", "beside"], vec!["web"], vec!["db"], vec!["b"], vec!["a"]]);
        assert_eq!(waves(&containers, &[]).len(), 1, "of what nobody says that it is needed");
    }

    #[test]
    fn one_whose_port_is_taken_keeps_no_other_from_starting() {
        const TAKEN: &str = "HTTP/1.1 500 x\r\n\r\n{\"message\":\"port is already allocated\"}";
        const GONE: &str = "HTTP/1.1 404 x\r\n\r\n{}";
        let (_dir, api, server) = answering(&[ENDED, TAKEN, ENDED, DONE, GONE, GONE]);
        let mut job = named("job");
        job.vanishes = true;
        let all = [named("web"), named("db"), job];
        let said = start(&api, &all, &Watcher::none());
        assert_eq!(said.len(), 1, "{said:?}");
        let (failed, why) = &said[0];
        assert!(why.contains("`web` ran before and does not start") && why.contains("already allocated"));
        assert_eq!(failed.name, "web", "who never started has not ended since");
        let saved = Saved {
            id: "job-id".to_owned(),
            name: "job".to_owned(),
            as_name: "saved-job".to_owned(),
            ..Saved::default()
        };
        let said = vanished(&api, &all, &[saved]);
        assert!(said.len() == 1 && said[0].contains("`job` is gone: it was run with --rm"), "{said:?}");
        assert!(said[0].ends_with("docker start saved-job"), "{said:?}");
        assert!(server.join().unwrap().contains(&"POST /containers/db-id/start HTTP/1.1".to_owned()));
    }

    proptest! {
        #[test]
        fn each_that_runs_is_in_it_once_behind_what_it_needs(
            links in proptest::collection::vec(proptest::collection::vec(0_usize..8, 0..3), 0..8)
        ) {
            // Needs only what was made before it: no circles.
            let all: Vec<Value> = links.iter().enumerate().map(|(at, links)| {
                let links: Vec<_> = links.iter().filter(|to| **to < at).map(|to| format!("/c{to}:/x/y")).collect();
                container(&format!("c{at}"), u32::try_from(8 - at).unwrap(), &json!({ "Links": links }))
            }).collect();
            let order = names(&all);
            prop_assert_eq!(order.len(), all.len());
            let place = |name: &str| order.iter().position(|other| other == name).unwrap();
            for (at, links) in links.iter().enumerate().take(all.len()) {
                for to in links.iter().filter(|to| **to < at) {
                    let (before, behind) = (place(&format!("c{to}")), place(&format!("c{at}")));
                    prop_assert!(before < behind);
                }
            }
        }
    }
}
