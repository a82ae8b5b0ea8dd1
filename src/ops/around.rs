//! The steps before and after what is changed while Docker is down.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::configure::{Edit, hold};
use crate::engine::docker_objects::CONTAINERS;
use crate::error::{Failure, Outcome};
use crate::ops::State;
use crate::ops::daemon::kept::sources;
use crate::ops::daemon::{Daemon, LOG, Way};
use crate::ops::preflight::Judged;
use crate::ops::steps::configure::Reader;
use crate::ops::steps::{
    DropHold, HeldFile, Hold, HoldDocker, KeepRecords, StartDocker, Step, StopContainers, StopDocker,
};
use crate::ops::target::Target;

/// Where drop-ins of the machine's own administrator are.
const OWN_UNITS: &str = "/etc/systemd/system";
/// What the drop-in is called.
const DROP_IN: &str = "dmpool-hold.conf";
/// The steps around what is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// What was kept, where.
    pub records: PathBuf,
    /// What every step in between asks first ([`Hold::still_stands`]).
    pub hold: Hold,
    /// What keeps the records: before all else.
    pub kept: Step,
    /// From Docker that runs to Docker that is down and stays so.
    pub before: Vec<Step>,
    /// The files that Docker is told by and that no hold is in, written as they shall be.
    pub told: Vec<Step>,
    /// Docker may start again, and does if it ran.
    pub after: Vec<Step>,
}

impl Around {
    /// Says where it goes what a program prints that starts Docker.
    pub(in crate::ops) fn says_of_start(&self, judged: &Judged) -> Option<String> {
        let Some(Daemon { way: way @ Way::Commands { .. }, .. }) = &judged.daemon else { return None };
        let (starts, log) = (way.starts(), self.records.join(LOG));
        Some(format!(
            "what `{starts}` prints goes to {}: when that is Docker itself, as long as it runs",
            log.display()
        ))
    }
}

/// Returns what Docker has written down of each container, and writes again whenever that starts.
fn containers(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(CONTAINERS)).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.map(|entry| entry.path().join("config.v2.json")).filter(|path| path.is_file()).collect();
    found.sort();
    found
}

/// Returns the steps around what is changed: `pool` is the one by its dm name that nothing of Docker's may use then, `edits`
/// what Docker shall be told by afterwards, `paths` what else is kept, `name` that of the folder of the records.
///
/// # Errors
/// Refused when a file of Docker's is not what it reads, or cannot be written.
pub fn around(
    judged: &Judged,
    state: &State,
    name: &str,
    pool: Option<&str>,
    edits: &[Edit],
    paths: &[PathBuf],
) -> Outcome<Around> {
    let refuse = |why: String| {
        Failure::refused(format!("cannot {} the Docker of `{}`: {why}", judged.purpose.word(), judged.root.display()))
    };
    let records = state.saved.join(name);
    if records.symlink_metadata().is_ok() {
        return Err(refuse("another migration or save was begun in the same second".to_owned())
            .fact("found", records.display().to_string())
            .fact("state", "nothing was stopped")
            .next("run this again"));
    }
    let mut told = Vec::new();
    let mut after: Vec<(PathBuf, Edit, PathBuf)> = Vec::new();
    for edit in edits {
        let target = Target::look(edit.clone());
        let is_units = target.path.extension().is_some_and(|extension| extension == "conf" || extension == "service");
        let write = target.write(if is_units { Reader::Systemd } else { Reader::Later }, &refuse)?;
        match judged.files.iter().any(|(path, _)| *path == write.path) {
            true => after.push((write.path, edit.clone(), write.backup)),
            false => told.push(Step::from(write)),
        }
    }
    let held = |(path, before): &(PathBuf, Option<String>)| {
        let held = hold::held(before.as_deref()).map_err(|unfit| {
            refuse(format!("`{}` is not what Docker reads ({unfit:?})", path.display()))
                .next(format!("mend {}, then run this again", path.display()))
        })?;
        let edit = after.iter().find(|(edited, ..)| edited == path);
        let after = edit.map_or_else(|| before.clone(), |(_, edit, _)| Some(edit.after.clone()));
        let backup = edit.filter(|_| before.is_some() && after != *before).map(|(.., backup)| backup.clone());
        Ok(HeldFile { path: path.clone(), before: before.clone(), held, after, backup })
    };
    let hold = Hold {
        root: judged.root.clone(),
        records: records.clone(),
        sign: state.hold.join(name),
        sockets: judged.open.clone(),
        files: judged.files.iter().map(held).collect::<Outcome<_>>()?,
        drop_ins: judged
            .units
            .iter()
            .map(|unit| Path::new(OWN_UNITS).join(format!("{unit}.d")).join(DROP_IN))
            .collect(),
    };
    let kept = sources().into_iter().chain(judged.files.iter().map(|(path, _)| path.clone()));
    let mut kept: Vec<_> = kept.chain(paths.iter().cloned()).chain(containers(&judged.root)).collect();
    kept.dedup();
    let socket = judged.daemon.as_ref().map(|daemon| daemon.socket.clone());
    let kept = Step::from(KeepRecords { folder: records.clone(), socket, paths: kept, saved: judged.saved.clone() });
    let running = judged.running.clone();
    let stop = |daemon| Step::from(StopContainers { daemon, running: running.clone(), hold: hold.clone() });
    let mut before: Vec<_> = judged.daemon.clone().map(stop).into_iter().collect();
    before.push(HoldDocker { hold: hold.clone() }.into());
    let pool = pool.map(str::to_owned);
    before
        .push(StopDocker { hold: hold.clone(), daemon: judged.daemon.clone(), running: running.clone(), pool }.into());
    let mut after = vec![Step::from(DropHold { hold: hold.clone() })];
    after.extend(judged.daemon.clone().map(|daemon| Step::from(StartDocker { daemon, running, hold: hold.clone() })));
    Ok(Around { records, hold, kept, before, told, after })
}
