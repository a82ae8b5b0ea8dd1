//! Handing a pool to containerd, which looks for it only when it starts.

use std::path::{Path, PathBuf};

use super::Handover;
use crate::engine::configure::Obstacle;
use crate::engine::configure::containerd::{self as configure, Cri, Telling, Wanted};
use crate::engine::containerd::holds_something;
use crate::error::{Failure, Outcome};
use crate::ops::steps::configure::{self as steps, Reader};
use crate::ops::steps::{RestartContainerd, Step};
use crate::ops::target::{Target, refusal};
use crate::pool::Spec;
use crate::process::quote;

/// The database of the snapshotter's snapshots, beside that of its devices.
const SNAPSHOTS: &str = "metadata.db";

#[derive(Clone, Debug)]
pub(super) struct Facts {
    telling: Result<Telling, Obstacle>,
    target: Option<Target>,
    /// Databases of the snapshotter with something in them.
    databases: Vec<PathBuf>,
    /// The unit that is running now and reads the file.
    unit: Option<&'static str>,
}

pub(super) fn look(pool: &str, discard: bool) -> Facts {
    let telling = configure::tell_machine(Path::new("/"), &Wanted { pool, discard });
    let told = telling.as_ref().ok();
    let target = told.and_then(|telling| telling.edit.clone()).map(Target::look);
    let root_path = told.map(|telling| telling.root_path.clone()).unwrap_or_default();
    let databases = [root_path.join(format!("{pool}.db")), root_path.join(SNAPSHOTS)];
    let databases = databases.into_iter().filter(|path| holds_something(path)).collect();
    let unit = told.and_then(|telling| telling.daemon.unit).filter(|unit| steps::runs(unit));
    Facts { telling, target, databases, unit }
}

pub(super) fn plan(facts: &Facts, spec: &Spec, refuse: &impl Fn(String) -> Failure) -> Outcome<Handover> {
    let telling = facts.telling.as_ref().map_err(|obstacle| refusal(obstacle, refuse))?;
    if !spec.zero {
        return Err(refuse(
            "containerd's volumes are its users' own, and a pool that does not zero shows them the bytes of others"
                .to_owned(),
        )
        .next("leave out --no-zero"));
    }
    let Some(target) = &facts.target else { return Ok(Handover::default()) };
    if let Some(database) = facts.databases.first() {
        let place = quote(&telling.root_path.to_string_lossy());
        return Err(refuse("containerd's devmapper snapshotter has snapshots of another pool".to_owned())
            .fact("found", database.display().to_string())
            .fact("state", "its plugin does not start on a pool without them")
            .next(format!(
                "mv {place} {place}.old    # when none of them is needed any more, with containerd stopped"
            )));
    }
    let mut notes = vec![target.note()];
    let mut to_do = Vec::new();
    match facts.unit {
        Some(unit) => {
            to_do.push(target.write(Reader::Service(unit.to_owned()), refuse)?.into());
            let database = telling.root_path.join(format!("{}.db", spec.name));
            to_do.push(Step::from(RestartContainerd { unit: unit.to_owned(), database }));
        }
        None => {
            to_do.push(target.write(Reader::Later, refuse)?.into());
            let check = "ctr plugins ls    # shows devmapper with ok then";
            notes.push(match telling.daemon.runs {
                true => format!("containerd runs, and looks for its pool only when it starts: start it again; {check}"),
                false => format!("containerd uses the pool when it starts; {check}"),
            });
        }
    }
    if let Cri::Instead(before) = &telling.cri {
        notes.push(format!(
            "CRI uses devmapper instead of {before}: what it has there stays, and pods that are made from now on pull their images again"
        ));
    }
    Ok(Handover { steps: to_do, notes })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::configure::Edit;
    use crate::engine::containerd::Daemon;

    fn facts(runs: bool, unit: Option<&'static str>) -> Facts {
        let edit = Edit { path: "/none/config.toml".into(), before: None, after: String::new() };
        let daemon = Daemon { config: "/none/config.toml".into(), root: None, unit, runs };
        let telling = Telling {
            edit: Some(edit.clone()),
            cri: Cri::Instead("overlayfs".to_owned()),
            daemon,
            root_path: "/data/devmapper".into(),
        };
        Facts { telling: Ok(telling), target: Some(Target::look(edit)), databases: vec![], unit }
    }

    fn planned(facts: &Facts, zero: bool) -> Result<Handover, String> {
        let spec = Spec { zero, ..Spec::parse("name = \"p\"\n", Path::new("/srv")).unwrap() };
        plan(facts, &spec, &|why| Failure::refused(why)).map_err(|failure| failure.what)
    }

    #[test]
    fn a_service_that_runs_is_restarted_and_others_are_left_to_the_user() {
        let service = planned(&facts(true, Some("containerd.service")), true).unwrap();
        let [Step::WriteConfig(write), Step::RestartContainerd(restart)] = service.steps.as_slice() else {
            unreachable!("{service:?}")
        };
        assert_eq!(write.reader, Reader::Service("containerd.service".to_owned()));
        assert_eq!(restart.database, Path::new("/data/devmapper/p.db"));
        assert!(service.notes.last().unwrap().contains("instead of overlayfs"), "{service:?}");
        for (runs, said) in [(true, "start it again"), (false, "when it starts")] {
            let by_hand = planned(&facts(runs, None), true).unwrap();
            assert!(by_hand.steps.len() == 1 && by_hand.notes.join("\n").contains(said), "{by_hand:?}");
        }
    }

    #[test]
    fn a_pool_that_does_not_zero_and_foreign_snapshots_are_refused() {
        assert!(planned(&facts(false, None), false).unwrap_err().contains("does not zero"));
        let used = Facts { databases: vec!["/data/devmapper/metadata.db".into()], ..facts(false, None) };
        assert!(planned(&used, true).unwrap_err().contains("snapshots of another pool"));
        assert_eq!(planned(&Facts { target: None, ..used }, true).unwrap(), Handover::default());
    }
}
