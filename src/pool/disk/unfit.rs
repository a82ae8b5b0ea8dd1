//! Why a device cannot carry a pool.

use std::path::PathBuf;

use super::{SMALLEST, Samples, Signature};
use crate::units::Bytes;

/// One reason. A device of which there is none can carry a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is nothing of that name.
    Missing,
    /// What has the name is no block device.
    NoBlockDevice,
    /// It has no length: no medium, or no file attached.
    Empty,
    /// It is of a kind that nothing lasting is put on.
    Kind {
        /// The kind, in a word.
        word: &'static str,
    },
    /// The kernel refuses to write to it.
    ReadOnly,
    /// It is smaller than [`SMALLEST`].
    TooSmall {
        /// How large it is.
        size: Bytes,
    },
    /// The root file system lies on it, however deep.
    UnderRoot,
    /// It, or a partition of it, is mounted.
    Mounted {
        /// The partition; nothing for the device itself.
        partition: Option<String>,
        /// Where.
        on: PathBuf,
        /// The process in whose mount namespace it is, when that is not this one.
        elsewhere: Option<String>,
    },
    /// It, or a partition of it, is swapped on.
    Swap {
        /// The partition; nothing for the device itself.
        partition: Option<String>,
    },
    /// It is a path of a multipath device.
    Path {
        /// The multipath device, to be used instead.
        of: PathBuf,
    },
    /// Other devices stand on it, on a partition of it, or on the disk that it is a partition of.
    Held {
        /// The partition; nothing for the device itself.
        partition: Option<String>,
        /// Their names.
        by: Vec<String>,
    },
    /// A loop device has it as its file.
    LoopFile {
        /// The loop device.
        by: String,
    },
    /// The kernel has it open for somebody alone (`O_EXCL` says EBUSY), and none of the above tells for whom.
    Claimed,
    /// The same disk is there by another path, and no multipath device joins them.
    OtherPath {
        /// The name of the disk in the world.
        wwn: String,
        /// The other path.
        other: String,
    },
    /// It is a thin pool.
    ThinPool,
    /// It is a volume of a thin pool.
    ThinVolume,
    /// It has partitions.
    Partitioned {
        /// Their names.
        partitions: Vec<String>,
    },
    /// A format is on it.
    Signature(Signature),
    /// The metadata of a thin pool is on it.
    ThinMetadata {
        /// What is wrong with it, if something is.
        damage: Option<String>,
    },
    /// It belongs to a pool of dmpool.
    Label {
        /// The pool's name.
        pool: String,
        /// What it carries of it, in a few words.
        role: &'static str,
    },
    /// It has a label of dmpool that cannot be used.
    BadLabel {
        /// Why.
        why: String,
    },
    /// Another device has the same label of dmpool.
    Copy {
        /// The other device.
        of: String,
    },
    /// Something is on it, and nothing tells what.
    NotBlank {
        /// What was read of it.
        samples: Samples,
        /// Whether a superblock of a thin pool is where a pool of dmpool's has it: one that was destroyed leaves that.
        former: bool,
    },
    /// All that was read of it is zeros, and some of what should be was not read in time.
    PartlyRead {
        /// What was read of it.
        samples: Samples,
    },
    /// It was not, or not wholly, read: whether something is on it, nobody knows.
    NotRead {
        /// Why.
        why: String,
    },
}

impl Unfit {
    /// Returns the reason in one word, for programs: it stays when the sentence changes.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NoBlockDevice => "no_block_device",
            Self::Empty => "empty",
            Self::Kind { .. } => "kind",
            Self::ReadOnly => "read_only",
            Self::TooSmall { .. } => "too_small",
            Self::UnderRoot => "under_root",
            Self::Mounted { .. } => "mounted",
            Self::Swap { .. } => "swap",
            Self::Path { .. } => "path",
            Self::Held { .. } => "held",
            Self::LoopFile { .. } => "loop_file",
            Self::Claimed => "claimed",
            Self::OtherPath { .. } => "other_path",
            Self::ThinPool => "thin_pool",
            Self::ThinVolume => "thin_volume",
            Self::Partitioned { .. } => "partitioned",
            Self::Signature(_) => "signature",
            Self::ThinMetadata { .. } => "thin_metadata",
            Self::Label { .. } => "label",
            Self::BadLabel { .. } => "bad_label",
            Self::Copy { .. } => "copy",
            Self::NotBlank { .. } => "not_blank",
            Self::PartlyRead { .. } => "partly_read",
            Self::NotRead { .. } => "not_read",
        }
    }

    /// Returns whether it is about what is on the device, which can be wiped, and not about who uses it.
    pub const fn is_content(&self) -> bool {
        matches!(
            self,
            Self::Signature(_)
                | Self::ThinMetadata { .. }
                | Self::Label { .. }
                | Self::BadLabel { .. }
                | Self::NotBlank { .. }
                | Self::PartlyRead { .. }
        )
    }

    /// Returns whether it only says that nobody knows.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::PartlyRead { .. } | Self::NotRead { .. })
    }

    /// Returns the reason as a sentence about the device, without a full stop.
    pub fn sentence(&self) -> String {
        let whose = |partition: &Option<String>| match partition {
            Some(name) => format!("its partition {name} is"),
            None => "it is".to_owned(),
        };
        match self {
            Self::Missing => "there is nothing of that name".to_owned(),
            Self::NoBlockDevice => "it is no block device".to_owned(),
            Self::Empty => "nothing is in it (its length is 0)".to_owned(),
            Self::Kind { word } => format!("it is of a kind that nothing lasting is put on ({word})"),
            Self::ReadOnly => "it is read-only".to_owned(),
            Self::TooSmall { size } => format!("it has {}, and {} are the least", size.human(), SMALLEST.human()),
            Self::UnderRoot => "the root file system lies on it".to_owned(),
            Self::Mounted { partition, on, elsewhere } => {
                let namespace = elsewhere.as_ref().map(|who| format!(" in the mount namespace of {who}"));
                format!("{} mounted on {}{}", whose(partition), on.display(), namespace.unwrap_or_default())
            }
            Self::Swap { partition } => format!("{} swapped on", whose(partition)),
            Self::Path { of } => format!("it is a path of the multipath device {}, to be used instead", of.display()),
            Self::Held { partition, by } => format!("{} held by {}", whose(partition), by.join(", ")),
            Self::LoopFile { by } => format!("{by} has it as its file"),
            Self::Claimed => "the kernel has it open for somebody alone (EBUSY)".to_owned(),
            Self::OtherPath { wwn, other } => {
                format!("it is the same disk as {other} ({wwn}), and no multipath device joins them")
            }
            Self::ThinPool => "it is a thin pool itself".to_owned(),
            Self::ThinVolume => "it is a volume of a thin pool".to_owned(),
            Self::Partitioned { partitions } => format!("it has partitions: {}", partitions.join(", ")),
            Self::Signature(signature) => format!("{} is on it", signature.words()),
            Self::ThinMetadata { damage: None } => "the metadata of a thin pool is on it".to_owned(),
            Self::ThinMetadata { damage: Some(why) } => format!("damaged metadata of a thin pool is on it: {why}"),
            Self::Label { pool, role } => format!("it carries {role} of dmpool's pool `{pool}`"),
            Self::BadLabel { why } => format!("it has a label of dmpool that cannot be used: {why}"),
            Self::Copy { of } => format!("it is a copy of {of}, or {of} of it: both have one label"),
            Self::NotBlank { samples: Samples { read, used, first, .. }, former } => {
                let former = if *former { "; a pool that was destroyed has left its superblock" } else { "" };
                format!(
                    "it is not blank, and nothing tells what is on it: {used} of {read} samples are not zeros, the first at byte {}{former}",
                    first.get()
                )
            }
            Self::PartlyRead { samples: Samples { read, left, .. } } => format!(
                "it is not known to be blank: {read} of {} samples are zeros, and the others were not read in time",
                read.saturating_add(*left)
            ),
            Self::NotRead { why } => format!("not read: {why}"),
        }
    }
}
