//! The pools that dmpool made: one TOML file each, replaced whole.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::{Failure, Outcome};
use crate::kernel::{Called, fs};
use crate::ops::State;
use crate::pool::{ENTRY_FORMAT, Entry, PoolName};
use crate::units::Bytes;

/// More than any entry that dmpool writes has.
const MAX_ENTRY: Bytes = Bytes::new(64 << 10);

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// The pool that it would be of, by the file's name.
    pub name: PoolName,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}", self.path.display(), self.why)
    }
}

impl BadEntry {
    /// Returns the refusal of what needs the entry.
    pub fn failure(&self) -> Failure {
        let path = self.path.display();
        Failure::refused(format!("cannot use the registry's `{path}`: {}", self.why))
            .fact("state", "nothing was touched; the file was not changed")
            .next(format!("put the right file back, or move it away:  mv {path} {path}.broken"))
    }
}

/// Returns where the entry of a pool is.
pub fn path_of(state: &State, name: &PoolName) -> PathBuf {
    state.registry.join(format!("{name}.toml"))
}

/// Reads the entry of a pool, or nothing when it has none.
///
/// # Errors
/// Refused when the file is not an entry of this format for this name.
pub fn read(state: &State, name: &PoolName) -> Outcome<Option<Entry>> {
    look(state, name).map_err(|bad| bad.failure())
}

/// As [`read`], for who goes on without the entry.
///
/// # Errors
/// What is wrong with the file.
pub fn look(state: &State, name: &PoolName) -> Result<Option<Entry>, BadEntry> {
    let path = path_of(state, name);
    let entry = match fs::read_limited(&path, MAX_ENTRY) {
        Ok(Some(bytes)) => parse(&bytes, name).map(Some),
        Ok(None) => Ok(None),
        Err(e) => Err(e.root_cause().to_string()),
    };
    entry.map_err(|why| BadEntry { name: name.clone(), path, why })
}

/// Reads every entry, in the order of their names.
///
/// # Errors
/// As [`read`], at the first entry that cannot be used.
pub fn read_all(state: &State) -> Outcome<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in names(state)? {
        entries.extend(read(state, &name)?);
    }
    Ok(entries)
}

/// Returns the names that have an entry, sorted.
///
/// # Errors
/// When the registry cannot be listed.
pub fn names(state: &State) -> Outcome<Vec<PoolName>> {
    list(&state.registry).map_err(|e| {
        let path = state.registry.display();
        Failure::failed(format!("cannot list the registry `{path}`"))
            .next(format!("ls -ld {path}    # shows what is in the way"))
            .because(e)
    })
}

fn list(registry: &Path) -> anyhow::Result<Vec<PoolName>> {
    let reader = match std::fs::read_dir(registry) {
        Ok(reader) => reader,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).called("opendir", registry.display()).context("listing the registry"),
    };
    let mut names = Vec::new();
    for file in reader {
        let file = file.called("readdir", registry.display()).context("listing the registry")?;
        if let Some(stem) = file.file_name().to_str().and_then(|n| n.strip_suffix(".toml"))
            && let Ok(name) = PoolName::new(stem)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes an entry: to a temporary file, synced, renamed, the directory synced.
///
/// # Errors
/// When the directory cannot be made or the file not written.
pub fn write(state: &State, entry: &Entry) -> anyhow::Result<()> {
    let text = toml::to_string_pretty(entry).context("writing a registry entry as TOML")?;
    fs::make_dir_durably(&state.registry, 0o755)?;
    fs::write_replace(&path_of(state, &entry.name), text.as_bytes(), 0o644)
}

/// Removes an entry; one that is not there is removed already.
///
/// # Errors
/// When the file cannot be removed.
pub fn remove(state: &State, name: &PoolName) -> anyhow::Result<()> {
    fs::remove_durably(&path_of(state, name)).map(drop)
}

pub(crate) fn parse(bytes: &[u8], name: &PoolName) -> Result<Entry, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| format!("it is not TOML: {}", e.message()))?;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(format) if (1..=i64::from(ENTRY_FORMAT)).contains(&format) => {}
        Some(format) if format > i64::from(ENTRY_FORMAT) => {
            return Err(format!("its format is {format}, this dmpool knows {ENTRY_FORMAT}: a newer dmpool wrote it"));
        }
        _ => return Err("it has no format number: dmpool did not write it".to_owned()),
    }
    let entry: Entry = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    if &entry.name == name { Ok(entry) } else { Err(format!("it is the entry of pool `{}`", entry.name)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::samples::entry;

    #[test]
    fn an_entry_comes_back_as_it_was_written() {
        let text = toml::to_string_pretty(&entry()).unwrap();
        assert_eq!(parse(text.as_bytes(), &entry().name), Ok(entry()));
    }

    #[test]
    fn bad_entries_are_named() {
        let good = toml::to_string_pretty(&entry()).unwrap();
        for (text, why) in [
            (String::new(), "no format number"),
            ("[a".to_owned(), "not TOML"),
            ("format = 99".to_owned(), "a newer dmpool wrote it"),
            ("format = 1".to_owned(), "missing field"),
            (good.replace("\"p0\"", "\"p1\""), "the entry of pool `p1`"),
            (good.replace("block_size = 128", "block_size = 100"), "not a block size"),
            (good[..good.len() / 2].to_owned(), ""),
            (format!("{good}\nsurprise = 1"), "unknown field"),
        ] {
            let error = parse(text.as_bytes(), &entry().name).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(parse(&[0xff, 0xfe], &entry().name), Err("it is not text".to_owned()));
    }
}
