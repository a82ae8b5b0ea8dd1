//! How Docker will be started next: the command line that systemd, or an init script, will give the daemon.
//!
//! A unit is put together as systemd does it (systemd.unit(5)): the first of its directories that has `docker.service`
//! gives the unit, also by a link (`systemctl link`, an alias); drop-ins come from all of them, for every name that the unit
//! has, sorted by their own names, and one in a more important place replaces its namesakes. Generated and transient units
//! are not looked at: nobody generates Docker's.

pub mod env_file;
pub(crate) mod unit;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use env_file::Reader;
pub use unit::{EnvironmentFile, Unit};
pub use words::Variables;

use super::daemon_json;
use super::docker_root::Problem;
use super::dockerd::{DRIVER_VARIABLE, Flags};
use super::small_file;
use crate::process::quote;

/// Where units are, the most important first.
const UNIT_DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// What the unit is called: by Docker and Debian, and by Red Hat's second package.
const UNITS: [&str; 2] = ["docker.service", "docker-latest.service"];
const SERVICE: &str = ".service";
/// What starts Docker where systemd does not: an init script, or a job of upstart.
const SCRIPTS: [&str; 2] = ["etc/init.d/docker", "etc/init/docker.conf"];

/// Files that init scripts and upstart jobs read with the shell, and the variables in them that hold options.
const INIT_FILES: [(&str, &[&str]); 3] = [
    ("etc/default/docker", &["DOCKER_OPTS"]),
    ("etc/sysconfig/docker", &["OPTIONS", "other_args", "OTHER_ARGS"]),
    ("etc/sysconfig/docker-storage", &["DOCKER_STORAGE_OPTIONS"]),
];

/// What Red Hat's program writes into, before Docker starts, what it was told in the other.
const STORAGE: &str = "etc/sysconfig/docker-storage";
const STORAGE_SETUP: &str = "etc/sysconfig/docker-storage-setup";
const STORAGE_OPTIONS: &str = "DOCKER_STORAGE_OPTIONS";
/// The settings that make it do so.
const STORAGE_SETTINGS: [&str; 5] = ["STORAGE_DRIVER", "VG", "DEVS", "CONTAINER_THINPOOL", "EXTRA_STORAGE_OPTIONS"];

/// No unit or sysconfig file in use comes near this.
const LARGEST: u64 = 1 << 20;

/// Files by path, with what they shall say: read instead of what they say now.
pub type Instead = BTreeMap<PathBuf, String>;

/// How the next daemon will be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// What its command line will say of storage; nothing when that cannot be told.
    pub flags: Option<Flags>,
    /// The file that its command line is in: the unit, or the file of the init script.
    pub from: Option<PathBuf>,
    /// The name of its unit; nothing when it has none.
    pub unit: Option<&'static str>,
    /// The storage driver that its environment will name ([`DRIVER_VARIABLE`]).
    pub driver_variable: Option<String>,
    /// Every file that was read for it.
    pub sources: Vec<Source>,
    /// What was wrong with one of these.
    pub problems: Vec<Problem>,
    instead: Instead,
}

/// What starts and stops Docker on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Starter {
    /// A unit of systemd, without its suffix.
    Unit(String),
    /// An init script or a job of upstart, where systemd does not run the machine.
    Script(String),
}

impl Starter {
    /// Returns the command that does that with it: `start`, `stop`, `restart`.
    pub fn command(&self, verb: &str) -> String {
        match self {
            Self::Unit(unit) => format!("systemctl {verb} {}", quote(unit)),
            Self::Script(script) => format!("service {} {verb}", quote(script)),
        }
    }

    /// Returns the unit, when it is one.
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Unit(unit) => Some(unit),
            Self::Script(_) => None,
        }
    }
}

/// A file that says something of how Docker is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// What it is.
    pub kind: SourceKind,
}

/// What a file is that says how Docker is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A unit, or a drop-in of one.
    Unit,
    /// A file of variables.
    Variables(Reader),
}

/// Reads how Docker will be started on the machine whose root directory that is (`/`). `from` is empty when nothing there
/// says it: then somebody starts it by hand.
pub fn read(base: &Path) -> Start {
    read_instead(base, Instead::new())
}

/// Returns what [`read`] would, did some files say something else.
pub fn read_instead(base: &Path, instead: Instead) -> Start {
    let mut start = Start { instead, ..Start::default() };
    let masked = match find_unit(base, &UNITS, &mut start) {
        Some(Placed::Unit(name, path, text)) => {
            of_unit(base, name, path, &text, &mut start);
            return start;
        }
        Some(Placed::Masked) => true,
        None => false,
    };
    if !masked {
        of_init_files(base, &mut start);
    }
    start
}

/// Reads the words with which a service of that name (`containerd.service`) starts its program on such a machine; nothing
/// when there is no such unit, or they cannot be told, which is a problem.
pub(super) fn service(base: &Path, name: &'static str) -> (Option<Vec<String>>, Vec<Problem>) {
    let mut start = Start::default();
    let words = match find_unit(base, &[name], &mut start) {
        Some(Placed::Unit(name, path, text)) => {
            let read = Service::read(base, name, &path, &text, &mut start);
            read.words.filter(|_| read.whole)
        }
        Some(Placed::Masked) | None => None,
    };
    (words, start.problems)
}

enum Placed {
    Unit(&'static str, PathBuf, String),
    Masked,
}

fn find_unit(base: &Path, names: &[&'static str], start: &mut Start) -> Option<Placed> {
    let mut masked = false;
    for name in names {
        for directory in UNIT_DIRECTORIES {
            let path = base.join(directory).join(name);
            match fs::symlink_metadata(&path) {
                // An alias of the other unit, or `systemctl mask`.
                Ok(found) if found.is_symlink() && leads_to_null(&path) => {
                    masked = true;
                    break;
                }
                Ok(_) => {
                    if let Some(text) = start.text(&path, SourceKind::Unit) {
                        return Some(Placed::Unit(name, path, text));
                    }
                }
                Err(_) => {}
            }
        }
    }
    masked.then_some(Placed::Masked)
}

fn leads_to_null(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// How a unit starts its program.
struct Service {
    /// The words of its command line; nothing when it has none that systemd takes.
    words: Option<Vec<String>>,
    /// All variables that it gives.
    variables: Variables,
    /// Whether all of that could be read.
    whole: bool,
}

impl Service {
    fn read(base: &Path, name: &str, path: &Path, text: &str, start: &mut Start) -> Self {
        let mut unit = Unit::default();
        unit.read(text);
        for drop_in in drop_ins(base, &names_of(name, path), &start.instead) {
            if let Some(text) = start.text(&drop_in, SourceKind::Unit) {
                unit.read(&text);
            }
        }
        let mut variables = unit.environment.clone();
        let mut whole = true;
        for file in &unit.environment_files {
            let at = below(base, Path::new(&file.path));
            let before = start.problems.len();
            match start.text(&at, SourceKind::Variables(Reader::Systemd)) {
                Some(text) => env_file::read_into(&mut variables, &text, Reader::Systemd),
                None if start.problems.len() > before => whole = false,
                None if file.optional => {}
                None => {
                    let why = format!("it names {}, which is missing, so systemd does not start it", file.path);
                    start.problem(path, why);
                    whole = false;
                }
            }
        }
        let words = unit.command(&variables);
        match (&words, unit.exec_start.is_empty()) {
            (Some(_), _) => {}
            (None, true) => start.problem(path, "it has no ExecStart=".to_owned()),
            (None, false) => start.problem(path, "it has more than one ExecStart=, which systemd refuses".to_owned()),
        }
        Self { words, variables, whole }
    }
}

fn of_unit(base: &Path, name: &'static str, path: PathBuf, text: &str, start: &mut Start) {
    start.unit = Some(name);
    let Service { words, variables, mut whole } = Service::read(base, name, &path, text, start);
    start.driver_variable = variables.get(DRIVER_VARIABLE).filter(|driver| !driver.is_empty()).cloned();
    let storage = variables.get(STORAGE_OPTIONS).is_some_and(|options| !options.trim().is_empty());
    if !storage && will_be_set_up(base, start) {
        whole = false;
    }
    if let Some(words) = words {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        start.flags = whole.then(|| Flags::of_words(&words)).flatten();
        if whole && start.flags.is_none() {
            start.problem(&path, format!("it starts `{}`, which is no dockerd", words.join(" ")));
        }
    }
    start.from = Some(path);
}

/// Whether Red Hat's docker-storage-setup was told something that it has not yet written into the daemon's options.
fn will_be_set_up(base: &Path, start: &mut Start) -> bool {
    if !base.join(STORAGE).exists() {
        return false;
    }
    let path = base.join(STORAGE_SETUP);
    let Some(text) = start.text(&path, SourceKind::Variables(Reader::Shell)) else { return false };
    let mut settings = Variables::new();
    env_file::read_into(&mut settings, &text, Reader::Shell);
    let set = STORAGE_SETTINGS.into_iter().find(|name| settings.get(*name).is_some_and(|value| !value.is_empty()));
    if let Some(name) = set {
        start.problem(&path, format!("it sets {name}, and {STORAGE} has no {STORAGE_OPTIONS} yet"));
    }
    set.is_some()
}

/// The options that an init script gives: those variables of its files, one after the other.
fn of_init_files(base: &Path, start: &mut Start) {
    let mut options = String::new();
    for (file, names) in INIT_FILES {
        let path = base.join(file);
        let Some(text) = start.text(&path, SourceKind::Variables(Reader::Shell)) else { continue };
        let mut variables = Variables::new();
        env_file::read_into(&mut variables, &text, Reader::Shell);
        for name in names {
            if let Some(value) = variables.get(*name) {
                options.push_str(value);
                options.push(' ');
                start.from.get_or_insert_with(|| path.clone());
            }
        }
    }
    if start.from.is_some() && start.problems.is_empty() {
        let words = words::split(&options, words::Backslash::Plain);
        let words: Vec<&str> = std::iter::once("dockerd").chain(words.iter().map(String::as_str)).collect();
        start.flags = Flags::of_words(&words);
    }
}

/// Returns the names by which a unit's drop-ins go, the most important first: its own, that of the file that it is a link
/// to, what each begins with up to a dash (`docker-.service`), and that of all services.
fn names_of(unit: &str, path: &Path) -> Vec<String> {
    let linked = if path.is_symlink() { path.canonicalize().ok() } else { None };
    let linked = linked.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let mut names = vec![unit.to_owned()];
    names.extend(linked.filter(|name| name.ends_with(SERVICE)).map(str::to_owned));
    names.dedup();
    let beginnings = |name: &String| {
        let stem = name.strip_suffix(SERVICE).unwrap_or(name).to_owned();
        let dashes: Vec<usize> = stem.rmatch_indices('-').map(|(at, _)| at).filter(|at| at + 1 < stem.len()).collect();
        dashes.into_iter().filter_map(move |at| Some(format!("{}{SERVICE}", stem.get(..=at)?)))
    };
    let begun: Vec<String> = names.iter().flat_map(beginnings).collect();
    names.extend(begun);
    names.push(SERVICE.trim_start_matches('.').to_owned());
    names
}

/// Returns the drop-ins of a unit of these names in the order in which they are read.
fn drop_ins(base: &Path, names: &[String], instead: &Instead) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for unit in names {
        for directory in UNIT_DIRECTORIES {
            let directory = base.join(directory).join(format!("{unit}.d"));
            let there = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
            let new = instead.keys().filter(|path| path.parent() == Some(directory.as_path())).cloned();
            for path in there.chain(new).filter(|path| path.extension().is_some_and(|extension| extension == "conf")) {
                if let Some(name) = path.file_name().map(ToOwned::to_owned) {
                    by_name.entry(name).or_insert(path);
                }
            }
        }
    }
    by_name.into_values().filter(|path| !leads_to_null(path)).collect()
}

/// Returns an absolute path of that machine as it is seen from here.
pub(super) fn below(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

impl Start {
    /// Returns what starts it on the machine whose root directory that is; nothing when somebody does by hand.
    pub fn starter(&self, base: &Path) -> Option<Starter> {
        // sd_booted(3)
        if base.join("run/systemd/system").is_dir() {
            let name = self.from.as_ref()?.file_name()?.to_str()?;
            return name.strip_suffix(SERVICE).map(|unit| Starter::Unit(unit.to_owned()));
        }
        SCRIPTS.iter().any(|file| base.join(file).exists()).then(|| Starter::Script("docker".to_owned()))
    }

    /// Returns the configuration file that it will read, as it is seen from here.
    pub fn daemon_json(&self, base: &Path) -> PathBuf {
        let named = self.flags.as_ref().and_then(|flags| flags.config_file.as_deref());
        below(base, named.unwrap_or(Path::new(daemon_json::DEFAULT_PATH)))
    }

    /// Returns the text of a file; nothing when it is not there, or cannot be read, which is a problem.
    fn text(&mut self, path: &Path, kind: SourceKind) -> Option<String> {
        let read = match self.instead.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => small_file::read_at(path, LARGEST),
        };
        match read {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                self.sources.push(Source { path: path.to_owned(), text: text.clone(), kind });
                Some(text)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.problem(path, error.to_string());
                None
            }
        }
    }

    fn problem(&mut self, path: &Path, why: String) {
        self.problems.push(Problem { path: path.to_owned(), why });
    }
}

#[cfg(test)]
mod tests;
