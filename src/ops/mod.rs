//! What dmpool does: the only folder that sees kernel, metadata and engine together.
//!
//! An operation looks ([`facts`]), plans ([`plan`], pure, every refusal there), and lets the one runner in [`journal`]
//! carry the plan out, step by step ([`steps`]).

pub mod activate;
pub mod create;
pub mod deactivate;
pub mod destroy;
pub mod docker;
pub mod facts;
mod fault;
pub mod find;
pub mod gate;
mod ground;
pub mod grow;
pub mod health;
pub mod history;
pub mod journal;
pub mod metrics;
pub mod plan;
mod random;
pub mod registry;
pub mod resume;
mod sight;
mod state;
pub mod status;
pub mod steps;
pub mod tie;

pub use state::State;

use journal::Ended;
use plan::Plan;

/// Whether an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is.
    Make,
    /// It is only described: `--dry-run`.
    Describe,
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was planned.
    pub plan: Plan,
    /// How it ended; nothing when it was only described, or there was nothing to do.
    pub ended: Option<Ended>,
}

impl Done {
    pub(crate) const fn planned(plan: Plan) -> Self {
        Self { plan, ended: None }
    }

    pub(crate) const fn ended(plan: Plan, ended: Ended) -> Self {
        Self { plan, ended: Some(ended) }
    }
}
