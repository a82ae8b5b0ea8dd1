//! Telling Docker to use a pool: where its storage options are now, there they are changed.
//!
//! Docker refuses to start when a key is on its command line and in `daemon.json` (`findConfigurationConflicts`,
//! daemon/config/config.go), so each of `storage-driver` and `storage-opts` stays in the place that it has, and one that
//! is nowhere goes beside the other; both to `daemon.json` when there is none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::command_line::Change;
use super::json::{self, Unfit};
use super::{Edit, Obstacle, env_file, unit};
use crate::engine::configuration::Configuration;
use crate::engine::dockerd::{DRIVER_VARIABLE, Dockerd, Flags};
use crate::engine::start::{self, Instead, SourceKind, Start, Starter, below};
use crate::process::quote;

const DRIVER: &str = "devicemapper";
const OVERLAY2: &str = "overlay2";
/// What the keys of devicemapper's options begin with.
const DM: &str = "dm.";
/// The two keys that say which storage Docker uses (`storage-opts` is `--storage-opt` on the command line).
const KEYS: [&str; 2] = ["storage-driver", "storage-opts"];
/// Options that name another storage than `dm.thinpooldev` does.
const OTHER_STORAGE: [&str; 3] = ["dm.directlvm_device", "dm.datadev", "dm.metadatadev"];
/// What the keys begin with that say where Docker's pool is. What `dm.directlvm_device` is made with goes with it: Docker refuses to
/// start with one that is not as it was (`initDevmapper`, daemon/graphdriver/devmapper/deviceset.go).
pub const PLACES: [&str; 5] = ["dm.thinpooldev", "dm.directlvm_device", "dm.thinp_", "dm.datadev", "dm.metadatadev"];
/// Those of the pool that Docker makes itself with LVM, beside which it takes no `dm.thinpooldev`.
pub const DIRECT_LVM: [&str; 2] = ["dm.directlvm_device", "dm.thinp_"];
/// Where units of the machine's own administrator are: a file there may be changed, others are a package's.
const OWN_UNITS: &str = "etc/systemd/system";

/// What Docker shall use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'w> {
    /// The pool's dm name.
    pub pool: &'w str,
    /// Whether Docker shall discard what it deletes (`dm.blkdiscard`), unless it is told already.
    pub discard: bool,
}

/// How Docker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The files to be written; none when Docker is told already.
    pub edits: Vec<Edit>,
    /// The root that the next daemon uses, as it is seen from here.
    pub root: PathBuf,
    /// The storage driver that it had by name, when it was another.
    pub driver_before: Option<String>,
    /// What starts Docker; nothing when somebody does by hand.
    pub starter: Option<Starter>,
    /// Whether containers go on while the daemon is away (`live-restore`).
    pub live_restore: bool,
}

/// Returns how the Docker of the machine whose root directory that is (`/`) is told to use a pool, given the daemons that
/// run there.
///
/// # Errors
/// Every reason not to do it.
pub fn tell(base: &Path, wanted: &Wanted<'_>, running: &[Dockerd]) -> Result<Telling, Obstacle> {
    add(base, running, &[], |given| {
        names_no_other(given, wanted)?;
        let lacks = |key: &str| given.iter().all(|option| key_of(option) != key);
        let mut options = Vec::new();
        if lacks("dm.thinpooldev") {
            options.push(format!("dm.thinpooldev=/dev/mapper/{}", wanted.pool));
        }
        if lacks("dm.blkdiscard") {
            options.push(format!("dm.blkdiscard={}", wanted.discard));
        }
        Ok(options)
    })
}

/// Returns how that Docker is told storage options beside those that it has: `wanted` makes them of what it is given. Of two with
/// one key the later counts. Those go whose keys begin with one of `gone`.
///
/// # Errors
/// Every reason not to do it.
pub fn add(
    base: &Path,
    running: &[Dockerd],
    gone: &[&str],
    wanted: impl Fn(&[&str]) -> Result<Vec<String>, Obstacle>,
) -> Result<Telling, Obstacle> {
    let start = start::read(base);
    let now = Configuration::of_start(base, &start, &Instead::new());
    can_be_told(&start, &now, running)?;
    may_be_told(&now)?;
    let driver_before = now.driver().filter(|driver| *driver != DRIVER).map(str::to_owned);
    let goes = |option: &str| gone.iter().any(|prefix| key_of(option).starts_with(prefix));
    let mut given = now.given_options();
    let options = wanted(&given)?;
    let without = if given.iter().any(|option| goes(option)) { gone } else { &[] };
    let mut new = Instead::new();
    let [driver_at, options_at] = places(&start, &now);
    let driver = (now.driver() != Some(DRIVER)).then_some(DRIVER);
    if driver_at == options_at {
        write(base, &start, driver_at, &Change { driver, options: &options, without }, &mut new)?;
    } else {
        write(base, &start, driver_at, &Change { driver, ..Change::default() }, &mut new)?;
        write(base, &start, options_at, &Change { options: &options, without, ..Change::default() }, &mut new)?;
    }
    given.retain(|option| !goes(option));
    given.extend(options.iter().map(String::as_str));
    says_what_is_wanted(base, &now, (DRIVER, &given), &new)?;
    telling(base, &now, driver_before, new)
}

fn telling(base: &Path, now: &Configuration, driver_before: Option<String>, new: Instead) -> Result<Telling, Obstacle> {
    Ok(Telling {
        edits: new.into_iter().map(|(path, after)| edit(path, after)).collect::<Result<_, _>>()?,
        root: below(base, &now.root()),
        driver_before,
        starter: now.starter.clone(),
        live_restore: is_on(now, "live-restore"),
    })
}

/// Returns how that Docker is told to use overlay2, and of no option of devicemapper's, with which overlay2 does not start
/// (`overlay2: unknown option`, graphdriver/overlay2/overlay.go).
///
/// # Errors
/// Every reason not to do it.
pub fn tell_overlay2(base: &Path, running: &[Dockerd]) -> Result<Telling, Obstacle> {
    let start = start::read(base);
    let now = Configuration::of_start(base, &start, &Instead::new());
    can_be_told(&start, &now, running)?;
    if let Some(driver) = now.driver_variable.as_deref().filter(|driver| *driver != OVERLAY2) {
        return Err(other_by_variable(driver));
    }
    let stays = |option: &str| !key_of(option).starts_with(DM);
    let given: Vec<&str> = now.given_options().into_iter().filter(|option| stays(option)).collect();
    let foreign = |option: &&&str| !key_of(option).starts_with("overlay2.");
    if let Some(option) = given.iter().find(foreign) {
        return Err(Obstacle::new(
            "Docker has a storage option that the overlay2 driver does not start with",
            format!("take {} out, then run this again", quote(option)),
        )
        .found((*option).to_owned()));
    }
    let mut new = Instead::new();
    let [driver_at, options_at] = places(&start, &now);
    let driver = (now.driver() != Some(OVERLAY2)).then_some(OVERLAY2);
    let without: &[&str] = if given.len() == now.given_options().len() { &[] } else { &[DM] };
    if driver_at == options_at {
        write(base, &start, driver_at, &Change { driver, options: &[], without }, &mut new)?;
    } else {
        write(base, &start, driver_at, &Change { driver, ..Change::default() }, &mut new)?;
        write(base, &start, options_at, &Change { without, ..Change::default() }, &mut new)?;
    }
    says_what_is_wanted(base, &now, (OVERLAY2, &given), &new)?;
    telling(base, &now, now.driver().map(str::to_owned), new)
}

/// Refuses when how Docker is started is not known, or it does not start as it is.
fn can_be_told(start: &Start, now: &Configuration, running: &[Dockerd]) -> Result<(), Obstacle> {
    if let Some(problem) = now.problems.first() {
        let path = problem.path.display();
        return Err(Obstacle::new("what Docker is told cannot be read", format!("mend {path}, then run this again"))
            .found(format!("{path}: {}", problem.why)));
    }
    if let Some(twice) = now.twice.first() {
        let (from, file) = (twice.from.display(), twice.file.display());
        return Err(Obstacle::new(
            format!("Docker is told `{}` twice, and does not start so", twice.key),
            format!("take it out of {from} or out of {file}, then run this again"),
        )
        .found(format!("{} in {from}, {} in {file}", twice.flag, twice.value)));
    }
    let by_hand = |daemon: &&Dockerd| KEYS.iter().any(|key| daemon.flags.keys.contains_key(*key));
    if let (None, Some(daemon)) = (&start.from, running.iter().find(by_hand)) {
        return Err(Obstacle::new(
            "Docker has storage options on its command line, and no unit or init script says where that is written",
            "take them from that command line, stop Docker, then run this again: they go to daemon.json",
        )
        .found(format!("process {}: {}", daemon.pid, storage_of(&daemon.flags))));
    }
    Ok(())
}

fn storage_of(flags: &Flags) -> String {
    let driver = flags.storage_driver.iter().map(|driver| format!("--storage-driver {driver}"));
    let options = flags.storage_options.iter().map(|option| format!("--storage-opt {option}"));
    driver.chain(options).collect::<Vec<_>>().join(" ")
}

/// Refuses when Docker uses something else than this driver.
fn may_be_told(now: &Configuration) -> Result<(), Obstacle> {
    let features = now.json.keys.get("features").map(|json| json.replace(' ', ""));
    if features.is_some_and(|json| json.contains("\"containerd-snapshotter\":true")) {
        return Err(Obstacle::new(
            "Docker keeps its images with containerd (`containerd-snapshotter`), and uses no storage driver",
            "set it to false in daemon.json first",
        ));
    }
    if let Some(driver) = now.driver_variable.as_deref().filter(|driver| *driver != DRIVER) {
        return Err(other_by_variable(driver));
    }
    let given = now.given_options();
    let foreign = |option: &&&str| !key_of(option).starts_with("dm.");
    if let Some(option) = given.iter().find(foreign) {
        return Err(Obstacle::new(
            "Docker has a storage option that the devicemapper driver does not start with",
            format!("take {} out, then run this again", quote(option)),
        )
        .found((*option).to_owned()));
    }
    Ok(())
}

/// Refuses when Docker is told of another storage.
fn names_no_other(given: &[&str], wanted: &Wanted<'_>) -> Result<(), Obstacle> {
    let own = format!("/dev/mapper/{}", wanted.pool);
    let names_other = |option: &&&str| {
        let value = option.split_once('=').map_or("", |(_, value)| value.trim());
        match key_of(option).as_str() {
            "dm.thinpooldev" => value != own && value != wanted.pool,
            key => OTHER_STORAGE.contains(&key),
        }
    };
    if let Some(option) = given.iter().find(names_other) {
        return Err(Obstacle::new(
            "Docker is told of another storage already",
            format!("take {} out, when its images and containers are not needed any more", quote(option)),
        )
        .found((*option).to_owned()));
    }
    Ok(())
}

fn other_by_variable(driver: &str) -> Obstacle {
    Obstacle::new(
        format!("{DRIVER_VARIABLE} in Docker's environment names another storage driver, and counts most"),
        format!("take {DRIVER_VARIABLE} out of the unit or the file of variables that sets it, then run this again"),
    )
    .found(format!("{DRIVER_VARIABLE}={driver}"))
}

/// Returns the key of an option. Docker compares keys without regard to case.
pub fn key_of(option: &str) -> String {
    option.split_once('=').map_or(option, |(key, _)| key).trim().to_ascii_lowercase()
}

fn is_on(now: &Configuration, key: &str) -> bool {
    let flag = now.flags.as_ref().and_then(|flags| flags.keys.get(key));
    let flag = flag.is_some_and(|values| values.last().is_none_or(|value| value == "true"));
    flag || now.json.keys.get(key).is_some_and(|value| value == "true")
}

/// Where a key is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    DaemonJson,
    CommandLine,
}

/// Returns where each of [`KEYS`] is told, or shall be.
fn places(start: &Start, now: &Configuration) -> [Place; 2] {
    let place = |key: &str| {
        let on_line = start.flags.as_ref().is_some_and(|flags| flags.keys.contains_key(key));
        match (on_line, now.json.keys.get(key).is_some_and(|value| value != "null")) {
            (true, _) => Some(Place::CommandLine),
            (false, true) => Some(Place::DaemonJson),
            (false, false) => None,
        }
    };
    let [driver, options] = KEYS.map(place);
    [driver.or(options), options.or(driver)].map(|place| place.unwrap_or(Place::DaemonJson))
}

fn write(base: &Path, start: &Start, place: Place, change: &Change<'_>, new: &mut Instead) -> Result<(), Obstacle> {
    if *change == Change::default() {
        return Ok(());
    }
    match place {
        Place::DaemonJson => {
            let path = start.daemon_json(base);
            let text = super::text_of(&path)?.unwrap_or_default();
            let unfit = |unfit| of_unfit(&path, unfit);
            let text = match change.driver {
                Some(driver) => json::set_string(&text, KEYS[0], driver).map_err(unfit)?,
                None => text,
            };
            let text = match change.options {
                [] => text,
                options => json::append_strings(&text, KEYS[1], options).map_err(unfit)?,
            };
            let goes = |option: &str| change.without.iter().any(|prefix| key_of(option).starts_with(prefix));
            let text = match change.without {
                [] => text,
                _ => json::remove_strings(&text, KEYS[1], goes).map_err(unfit)?,
            };
            new.insert(path, text);
        }
        Place::CommandLine => {
            let (path, text) = on_command_line(base, start, change).ok_or_else(|| not_editable(start))?;
            new.insert(path, text);
        }
    }
    Ok(())
}

fn of_unfit(path: &Path, unfit: Unfit) -> Obstacle {
    let path = path.display();
    let next = format!("mend {path}, then run this again");
    match unfit {
        Unfit::Damaged(why) => Obstacle::new(format!("`{path}` is not what Docker reads"), next).found(why),
        Unfit::Twice(key) => Obstacle::new(format!("`{path}` has `{key}` twice"), next),
    }
}

/// Changes the file in which the command line's storage options are: what is read last counts.
fn on_command_line(base: &Path, start: &Start, change: &Change<'_>) -> Option<(PathBuf, String)> {
    let sources = start.sources.iter().rev();
    let variables = sources.clone().find_map(|source| match source.kind {
        SourceKind::Variables(reader) => Some((source.path.clone(), env_file::edited(&source.text, reader, change)?)),
        SourceKind::Unit => None,
    });
    if variables.is_some() {
        return variables;
    }
    let is_command = |source: &&start::Source| source.kind == SourceKind::Unit && unit::has_command(&source.text);
    let source = sources.clone().find(is_command)?;
    let own = base.join(OWN_UNITS);
    if source.path.starts_with(&own) {
        return Some((source.path.clone(), unit::edited(&source.text, change)?));
    }
    let drop_in = own.join(format!("{}.d/dmpool.conf", start.unit?));
    Some((drop_in, unit::drop_in(&source.text, change)?))
}

fn not_editable(start: &Start) -> Obstacle {
    let from = start.from.as_deref().unwrap_or(Path::new("the unit")).display();
    let said = start.flags.as_ref().map(storage_of).unwrap_or_default();
    Obstacle::new(
        "Docker's storage options are on its command line in a way that dmpool does not change",
        format!("take them out of {from} and its files; then run this again: they go to daemon.json"),
    )
    .found(format!("{said}, by {from}"))
}

/// Reads everything again as it will be, and refuses unless it says what it said, with this driver and these options.
fn says_what_is_wanted(
    base: &Path,
    now: &Configuration,
    (driver, options): (&str, &[&str]),
    new: &Instead,
) -> Result<(), Obstacle> {
    let start = start::read_instead(base, new.clone());
    let then = Configuration::of_start(base, &start, new);
    let same = then.driver() == Some(driver)
        && then.given_options() == options
        && then.root() == now.root()
        && other_flags(&then) == other_flags(now)
        && others(&then.json.keys) == others(&now.json.keys)
        && then.twice.is_empty()
        && then.problems.is_empty();
    if same { Ok(()) } else { Err(not_editable(&start)) }
}

/// Returns what is said of anything but the storage.
fn others<T: Clone>(keys: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let mut others = keys.clone();
    others.retain(|key, _| !KEYS.contains(&key.as_str()));
    others
}

fn other_flags(of: &Configuration) -> Option<BTreeMap<String, Vec<String>>> {
    of.flags.as_ref().map(|flags| others(&flags.keys))
}

fn edit(path: PathBuf, after: String) -> Result<Edit, Obstacle> {
    Ok(Edit { before: super::text_of(&path)?, path, after })
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
