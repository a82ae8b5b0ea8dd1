//! Containers of `--rm` are saved before the plan is made by which they vanish: what is in the pool is another by it.

use std::path::Path;

use crate::error::{Failure, Kind, Outcome};
use crate::kernel::critical::hold_signals;
use crate::kernel::fs::FsFacts;
use crate::ops::daemon::Daemon;
use crate::ops::daemon::saving::{self, Made};
use crate::ops::preflight::{self, Options};
use crate::ops::steps::Kit;

/// What was saved before a plan is made.
#[derive(Debug, Default)]
pub struct KeptFirst {
    docker: Option<Daemon>,
    made: Vec<Made>,
}

/// Saves the containers of `--rm` on a root, when that was asked for, and returns what was made; `docker` is told of it, for the plan.
///
/// # Errors
/// With the first that cannot be saved; what was saved by then is removed again.
pub fn first(kit: &Kit, root: &Path, docker: &mut Options) -> Outcome<KeptFirst> {
    if !docker.keep_rm {
        return Ok(KeptFirst::default());
    }
    let judged = preflight::judge(&preflight::look(root, docker), docker)?;
    let Some(daemon) = judged.daemon else { return Ok(KeptFirst::default()) };
    let word = docker.purpose.word();
    let failed = |why: &str| {
        Failure::failed(format!("cannot {word} the Docker of `{}`: {why}", root.display()))
            .next("mend that, then run this again; --without-rm goes on without what is in them")
    };
    // What is half made is removed before the process ends.
    hold_signals();
    let api = daemon.api().map_err(|e| failed("Docker does not answer").because(e))?;
    let room = saving::room(&judged.info).or_else(|| FsFacts::of(root).ok().map(|fs| fs.available));
    let made = saving::save(&api, &judged.containers, room, &kit.watcher).map_err(|unsaved| {
        let failure = failed("containers that were made with --rm cannot be saved").because(unsaved.why);
        with_left(failure, unsaved.left, "nothing was stopped, and what had been saved by then was removed again")
    })?;
    docker.saved = Some(saving::told(&judged.containers, &made));
    Ok(KeptFirst { docker: Some(daemon), made })
}

impl KeptFirst {
    /// Returns a failure of what came behind: where containers are still there, what they were saved as goes again. Of those that are
    /// gone it is all that there is, and stays.
    pub fn taken_back(self, failure: Failure) -> Failure {
        let Some(daemon) = self.docker.filter(|_| !self.made.is_empty()) else { return failure };
        let named = |made: &[Made]| made.iter().map(|made| format!("`{}`", made.name)).collect::<Vec<_>>().join(", ");
        let all = named(&self.made);
        // Who goes on needs it.
        if failure.kind == Kind::Partial {
            return failure.fact("saved", format!("of the containers with --rm: {all}"));
        }
        let removed = daemon.api().map_err(Into::into).and_then(|api| saving::remove_needless(&api, self.made));
        match removed {
            Ok((left, [gone, needed])) => {
                let failure = left.into_iter().fold(failure, |failure, left| failure.fact("left", left));
                let failure = match gone.as_slice() {
                    [] => failure,
                    gone => {
                        failure.fact("saved", format!("of the containers with --rm, which are gone: {}", named(gone)))
                    }
                };
                match needed.as_slice() {
                    [] => failure,
                    needed => failure
                        .fact("saved", format!("of those that are not gone, since these need it: {}", named(needed))),
                }
            }
            Err(e) => {
                failure.fact("left", format!("what containers with --rm were saved as, {all}, is there still: {e:#}"))
            }
        }
    }
}

fn with_left(failure: Failure, left: Vec<String>, state: &str) -> Failure {
    match left.is_empty() {
        true => failure.fact("state", state),
        false => left
            .into_iter()
            .fold(failure.fact("state", "nothing was stopped"), |failure, left| failure.fact("left", left)),
    }
}
