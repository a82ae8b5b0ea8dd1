//! Steps that change which volumes a pool has, by messages. The kernel commits its metadata after each message that it
//! carries out, and does not say when that fails (`pool_message`, drivers/md/dm-thin.c): so each is looked for on the disk.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::dm::DmId;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::ops::{sight, volumes};
use crate::pool::{VolumeId, VolumeName};

/// Makes an empty volume in the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeThin {
    /// The pool's dm name.
    pub pool: String,
    /// The volume.
    pub id: VolumeId,
}

/// Removes a volume from the pool, with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteThin {
    /// The pool's dm name.
    pub pool: String,
    /// The volume.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
}

/// Gives the pool another transaction id: the moment from which a change of its volumes is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTransaction {
    /// The pool's dm name.
    pub pool: String,
    /// The one it has.
    pub from: u64,
    /// The one it shall have.
    pub to: u64,
}

/// Returns what the metadata of a live pool says.
pub(super) fn known(kit: &Kit, pool: &str) -> Result<volumes::Known> {
    let live = sight::live(&kit.dm, pool)?
        .with_context(|| format!("looking for the pool `{pool}`: the kernel has no such device"))?;
    volumes::known(live.table.metadata).with_context(|| format!("reading the volumes of `{pool}`"))
}

/// Returns whether a live pool has a volume.
pub(super) fn has(kit: &Kit, pool: &str, id: VolumeId) -> Result<bool> {
    Ok(known(kit, pool)?.volumes.contains_key(&u64::from(id.get())))
}

/// Removes a volume that an operation made and takes back.
pub(super) fn delete(kit: &Kit, pool: &str, id: VolumeId) -> Result<Reverted> {
    if has(kit, pool, id)? {
        kit.dm.message(&DmId::name(pool), &format!("delete {id}"))?;
        ensure!(!has(kit, pool, id)?, "`{pool}` still has the volume {id}");
    }
    Ok(Reverted::Gone)
}

impl Act for MakeThin {
    fn sentence(&self) -> String {
        format!("make the volume {} in the pool {}", self.id, self.pool)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed from the pool")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again && has(kit, &self.pool, self.id)? {
            return Ok(());
        }
        kit.dm.message(&DmId::name(&self.pool), &format!("create_thin {}", self.id)).map(drop)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        ensure!(has(kit, &self.pool, self.id)?, "`{}` does not have the volume {}", self.pool, self.id);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        delete(kit, &self.pool, self.id)
    }
}

impl Act for DeleteThin {
    fn sentence(&self) -> String {
        format!("remove the volume {} ({}) from the pool {}, with all that is in it", self.name, self.id, self.pool)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        delete(kit, &self.pool, self.id).map(drop)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        ensure!(!has(kit, &self.pool, self.id)?, "`{}` still has the volume {}", self.pool, self.id);
        Ok(())
    }

    fn stands(&self, kit: &Kit) -> Result<bool> {
        Ok(!has(kit, &self.pool, self.id)?)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        Ok(match has(kit, &self.pool, self.id)? {
            true => Reverted::Gone,
            false => Reverted::Stands(format!("the volume {} is deleted", self.name)),
        })
    }
}

impl SetTransaction {
    fn set(&self, kit: &Kit, from: u64, to: u64) -> Result<()> {
        let now = known(kit, &self.pool)?.transaction;
        if now == to {
            return Ok(());
        }
        if now != from {
            bail!(
                "`{}` has the transaction id {now}, neither {from} nor {to}: somebody else has changed it",
                self.pool
            );
        }
        kit.dm.message(&DmId::name(&self.pool), &format!("set_transaction_id {from} {to}")).map(drop)
    }

    fn look(&self, kit: &Kit, wanted: u64) -> Result<()> {
        let now = known(kit, &self.pool)?.transaction;
        ensure!(now == wanted, "`{}` has the transaction id {now}, not {wanted}", self.pool);
        Ok(())
    }
}

impl Act for SetTransaction {
    fn sentence(&self) -> String {
        format!("give the pool {} the transaction id {} instead of {}", self.pool, self.to, self.from)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("the old transaction id again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        self.set(kit, self.from, self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        self.look(kit, self.to)
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.set(kit, self.to, self.from)?;
        self.look(kit, self.from)?;
        Ok(Reverted::Gone)
    }
}
