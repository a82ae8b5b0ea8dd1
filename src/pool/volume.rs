//! The volumes of a pool that dmpool made, as their record keeps them (docs/volumes-format.md).
//!
//! A pool counts changes with its transaction id, which the kernel writes together with its metadata. The record has the
//! volumes under that number: whoever reads it takes those that stand under the number that the pool has. While a change
//! is under way both numbers are there, so record and pool agree whenever the machine dies.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name;
use crate::pool::{BadName, PoolName, PoolUuid};
use crate::units::Bytes;

/// The thin target's name in tables.
pub const THIN: &str = "thin";

/// The number by which a pool knows a volume: at most 24 bits (`MAX_DEV_ID`, drivers/md/dm-thin.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct VolumeId(u32);

/// The name of a volume: letters, digits and `_ . -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name; its device is `POOL-NAME`.
    pub name: VolumeName,
    /// The number by which the pool knows it.
    pub id: VolumeId,
    /// How long it is: nothing else says so.
    pub size: Bytes,
    /// The volume that it was a snapshot of when it was made; that one may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<VolumeId>,
}

/// The volumes at one transaction id of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeState {
    /// The pool's transaction id.
    pub transaction: u64,
    /// The volumes, by their ids.
    #[serde(default, rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// The record of a pool's volumes: one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// The format it is written in.
    pub format: u32,
    /// The pool's name; also the file's, with `.toml`.
    pub pool: PoolName,
    /// The pool's identity.
    pub uuid: PoolUuid,
    /// The volumes at the pool's transaction id; while a change is under way, also at the next one.
    pub state: Vec<VolumeState>,
}

/// What a change does to the volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// A volume comes.
    Add(Volume),
    /// A volume goes.
    Drop(Volume),
}

impl VolumeId {
    /// The highest there can be.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// Takes a number of at most 24 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id <= Self::MAX.0 { Some(Self(id)) } else { None }
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for VolumeId {
    type Error = String;

    fn try_from(id: u32) -> Result<Self, String> {
        Self::new(id).ok_or_else(|| format!("{id} is no volume's id: {} is the highest", Self::MAX))
    }
}

impl From<VolumeId> for u32 {
    fn from(id: VolumeId) -> Self {
        id.0
    }
}

impl VolumeName {
    /// Takes a name.
    ///
    /// # Errors
    /// When it is empty, too long, has another character, or is one that tells of containerd.
    pub fn new(text: &str) -> Result<Self, BadName> {
        name::check(text, "volume")?;
        if text.starts_with("snap-") {
            let why = "containerd's snapshotter calls its volumes POOL-snap-N, and is known by that";
            return Err(name::bad(text, "volume", why.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// As [`Self::new`], for a volume that does not exist yet: also nothing that commands take for something else.
    ///
    /// # Errors
    /// As [`Self::new`]; for a size, a number, `max` and `control`.
    pub fn of_new(text: &str) -> Result<Self, BadName> {
        let name = Self::new(text)?;
        name::check_new(text, "volume")?;
        Ok(name)
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the dm name of the volume's device: `p0-web`.
    pub fn device(&self, pool: &PoolName) -> String {
        format!("{pool}-{}", self.0)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl VolumeState {
    /// Returns the volume of that name.
    pub fn named(&self, name: &VolumeName) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == *name)
    }

    /// Returns the volumes after a change, at the next transaction id.
    #[must_use]
    pub fn after(&self, edit: &Edit) -> Self {
        let mut next = Self { transaction: self.transaction.saturating_add(1), volumes: self.volumes.clone() };
        next.edit(edit);
        next
    }

    /// Returns the volumes before a change that led here.
    #[must_use]
    pub fn before(&self, edit: &Edit) -> Self {
        let mut last = Self { transaction: self.transaction.saturating_sub(1), volumes: self.volumes.clone() };
        last.edit(&match edit.clone() {
            Edit::Add(volume) => Edit::Drop(volume),
            Edit::Drop(volume) => Edit::Add(volume),
        });
        last
    }

    fn edit(&mut self, edit: &Edit) {
        let (Edit::Add(volume) | Edit::Drop(volume)) = edit;
        self.volumes.retain(|other| other.id != volume.id);
        if matches!(edit, Edit::Add(_)) {
            self.volumes.push(volume.clone());
            self.volumes.sort_by_key(|volume| volume.id);
        }
    }
}

impl VolumeRecord {
    /// The record's format. A file with a higher number is refused.
    pub const FORMAT: u32 = 1;

    /// Returns the record of a pool with these volumes.
    pub fn new(pool: PoolName, uuid: PoolUuid, state: Vec<VolumeState>) -> Self {
        Self { format: Self::FORMAT, pool, uuid, state }
    }

    /// Returns the volumes at a transaction id of the pool; nothing when the record is of others.
    pub fn at(&self, transaction: u64) -> Option<&VolumeState> {
        self.state.iter().find(|state| state.transaction == transaction)
    }

    /// Returns whether no change was ever made: such a record says no more than none.
    pub fn is_blank(&self) -> bool {
        self.state.iter().all(|state| state.transaction == 0 && state.volumes.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn volume(id: u32) -> Volume {
        Volume {
            name: VolumeName::new(&format!("v{id}")).unwrap(),
            id: VolumeId::new(id).unwrap(),
            size: Bytes::new(1 << 30),
            origin: None,
        }
    }

    #[test]
    fn a_change_leads_to_the_next_state_and_back() {
        let state = VolumeState { transaction: 7, volumes: vec![volume(1), volume(5)] };
        for edit in [Edit::Add(volume(3)), Edit::Drop(volume(5))] {
            let next = state.after(&edit);
            assert_eq!(next.transaction, 8);
            assert_ne!(next.volumes, state.volumes);
            assert!(next.volumes.is_sorted_by_key(|v| v.id));
            assert_eq!(next.before(&edit), state);
        }
    }

    #[test]
    fn an_id_has_24_bits() {
        assert_eq!(VolumeId::new(16_777_215), Some(VolumeId::MAX));
        assert_eq!(VolumeId::new(16_777_216), None);
        assert!(toml::from_str::<Volume>("name = \"v\"\nid = 16777216\nsize = 1").is_err());
    }

    #[test]
    fn a_bad_name_says_that_it_is_a_volumes() {
        let said = VolumeName::new("a/b").unwrap_err().to_string();
        assert_eq!(said, "\"a/b\" is not a volume name: '/' is neither a letter, a digit, nor one of _ . -");
        assert!(VolumeName::new("snap-7").is_err() && VolumeName::new("snap").is_ok());
        assert!(VolumeName::new("x_tdata").is_err(), "p0-x_tdata is what the pool p0-x stands on");
        let pool = PoolName::new("p0").unwrap();
        assert_eq!(VolumeName::new("docker").unwrap().device(&pool), "p0-docker");
    }
}
