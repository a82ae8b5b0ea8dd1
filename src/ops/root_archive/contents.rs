//! What an archive of a Docker root says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::docker_objects::{CONTAINERS, is_id};
use crate::ops::contents::overlay2::is_name;
use crate::ops::volumes_of_docker::is_volume_name;

/// The first entry.
pub(super) const CONTENTS: &str = "dmpool-root.json";
/// The last one.
pub(super) const SUMS: &str = "dmpool-root-sums.json";
/// The longest of the two.
pub(super) const LONGEST: u64 = 64 << 20;
/// The one version that there is.
const FORMAT: u32 = 1;
/// The layers' folder in the archive.
pub(super) const LAYERS: &str = "layers";
/// A layer's files in its own.
pub(super) const DIFF: &str = "diff";
/// Docker's volumes, in the root and in the archive.
pub(super) const VOLUMES: &str = "volumes";
/// What Docker knows of them.
pub(super) const DATABASE: &str = "metadata.db";

/// What an archive has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    format: u32,
    /// The root that it was made of, free of symbolic links.
    pub root: PathBuf,
    /// The storage driver that had its layers.
    pub driver: String,
    /// How much its files were, about, without holes.
    pub bytes: u64,
    /// Owner and mode of the directories that everything is in, by their names in the root; `layers` is the driver's.
    pub directories: BTreeMap<String, Owner>,
    /// In the order in which they stand in the archive.
    pub items: Vec<Item>,
    /// Directories and files of the host that containers have mounted.
    pub binds: Vec<Bind>,
    /// What of the root is not in it, and why.
    pub left_out: Vec<String>,
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Permissions, the lower twelve bits of `st_mode`.
    pub mode: u32,
    /// `st_uid`.
    pub uid: u32,
    /// `st_gid`.
    pub gid: u32,
}

/// A part of the archive, with a sum of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Item {
    /// Files of the host that say how Docker is told, below `host`. They are for people.
    Host,
    /// The images, and the database of layers: `image/DRIVER` of the root.
    Image,
    /// The networks.
    Network,
    /// What Docker knows of volumes.
    VolumeDatabase,
    /// A container's records and logs.
    Container {
        /// Its id.
        id: String,
        /// Its name, as far as it has one.
        name: Option<String>,
    },
    /// A layer's files.
    Layer {
        /// The driver's name for it.
        id: String,
        /// Whose it is, in words.
        of: String,
    },
    /// A volume, with its options.
    Volume {
        /// Its name.
        name: String,
    },
    /// A directory or file of the host, which a container has mounted.
    Bind {
        /// Its number in `binds`.
        number: usize,
    },
}

/// A directory or a file of the host that containers have mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Its path there.
    pub source: PathBuf,
    /// The containers, by name.
    pub containers: Vec<String>,
    /// Why it is not in the archive; nothing when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

impl Item {
    /// Returns where it stands in the archive: everything of it is there or below.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::Host => PathBuf::from("host"),
            Self::Image => PathBuf::from("image"),
            Self::Network => PathBuf::from("network"),
            Self::VolumeDatabase => Path::new(VOLUMES).join(DATABASE),
            Self::Container { id, .. } => Path::new(CONTAINERS).join(id),
            Self::Layer { id, .. } => Path::new(LAYERS).join(id).join(DIFF),
            Self::Volume { name } => Path::new(VOLUMES).join(name),
            Self::Bind { number } => Path::new("binds").join(number.to_string()),
        }
    }

    /// Whether it is files of users', of which any kind may be there; else of Docker's own, which are plain.
    pub(super) const fn is_users(&self) -> bool {
        matches!(self, Self::Layer { .. } | Self::Volume { .. } | Self::Bind { .. })
    }

    fn is_possible(&self, binds: usize) -> bool {
        match self {
            Self::Host | Self::Image | Self::Network | Self::VolumeDatabase => true,
            Self::Container { id, .. } => is_id(id),
            Self::Layer { id, .. } => is_name(id),
            Self::Volume { name } => is_volume_name(name) && name != DATABASE,
            Self::Bind { number } => *number < binds,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host's files"),
            Self::Image => f.write_str("the image database"),
            Self::Network => f.write_str("the network database"),
            Self::VolumeDatabase => f.write_str("the volume database"),
            Self::Container { id, name } => match name {
                Some(name) => write!(f, "container {}", name.escape_debug()),
                None => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            },
            Self::Layer { id, of } => {
                write!(f, "layer {} ({})", id.get(..12).unwrap_or(id), of.escape_debug())
            }
            Self::Volume { name } => write!(f, "volume {name}"),
            Self::Bind { number } => write!(f, "the bind mount binds/{number}"),
        }
    }
}

impl Contents {
    /// Begins with nothing in it.
    pub(in crate::ops) const fn of(root: PathBuf, driver: String) -> Self {
        Self {
            format: FORMAT,
            root,
            driver,
            bytes: 0,
            directories: BTreeMap::new(),
            items: Vec::new(),
            binds: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Why they are none, or what in them can be no part of an archive of a root.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let contents: Self = serde_json::from_slice(bytes).map_err(|e| format!("{CONTENTS}: {e}"))?;
        known(CONTENTS, contents.format)?;
        let mut places = BTreeSet::new();
        for item in &contents.items {
            if !item.is_possible(contents.binds.len()) {
                let place = item.place();
                return Err(format!(
                    "{CONTENTS}: `{}` is no name of a part",
                    place.display().to_string().escape_debug()
                ));
            }
            if !places.insert(item.place()) {
                return Err(format!("{CONTENTS} has {item} twice"));
            }
        }
        Ok(contents)
    }

    /// Returns how many items are of a kind.
    pub fn count(&self, is_meant: impl Fn(&Item) -> bool) -> usize {
        self.items.iter().filter(|item| is_meant(item)).count()
    }
}

/// What an archive's parts sum up to: SHA-256, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    format: u32,
    /// Of the first entry's content.
    pub contents: String,
    /// Of each item's part of the archive, headers and padding with it, by its place.
    pub items: BTreeMap<String, String>,
    /// Of these sums themselves: without it a damaged one would name an item that is whole.
    pub own: String,
}

impl Sums {
    /// Takes them together.
    pub(super) fn new(contents: String, items: BTreeMap<String, String>) -> Self {
        let own = own(&contents, &items);
        Self { format: FORMAT, contents, items, own }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Why they are none, or damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sums: Self = serde_json::from_slice(bytes).map_err(|e| format!("{SUMS}: {e}"))?;
        known(SUMS, sums.format)?;
        if own(&sums.contents, &sums.items) != sums.own {
            return Err(format!("{SUMS} is damaged: its own sum is wrong"));
        }
        Ok(sums)
    }
}

fn own(contents: &str, items: &BTreeMap<String, String>) -> String {
    let mut sum = Sha256::new();
    for (name, value) in
        std::iter::once((CONTENTS, contents)).chain(items.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    {
        sum.update(format!("{} {name} {value}\n", name.len()));
    }
    format!("{:x}", sum.finalize())
}

fn known(name: &str, format: u32) -> Result<(), String> {
    if format == FORMAT { Ok(()) } else { Err(format!("{name} has format {format}, which is not known")) }
}
