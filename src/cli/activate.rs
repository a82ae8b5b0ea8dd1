//! `dmpool activate`

use std::time::Duration;

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::activate::wait::{self, News};
use crate::ops::steps::Kit;
use crate::ops::{Change, State, activate, boot, find, gate, registry};
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

    /// Wait so long for disks and files that are not there yet: 60s, 5min
    #[arg(long, value_name = "TIME", value_parser = parse::duration, conflicts_with = "dry_run")]
    wait: Option<Duration>,

    /// From now on also at every boot, before Docker and containerd: by a unit of systemd, or an init script
    #[arg(long, requires = "all")]
    at_boot: bool,

    /// Also register it: a pool on disks from another machine, or whose entry is lost, found by its labels. Of several of
    /// one name the pool's uuid tells which
    #[arg(long, requires = "pool", conflicts_with_all = ["all", "wait"])]
    register: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let change = parse::change(self.dry_run);
        let wait = self.wait.unwrap_or_default();
        if self.at_boot {
            let done = boot::set_up(&kit, change)?;
            show::done(&done, change, "the registered pools are brought up at boot")?;
        }
        if self.all {
            return each(&kit, change, wait);
        }
        let pool = match registered_here(&kit, self.pool.as_deref(), "activate") {
            Err(Unregistered::Labelled(entry)) if self.register => {
                let done = activate::register(&kit, &entry, change)?;
                return show::done(&done, change, &format!("registered pool `{}`, and activated it", entry.name));
            }
            found => found.map_err(|why| why.failure("activate"))?.name,
        };
        let mut failed = None;
        bring_up(&kit, vec![pool], change, wait, |_, failure| failed = Some(failure))?;
        failed.map_or(Ok(()), Err)
    }
}

/// Brings pools up, and tells of each as soon as it is; what stays down is given to `failed`. Returns the signal that ended the
/// waiting.
fn bring_up(
    kit: &Kit,
    pools: Vec<PoolName>,
    change: Change,
    limit: Duration,
    mut failed: impl FnMut(&PoolName, Failure),
) -> Outcome<Option<&'static str>> {
    // An entry that cannot be read keeps only its own pool down.
    let attempt = |pool: &PoolName, disks| {
        let entry = registered(kit, Some(pool.as_str()), "activate")?;
        activate::activate(kit, &entry, change, disks)
    };
    wait::each(pools, limit, attempt, |pool, news| {
        match news {
            News::Up(done) => return show::done(&done, change, &format!("activated pool `{pool}`")),
            News::Late(names) => show::error(&format!(
                "waiting up to {} for {} (pool `{pool}`)\n",
                humantime::format_duration(limit),
                report::failure::printable(&names.join(", "))
            )),
            News::Down(failure) => failed(pool, failure),
        }
        Ok(())
    })
}

/// Brings every registered pool up; what cannot be is printed, and how many that are is the outcome.
fn each(kit: &Kit, change: Change, limit: Duration) -> Outcome<()> {
    // What is prepared is brought up by who switches to it. An entry that cannot be read is told of below.
    let is_prepared = |name: &PoolName| {
        registry::look(&kit.state, name).is_ok_and(|entry| entry.is_some_and(|entry| entry.prepared.is_some()))
    };
    let names: Vec<_> = registry::names(&kit.state)?.into_iter().filter(|name| !is_prepared(name)).collect();
    if names.is_empty() {
        show::value("no pool is registered\n")?;
    }
    let (all, mut down) = (names.len(), Vec::new());
    let signal = bring_up(kit, names, change, limit, |pool, failure| {
        show::error(&report::failure::text(&failure));
        down.push(pool.to_string());
    })?;
    let (kind, did) = match change {
        _ if down.is_empty() => return Ok(()),
        Change::Describe => (Kind::Refused, "would not come up"),
        Change::Make => (Kind::Damaged, "did not come up"),
    };
    let mut failure = Failure::new(kind, format!("{} of {all} pools {did}", down.len())).fact("found", down.join(", "));
    if let Some(signal) = signal {
        failure = failure.fact("ended", format!("by {signal}, before the time to wait was over"));
    }
    Err(failure.next("what is said above of each of them"))
}

/// Why a pool has no entry in the registry.
pub(super) enum Unregistered {
    /// It is on devices that are here.
    Labelled(Box<Entry>),
    /// Nobody here knows it.
    Unknown(Failure),
}

impl Unregistered {
    /// Returns the refusal of what needs the entry.
    pub(super) fn failure(self, verb: &str) -> Failure {
        match self {
            Self::Labelled(entry) => activate::unregistered(&entry, verb),
            Self::Unknown(failure) => failure,
        }
    }
}

/// As [`registered`], and looks for the labels of a pool that was named and has no entry.
pub(super) fn registered_here(kit: &Kit, pool: Option<&str>, verb: &str) -> Result<Entry, Unregistered> {
    registered(kit, pool, verb).map_err(|failure| match pool.map(|pool| activate::labelled(kit, pool)) {
        Some(Ok(Some(entry))) => Unregistered::Labelled(Box::new(entry)),
        Some(Err(several)) => Unregistered::Unknown(several),
        Some(Ok(None)) | None => Unregistered::Unknown(failure),
    })
}

/// Returns the registry's entry of a pool; without a name, the only one. A name that dmpool would not give is one that
/// somebody else gave: `docker-8:1-131073-pool`.
pub(super) fn registered(kit: &Kit, pool: Option<&str>, verb: &str) -> Outcome<Entry> {
    let state = &kit.state;
    match pool {
        Some(text) => {
            let text = text.strip_prefix("/dev/mapper/").unwrap_or(text);
            let name = PoolName::new(text).ok();
            if let Some(name) = &name
                && let Some(entry) = registry::read(state, name)?
            {
                return Ok(entry);
            }
            gate::no_interrupted(kit, text)?;
            if let Err(mut none) = find::find(&kit.dm, state, text) {
                let why = none.what.replace(&format!("no pool `{text}`"), "no such pool");
                none.what = format!("cannot {verb} pool `{text}`: {why}");
                return Err(none);
            }
            let refused = Failure::refused(format!(
                "cannot {verb} pool `{text}`: it is not registered, so dmpool did not make it"
            ));
            let refused = match name {
                Some(name) => refused.fact("found", format!("no {}", registry::path_of(state, &name).display())),
                None => refused,
            };
            Err(refused
                .next("dmpool list    # shows whose each pool is; who made one takes it up and down (Docker, LVM)"))
        }
        None => {
            let mut entries = registry::read_all(state)?;
            match entries.len() {
                1 => Ok(entries.remove(0)),
                0 => Err(Failure::refused(format!("cannot {verb}: no pool is registered"))
                    .next("dmpool list    # shows the pools that others made; dmpool create NAME makes one")),
                _ => {
                    let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
                    let what = format!("cannot {verb}: several pools are registered, say which one");
                    Err(find::which(what, &names, verb))
                }
            }
        }
    }
}
