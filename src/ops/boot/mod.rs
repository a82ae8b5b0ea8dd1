//! Bringing the registered pools up at boot: who does it already, and the unit or init script that does.

pub mod found;
pub mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use similar::TextDiff;

use crate::engine::configure::{self, Edit, Obstacle};
use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::FsFacts;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::at_boot::{EnableAtBoot, Registrar};
use crate::ops::steps::configure::{Reader, is_systemd};
use crate::ops::steps::{Kit, Step, WriteConfig};
use crate::ops::target::Target;
use crate::ops::{Change, Done, gate, ground, journal, registry};
use crate::pool::PoolName;
use crate::process;

/// The name that a plan has which is about no pool: no pool can have it.
pub const NO_POOL: &str = "@boot";

/// Folders that are empty after a boot, or may be.
const SHORT_LIVED: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev"];

/// What decides whether pools can be brought up at boot, and how.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What brings up the pool that was asked about.
    pub activator: Option<PathBuf>,
    /// Who is told what runs at boot; nothing when it is nobody that dmpool knows.
    registrar: Option<Registrar>,
    /// What it is called there.
    name: String,
    /// The command line, or why this program has none that lasts.
    line: Result<String, String>,
    /// The file that says so, and what it says now.
    target: Option<Result<Target, Obstacle>>,
    /// Whether that runs at boot already.
    is_enabled: bool,
    /// The pool that was asked about, with those that are registered; none when it was asked for all of them.
    pools: Vec<PoolName>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// None when it is done already.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Has all registered pools brought up at every boot, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn set_up(kit: &Kit, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, NO_POOL)?;
    let first = whole(&look(kit, None))?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    gate::no_interrupted(kit, NO_POOL)?;
    let plan = whole(&look(kit, None))?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

fn whole(facts: &Facts) -> Outcome<Plan> {
    let what = "have the registered pools brought up at boot".to_owned();
    let Planned { steps, mut notes } = plan(facts, &|why| Failure::refused(format!("cannot {what}: {why}")))?;
    if steps.is_empty() {
        notes.push("the registered pools are brought up at boot already, just so: unchanged".to_owned());
    }
    Ok(Plan { operation: Operation::AtBoot, pool: NO_POOL.to_owned(), what, steps, notes })
}

/// Looks at how the machine boots, and who brings that pool up then.
pub fn look(kit: &Kit, pool: Option<&str>) -> Facts {
    let base = Path::new("/");
    let registrar = registrar();
    let state = kit.state.directory.as_deref().and_then(|directory| std::path::absolute(directory).ok());
    let activator = pool.and_then(|pool| found::activator(base, pool, state.as_deref()));
    let name = name(state.as_deref());
    let program = program(kit);
    let with = |verb: &str| Ok(plain(&program.clone()?)? + " " + verb + &option(state.as_deref())?);
    let line = with(&format!("activate --all --wait {}", text::WAIT));
    let text = |line: String| {
        Ok(match registrar {
            Some(Registrar::Systemctl) => text::unit(&line),
            _ => text::script(&name, &line, &with("list")?),
        })
    };
    let target = registrar.zip(line.clone().and_then(text).ok()).map(|(registrar, after)| {
        let path = registrar.file(&name);
        configure::text_of(&path).map(|before| Target::look(Edit { path, before, after }))
    });
    let is_enabled = registrar.is_some_and(|registrar| registrar.has_enabled(base, &name));
    let own = pool.and_then(|pool| PoolName::new(pool).ok());
    let pools = own.map_or_else(Vec::new, |own| {
        let registered = registry::names(&kit.state).unwrap_or_default();
        registered.into_iter().chain([own]).collect()
    });
    Facts { activator, registrar, name, line, target, is_enabled, pools }
}

/// Decides what is written, and who is told of it.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Planned> {
    let line = facts.line.as_ref().map_err(|why| {
        refuse(format!("this dmpool is not there at the next boot: {why}"))
            .next("put it where it stays:  install -m 0755 dmpool /usr/local/sbin/dmpool    # and run that one")
    })?;
    let (Some(registrar), Some(target)) = (facts.registrar, &facts.target) else {
        return Err(refuse("neither systemd nor update-rc.d nor chkconfig says what runs then".to_owned())
            .next(format!("put this line where it runs before Docker and containerd:  {line}")));
    };
    let target = target.as_ref().map_err(|obstacle| crate::ops::target::refusal(obstacle, refuse))?;
    let path = target.path.display();
    let mut planned = Planned::default();
    match &target.edit.before {
        Some(before) if *before != target.edit.after => {
            let difference =
                TextDiff::from_lines(before, &target.edit.after).unified_diff().context_radius(0).to_string();
            return Err(refuse(format!("`{path}` is there and says something else"))
                .fact("differs", difference)
                .fact("state", "nothing was touched; what somebody wrote is not written over")
                .next(format!(
                    "keep it, if it brings the pools up; or:  mv {path} {path}.old    # and run this again"
                )));
        }
        Some(_) => {}
        None => {
            let reader = if registrar == Registrar::Systemctl { Reader::Systemd } else { Reader::Later };
            let write = target.write(reader, refuse)?;
            let (program, pools) = (registrar != Registrar::Systemctl, facts.pools.clone());
            planned.steps.push(WriteConfig { program, pools, ..write }.into());
        }
    }
    if !facts.is_enabled {
        planned.steps.push(EnableAtBoot { name: facts.name.clone(), registrar, pools: facts.pools.clone() }.into());
    }
    if !planned.steps.is_empty() {
        planned.notes.push(format!("{path} brings every registered pool up at boot, before Docker and containerd"));
    }
    Ok(planned)
}

/// Decides the same for a pool that is made for an engine: what cannot be done is only told, and who brings it up already is
/// left alone.
pub fn plan_if_missing(facts: &Facts) -> Planned {
    if facts.activator.is_some() {
        return Planned::default();
    }
    plan(facts, &|why| Failure::refused(why)).unwrap_or_else(|failure| {
        let next = failure.next.unwrap_or_default();
        let note = format!("nothing brings the pool up at boot: {}; {next}", failure.what);
        Planned { steps: Vec::new(), notes: vec![note] }
    })
}

fn registrar() -> Option<Registrar> {
    let scripts = [(Registrar::UpdateRcD, "update-rc.d"), (Registrar::Chkconfig, "chkconfig")];
    match is_systemd() {
        true => Some(Registrar::Systemctl),
        false if !Path::new("/etc/init.d").is_dir() => None,
        false => scripts.into_iter().find(|(_, program)| process::is_there(program)).map(|(registrar, _)| registrar),
    }
}

/// Returns the name of what is written: each state directory has one of its own.
fn name(state: Option<&Path>) -> String {
    let of = |state: &Path| {
        let text = state.to_string_lossy().into_owned();
        text.trim_matches('/').replace(|c: char| !c.is_ascii_alphanumeric() && !"_.".contains(c), "-")
    };
    state.map_or_else(|| "dmpool-activate".to_owned(), |state| format!("dmpool-activate-{}", of(state)))
}

fn option(state: Option<&Path>) -> Result<String, String> {
    state.map_or(Ok(String::new()), |state| Ok(format!(" --state-dir {}", plain(state)?)))
}

/// Returns a path that neither systemd nor a shell reads as anything else.
fn plain(path: &Path) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+,@:".contains(c);
    let text = path.to_string_lossy().into_owned();
    if text.chars().all(is_plain) {
        Ok(text)
    } else {
        Err(format!("`{text}` has characters that mean something else there"))
    }
}

/// Returns where this program is, when it is there at the next boot too.
fn program(kit: &Kit) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("where it is cannot be read ({e})"))?;
    let path = program.display();
    // The kernel's mark on the name of a file that is gone.
    if fs::metadata(&program).is_err() {
        return Err(format!("`{path}` was removed or replaced since it was started"));
    }
    let folder = SHORT_LIVED.iter().find(|folder| program.starts_with(folder));
    if let Some(folder) = folder {
        return Err(format!("`{path}` is below {folder}, which may be empty then"));
    }
    if let Some(fs) = FsFacts::of(&program).ok().filter(|fs| ["tmpfs", "ramfs"].contains(&fs.fs_type.as_str())) {
        return Err(format!("`{path}` is in memory ({})", fs.fs_type));
    }
    match pool_under(kit, &program) {
        Some(pool) => Err(format!("`{path}` lies on the pool `{pool}` itself")),
        None => Ok(program),
    }
}

fn pool_under(kit: &Kit, program: &Path) -> Option<String> {
    let is_under = |name: &str| {
        let info = kit.dm.info(&DmId::name(name)).ok().flatten();
        info.is_some_and(|info| ground::lies_on(program, info.devno))
    };
    let names = registry::names(&kit.state).unwrap_or_default();
    names.iter().map(ToString::to_string).find(|name| is_under(name))
}
