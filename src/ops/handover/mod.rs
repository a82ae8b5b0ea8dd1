//! Handing a pool to Docker or containerd: what its configuration has to say, as steps at the end of a plan.

mod containerd;
mod docker;

use crate::error::{Failure, Outcome};
use crate::ops::steps::Step;
use crate::pool::{Place, PoolReport, PoolStatus, Spec};

/// Who shall use a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker, with its devicemapper driver.
    Docker,
    /// containerd, with its devmapper snapshotter.
    Containerd,
}

impl Engine {
    /// Returns its name as it writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Containerd => "containerd",
        }
    }
}

/// What decides whether an engine can be handed a pool.
#[derive(Clone, Debug)]
pub struct Facts(Of);

#[derive(Clone, Debug)]
enum Of {
    Docker(docker::Facts),
    Containerd(containerd::Facts),
}

/// What is done at the end of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// None when the engine is told already.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Looks at what an engine is told, and at what would be written.
pub fn look(engine: Engine, spec: &Spec) -> Facts {
    // A sparse file gets blocks back only by discards; on a disk they cost time and bring nothing.
    let discard = spec.discard && matches!(&spec.on, Place::Files { preallocate: false, .. });
    let pool = spec.name.as_str();
    Facts(match engine {
        Engine::Docker => Of::Docker(docker::look(pool, discard)),
        Engine::Containerd => Of::Containerd(containerd::look(pool, discard)),
    })
}

/// Decides how the engine is told; `there` is the pool when it need not be made.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(
    facts: &Facts,
    spec: &Spec,
    there: Option<&PoolReport>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Handover> {
    let handover = match &facts.0 {
        Of::Docker(facts) => docker::plan(facts, refuse)?,
        Of::Containerd(facts) => containerd::plan(facts, spec, refuse)?,
    };
    if handover.steps.is_empty() {
        return Ok(handover);
    }
    there.map_or(Ok(()), |pool| is_empty(pool, refuse))?;
    Ok(handover)
}

/// Refuses a pool that somebody has volumes on: Docker does not start on one (`checkThinPool`,
/// daemon/graphdriver/devmapper/deviceset.go), and the ids that containerd gives its devices would be theirs.
fn is_empty(pool: &PoolReport, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let working = pool.status.as_ref().and_then(PoolStatus::working);
    let used = working.map(|working| (working.data_used.get(), working.transaction_id));
    match used {
        Some((0, 0)) => Ok(()),
        Some((blocks, transaction)) => {
            Err(refuse("the pool has volumes already, and engines want one of their own".to_owned())
                .fact("found", format!("data blocks in use: {blocks}, transaction id {transaction}"))
                .next(format!(
                    "dmsetup ls --tree    # shows those of `{}` that are active; else make another pool",
                    pool.argument
                )))
        }
        None => Err(refuse("whether the pool is empty cannot be read".to_owned())
            .next(format!("dmpool status {}    # says what is wrong with it", pool.argument))),
    }
}
