//! Steps that change the record of a pool's volumes.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::ops::volumes;
use crate::pool::{Edit, PoolName, PoolUuid, Volume, VolumeRecord, VolumeState};
use crate::units::Bytes;

/// Puts the volumes as they will be at the pool's next transaction id beside those of now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordVolumes {
    /// The pool.
    pub pool: PoolName,
    /// Its identity.
    pub uuid: PoolUuid,
    /// Its transaction id now.
    pub transaction: u64,
    /// What changes.
    pub edit: Edit,
}

/// Leaves in the record only the volumes at the transaction id that the pool has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleVolumes {
    /// The pool.
    pub pool: PoolName,
    /// Its identity.
    pub uuid: PoolUuid,
    /// Its transaction id after the change.
    pub transaction: u64,
    /// What has changed.
    pub edit: Edit,
}

/// Gives a volume another size in the record: the pool itself knows of none, so its transaction id stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeVolume {
    /// The pool.
    pub pool: PoolName,
    /// Its identity.
    pub uuid: PoolUuid,
    /// The volume as it was.
    pub volume: Volume,
    /// The size it shall have.
    pub to: Bytes,
}

/// Writes the record anew, with volumes that the pool has and it had not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptVolumes {
    /// What it says.
    pub from: VolumeRecord,
    /// What it shall say.
    pub to: VolumeRecord,
}

/// Removes the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetVolumes {
    /// What it says.
    pub record: VolumeRecord,
}

impl RecordVolumes {
    fn now<'r>(&self, record: &'r VolumeRecord) -> Option<&'r VolumeState> {
        record.at(self.transaction)
    }
}

impl Act for RecordVolumes {
    fn sentence(&self) -> String {
        let next = self.transaction.saturating_add(1);
        match &self.edit {
            Edit::Add(volume) => format!(
                "write down the volume {} (id {}, {}), to be there at transaction id {next}",
                volume.name,
                volume.id,
                volume.size.human()
            ),
            Edit::Drop(volume) => {
                format!(
                    "write down that the volume {} (id {}) is gone at transaction id {next}",
                    volume.name, volume.id
                )
            }
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("what was written down is struck out")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && self.verify(kit).is_ok() {
            return Ok(());
        }
        volumes::update(&kit.state, &self.pool, &self.uuid, |record| {
            let now = self.now(record)?;
            Some(vec![now.clone(), now.after(&self.edit)])
        })
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let record = volumes::look(&kit.state, &self.pool, &self.uuid).map_err(|bad| bad.failure())?;
        let there = record.at(self.transaction.saturating_add(1));
        // Without the state before it, the change has been settled.
        let is_so = there.is_some_and(|there| self.now(&record).is_none_or(|now| now.after(&self.edit) == *there));
        ensure!(is_so, "the record does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        volumes::update(&kit.state, &self.pool, &self.uuid, |record| Some(vec![self.now(record)?.clone()]))?;
        Ok(Reverted::Gone)
    }
}

impl Act for SettleVolumes {
    fn sentence(&self) -> String {
        format!("strike the volumes as they were before transaction id {} out", self.transaction)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written down again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        volumes::update(&kit.state, &self.pool, &self.uuid, |record| Some(vec![record.at(self.transaction)?.clone()]))
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let record = volumes::look(&kit.state, &self.pool, &self.uuid).map_err(|bad| bad.failure())?;
        let settled = record.state.len() == 1 && record.at(self.transaction).is_some();
        ensure!(settled || record.is_blank(), "the record does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        volumes::update(&kit.state, &self.pool, &self.uuid, |record| {
            let now = record.at(self.transaction)?;
            Some(vec![now.before(&self.edit), now.clone()])
        })?;
        Ok(Reverted::Gone)
    }
}

impl ResizeVolume {
    fn set(&self, kit: &Kit, size: Bytes) -> Result<()> {
        volumes::update(&kit.state, &self.pool, &self.uuid, |record| {
            let mut states = record.state.clone();
            let of_it = |volume: &&mut Volume| volume.id == self.volume.id;
            let mut found = states.iter_mut().flat_map(|state| &mut state.volumes).filter(of_it).peekable();
            found.peek()?;
            found.for_each(|volume| volume.size = size);
            Some(states)
        })
    }
}

impl Act for ResizeVolume {
    fn sentence(&self) -> String {
        format!(
            "write down that the volume {} has {} instead of {}",
            self.volume.name,
            self.to.human(),
            self.volume.size.human()
        )
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("the old size written down again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.set(kit, self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let record = volumes::look(&kit.state, &self.pool, &self.uuid).map_err(|bad| bad.failure())?;
        let mut sizes = record.state.iter().flat_map(|state| &state.volumes).filter(|v| v.id == self.volume.id);
        ensure!(sizes.next().is_some_and(|volume| volume.size == self.to), "the record does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.set(kit, self.volume.size)?;
        Ok(Reverted::Gone)
    }
}

impl Act for AdoptVolumes {
    fn sentence(&self) -> String {
        let state = self.to.state.last();
        let (count, transaction) = state.map_or((0, 0), |state| (state.volumes.len(), state.transaction));
        format!("write down the {count} volumes of {} at its transaction id {transaction}", self.to.pool)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written as it was")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let found = volumes::look(&kit.state, &self.to.pool, &self.to.uuid).map_err(|bad| bad.failure())?;
        let is_as_planned = found == self.from || found == self.to;
        ensure!(is_as_planned, "the record does not say what it said when this was planned");
        volumes::write(&kit.state, &self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let found = volumes::look(&kit.state, &self.to.pool, &self.to.uuid).map_err(|bad| bad.failure())?;
        ensure!(found == self.to, "the record does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        volumes::write(&kit.state, &self.from)?;
        Ok(Reverted::Gone)
    }
}

impl Act for ForgetVolumes {
    fn sentence(&self) -> String {
        format!("remove the record of the volumes of {}", self.record.pool)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        volumes::remove(&kit.state, &self.record.pool)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let path = volumes::path_of(&kit.state, &self.record.pool);
        ensure!(path.symlink_metadata().is_err(), "{} is still there", path.display());
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        volumes::write(&kit.state, &self.record)?;
        Ok(Reverted::Gone)
    }
}
