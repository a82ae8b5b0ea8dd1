//! What a format leaves on a device to be known by.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The types of partition tables, as libblkid calls them (libblkid/src/partitions/).
const TABLES: [&str; 12] =
    ["dos", "gpt", "PMBR", "mac", "bsd", "sun", "sgi", "solaris_x86", "unixware", "minix", "ultrix", "aix"];

/// A signature that libblkid knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// Where its magic is.
    pub offset: Bytes,
    /// Of what: `ext4`, `LVM2_member`, `gpt`, in libblkid's words.
    pub kind: String,
    /// The uuid in it.
    pub uuid: Option<String>,
    /// The label in it.
    pub label: Option<String>,
}

impl Signature {
    /// Returns whether it is of a partition table.
    pub fn is_table(&self) -> bool {
        TABLES.contains(&self.kind.as_str())
    }

    /// Returns what it is of, with an article: `a physical volume of LVM (LVM2_member)`.
    pub fn words(&self) -> String {
        let kind = &self.kind;
        let what = match kind.as_str() {
            _ if self.is_table() => "a partition table",
            "LVM2_member" | "LVM1_member" => "a physical volume of LVM",
            "linux_raid_member" => "a member of an md RAID",
            "mpath_member" => "a path of a multipath device",
            "crypto_LUKS" => "an encrypted volume",
            "swap" | "swsuspend" => "swap space",
            "bcache" => "a part of a bcache",
            "zfs_member" => "a part of a ZFS pool",
            raid if raid.ends_with("_raid_member") => "a member of a RAID",
            "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "exfat" | "ntfs" | "f2fs" | "jfs" | "reiserfs"
            | "iso9660" | "udf" | "squashfs" | "gfs2" | "ocfs2" | "hfsplus" | "nilfs2" | "ufs" => "a file system",
            _ => "a format",
        };
        let label = self.label.as_ref().map(|label| format!(", labelled `{label}`")).unwrap_or_default();
        format!("{what} ({kind}{label})")
    }
}
