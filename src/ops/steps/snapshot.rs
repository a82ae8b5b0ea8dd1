//! The step that makes a snapshot.
//!
//! An origin that is active must be suspended meanwhile: the kernel does not enforce it, and without it blocks that are
//! being written would be written in both (Documentation/admin-guide/device-mapper/thin-provisioning.rst). The suspend
//! writes the file system on it out and holds it still, so the snapshot is as if it had been unmounted.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::kernel::critical::{Alarm, CriticalSection, Guardian, Late};
use crate::kernel::dm::{DmId, DmInfo};
use crate::kernel::fs::sync_file_system;
use crate::kernel::{DevNo, KernelError, ask, mounts};
use crate::ops::steps::volume::{delete, has};
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::ops::{fault, sight, volumes};
use crate::pool::VolumeId;

/// How long the file system may take to be written out beforehand, while it still works.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// How long I/O may take to end once the origin takes no more.
const SUSPEND_LIMIT: Duration = Duration::from_secs(30);

/// When the guardian ends dmpool and resumes the origin: longer than all of it takes.
const GUARDIAN_LIMIT: Duration = Duration::from_secs(120);

/// Makes a volume that begins as another one is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeSnapshot {
    /// The pool's dm name.
    pub pool: String,
    /// The snapshot.
    pub id: VolumeId,
    /// The volume that it is of.
    pub origin: VolumeId,
    /// The dm name of the origin's device, suspended when it is there.
    pub device: String,
    /// The dm uuid of the origin's device.
    pub uuid: String,
}

impl MakeSnapshot {
    /// Returns the origin's device when it is active.
    fn active(&self, kit: &Kit) -> Result<Option<DmInfo>> {
        let pool = sight::live(&kit.dm, &self.pool)?
            .with_context(|| format!("looking for the pool `{}`: the kernel has no such device", self.pool))?;
        let origin = u64::from(self.origin.get());
        let mut devices = volumes::devices(&kit.dm, pool.info.devno)?;
        devices.retain(|device| device.id == origin);
        match devices.as_slice() {
            [] => Ok(None),
            [only] if only.info.uuid.as_deref() == Some(&self.uuid) => Ok(Some(only.info.clone())),
            [other, ..] => bail!("the origin is active as `{}`, which dmpool did not make", other.info.name),
        }
    }

    fn message(&self) -> String {
        format!("create_snap {} {}", self.id, self.origin)
    }

    /// Resumes an origin that a death left suspended.
    fn wake(&self, kit: &Kit) -> Result<()> {
        match self.active(kit)? {
            Some(info) if info.suspended => kit.dm.resume(&DmId::name(&self.device)),
            _ => Ok(()),
        }
    }
}

impl Act for MakeSnapshot {
    fn sentence(&self) -> String {
        format!(
            "make the volume {} in the pool {} as a snapshot of {}, which is suspended for that moment when it is active",
            self.id, self.pool, self.device
        )
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("removed from the pool")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        if attempt == Attempt::Again {
            self.wake(kit)?;
            if has(kit, &self.pool, self.id)? {
                return Ok(());
            }
        }
        match self.active(kit)? {
            Some(info) if info.suspended => bail!("`{}` ({}) is suspended", self.device, info.devno),
            Some(info) => {
                write_out(info.devno)?;
                suspended(kit, &info, &self.pool, &self.message())
            }
            None => kit.dm.message(&DmId::name(&self.pool), &self.message()).map(drop),
        }
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if let Some(info) = self.active(kit)? {
            ensure!(!info.suspended, "`{}` ({}) is suspended", self.device, info.devno);
        }
        ensure!(has(kit, &self.pool, self.id)?, "`{}` does not have the volume {}", self.pool, self.id);
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        self.wake(kit)?;
        delete(kit, &self.pool, self.id)
    }
}

/// Writes the file system on a device out while it still works, so that little is left to do while it stands still.
fn write_out(device: DevNo) -> Result<()> {
    for mount in mounts::own()?.into_iter().filter(|mount| mount.devno == device) {
        let mut sync = || sync_file_system(&mount.mount_point).map_err(|e| format!("{e:#}"));
        let answer = ask::in_turn_within(SYNC_LIMIT, &mut [&mut sync]).pop();
        if let Some(Err(why) | Ok(Err(why))) = answer {
            bail!("writing out the file system on {} before it is suspended: {why}", mount.mount_point.display());
        }
    }
    Ok(())
}

/// Sends a message to the pool while a device on it is suspended.
///
/// Between suspend and resume nothing is read, written or allocated. If this process is killed there the guardian
/// resumes; if it takes too long the guardian ends it first, so that the message is never sent once the device runs again.
fn suspended(kit: &Kit, origin: &DmInfo, pool: &str, message: &str) -> Result<()> {
    let id = &DmId::name(&origin.name);
    let mut suspend = kit.dm.prepare_suspend(id)?;
    let mut resume = kit.dm.prepare_resume(id)?;
    let mut state = kit.dm.prepare_state(id)?;
    let mut send = kit.dm.prepare_message(&DmId::name(pool), message)?;
    let dies = fault::dies_suspended();
    let guardian = {
        let mut state = kit.dm.prepare_state(id)?;
        let mut resume = kit.dm.prepare_resume(id)?;
        let wake = move || match state.is_suspended() {
            Ok(false) => Ok(()),
            _ => resume.fire(),
        };
        Guardian::start(wake, GUARDIAN_LIMIT, Late::EndItFirst)?
    };
    let (stopped, sent, resumed) = {
        let _critical = CriticalSection::enter()?;
        let stopped = Alarm::after(SUSPEND_LIMIT).and_then(|_alarm| suspend.fire());
        if dies {
            fault::die();
        }
        let sent = stopped.and_then(|()| send.fire());
        let mut runs = || resume.fire().or_else(|_| resume.fire());
        let resumed = if stopped.is_err() && state.is_suspended() == Ok(false) { Ok(()) } else { runs() };
        (stopped, sent, resumed)
    };
    // What the guardian did is seen in the device's state, which the caller looks at.
    let _ = guardian.done();
    let named = |errno, call, object: &str| anyhow::Error::new(KernelError { errno, call, object: object.to_owned() });
    if let Err(errno) = resumed {
        let error = named(errno, "DM_DEV_SUSPEND", &origin.name);
        return Err(error.context(format!("resuming `{}`; it may be suspended still", origin.name)));
    }
    match stopped {
        Err(Errno::EINTR) => bail!(
            "`{}` could not be suspended within {} s: I/O on it does not end; it runs as before",
            origin.name,
            SUSPEND_LIMIT.as_secs()
        ),
        Err(errno) => {
            let error = named(errno, "DM_DEV_SUSPEND", &origin.name);
            Err(error.context(format!("suspending `{}`; it runs as before", origin.name)))
        }
        Ok(()) => sent
            .map_err(|errno| named(errno, "DM_TARGET_MSG", pool).context(format!("sending `{message}` to `{pool}`"))),
    }
}
