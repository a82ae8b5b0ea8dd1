//! Steps that write a pool into the registry and take it out.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::ops::registry;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::pool::Entry;

/// Writes a pool into the registry: from then on `activate` brings it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// What is written.
    pub entry: Entry,
}

/// Takes a pool out of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unregister {
    /// What stands there.
    pub entry: Entry,
}

/// Writes a registered pool's entry anew: it lies on other devices, or they have other names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateEntry {
    /// What stands there.
    pub from: Entry,
    /// What is written.
    pub to: Entry,
}

impl Act for UpdateEntry {
    fn sentence(&self) -> String {
        format!("write down in the registry what the pool {} lies on now", self.to.name)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("written as it was")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let found = registry::read(&kit.state, &self.from.name)?;
        ensure!(
            found.is_some_and(|found| found == self.from || found == self.to),
            "the registry does not say what it said when this was planned"
        );
        registry::write(&kit.state, &self.to)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let found = registry::read(&kit.state, &self.to.name)?;
        ensure!(found.as_ref() == Some(&self.to), "the registry does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        registry::write(&kit.state, &self.from)?;
        Ok(Reverted::Gone)
    }
}

impl Act for Register {
    fn sentence(&self) -> String {
        format!("register the pool {}", self.entry.name)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("taken out of the registry")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        match registry::read(&kit.state, &self.entry.name)? {
            Some(entry) if entry.uuid != self.entry.uuid => {
                bail!("another pool is registered as `{}`", self.entry.name)
            }
            _ => registry::write(&kit.state, &self.entry),
        }
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        let found = registry::read(&kit.state, &self.entry.name)?;
        ensure!(found.as_ref() == Some(&self.entry), "the registry does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        match registry::read(&kit.state, &self.entry.name)? {
            Some(entry) if entry.uuid == self.entry.uuid => registry::remove(&kit.state, &self.entry.name)?,
            _ => {}
        }
        Ok(Reverted::Gone)
    }
}

impl Act for Unregister {
    fn sentence(&self) -> String {
        format!("take the pool {} out of the registry", self.entry.name)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("registered again")
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        registry::remove(&kit.state, &self.entry.name)
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        ensure!(registry::read(&kit.state, &self.entry.name)?.is_none(), "it is still registered");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        registry::write(&kit.state, &self.entry)?;
        Ok(Reverted::Gone)
    }
}
