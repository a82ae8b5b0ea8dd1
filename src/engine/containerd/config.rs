//! containerd's configuration: a file, and those that it imports.
//!
//! How they come together (`LoadConfig`, cmd/containerd/server/config/config.go): a file counts before those it imports, and
//! each of these more than the one before; a file is read once. Since containerd 2.0 the sections of a plugin are merged, and a
//! relative pattern among the imports is relative to the file that it is in; before, a later section takes the place of an earlier
//! one whole, and such a pattern is relative to the directory that containerd runs in (`resolveImports`). Which containerd will
//! read them is not known here.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::glob::glob;
use crate::engine::docker_root::Problem;
use crate::engine::small_file;
use crate::engine::start::below;

/// The plugin's name since version 2 of configurations, and that of its directory.
pub(super) const PLUGIN: &str = "io.containerd.snapshotter.v1.devmapper";
/// The plugin's name in version 1.
const OLD_PLUGIN: &str = "devmapper";

/// No configuration in use comes near this.
const LARGEST: u64 = 4 << 20;
/// No configuration in use has more files.
const MOST_FILES: usize = 64;

/// Why a configuration says nothing.
#[derive(Debug)]
pub enum BadConfig {
    /// It is no TOML.
    Toml(Box<toml::de::Error>),
    /// A setting is not of the kind that it must be.
    Kind(&'static str),
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(error) => write!(f, "it is not what containerd reads: {}", error.message()),
            Self::Kind(key) => write!(f, "its {key} is not what containerd reads"),
        }
    }
}

impl std::error::Error for BadConfig {}

/// What the snapshotter's section says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `pool_name`: the pool's dm name; without one containerd passes the snapshotter over.
    pub pool: Option<String>,
    /// `root_path`: where its databases are.
    pub root_path: Option<PathBuf>,
}

/// What one file says of the snapshotter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// `root`: containerd's own directory.
    pub root: Option<PathBuf>,
    /// The snapshotter's section, when there is one.
    pub section: Option<Section>,
    /// Whether `disabled_plugins` names the snapshotter.
    pub disabled: bool,
    /// `imports`, as written.
    pub imports: Vec<String>,
}

/// Reads one file of version 1, 2, 3 or later.
///
/// # Errors
/// When the text is no TOML, or a setting is of another kind.
pub fn parse(text: &str) -> Result<File, BadConfig> {
    let config: Table = text.parse().map_err(|e| BadConfig::Toml(Box::new(e)))?;
    let is_named = config.get("version").and_then(Value::as_integer).is_some_and(|version| version > 1);
    let names = if is_named { &[PLUGIN][..] } else { &[OLD_PLUGIN, PLUGIN] };
    let plugins = match config.get("plugins") {
        None => None,
        Some(plugins) => Some(plugins.as_table().ok_or(BadConfig::Kind("plugins"))?),
    };
    let section = match plugins.and_then(|plugins| names.iter().find_map(|name| plugins.get(*name))) {
        None => None,
        Some(plugin) => {
            let plugin = plugin.as_table().ok_or(BadConfig::Kind("plugins"))?;
            let root_path = string(plugin, "root_path")?.map(PathBuf::from);
            Some(Section { pool: string(plugin, "pool_name")?, root_path })
        }
    };
    Ok(File {
        root: string(&config, "root")?.map(PathBuf::from),
        section,
        disabled: strings(&config, "disabled_plugins")?.iter().any(|name| names.contains(&name.as_str())),
        imports: strings(&config, "imports")?,
    })
}

/// Returns a setting; an empty one is none to containerd.
fn string(table: &Table, key: &'static str) -> Result<Option<String>, BadConfig> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(BadConfig::Kind(key)),
    }
}

fn strings(table: &Table, key: &'static str) -> Result<Vec<String>, BadConfig> {
    let Some(value) = table.get(key) else { return Ok(Vec::new()) };
    let strings = value.as_array().and_then(|all| all.iter().map(|s| s.as_str().map(str::to_owned)).collect());
    strings.ok_or(BadConfig::Kind(key))
}

/// Which containerds read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Readers {
    /// Those before 2.0.
    before: bool,
    /// Those since.
    since: bool,
}

impl Readers {
    const ALL: Self = Self { before: true, since: true };

    const fn and(self, other: Self) -> Self {
        Self { before: self.before && other.before, since: self.since && other.since }
    }

    const fn without(self, other: Self) -> Self {
        Self { before: self.before && !other.before, since: self.since && !other.since }
    }
}

/// What all files together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `root`.
    pub root: Option<PathBuf>,
    /// The snapshotter's section as containerd reads it before 2.0: the last one.
    pub last: Section,
    /// As it reads it since: all together.
    pub merged: Section,
    /// How many of the files have a section of the snapshotter.
    pub sections: usize,
    /// Whether the snapshotter is disabled.
    pub disabled: bool,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Reads the configuration at that path of the machine whose root directory is `base` (`/`), with what it imports. One that
    /// is not there is empty, as it is to containerd.
    pub fn load(base: &Path, path: &Path) -> Self {
        let mut config = Self::default();
        let mut pending = VecDeque::from([(path.to_owned(), Readers::ALL)]);
        let mut seen: Vec<(PathBuf, Readers)> = Vec::new();
        while let Some((next, readers)) = pending.pop_front() {
            let had = seen.iter().filter(|(path, _)| *path == next);
            let readers = had.fold(readers, |readers, (_, had)| readers.without(*had));
            if !readers.before && !readers.since {
                continue;
            }
            if seen.len() == MOST_FILES {
                config.problem(path, format!("it imports more than {MOST_FILES} files; the rest was not read"));
                break;
            }
            match read(&below(base, &next)) {
                Ok(file) => {
                    let imports = file.imports.iter().flat_map(|import| resolve(base, &next, import));
                    let imports = imports.map(|(path, of)| (path, of.and(readers)));
                    pending.extend(imports.take(2 * MOST_FILES + 2));
                    config.take(file, readers);
                }
                Err(Unreadable::Missing) if seen.is_empty() => {}
                Err(Unreadable::Missing) => {
                    config.problem(&next, "it is imported, and is not there: containerd reads no further".to_owned());
                    break;
                }
                Err(Unreadable::Bad(why)) => config.problem(&next, why),
            }
            seen.push((next, readers));
        }
        config
    }

    fn take(&mut self, file: File, readers: Readers) {
        self.root = file.root.or(self.root.take());
        self.disabled |= file.disabled;
        if let Some(section) = file.section {
            self.sections += 1;
            if readers.since {
                self.merged.pool = section.pool.clone().or(self.merged.pool.take());
                self.merged.root_path = section.root_path.clone().or(self.merged.root_path.take());
            }
            if readers.before {
                self.last = section;
            }
        }
    }

    fn problem(&mut self, path: &Path, why: String) {
        self.problems.push(Problem { path: path.to_owned(), why });
    }
}

enum Unreadable {
    Missing,
    Bad(String),
}

fn read(path: &Path) -> Result<File, Unreadable> {
    let bytes = small_file::read_at(path, LARGEST).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Bad(error.to_string()),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| Unreadable::Bad("it is no text".to_owned()))?;
    parse(&text).map_err(|error| Unreadable::Bad(error.to_string()))
}

/// Returns the paths that an import means, each with those to whom it does; only with a star it is a pattern. Units run
/// containerd in `/` (`WorkingDirectory=`, systemd.exec(5)).
fn resolve(base: &Path, file: &Path, import: &str) -> Vec<(PathBuf, Readers)> {
    let path = cleaned(&file.parent().unwrap_or(Path::new("/")).join(import));
    if !import.contains('*') {
        return vec![(path, Readers::ALL)];
    }
    let matching = |pattern: &Path, readers: Readers| {
        let found = glob(&below(base, pattern), MOST_FILES + 1).into_iter();
        found.map(move |path| (path.strip_prefix(base).map(|path| Path::new("/").join(path)).unwrap_or(path), readers))
    };
    if Path::new(import).is_absolute() {
        return matching(&path, Readers::ALL).collect();
    }
    let of_process = cleaned(&Path::new("/").join(import));
    let since = matching(&path, Readers { before: false, since: true });
    since.chain(matching(&of_process, Readers { before: true, since: false })).collect()
}

/// Returns a path without `.` and `..`, by its text alone (Go's `filepath.Clean`).
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
