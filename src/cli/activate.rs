//! `dmpool activate`

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::{Change, Done, State, activate, gate, registry};
use crate::pool::{Entry, PoolName};
use crate::report;

/// Bring registered pools up
///
/// A pool comes up with the size that its superblock says. What is active already is left alone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pool; may be left out when one is registered
    #[arg(conflicts_with = "all")]
    pool: Option<String>,

    /// Every registered pool; the others are brought up even when one cannot be
    #[arg(long)]
    all: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state.clone())?;
        let change = parse::change(self.dry_run);
        let one = |entry: &Entry| activate::activate(&kit, entry, change);
        if !self.all {
            let entry = registered(&state, self.pool.as_deref(), "activate")?;
            return say(&one(&entry)?, change, entry.name.as_str());
        }
        each(&state, change, one)
    }
}

fn say(done: &Done, change: Change, pool: &str) -> Outcome<()> {
    show::done(done, change, &format!("activated pool `{pool}`"))
}

/// Does something with every registered pool; what cannot be done is printed, and the first of it is the outcome.
fn each(state: &State, change: Change, one: impl Fn(&Entry) -> Outcome<Done>) -> Outcome<()> {
    let names = registry::names(state)?;
    if names.is_empty() {
        show::value("no pool is registered\n")?;
    }
    let mut failed = Vec::new();
    for name in &names {
        // An entry that cannot be read keeps only its own pool down.
        match registered(state, Some(name.as_str()), "activate").and_then(|entry| one(&entry)) {
            Ok(done) => say(&done, change, name.as_str())?,
            Err(failure) => {
                show::error(&report::failure::text(&failure));
                failed.push(name.to_string());
            }
        }
    }
    let (kind, did) = match change {
        _ if failed.is_empty() => return Ok(()),
        Change::Describe => (Kind::Refused, "would not come up"),
        Change::Make => (Kind::Damaged, "did not come up"),
    };
    Err(Failure::new(kind, format!("{} of {} pools {did}", failed.len(), names.len()))
        .fact("found", failed.join(", "))
        .next("what is said above of each of them"))
}

/// Returns the registry's entry of a pool; without a name, the only one. A name that dmpool would not give is one that
/// somebody else gave: `docker-8:1-131073-pool`.
pub(super) fn registered(state: &State, pool: Option<&str>, verb: &str) -> Outcome<Entry> {
    match pool {
        Some(text) => {
            let text = text.strip_prefix("/dev/mapper/").unwrap_or(text);
            let name = PoolName::new(text).ok();
            if let Some(name) = &name
                && let Some(entry) = registry::read(state, name)?
            {
                return Ok(entry);
            }
            let refused = Failure::refused(format!(
                "cannot {verb} pool `{text}`: it is not registered, so dmpool did not make it"
            ));
            let refused = match name {
                Some(name) => refused.fact("found", format!("no {}", registry::path_of(state, &name).display())),
                None => refused,
            };
            Err(refused.next("dmpool list    shows the pools here; who made a pool takes it up and down (Docker, LVM)"))
        }
        None => {
            let mut entries = registry::read_all(state)?;
            match entries.len() {
                1 => Ok(entries.remove(0)),
                0 => Err(Failure::refused(format!("cannot {verb}: no pool is registered"))
                    .next("dmpool create NAME    makes one; dmpool list    shows the pools that others made")),
                _ => {
                    let names: Vec<_> = entries.iter().map(|e| e.name.as_str()).collect();
                    Err(Failure::new(
                        Kind::Usage,
                        format!("cannot {verb}: several pools are registered, say which one"),
                    )
                    .fact("found", names.join(", ")))
                }
            }
        }
    }
}
