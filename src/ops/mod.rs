//! What dmpool does: the only folder that sees kernel, metadata and engine together.
//!
//! An operation looks ([`facts`]), plans ([`plan`], pure, every refusal there), and lets the one runner in [`journal`]
//! carry the plan out, step by step ([`steps`]).

pub mod facts;
mod fault;
pub mod find;
pub mod journal;
pub mod plan;
pub mod registry;
mod sight;
mod state;
pub mod steps;

pub use state::State;
