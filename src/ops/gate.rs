//! What stands before every operation: whether dmpool can work here at all, and whether it is alone.

use std::fs;
use std::path::Path;

use crate::error::{Failure, Outcome};
use crate::kernel::dm::{Dm, DmUnavailable};
use crate::kernel::fs as durable;
use crate::kernel::identity::{self, ModuleState};
use crate::kernel::lock::FileLock;
use crate::kernel::udev::{self, Udev};
use crate::ops::journal::{self, Unfinished};
use crate::ops::steps::Kit;
use crate::ops::{State, own_disk};
use crate::pool::Entry;
use crate::process;
use crate::units::Bytes;

/// The target that a pool needs, and the module that brings it.
const TARGET: (&str, &str) = ("thin-pool", "dm_thin_pool");

/// The largest file that dmpool writes for itself: a journal.
const OWN_FILES: Bytes = Bytes::new(4 << 20);

/// Opens what operations work with.
///
/// # Errors
/// Refused when this is not root, or the kernel has no device-mapper.
pub fn open(state: State) -> Outcome<Kit> {
    Dm::open().map(|dm| Kit::new(dm, state)).map_err(unavailable)
}

fn unavailable(why: DmUnavailable) -> Failure {
    let failure = Failure::refused(format!("cannot use device-mapper: {why}"));
    match why {
        DmUnavailable::NotRoot => failure.next(process::as_root()),
        DmUnavailable::NoKernelSupport { module, loadable: true } => failure.next(modprobe(module)),
        DmUnavailable::NoKernelSupport { module, loadable: false } => {
            failure.fact("needed", format!("a kernel with the modules {module} and {}", TARGET.1)).next(OTHER_KERNEL)
        }
        DmUnavailable::NoControlNode { .. } => failure.next("dmsetup mknodes"),
        DmUnavailable::Other { .. } => failure.next("dmesg | tail    # may say more"),
    }
}

/// What helps a kernel that has no such module.
pub const OTHER_KERNEL: &str = "boot the distribution's own kernel, or install the package with its modules";

/// Returns what loads a module.
pub fn modprobe(module: &str) -> String {
    format!("modprobe {module}")
}

/// Makes sure that devices can be made and changed here: the thin-pool target is there, and nothing would wait for a
/// udev that does not answer.
///
/// # Errors
/// Refused with what is missing.
pub fn may_change(kit: &Kit) -> Outcome<()> {
    if !identity::is_root() {
        return Err(Failure::refused("cannot change pools: only root may").next(process::as_root()));
    }
    let there = kit.dm.has_target(TARGET.0);
    let there = there.map_err(|e| Failure::failed("cannot ask the kernel for its targets").because(e))?;
    // What can be loaded the kernel loads by itself with the first table (dm_get_target_type, drivers/md/dm-target.c).
    if there.is_none() && identity::thin_module_state() == ModuleState::Absent {
        return Err(Failure::refused(format!("cannot change pools: the kernel has no {} target", TARGET.0))
            .fact("found", format!("the module {} is {}", TARGET.1, ModuleState::Absent))
            .next(OTHER_KERNEL));
    }
    let limit = durable::file_size_limit()
        .map_err(|e| Failure::failed("cannot learn how large a file may be here").because(e))?;
    file_size(OWN_FILES, limit, &|why| Failure::refused(format!("cannot change pools: {why}")))?;
    if let Udev::Stale { why, way_out } = udev::state() {
        return Err(Failure::refused(
            "cannot change devices: udev does not answer, and every change would wait for it",
        )
        .fact("cause", why)
        .fact("state", "reading works: dmpool status, dmpool list")
        .next(way_out)
        .awaiting(["udev"]));
    }
    Ok(())
}

/// Refuses a file that is longer than this process may make one: the kernel would end it for trying (`SIGXFSZ`).
///
/// # Errors
/// Refused with the limit.
pub fn file_size(length: Bytes, limit: Option<Bytes>, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    match limit {
        Some(most) if is_past(length, limit) => {
            Err(refuse("this process may not make a file of that length (ulimit -f)".to_owned())
                .fact("needed", length.exact())
                .fact("found", format!("at most {}", most.exact()))
                .next("ulimit -f unlimited    # in the shell that runs dmpool"))
        }
        _ => Ok(()),
    }
}

/// Returns whether a file of that length is longer than this process may make one.
pub fn is_past(length: Bytes, limit: Option<Bytes>) -> bool {
    limit.is_some_and(|most| length > most)
}

/// Refuses when an operation on that pool was interrupted and neither finished nor taken back, also one that carries it into another.
///
/// # Errors
/// Refused with the journal's id.
pub fn no_interrupted(kit: &Kit, pool: &str) -> Outcome<()> {
    match journal::find(&kit.state, |plan| plan.is_about(pool))? {
        Some(unfinished) => Err(is_unfinished(kit, &unfinished, &format!("change pool `{pool}`"))),
        None => Ok(()),
    }
}

/// Refuses to do something with a pool that a migration is prepared into, and that is for nothing else until then.
///
/// # Errors
/// Refused with what gives it up.
pub fn not_prepared(entry: &Entry, what: &str) -> Outcome<()> {
    let Some(root) = &entry.prepared else { return Ok(()) };
    let root = root.to_string_lossy();
    Err(Failure::refused(format!(
        "cannot {what}: a migration into it is prepared, and it is for nothing else until then"
    ))
    .fact("found", format!("it is for the Docker root {root}"))
    .fact("state", "nothing was touched")
    .next(format!(
        "dmpool migrate {0}    # switches to it; or  dmpool migrate {0} --drop-prepared  gives it up",
        process::quote(&root)
    )))
}

/// Refuses when an operation was interrupted that holds the Docker of that root, whatever pool it makes of it.
///
/// # Errors
/// Refused with the journal's id.
pub fn not_held(kit: &Kit, root: &Path) -> Outcome<()> {
    match journal::find(&kit.state, |plan| plan.held_root() == Some(root))? {
        Some(unfinished) => {
            let what = format!("migrate the Docker of `{}`", root.display());
            Err(is_unfinished(kit, &unfinished, &what))
        }
        None => Ok(()),
    }
}

fn is_unfinished(kit: &Kit, unfinished: &Unfinished, what: &str) -> Failure {
    let journal = &unfinished.journal;
    let id = &journal.opened.id;
    match unfinished.at_work {
        true => Failure::refused(format!("cannot {what}: another dmpool is at work on it"))
            .fact("by", format!("the one that writes the journal {id}"))
            .next("wait for it to end, then run this again"),
        false => Failure::refused(format!("cannot {what}: an operation on it was interrupted"))
            .fact("found", format!("the journal {id}: {}", journal.opened.plan.what))
            .next(journal::ways_out(kit, journal).ways()),
    }
}

/// Takes a lock, or says who has it.
///
/// # Errors
/// Refused when another dmpool has it, or it cannot be made.
pub fn lock(kit: &Kit, key: &str, what: &str) -> Outcome<FileLock> {
    let path = kit.state.locks.join(format!("{key}.lock"));
    let made = durable::make_dir_durably(&kit.state.locks, 0o700).and_then(|_| FileLock::try_exclusive(&path));
    match made {
        Ok(Ok(lock)) => Ok(lock),
        Ok(Err(holder)) => Err(Failure::refused(format!("cannot {what}: another dmpool is at work"))
            .fact("by", holder.to_string())
            .next("wait for it to end, then run this again")
            .awaiting([format!("another dmpool ({holder})")])),
        Err(e) => Err(own_disk::refusal(format!("cannot {what}: the lock cannot be taken"), &kit.state.locks, e)),
    }
}

/// The key of the lock for what does not exist yet, or is about to be there or not.
pub const EXISTENCE: &str = "existence";

/// Takes the lock of a registered pool, for who has [`EXISTENCE`] already: where its metadata's file is gone, that is its lock.
///
/// # Errors
/// As [`lock`].
pub fn lock_entry(kit: &Kit, entry: &Entry, what: &str) -> Outcome<Option<FileLock>> {
    let key = key_of_entry(entry);
    if key == EXISTENCE { Ok(None) } else { lock(kit, &key, what).map(Some) }
}

/// Returns the key of the lock of a registered pool.
pub fn key_of_entry(entry: &Entry) -> String {
    match entry.files() {
        Some([metadata, _]) => key_of(&metadata.file),
        None => format!("pool-{}", entry.uuid.pool()),
    }
}

/// Returns the key of the lock of a pool: by the file or device that holds its metadata.
pub fn key_of(metadata: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(metadata) {
        Ok(found) if found.is_file() => format!("file-{}-{}", found.dev(), found.ino()),
        Ok(found) => format!("device-{}", found.rdev()),
        Err(_) => EXISTENCE.to_owned(),
    }
}
