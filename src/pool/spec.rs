//! What a pool shall be, as `create` is asked for it, and the TOML file that says the same.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pool::{PoolName, sizing};
use crate::units::{BlockSize, Bytes, DataBlocks, NewSize, Share};

/// A pool that shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: PoolName,
    /// How large its data shall be; nothing for Docker's 100 GiB in a file, for all that there is on devices, and for what
    /// [`Place::Volumes`] says.
    pub data_size: Option<Bytes>,
    /// How large its metadata shall be; nothing for what the data needs.
    pub metadata_size: Option<Bytes>,
    /// The length of a data block.
    pub block_size: BlockSize,
    /// With this many blocks left the kernel sends one event.
    pub low_water: DataBlocks,
    /// Whether a block is zeroed before a volume sees it (`skip_block_zeroing` when not).
    pub zero: bool,
    /// Whether writes to a full pool end with an error at once (`error_if_no_space`) instead of waiting.
    pub error_when_full: bool,
    /// Whether discards free blocks (`ignore_discard` when not).
    pub discard: bool,
    /// Whether it is made anew, empty, when its devices come back blank.
    pub ephemeral: bool,
    /// What it is put on.
    pub on: Place,
}

/// What a pool is put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Two loop files.
    Files {
        /// The directory in which the pool's own directory is made.
        directory: PathBuf,
        /// Whether the files get all their blocks now instead of being sparse.
        preallocate: bool,
    },
    /// Devices that dmpool formats.
    Devices {
        /// Those for data, in their order.
        data: Vec<PathBuf>,
        /// The one for metadata; without it the first of the others carries that too.
        metadata: Option<PathBuf>,
        /// How much of the data goes to a device before it is the next one's turn; nothing when they stand behind each
        /// other.
        stripe: Option<Bytes>,
    },
    /// Two logical volumes that LVM makes for it.
    Volumes {
        /// The volume group.
        group: String,
        /// Which share of it the data takes; nothing for a size in bytes, and for all that the group has left.
        share: Option<Share>,
    },
}

/// The chunk of `--stripe` without a size: LVM's default.
pub const DEFAULT_STRIPE: Bytes = Bytes::new(64 << 10);

impl Spec {
    /// Returns the table's feature words, in the order of the kernel's document.
    pub fn features(&self) -> Vec<String> {
        [
            (!self.zero, "skip_block_zeroing"),
            (!self.discard, "ignore_discard"),
            (self.error_when_full, "error_if_no_space"),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, word)| word.to_owned())
        .collect()
    }

    /// Returns how large data and metadata are in files.
    pub fn sizes_in_files(&self) -> (Bytes, Bytes) {
        let data = self.data_size.unwrap_or(sizing::DEFAULT_DATA);
        (data, self.metadata_size.unwrap_or_else(|| sizing::default_metadata(data, self.block_size)))
    }

    /// Returns the TOML file that [`Spec::parse`] reads as this.
    ///
    /// # Errors
    /// When a path in it is not UTF-8, which TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(&Written::from(self.clone()))
    }

    /// Reads the TOML file of `create --file`. Left out are defaults: those of the command line's options, and `default`
    /// for the directory.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub fn parse(text: &str, default: &Path) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        written.spec(default)
    }
}

/// The file, as TOML has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: PoolName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_size: Option<DataSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_size: Option<Size>,
    #[serde(default = "default_block_size")]
    block_size: Size,
    #[serde(default = "default_low_water")]
    low_water: DataBlocks,
    #[serde(default = "yes")]
    zero: bool,
    #[serde(default)]
    when_full: WhenFull,
    #[serde(default = "yes")]
    discard: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<WrittenFiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<WrittenDevices>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lvm: Option<WrittenVolumes>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFiles {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<PathBuf>,
    #[serde(default)]
    preallocate: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDevices {
    data: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stripe: Option<Size>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenVolumes {
    vg: String,
}

/// What a write to a full pool meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhenFull {
    #[default]
    Queue,
    Error,
}

/// A size as people write it: `100G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Size(Bytes);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Bytes::parse(&text).map(Self).map_err(|e| e.to_string())
    }
}

impl From<Size> for String {
    fn from(Size(bytes): Size) -> Self {
        bytes.typed()
    }
}

/// A size, or a share of a volume group: `100G`, `50%FREE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct DataSize(NewSize);

impl TryFrom<String> for DataSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        NewSize::parse(&text).map(Self).map_err(|e| e.to_string())
    }
}

impl From<DataSize> for String {
    fn from(DataSize(size): DataSize) -> Self {
        match size {
            NewSize::Bytes(bytes) => bytes.typed(),
            NewSize::Share(share) => share.to_string(),
        }
    }
}

const fn yes() -> bool {
    true
}

const fn default_block_size() -> Size {
    Size(BlockSize::DEFAULT.bytes())
}

const fn default_low_water() -> DataBlocks {
    sizing::DEFAULT_LOW_WATER
}

impl From<Spec> for Written {
    fn from(spec: Spec) -> Self {
        let (mut files, mut devices, mut lvm, mut part) = (None, None, None, None);
        match spec.on {
            Place::Files { directory, preallocate } => {
                files = Some(WrittenFiles { directory: Some(directory), preallocate });
            }
            Place::Devices { data, metadata, stripe } => {
                devices = Some(WrittenDevices { data, metadata, stripe: stripe.map(Size) });
            }
            Place::Volumes { group, share } => {
                lvm = Some(WrittenVolumes { vg: group });
                part = share.map(NewSize::Share);
            }
        }
        Self {
            name: spec.name,
            data_size: spec.data_size.map(NewSize::Bytes).or(part).map(DataSize),
            metadata_size: spec.metadata_size.map(Size),
            block_size: Size(spec.block_size.bytes()),
            low_water: spec.low_water,
            zero: spec.zero,
            when_full: if spec.error_when_full { WhenFull::Error } else { WhenFull::Queue },
            discard: spec.discard,
            ephemeral: spec.ephemeral,
            files,
            devices,
            lvm,
        }
    }
}

impl Written {
    fn spec(self, default: &Path) -> Result<Spec, String> {
        let name = PoolName::of_new(self.name.as_str()).map_err(|e| e.to_string())?;
        let block_size = BlockSize::of_bytes(self.block_size.0).map_err(|e| format!("`block_size`: {e}"))?;
        let (data_size, share) = match self.data_size.map(|DataSize(size)| size) {
            Some(NewSize::Bytes(bytes)) => (Some(bytes), None),
            Some(NewSize::Share(share)) => (None, Some(share)),
            None => (None, None),
        };
        if let Some(share) = share.filter(|_| self.lvm.is_none()) {
            return Err(format!("`data_size` is {share}, and there is no `lvm` that it could be a share of"));
        }
        let on = match (self.files, self.devices, self.lvm) {
            (_, None, _) if self.ephemeral => {
                return Err("`ephemeral` is for `devices`: files and LVs do not come back blank".to_owned());
            }
            (Some(_), Some(_), _) => return Err("it has both `files` and `devices`".to_owned()),
            (Some(_), None, Some(_)) => return Err("it has both `files` and `lvm`".to_owned()),
            (None, Some(_), Some(_)) => return Err("it has both `devices` and `lvm`".to_owned()),
            (None, None, Some(WrittenVolumes { vg })) => Place::Volumes { group: vg, share },
            (files, None, None) => {
                let files = files.unwrap_or_default();
                let directory = files.directory.unwrap_or_else(|| default.to_owned());
                Place::Files { directory, preallocate: files.preallocate }
            }
            (None, Some(devices), None) => {
                if devices.data.is_empty() {
                    return Err("`devices` has no `data`".to_owned());
                }
                let stripe = devices.stripe.map(|Size(bytes)| bytes);
                Place::Devices { data: devices.data, metadata: devices.metadata, stripe }
            }
        };
        Ok(Spec {
            name,
            data_size,
            metadata_size: self.metadata_size.map(|Size(bytes)| bytes),
            block_size,
            low_water: self.low_water,
            zero: self.zero,
            error_when_full: self.when_full == WhenFull::Error,
            discard: self.discard,
            ephemeral: self.ephemeral,
            on,
        })
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
