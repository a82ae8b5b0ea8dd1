//! Telling containerd's devmapper snapshotter, and CRI, to use a pool, in `config.toml` of versions 1 to 3.
//!
//! Names differ between versions (docs/PLUGINS.md): version 1, which is meant when none is given, has short ones. Both
//! containerd 1.x and 2.x read 1 and 2; 3 is of 2.x alone. What is edited stays in the version that it has.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::{Edit, Obstacle};
use crate::engine::containerd::{self, Config, Daemon, File};
use crate::engine::start::below;

const DEVMAPPER: &str = "devmapper";
/// The size of the first device, from which all are made; containerd has no default (`base_image_size`). Docker's is
/// the same.
const BASE_IMAGE_SIZE: &str = "10GB";
/// What is written where there is no configuration: what containerd reads since 1.3.
const NEW: &str = "version = 2\n";

/// What containerd shall use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'w> {
    /// The pool's dm name.
    pub pool: &'w str,
    /// Whether it shall discard what it deletes (`discard_blocks`), unless it is told already.
    pub discard: bool,
}

/// A configuration as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What the file shall say.
    pub text: String,
    /// What CRI does.
    pub cri: Cri,
}

/// Which snapshotter CRI uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cri {
    /// It is disabled.
    Off,
    /// It used this one before, and shall use devmapper.
    Instead(String),
    /// It uses devmapper already: for everything, or for the runtimes that say so.
    Already,
}

/// How containerd is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The file to be written; nothing when containerd is told already.
    pub edit: Option<Edit>,
    /// What CRI does.
    pub cri: Cri,
    /// The containerd that reads it.
    pub daemon: Daemon,
    /// Where its snapshotter keeps its databases, as it is seen from here.
    pub root_path: PathBuf,
}

/// Returns how the containerd of the machine whose root directory that is (`/`) is told to use a pool.
///
/// # Errors
/// Every reason not to do it.
pub fn tell_machine(base: &Path, wanted: &Wanted<'_>) -> Result<Telling, Obstacle> {
    let (daemons, problems) = containerd::daemons(base);
    if let Some(problem) = problems.first() {
        let path = problem.path.display();
        return Err(Obstacle::new(
            "how containerd is started cannot be read",
            format!("mend {path}, then run this again"),
        )
        .found(format!("{path}: {}", problem.why)));
    }
    let [daemon] = daemons.as_slice() else {
        let configs: Vec<_> = daemons.iter().map(|daemon| daemon.config.display().to_string()).collect();
        let next = "write the devmapper section into the one that shall have the pool, by hand";
        return Err(Obstacle::new("there are several containerds here", next).found(configs.join(", ")));
    };
    is_not_written_anew(base, daemon)?;
    let path = below(base, &daemon.config);
    let before = super::text_of(&path)?;
    imports_say_nothing(base, daemon, before.as_deref().unwrap_or_default())?;
    let told = tell(before.as_deref(), wanted)?;
    let section = containerd::parse(&told.text).ok();
    let root_path = section.and_then(|file| containerd::root_path(&file, daemon)).unwrap_or_default();
    let is_told = before.as_deref() == Some(told.text.as_str());
    let edit = (!is_told).then_some(Edit { path, before, after: told.text });
    Ok(Telling { edit, cri: told.cri, daemon: daemon.clone(), root_path: below(base, &root_path) })
}

/// Where k3s and RKE2 keep the configuration of the containerd that they start, below their data directory
/// (pkg/agent/containerd/config_linux.go of k3s), and that directory when nobody chose another.
const OF_AGENT: &str = "agent/etc/containerd/config.toml";
const AGENTS: [&str; 2] = ["/var/lib/rancher/k3s", "/var/lib/rancher/rke2"];

/// Refuses when the file is made from a template whenever its containerd is started, or that containerd is down and another
/// file would be written, which it does not read.
fn is_not_written_anew(base: &Path, daemon: &Daemon) -> Result<(), Obstacle> {
    let is_known = daemon.runs || daemon.unit.is_some() || below(base, &daemon.config).exists();
    let down = || AGENTS.iter().map(|agent| Path::new(agent).join(OF_AGENT)).find(|path| below(base, path).exists());
    let config = match daemon.config.ends_with(OF_AGENT) {
        true => Some(daemon.config.clone()),
        false if is_known => None,
        false => down(),
    };
    let Some(config) = config else { return Ok(()) };
    let template = config.with_extension("toml.tmpl");
    Err(Obstacle::new(
        "k3s or RKE2 writes its containerd's configuration anew whenever it starts",
        format!(
            "write the devmapper section into {} (config-v3.toml.tmpl for containerd 2), and start it with --snapshotter devmapper",
            template.display()
        ),
    )
    .found(config.display().to_string()))
}

/// Refuses when a file that is imported counts more than what would be written.
fn imports_say_nothing(base: &Path, daemon: &Daemon, text: &str) -> Result<(), Obstacle> {
    let file = containerd::parse(text).map_err(|bad| damaged(&bad.to_string()))?;
    let all = Config::load(base, &daemon.config);
    if let Some(problem) = all.problems.first() {
        return Err(damaged(&format!("{}: {}", problem.path.display(), problem.why)));
    }
    if all.sections != usize::from(file.section.is_some()) || all.disabled != file.disabled || all.root != file.root {
        return Err(Obstacle::new(
            format!(
                "what {} imports speaks of the devmapper snapshotter, or of containerd's root",
                daemon.config.display()
            ),
            "write the pool's name there by hand",
        )
        .found(file.imports.join(", ")));
    }
    Ok(())
}

/// What plugins are called in a version.
struct Names {
    snapshotter: &'static str,
    /// CRI's plugin, as it is disabled.
    cri: &'static str,
    /// The table that has CRI's `snapshotter`.
    images: &'static [&'static str],
    /// The table that has CRI's runtimes.
    runtimes: &'static [&'static str],
}

const V1: Names = Names {
    snapshotter: DEVMAPPER,
    cri: "cri",
    images: &["plugins", "cri", "containerd"],
    runtimes: &["plugins", "cri", "containerd", "runtimes"],
};
const V2: Names = Names {
    snapshotter: "io.containerd.snapshotter.v1.devmapper",
    cri: "io.containerd.grpc.v1.cri",
    images: &["plugins", "io.containerd.grpc.v1.cri", "containerd"],
    runtimes: &["plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes"],
};
const V3: Names = Names {
    snapshotter: V2.snapshotter,
    cri: V2.cri,
    images: &["plugins", "io.containerd.cri.v1.images"],
    runtimes: &["plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes"],
};

/// Returns a configuration with the pool in it; `text` is nothing when there is no file.
///
/// # Errors
/// Every reason not to do it.
pub fn tell(text: Option<&str>, wanted: &Wanted<'_>) -> Result<Told, Obstacle> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(NEW);
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| damaged(e.message()))?;
    let names = names_of(&document)?;
    may_be_told(text, wanted)?;
    enable(&mut document, names.snapshotter)?;
    let plugin = table(document.as_table_mut(), &["plugins", names.snapshotter])?;
    set(plugin, "pool_name", wanted.pool.into());
    for (key, default) in [("base_image_size", BASE_IMAGE_SIZE.into()), ("discard_blocks", wanted.discard.into())] {
        if !plugin.contains_key(key) {
            set(plugin, key, default);
        }
    }
    let cri = tell_cri(&mut document, names)?;
    let edited = document.to_string();
    match containerd::parse(&edited) {
        Ok(file) if pool_of(&file) == Some(wanted.pool) && !file.disabled => Ok(Told { text: edited, cri }),
        _ => Err(damaged("what was made of it does not name the pool")),
    }
}

fn pool_of(file: &File) -> Option<&str> {
    file.section.as_ref()?.pool.as_deref()
}

fn damaged(why: &str) -> Obstacle {
    Obstacle::new("containerd's configuration is not what containerd reads", "mend it, then run this again").found(why)
}

fn names_of(document: &DocumentMut) -> Result<&'static Names, Obstacle> {
    match document.get("version").map(Item::as_integer) {
        None | Some(Some(0 | 1)) => Ok(&V1),
        Some(Some(2)) => Ok(&V2),
        Some(Some(3)) => Ok(&V3),
        Some(Some(version)) => Err(Obstacle::new(
            format!("containerd's configuration is of version {version}, which this dmpool does not know"),
            "write its devmapper section by hand",
        )),
        Some(None) => Err(damaged("its version is no number")),
    }
}

fn may_be_told(text: &str, wanted: &Wanted<'_>) -> Result<(), Obstacle> {
    let file = containerd::parse(text).map_err(|bad| damaged(&bad.to_string()))?;
    match pool_of(&file) {
        Some(pool) if pool != wanted.pool => Err(Obstacle::new(
            format!("containerd uses the pool `{pool}` already"),
            "take its devmapper section out, when its images and containers are not needed any more",
        )),
        _ => Ok(()),
    }
}

/// Takes a plugin out of those that are disabled.
fn enable(document: &mut DocumentMut, plugin: &str) -> Result<(), Obstacle> {
    let Some(disabled) = document.get_mut("disabled_plugins") else { return Ok(()) };
    let disabled = disabled.as_array_mut().ok_or_else(|| damaged("its disabled_plugins is no array"))?;
    disabled.retain(|name| name.as_str() != Some(plugin));
    Ok(())
}

fn is_disabled(document: &DocumentMut, plugin: &str) -> bool {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    disabled.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(plugin)))
}

/// Makes devmapper what CRI uses, unless CRI is off, or has runtimes that use it by their own choice.
fn tell_cri(document: &mut DocumentMut, names: &Names) -> Result<Cri, Obstacle> {
    if is_disabled(document, names.cri) {
        return Ok(Cri::Off);
    }
    if of_a_runtime(document.as_item(), names) {
        return Ok(Cri::Already);
    }
    let images = table(document.as_table_mut(), names.images)?;
    let before = images.get("snapshotter").and_then(Item::as_str).unwrap_or("overlayfs").to_owned();
    if before == DEVMAPPER {
        return Ok(Cri::Already);
    }
    set(images, "snapshotter", DEVMAPPER.into());
    Ok(Cri::Instead(before))
}

/// Whether a runtime has a snapshotter of its own that is devmapper (containerd 1.7 and later).
fn of_a_runtime(document: &Item, names: &Names) -> bool {
    let runtimes = names.runtimes.iter().try_fold(document, |item, name| item.get(name));
    let runtimes = runtimes.and_then(Item::as_table_like);
    let uses = |runtime: &Item| runtime.get("snapshotter").and_then(Item::as_str) == Some(DEVMAPPER);
    runtimes.is_some_and(|runtimes| runtimes.iter().any(|(_, runtime)| uses(runtime)))
}

/// Sets a value, with the comment and white space around the old one; a new key is indented as the first one is.
fn set(table: &mut dyn TableLike, key: &str, mut new: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *new.decor_mut() = old.decor().clone();
        *old = new;
        return;
    }
    let first = table.iter().next().map(|(key, _)| key.to_owned());
    let prefix = first.and_then(|first| table.key(&first)?.leaf_decor().prefix()?.as_str().map(str::to_owned));
    table.insert(key, value(new));
    if let (Some(prefix), Some(mut key)) = (prefix, table.key_mut(key)) {
        let indent = prefix.rsplit_once('\n').map_or(prefix.as_str(), |(_, indent)| indent);
        key.leaf_decor_mut().set_prefix(indent);
    }
}

/// Returns the table of that path, made where it is missing.
fn table<'d>(root: &'d mut Table, path: &[&str]) -> Result<&'d mut dyn TableLike, Obstacle> {
    let mut at: &mut dyn TableLike = root;
    let mut is_inline = false;
    for (depth, name) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        if !at.contains_key(name) {
            let new = if is_inline {
                Item::Value(InlineTable::new().into())
            } else {
                let mut table = Table::new();
                // Only the last one is written with a header of its own.
                table.set_implicit(!is_last);
                table.decor_mut().set_prefix("\n");
                Item::Table(table)
            };
            at.insert(name, new);
        }
        let next = at.get_mut(name).ok_or_else(|| damaged("it cannot be edited"))?;
        is_inline = next.is_inline_table();
        at = next.as_table_like_mut().ok_or_else(|| damaged(&format!("its {name} is no table")))?;
    }
    Ok(at)
}

#[cfg(test)]
#[path = "containerd_tests.rs"]
mod tests;
