//! What Docker is before it is stopped for something, and every reason why it cannot be.

pub mod look;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::engine::configure::{Obstacle, hold};
use crate::engine::start::Starter;
use crate::error::{Failure, Outcome};
use crate::ops::daemon::containers::{self, Ran, name_of};
use crate::ops::daemon::saved::Saved;
use crate::ops::daemon::vanishing::{self, Vanishing};
use crate::ops::daemon::{Daemon, Way};
use crate::ops::target;
use crate::process::quote;

pub use look::look;

/// How many names a sentence has.
const NAMED: usize = 5;
/// What is done with containers of `--rm`, when they are kept.
const SAVED_FIRST: &str = "before anything stops each is saved as it is then, with its volumes, as an image and a container that is not started, as \
    docker commit and docker create do; what is in its memory, in /dev/shm and on a tmpfs is not, nor what it writes to its own files afterwards";

/// What Docker is stopped for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It gets another ground.
    #[default]
    Migrate,
    /// Nothing yet: what can be copied for that while it runs is copied.
    Prepare,
    /// What it has is written to an archive.
    Save,
}

impl Purpose {
    /// Returns it as a sentence goes on after "cannot".
    pub const fn word(self) -> &'static str {
        match self {
            Self::Migrate | Self::Prepare => "migrate",
            Self::Save => "save",
        }
    }
}

/// What somebody said of Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What it is stopped for.
    pub purpose: Purpose,
    /// Where it listens, when its own configuration does not say.
    pub socket: Option<PathBuf>,
    /// The program that stops it, and its arguments.
    pub stop: Option<Vec<String>>,
    /// The program that starts it, and its arguments.
    pub start: Option<Vec<String>>,
    /// Whether containers may be lost that vanish when they stop (`--rm`).
    pub without_rm: bool,
    /// Whether what is in them is saved before anything stops.
    pub keep_rm: bool,
    /// What containers of `--rm` were saved as by then; nothing as long as that was not tried.
    pub saved: Option<Vec<Saved>>,
    /// The containers, by id, that somebody has agreed to have stopped; nothing where nobody was asked.
    pub agreed: Option<BTreeSet<String>>,
    /// When what somebody was shown was planned, so that what is made has the names that it said; nothing where nobody was asked.
    pub begun: Option<SystemTime>,
}

impl Options {
    /// Returns the same with all that can be asked about answered: what stops and starts a Docker, what becomes of containers of `--rm`,
    /// and whether anything stops at all.
    pub fn answered(&self, facts: &Facts) -> Self {
        let way = (facts.is_started_by_hand() && self.stop.is_none() && self.start.is_none()).then(Vec::new);
        Self {
            stop: self.stop.clone().or_else(|| way.clone()),
            start: self.start.clone().or(way),
            purpose: Purpose::Prepare,
            ..self.clone()
        }
    }
}

/// A process that runs in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The container's name.
    pub container: String,
    /// Its command line.
    pub command: String,
}

/// What Docker says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// `docker info`.
    pub info: Value,
    /// `docker inspect` of every container.
    pub containers: Vec<Value>,
    /// `docker plugin ls`: those that are on.
    pub plugins: Vec<String>,
    /// What was started in containers by `docker exec` and runs.
    pub execs: Vec<Exec>,
}

/// Somebody who sees a mount of Docker's in a mount namespace of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seer {
    /// A process of that namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Docker's root, free of symbolic links.
    pub root: PathBuf,
    /// The daemon that runs on it.
    pub pid: Option<u32>,
    /// Whether a signal has stopped it.
    pub is_stopped: bool,
    /// Where that one listens; nothing when it does on the network alone.
    pub socket: Option<PathBuf>,
    /// What it said, or why it did not.
    pub asked: Option<Result<Asked, String>>,
    /// The units of systemd's that are active and start it, in the order in which they are started.
    pub active: Vec<String>,
    /// The units that systemd stops with these, and that run.
    pub with: Vec<String>,
    /// The sockets of systemd's that would start it, while it does not run.
    pub open: Vec<String>,
    /// Daemons of other roots that read a file that is held: their process and that file.
    pub others: Vec<(u32, PathBuf)>,
    /// What starts it on this machine.
    pub starter: Option<Starter>,
    /// The units that would start a daemon on this root: they are held.
    pub units: Vec<String>,
    /// The `daemon.json` that daemons on this root read, each with what it says.
    pub files: Result<Vec<(PathBuf, Option<String>)>, Obstacle>,
    /// The processes in which BuildKit carries a step of a build out.
    pub builds: Vec<u32>,
    /// Containers that run with no daemon: process and name of their shims.
    pub orphans: Vec<(u32, String)>,
    /// Who else sees mounts below the root.
    pub seers: Vec<Seer>,
    /// Where else file systems of containers are mounted, beside where Docker and they have them.
    pub elsewhere: Vec<PathBuf>,
    /// The programs that were named to stop and to start it, and that are not there.
    pub missing: Vec<String>,
}

impl Facts {
    /// Returns whether it runs, and nothing here says what stops and starts it.
    pub fn is_started_by_hand(&self) -> bool {
        self.pid.is_some() && self.active.is_empty() && !matches!(self.starter, Some(Starter::Script(_)))
    }
}

/// What a plan is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What Docker is stopped for.
    pub purpose: Purpose,
    /// Docker's root, free of symbolic links.
    pub root: PathBuf,
    /// Docker, when it runs.
    pub daemon: Option<Daemon>,
    /// The containers that run, each behind those that it needs.
    pub running: Vec<Ran>,
    /// `docker info`; null when Docker does not run.
    pub info: Value,
    /// `docker inspect` of every container; empty when Docker does not run.
    pub containers: Vec<Value>,
    /// The units that are held.
    pub units: Vec<String>,
    /// The sockets that are open while it does not run.
    pub open: Vec<String>,
    /// The files that are held, each with what it says.
    pub files: Vec<(PathBuf, Option<String>)>,
    /// What containers of `--rm` were saved as for this.
    pub saved: Vec<Saved>,
    /// What should be known before it is done, each a sentence.
    pub notes: Vec<String>,
}

/// Judges what was found.
///
/// # Errors
/// Refused with each reason for which Docker cannot be stopped and started, or would lose something by it.
pub fn judge(facts: &Facts, options: &Options) -> Outcome<Judged> {
    judged(facts, options).map_err(|failure| {
        // What was saved of containers of `--rm` is there.
        let untouched = options.saved.as_ref().is_none_or(Vec::is_empty);
        failure.fact("state", if untouched { "nothing was touched" } else { "nothing was stopped" })
    })
}

fn judged(facts: &Facts, options: &Options) -> Outcome<Judged> {
    let root = &facts.root;
    let word = options.purpose.word();
    let refuse = |why: String| Failure::refused(format!("cannot {word} the Docker of `{}`: {why}", root.display()));
    let files = facts.files.clone().map_err(|obstacle| target::refusal(&obstacle, &refuse))?;
    let is_held = |text: &Option<String>| text.as_deref().is_some_and(hold::is_held);
    if let Some((path, _)) = files.iter().find(|(_, text)| is_held(text)) {
        let path = path.display();
        return Err(refuse("it is held: a migration or a save was begun, and has not ended".to_owned())
            .fact("found", format!("{path} says `{}`", hold::KEY))
            .next(format!(
                "dmpool continue    # or undo; when there is nothing to continue, take that line out of {path}"
            )));
    }
    if let (None, Some((pid, comm))) = (facts.pid, facts.orphans.first()) {
        return Err(refuse("containers run, and no Docker daemon does".to_owned())
            .fact("found", format!("process {pid} ({comm})"))
            .next("start Docker, which finds them again, then run this again"));
    }
    let Some(pid) = facts.pid else {
        let mut notes =
            vec!["Docker does not run, and is not started: nothing is compared with what it said before".to_owned()];
        notes.extend(notes_of_others(facts));
        let units = facts.units.clone();
        return Ok(Judged {
            purpose: options.purpose,
            root: root.clone(),
            daemon: None,
            running: Vec::new(),
            info: Value::Null,
            containers: Vec::new(),
            units,
            open: facts.open.clone(),
            files,
            saved: Vec::new(),
            notes,
        });
    };
    let way = way(facts, options, pid).map_err(|(why, next)| refuse(why).next(next))?;
    let Some(socket) = options.socket.clone().or_else(|| facts.socket.clone()) else {
        return Err(refuse(format!("Docker (process {pid}) listens on the network only, and is asked by its Unix socket"))
            .next("let it listen at one beside (`-H unix:///var/run/docker.sock`, or `hosts` in daemon.json), and start it again"));
    };
    let asked = match &facts.asked {
        Some(Ok(asked)) => asked,
        Some(Err(why)) => {
            let next = match facts.is_stopped {
                true => format!("kill -CONT {pid}    # lets it go on; then run this again"),
                false => {
                    let socket = quote(&socket.to_string_lossy());
                    format!("curl --unix-socket {socket} http://docker/info    # says more")
                }
            };
            let refusal = refuse(format!("Docker (process {pid}) does not say what runs in it"));
            return Err(refusal.fact("cause", why).next(next));
        }
        None => return Err(refuse(format!("Docker (process {pid}) was not asked"))),
    };
    says_that_it_is_the_one(asked, root, &socket).map_err(|(why, next)| refuse(why).next(next))?;
    if let Some(state) = asked.info.pointer("/Swarm/LocalNodeState").and_then(Value::as_str).filter(|s| is_in_swarm(s))
    {
        return Err(refuse(
            "Docker is part of a swarm, which starts its tasks elsewhere as soon as it stops".to_owned(),
        )
        .fact("found", format!("swarm: {state}"))
        .next("drain this node and leave the swarm (docker swarm leave), then run this again"));
    }
    let running = containers::in_order(&asked.containers);
    let vanish = vanishing::still_there(&asked.containers);
    if options.purpose != Purpose::Prepare {
        if !vanish.is_empty() && !options.without_rm && !options.keep_rm {
            let (they, them) = if vanish.len() == 1 { ("it stops", "it") } else { ("they stop", "them") };
            return Err(refuse(format!(
                "{} made with --rm: Docker removes {them} when {they} or when it starts anew, and nothing brings {them} back",
                counted(vanish.len(), "container was", "containers were")
            ))
            .fact("found", named(&vanish))
            .next("wait until they have ended; --keep-rm saves them first, --without-rm goes on without them"));
        }
        let others = options.saved.as_ref().map(|saved| match saved.as_slice() {
            [] => "it was looked which are to be saved",
            _ => "the others were saved",
        });
        let saved = |it: &&Vanishing| options.saved.iter().flatten().any(|saved| saved.id == it.id);
        if let Some(others) = others
            && let Some(other) = vanish.iter().find(|it| !saved(it))
        {
            return Err(refuse(format!("the container `{}` was made with --rm since {others}", other.name))
                .next("run this again: it is saved then, too"));
        }
        if let Some(first) = facts.elsewhere.first() {
            let all: Vec<_> = facts.elsewhere.iter().take(NAMED).map(|point| point.display().to_string()).collect();
            return Err(refuse(
                "file systems of containers are mounted elsewhere too, and stay in use when Docker stops".to_owned(),
            )
            .fact("found", all.join(", "))
            .next(format!("umount {}    # then run this again", quote(&first.to_string_lossy()))));
        }
        if let Some(build) = facts.builds.first() {
            return Err(refuse("an image is being built, and the build is cut off when Docker stops".to_owned())
                .fact("found", format!("BuildKit runs a step of it (process {build})"))
                .next("run this again once the build has ended"));
        }
    }
    let agreed = |ran: &&Ran| options.agreed.as_ref().is_none_or(|agreed| agreed.contains(&ran.id));
    if let Some(other) = running.iter().find(|ran| !agreed(ran)) {
        return Err(refuse(format!("the container `{}` was started since the question was asked", other.name))
            .next("run this again: the question names it then"));
    }
    Ok(Judged {
        purpose: options.purpose,
        root: root.clone(),
        notes: notes(facts, asked, &vanish, options),
        daemon: Some(Daemon { root: root.clone(), socket, way, with: facts.with.clone() }),
        open: Vec::new(),
        running,
        info: asked.info.clone(),
        containers: asked.containers.clone(),
        units: facts.units.clone(),
        files,
        saved: options.saved.clone().unwrap_or_default(),
    })
}

fn way(facts: &Facts, options: &Options, pid: u32) -> Result<Way, (String, String)> {
    match (&options.stop, &options.start) {
        (Some(stop), Some(start)) => {
            return match facts.missing.first() {
                None => Ok(Way::Commands { stop: stop.clone(), start: start.clone() }),
                Some(program) => Err((
                    format!("the program `{program}`, which shall stop or start it, cannot be run"),
                    "name one that is there; a script has to be executable (chmod +x)".to_owned(),
                )),
            };
        }
        (None, None) => {}
        _ => {
            return Err((
                "a command that stops Docker was given without one that starts it, or the other way round".to_owned(),
                "--stop-command and --start-command go together".to_owned(),
            ));
        }
    }
    if !facts.active.is_empty() {
        return Ok(Way::Units(facts.active.clone()));
    }
    match &facts.starter {
        Some(Starter::Script(name)) => Ok(Way::Script(name.clone())),
        _ => Err((format!("Docker (process {pid}) was started by hand, and what stops and starts it is not known"),
            "say it: --stop-command 'PROGRAM ARGUMENTS' --start-command 'PROGRAM ARGUMENTS' (a script of yours is fine)".to_owned())),
    }
}

/// Whether who answers at the socket is the daemon of that root.
pub(super) fn says_that_it_is_the_one(asked: &Asked, root: &Path, socket: &Path) -> Result<(), (String, String)> {
    let says = asked.info.get("DockerRootDir").and_then(Value::as_str).map(Path::new);
    let same = says.is_some_and(|says| says == root || says.canonicalize().is_ok_and(|says| says == root));
    if same {
        return Ok(());
    }
    let other = says.map_or_else(|| "no root".to_owned(), |says| format!("`{}`", says.display()));
    Err((
        format!("the Docker that answers at {} has {other}", socket.display()),
        "name the socket of the daemon that runs on it: --docker-socket PATH".to_owned(),
    ))
}

fn is_in_swarm(state: &str) -> bool {
    !matches!(state, "" | "inactive")
}

fn notes(facts: &Facts, asked: &Asked, vanish: &[Vanishing], options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    if !vanish.is_empty() && options.saved.is_none() {
        let made = format!("{} made with --rm", counted(vanish.len(), "container is", "containers are"));
        notes.push(match options.keep_rm {
            true => format!("{made}, saved first as saved-NAME, then gone: {}; {SAVED_FIRST}", named(vanish)),
            false => format!("{made}, and gone when Docker stops: {}", named(vanish)),
        });
    }
    if !facts.with.is_empty() {
        notes.push(format!(
            "systemd stops what needs Docker before it, and starts it again at the end: {}",
            facts.with.join(", ")
        ));
    }
    notes.extend(notes_of_others(facts));
    for exec in &asked.execs {
        notes.push(format!(
            "`{}` was started in `{}` by hand (docker exec), and nothing starts it again",
            exec.command, exec.container
        ));
    }
    let comes_back = |it: &&Value| {
        Ran::of(it).is_none() && it.pointer("/HostConfig/RestartPolicy/Name").and_then(Value::as_str) == Some("always")
    };
    let back: Vec<_> = asked.containers.iter().filter(comes_back).map(name_of).collect();
    if !back.is_empty() {
        notes.push(format!(
            "Docker starts what is stopped now and has the restart policy `always`, as it does whenever it starts: {}",
            named(&back)
        ));
    }
    if asked.info.get("LiveRestoreEnabled").and_then(Value::as_bool) == Some(true) {
        notes.push(
            "live-restore is on: containers are stopped all the same, since what they write on changes".to_owned(),
        );
    }
    if !asked.plugins.is_empty() {
        let names = named(&asked.plugins);
        notes.push(format!("plugins stay where they are, and stop and start with Docker: {names}"));
    }
    let labelled = |it: &Value| it.get("MountLabel").and_then(Value::as_str).is_some_and(|label| !label.is_empty());
    if asked.containers.iter().any(labelled) {
        notes.push("containers have SELinux labels, which stay as they are".to_owned());
    }
    for seer in facts.seers.iter().take(NAMED) {
        notes.push(format!("{} (process {}) sees file systems of containers in a mount namespace of its own; if it keeps them when Docker \
            stops, that is found, and all is taken back", seer.comm, seer.pid));
    }
    notes
}

fn notes_of_others(facts: &Facts) -> impl Iterator<Item = String> {
    facts.others.iter().map(|(pid, path)| {
        format!(
            "another Docker (process {pid}) reads {} too: it is left alone, and does not start meanwhile, should it stop",
            path.display()
        )
    })
}

fn counted(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

fn named(names: &[impl ToString]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named}, and {more} more") }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
