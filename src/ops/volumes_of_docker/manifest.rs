//! An archive of volumes: a tar in which, in this order, stand
//!
//! ```text
//! dmpool-volumes.json         {"format":1,"volumes":[{"name","driver","labels":{},"options":{},"bytes"}]}
//! volumes/NAME/_data/…        each volume's files, in the order of the list
//! dmpool-volumes-sums.json    {"format":1,"manifest":HEX,"volumes":{NAME:HEX}}
//! ```
//!
//! A sum is the SHA-256 of the first file's content, and of a volume's part of the archive, headers and padding with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::docker_objects::LOCAL;

/// The first entry.
pub const MANIFEST: &str = "dmpool-volumes.json";
/// The last one.
pub const SUMS: &str = "dmpool-volumes-sums.json";
/// The one version that there is.
const FORMAT: u32 = 1;
/// The longest of the two.
pub const LONGEST: u64 = 16 << 20;

/// Which volumes an archive has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// In the order of their files.
    pub volumes: Vec<Described>,
}

/// A volume, as Docker knew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its driver: `local`.
    pub driver: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The options that it was made with.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// What its files had, without holes.
    pub bytes: u64,
}

/// What an archive's parts sum up to, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    format: u32,
    /// Of the manifest.
    pub manifest: String,
    /// Of each volume's part, by name.
    pub volumes: BTreeMap<String, String>,
}

impl Manifest {
    /// Describes volumes.
    pub const fn new(volumes: Vec<Described>) -> Self {
        Self { format: FORMAT, volumes }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Why it is none, or has what can be no volume of the local driver's.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| format!("{MANIFEST}: {e}"))?;
        known(MANIFEST, manifest.format)?;
        let mut names = BTreeSet::new();
        for volume in &manifest.volumes {
            let name = &volume.name;
            if !is_volume_name(name) {
                return Err(format!("{MANIFEST}: `{}` is no name of a volume", name.escape_debug()));
            }
            if !names.insert(name) {
                return Err(format!("{MANIFEST} has `{name}` twice"));
            }
            if volume.driver != LOCAL {
                let driver = volume.driver.escape_debug();
                return Err(format!("{MANIFEST}: volume `{name}` is the driver {driver}'s"));
            }
            if let Some(option) = volume.options.keys().find(|option| *option != "size") {
                let option = option.escape_debug();
                return Err(format!("{MANIFEST}: volume `{name}` has the option {option}: its files are elsewhere"));
            }
        }
        Ok(manifest)
    }
}

impl Sums {
    /// Takes them together.
    pub const fn new(manifest: String, volumes: BTreeMap<String, String>) -> Self {
        Self { format: FORMAT, manifest, volumes }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Why they are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sums: Self = serde_json::from_slice(bytes).map_err(|e| format!("{SUMS}: {e}"))?;
        known(SUMS, sums.format).map(|()| sums)
    }
}

fn known(name: &str, format: u32) -> Result<(), String> {
    if format == FORMAT { Ok(()) } else { Err(format!("{name} has format {format}, which is not known")) }
}

/// Whether Docker takes it for a volume's name (`RestrictedNamePattern`, daemon/names), and the file system for a folder's.
pub(in crate::ops) fn is_volume_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}
