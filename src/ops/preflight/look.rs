//! Looking at Docker before it is stopped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Asked, Exec, Facts, Options, Seer};
use crate::engine::api::{Api, ApiError, SOON, socket};
use crate::engine::configuration::Configuration;
use crate::engine::configure::text_of;
use crate::engine::dockerd::{self, Dockerd};
use crate::engine::{daemon_json, roots, start};
use crate::kernel::{mounts, processes};
use crate::ops::daemon::containers::{inspected, name_of, shims};
use crate::ops::daemon::{stopped_on, units};
use crate::ops::steps::configure::{is_systemd, runs};
use crate::process;

/// Where BuildKit has a folder for each step that it carries out, in Docker's root (builder/builder-next/executor_unix.go).
const BUILDKIT: &str = "buildkit/executor";

/// Looks at the Docker of a root.
pub fn look(root: &Path, options: &Options) -> Facts {
    let base = Path::new("/");
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let daemon = roots::daemons_on(&root).into_iter().next();
    let started = start::read(base);
    let next = Configuration::of_start(base, &started, &start::Instead::new());
    let next_root = next.root();
    let is_next = next_root == root || next_root.canonicalize().is_ok_and(|next| next == root);
    let own = daemon.as_ref().and_then(|daemon| units::of_process(daemon.pid, started.unit));
    let of_systemd = started.unit.filter(|_| is_systemd() && (is_next || own.is_some()));
    let held: Vec<String> = of_systemd.map(|unit| vec![units::socket_of(unit), unit.to_owned()]).unwrap_or_default();
    let active: Vec<String> = held.iter().filter(|unit| runs(unit)).cloned().collect();
    let (active, open) = match (own, &daemon) {
        (Some(_), _) => (active, Vec::new()),
        (None, None) => (Vec::new(), active.into_iter().filter(|unit| unit.ends_with(".socket")).collect()),
        (None, Some(_)) => (Vec::new(), Vec::new()),
    };
    let mut files = BTreeSet::new();
    if let Some(daemon) = &daemon {
        files.insert(daemon.flags.config_file.clone().unwrap_or_else(|| daemon_json::DEFAULT_PATH.into()));
    }
    if is_next {
        files.extend([started.daemon_json(base), daemon_json::DEFAULT_PATH.into()]);
    }
    let files: BTreeSet<PathBuf> = files.into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect();
    let socket = daemon.as_ref().and_then(socket_that_listens);
    let stopped = stopped_on(&root);
    let asked = daemon.as_ref().and(options.socket.as_ref().or(socket.as_ref())).map(|socket| match stopped {
        Some(pid) => Err(ApiError::Stopped(pid).to_string()),
        None => ask(socket),
    });
    let containers = match &asked {
        Some(Ok(asked)) => asked.containers.as_slice(),
        _ => &[],
    };
    let files: Result<Vec<_>, _> = files.into_iter().map(|path| Ok((path.clone(), text_of(&path)?))).collect();
    let pid = daemon.as_ref().map(|daemon| daemon.pid);
    Facts {
        builds: builds(&root),
        elsewhere: elsewhere(&root),
        seers: seers(&root, daemon.as_ref(), containers),
        orphans: if daemon.is_none() { shims(&root) } else { Vec::new() },
        pid,
        is_stopped: stopped.is_some(),
        // That of another root would stop another Docker.
        starter: next.starter.filter(|_| is_next),
        root,
        socket,
        asked,
        with: units::stopped_with(&active),
        others: others(daemon.as_ref(), files.as_ref()),
        files,
        active,
        open,
        units: held,
        missing: missing(options),
    }
}

/// Returns where in our own mount namespace file systems of containers are mounted that are no places of Docker's: its root may be
/// seen at another path as well, and its runtime has places of its own.
fn elsewhere(root: &Path) -> Vec<PathBuf> {
    let places = root.join("devicemapper/mnt");
    let seen = mounts::everywhere().unwrap_or_default();
    let of_docker = seen.iter().filter(|seen| seen.mount.mount_point.parent() == Some(places.as_path()));
    let devices: BTreeSet<_> = of_docker.map(|seen| seen.mount.devno).collect();
    let own = mounts::own().unwrap_or_default().into_iter();
    let own = own.filter(|mount| devices.contains(&mount.devno)).map(|mount| mount.mount_point);
    let is_dockers = |point: &Path| {
        let of_driver = point.parent().is_some_and(|parent| parent.ends_with("devicemapper/mnt"));
        of_driver || point.starts_with(root) || point.starts_with("/run")
    };
    own.filter(|point| !is_dockers(point)).collect()
}

/// Returns the programs of commands that are not there.
fn missing(options: &Options) -> Vec<String> {
    let programs = options.stop.iter().chain(&options.start).filter_map(|words| words.first());
    programs.filter(|program| !process::is_there(program)).cloned().collect()
}

fn socket_that_listens(daemon: &Dockerd) -> Option<PathBuf> {
    let configuration = Configuration::of_running(daemon);
    let of_json = configuration.json.keys.get("hosts");
    let of_json: Vec<String> = of_json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let of_flags = daemon.flags.keys.get("hosts").into_iter().flatten();
    socket::of_hosts(of_flags.chain(&of_json).map(String::as_str))
}

fn ask(socket: &Path) -> Result<Asked, String> {
    let asked = || -> anyhow::Result<Asked> {
        let api = Api::at(socket).negotiated()?;
        let containers = inspected(&api)?;
        Ok(Asked { info: api.get("/info", SOON)?, plugins: plugins(&api), execs: execs(&api, &containers), containers })
    };
    asked().map_err(|error| format!("{error:#}"))
}

/// Returns the plugins that Docker manages and that are on. One before 1.13 has none.
fn plugins(api: &Api) -> Vec<String> {
    let all = api.get("/plugins", SOON).unwrap_or_default();
    let on = all.as_array().into_iter().flatten().filter(|it| it.get("Enabled").and_then(Value::as_bool) == Some(true));
    on.filter_map(|it| it.get("Name").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// Returns what runs in containers beside their own processes. One that ends meanwhile, as a health check does, is none.
fn execs(api: &Api, containers: &[Value]) -> Vec<Exec> {
    let mut found = Vec::new();
    for container in containers {
        for id in container.get("ExecIDs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            let Ok(exec) = api.get(&format!("/exec/{id}/json"), SOON) else { continue };
            if exec.get("Running").and_then(Value::as_bool) != Some(true) {
                continue;
            }
            let program = exec.pointer("/ProcessConfig/entrypoint").and_then(Value::as_str);
            let args = exec.pointer("/ProcessConfig/arguments").and_then(Value::as_array).into_iter().flatten();
            let words: Vec<_> = program.into_iter().chain(args.filter_map(Value::as_str)).collect();
            found.push(Exec { container: name_of(container), command: words.join(" ") });
        }
    }
    found
}

/// Returns the processes of runc's in which BuildKit carries a step of a build out. It leaves what a dead Docker was at in its folder.
fn builds(root: &Path) -> Vec<u32> {
    let entries = fs::read_dir(root.join(BUILDKIT)).into_iter().flatten().flatten();
    let bundles: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some(format!("{BUILDKIT}/{}", entry.file_name().to_str()?)))
        .collect();
    if bundles.is_empty() {
        return Vec::new();
    }
    let is_at_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').any(|word| bundles.iter().any(|bundle| word.ends_with(bundle.as_str())))
    };
    processes::all().unwrap_or_default().into_iter().filter(is_at_one).collect()
}

/// Returns the daemons of other roots that read one of these files, each with its process and that file.
fn others<E>(own: Option<&Dockerd>, files: Result<&Vec<(PathBuf, Option<String>)>, E>) -> Vec<(u32, PathBuf)> {
    let files = files.map(Vec::as_slice).unwrap_or_default();
    let reads = |daemon: Dockerd| {
        let file = daemon.flags.config_file.clone().unwrap_or_else(|| daemon_json::DEFAULT_PATH.into());
        let file = file.canonicalize().unwrap_or(file);
        let is_held = files.iter().any(|(path, _)| *path == file) && roots::file_seen_by_both(&daemon, &file);
        is_held.then_some((daemon.pid, file))
    };
    let others = dockerd::all().into_iter().filter(|daemon| own.is_none_or(|own| own.pid != daemon.pid));
    others.filter_map(reads).collect()
}

/// Returns who sees mounts below the root in a mount namespace that is neither ours, nor the daemon's, nor a container's.
fn seers(root: &Path, daemon: Option<&Dockerd>, containers: &[Value]) -> Vec<Seer> {
    let namespace =
        |pid: u64| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok().map(|ns| ns.to_string_lossy().into_owned());
    let pids =
        containers.iter().filter_map(|it| it.pointer("/State/Pid").and_then(Value::as_u64)).filter(|pid| *pid > 0);
    let pids = pids.chain(daemon.map(|daemon| u64::from(daemon.pid)));
    let known: BTreeSet<String> = pids.filter_map(namespace).chain(mounts::own_namespace()).collect();
    let seen = mounts::everywhere().unwrap_or_default().into_iter();
    let below = seen.filter(|seen| seen.mount.mount_point != root && seen.mount.mount_point.starts_with(root));
    let seers =
        below.filter(|seen| !known.contains(&seen.namespace)).map(|seen| Seer { pid: seen.pid, comm: seen.comm });
    seers.collect::<BTreeSet<_>>().into_iter().collect()
}
