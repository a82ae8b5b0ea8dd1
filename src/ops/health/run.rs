//! `health`: every pool looked at and judged, within a limit, whatever hangs.
//!
//! All of it is asked of a child that can be given up, theme after theme: what has been judged stands, and what was not
//! reached is unknown.

use std::cell::RefCell;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Thresholds, disk_name, disk_names, docker_log, down, filling, hung, lvm, owners, registered, space, start, stray,
    unprivileged, users, volume_findings, volumes,
};
use crate::error::Failure;
use crate::kernel::ask;
use crate::kernel::dm::{Dm, DmUnavailable};
use crate::ops::boot::found;
use crate::ops::find::{self, All, Found};
use crate::ops::status::{self, Status};
use crate::ops::steps::Kit;
use crate::ops::{State, gate, sight, told};
use crate::pool::{Finding, Key, Limit, PoolReport, Severity, Space, VolumeGroup, finding};
use crate::units::Bytes;

/// What `health` is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pool, as every command takes it; all of them when there is none.
    pub pool: Option<String>,
    /// From when on a use is bad.
    pub thresholds: Thresholds,
    /// How long everything together may take.
    pub limit: Duration,
    /// How bad it is that there is no pool at all.
    pub no_pool: Severity,
}

/// How one pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHealth {
    /// Its dm name; nothing for what belongs to no pool.
    pub name: Option<String>,
    /// The word by which commands name it, which stays when the dm name changes.
    pub argument: String,
    /// The use of its data, when it is known.
    pub data: Option<Space>,
    /// The use of its metadata, when it is known.
    pub metadata: Option<Space>,
    /// Which limit a writer meets first, and after how much, when it is known.
    pub binds_first: Option<(Limit, Bytes)>,
    /// Whether LVM may extend the pool before that, and did not say.
    pub unless_extended: bool,
    /// What LVM says of the volume group of a pool that it made.
    pub volume_group: Option<VolumeGroup>,
    /// What is wrong with it, or worth knowing, the worst first.
    pub findings: Vec<Finding>,
}

impl PoolHealth {
    fn take_numbers(&mut self, pool: &PoolReport) {
        self.argument = pool.argument.clone();
        (self.data, self.metadata) = (pool.data_space(), pool.metadata_space());
        (self.binds_first, self.unless_extended) = (pool.binding_limit(), pool.may_be_extended());
        self.volume_group = pool.volume_group.clone();
    }
}

/// How all pools are that were asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The pools, the worst first.
    pub pools: Vec<PoolHealth>,
}

impl Health {
    /// Returns the finding that decides, and the pool it is about; nothing when all is well.
    pub fn verdict(&self) -> Option<(&PoolHealth, &Finding)> {
        let pool = self.pools.first()?;
        finding::verdict(&pool.findings).map(|finding| (pool, finding))
    }

    /// Returns the worst severity; [`Severity::Info`] when all is well.
    pub fn severity(&self) -> Severity {
        self.verdict().map_or(Severity::Info, |(_, finding)| finding.severity)
    }
}

/// One answer of the child: what it found out about the pools, each time more.
type Answer = Vec<PoolHealth>;

/// What has been looked at so far, in the child.
#[derive(Default)]
struct Seen {
    kit: Option<Kit>,
    statuses: Vec<Status>,
    pools: Answer,
    /// The pools whose status hangs: they are not asked again.
    hung: Vec<String>,
}

/// What is left for a pool that is known to hang.
const MOMENT: Duration = Duration::from_millis(200);

/// Looks at the pools and judges them. Never fails: what goes wrong is a finding.
pub fn health(state: State, options: &Options) -> Health {
    let seen = RefCell::new(Seen::default());
    let mut state = Some(state);
    let mut base = || look(&mut seen.borrow_mut(), state.take(), options);
    let mut volumes = || with_volumes(&mut seen.borrow_mut(), &options.thresholds);
    let mut files = || with_files(&mut seen.borrow_mut(), options.pool.is_none(), options.limit / 4);
    let mut programs = || with_programs(&mut seen.borrow_mut(), &options.thresholds, options.limit / 4);
    let answers = ask::in_turn_within(options.limit, &mut [&mut base, &mut volumes, &mut files, &mut programs]);
    let mut pools = Answer::new();
    let mut given_up = None;
    for (answer, what) in answers.into_iter().zip(THEMES) {
        match answer {
            Ok(more) => pools = more,
            Err(why) => given_up = given_up.or(Some(format!("not seen: {what}: {why}"))),
        }
    }
    if let Some(sentence) = given_up {
        let way = "dmesg | tail -50";
        pools.push(of_machine(Finding::new(Key::NotSeen, Severity::Unknown, MACHINE, sentence).run(way, "online")));
    }
    for pool in &mut pools {
        finding::sort(&mut pool.findings);
    }
    let worst = |pool: &PoolHealth| pool.findings.first().map(|f| f.severity);
    pools.sort_by(|a, b| worst(b).cmp(&worst(a)).then_with(|| a.argument.cmp(&b.argument)));
    Health { pools }
}

/// What each question of the child is about.
const THEMES: [&str; 4] =
    ["the pools", "their volumes", "their files and Docker's daemon", "what LVM, systemd and Docker's log say"];
/// The object of what belongs to no pool.
const MACHINE: &str = "this machine";

fn of_machine(finding: Finding) -> PoolHealth {
    PoolHealth { argument: MACHINE.to_owned(), findings: vec![finding], ..PoolHealth::default() }
}

/// A pool that was named and is not there is never as it should be.
fn no_pool(options: &Options, sentence: &str) -> Finding {
    let severity = if options.pool.is_some() { Severity::Unknown } else { options.no_pool };
    Finding::new(Key::NotSeen, severity, MACHINE, sentence)
}

/// A kernel without device-mapper has no pool; with it, there may be one.
fn no_kernel_support(options: &Options, why: &DmUnavailable, module: &str, loadable: bool) -> Finding {
    let finding = no_pool(options, &format!("there is no thin pool: {why}"));
    match loadable {
        true => finding.run(gate::modprobe(module), "online; then run this again"),
        false => finding.act(gate::OTHER_KERNEL, "a reboot"),
    }
}

/// A failure as a finding: nobody knows how the pool is.
fn of_failure(object: &str, failure: &Failure) -> Finding {
    let cause = failure.source.as_ref().map(|e| format!(": {}", e.root_cause())).unwrap_or_default();
    let finding = Finding::new(Key::NotSeen, Severity::Unknown, object, format!("{}{cause}", failure.what));
    match &failure.next {
        Some(next) => finding.act(next.clone(), "online"),
        None => finding,
    }
}

/// The first question: kernel, superblocks and Docker's files, as `status` reads them.
fn look(seen: &mut Seen, state: Option<State>, options: &Options) -> Answer {
    let Some(state) = state else { return Answer::new() };
    // One pool that hangs shall not use up the time of the others.
    let share = (options.limit / 4).max(Duration::from_secs(1));
    ask::limit_each(share);
    if let Err(why @ DmUnavailable::NoKernelSupport { module, loadable }) = Dm::open() {
        seen.pools.push(of_machine(no_kernel_support(options, &why, module, loadable)));
        return seen.pools.clone();
    }
    let kit = match gate::open(state) {
        Ok(kit) => kit,
        Err(failure) => {
            seen.pools = unprivileged::look(&failure, &options.thresholds);
            return seen.pools.clone();
        }
    };
    let found = match &options.pool {
        Some(argument) => {
            find::find(&kit.dm, &kit.state, argument).map(|found| All { found: vec![found], broken: Vec::new() })
        }
        None => find::find_all(&kit.dm, &kit.state),
    };
    let found = match found {
        Ok(All { found, broken }) => {
            seen.pools.extend(broken.iter().map(|failure| of_machine(of_failure(MACHINE, failure))));
            found
        }
        Err(failure) => {
            seen.pools.push(of_machine(of_failure(MACHINE, &failure)));
            return seen.pools.clone();
        }
    };
    if found.is_empty() {
        seen.pools.push(of_machine(no_pool(options, "there is no thin pool")));
    }
    let (answers, hangs) = by_answer(&kit, found, share);
    for found in answers {
        one(seen, &kit, found, &options.thresholds);
    }
    // Of these it is known; what their files say is still worth a moment.
    ask::limit_each(share.min(MOMENT));
    for found in hangs {
        seen.hung.push(found.name.clone());
        one(seen, &kit, found, &options.thresholds);
    }
    ask::limit_each(share);
    seen.kit = Some(kit);
    seen.pools.clone()
}

/// Returns the pools whose status comes, and those whose status does not: all are asked at once, so that those that hang
/// take their time once and not each.
fn by_answer(kit: &Kit, found: Vec<Found>, share: Duration) -> (Vec<Found>, Vec<Found>) {
    let status = |name: &str| sight::status(&kit.dm, name).is_ok();
    let mut questions: Vec<_> = found.iter().map(|found| || status(&found.name)).collect();
    let mut questions: Vec<&mut dyn FnMut() -> bool> = questions.iter_mut().map(|q| q as _).collect();
    let answers = ask::all_within(share, &mut questions);
    drop(questions);
    let (answer, hang): (Vec<_>, Vec<_>) = found.into_iter().zip(answers).partition(|(_, answer)| answer.is_ok());
    let names = |pools: Vec<(Found, _)>| pools.into_iter().map(|(found, _)| found).collect();
    (names(answer), names(hang))
}

fn one(seen: &mut Seen, kit: &Kit, found: Found, thresholds: &Thresholds) {
    let name = found.name.clone();
    match status::of(kit, found, thresholds) {
        Ok(status) => {
            let mut health =
                PoolHealth { name: Some(name), findings: status.findings.clone(), ..PoolHealth::default() };
            health.take_numbers(&status.report);
            seen.pools.push(health);
            seen.statuses.push(status);
        }
        Err(failure) => seen.pools.push(PoolHealth {
            findings: vec![of_failure(&name, &failure)],
            argument: name.clone(),
            name: Some(name),
            ..PoolHealth::default()
        }),
    }
}

/// Adds to the findings of a pool; one of the same key and object says more than the one before, and takes its place.
fn add(pools: &mut [PoolHealth], pool: &PoolReport, more: impl IntoIterator<Item = Finding>) {
    let Some(of_pool) = pools.iter_mut().find(|p| p.name.as_deref() == Some(&pool.name)) else { return };
    for finding in more {
        let same = |f: &&mut Finding| f.key == finding.key && f.object == finding.object;
        match of_pool.findings.iter_mut().find(same) {
            // Two things that were not seen are two.
            Some(before) if finding.key != Key::NotSeen => *before = finding,
            Some(_) | None => of_pool.findings.push(finding),
        }
    }
}

fn with_volumes(seen: &mut Seen, thresholds: &Thresholds) -> Answer {
    let Seen { kit: Some(kit), statuses, pools, hung } = seen else { return seen.pools.clone() };
    for status in statuses.iter().filter(|status| !hung.contains(&status.report.name)) {
        let (pool, root) = (&status.report, status.docker.as_ref());
        let facts = status.facts();
        let owners = root.map(owners::Owners::read);
        let docker = root.zip(owners.as_ref());
        match volumes::look(&kit.dm, pool, docker) {
            Ok(volumes) => add(pools, pool, volume_findings::judge(&facts, thresholds, &volumes)),
            Err(e) => {
                let sentence = format!("not seen: its volumes: {}", e.root_cause());
                add(pools, pool, [Finding::new(Key::NotSeen, Severity::Unknown, &pool.name, sentence)]);
            }
        }
        add(pools, pool, owners.iter().filter_map(|owners| volume_findings::above_base(&facts, owners)));
        add(pools, pool, registered::look(kit, pool));
    }
    seen.pools.clone()
}

fn with_files(seen: &mut Seen, whole_machine: bool, limit: Duration) -> Answer {
    let Seen { kit: Some(kit), statuses, pools, .. } = seen else { return seen.pools.clone() };
    let state = kit.state.directory.as_deref();
    for status in statuses.iter() {
        let facts = status.facts();
        let binds = status.findings.iter().any(|f| f.key == Key::HostFileSystem);
        if let Some(root) = status.docker.as_ref().filter(|_| binds) {
            let filling = filling::look(root, &status.report);
            add(pools, &status.report, filling::judge(&status.report, &status.findings, &filling));
        }
        add(pools, &status.report, hung::look(&facts, limit));
        add(pools, &status.report, disk_names::judge(&facts, &disk_name::by_id));
        add(pools, &status.report, users::judge(&status.report, &told::engines(&status.report.name).told));
        let activator = found::activator(std::path::Path::new("/"), &status.report.name, state);
        add(pools, &status.report, start::judge(&facts, activator.as_deref(), &disk_name::by_id));
    }
    let known: Vec<&PoolReport> = statuses.iter().map(|status| &status.report).collect();
    if whole_machine {
        pools.extend(stray::judge(&known, &stray::look()).into_iter().map(of_machine));
    }
    seen.pools.clone()
}

fn with_programs(seen: &mut Seen, thresholds: &Thresholds, limit: Duration) -> Answer {
    let Seen { kit: Some(_), statuses, pools, hung } = seen else { return seen.pools.clone() };
    let stopped = statuses.iter().any(|s| s.docker.as_ref().is_some_and(|root| root.daemon.is_none()));
    let units = docker_log::units(
        statuses.iter().filter_map(|s| s.docker.as_ref()?.starter.as_ref()?.unit().map(str::to_owned)),
    );
    let cause = if stopped { docker_log::look(&units, limit) } else { Ok(None) };
    for status in statuses.iter_mut() {
        let lvm =
            Some(&status.report).filter(|pool| !hung.contains(&pool.name)).and_then(|pool| lvm::look(pool, limit));
        status.report.volume_group = lvm.as_ref().and_then(|lvm| lvm.volume_group(&status.report));

        let facts = status.facts();
        match &cause {
            Ok(cause) => add(pools, &status.report, cause.as_ref().and_then(|cause| down::judge(&facts, cause))),
            Err(why) => add(pools, &status.report, down::not_seen(&facts, why)),
        }
        let Some(lvm) = lvm else { continue };
        add(pools, &status.report, lvm::judge(&facts, &lvm));
        // What LVM adds changes what can be had, and what is said of it.
        add(pools, &status.report, space::judge(&facts, thresholds));
        pools
            .iter_mut()
            .filter(|p| p.name.as_ref() == Some(&status.report.name))
            .for_each(|p| p.take_numbers(&status.report));
    }
    seen.pools.clone()
}
