//! A journal's file: made whole with its space reserved, then written record by record, each synced.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::error::{Failure, Outcome};
use crate::kernel::lock::AtWork;
use crate::kernel::{Called, fs, identity};
use crate::ops::State;
use crate::ops::journal::record::{self, Journal, Opened, Record};
use crate::ops::plan::{Operation, Plan};
use crate::units::Bytes;

/// Room for the records of steps that are done, taken back and begun again several times, each with an error.
const RESERVED_FOR_RECORDS: usize = 64 * 1024;

/// More than any journal that dmpool writes has.
const MAX_JOURNAL: Bytes = Bytes::new(4 << 20);

/// What the journal of an operation that has ended is called, in the folder of what it has kept.
const ENDED: &str = "ended.journal";

/// An open journal.
#[derive(Debug)]
pub struct Log {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub journal: Journal,
    file: AtWork,
}

/// An operation that was begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What its journal says.
    pub journal: Journal,
    /// Whether the dmpool that carries it out lives; otherwise it was interrupted.
    pub at_work: bool,
}

impl Log {
    /// Opens a journal for a plan, with the space of all its records reserved.
    ///
    /// # Errors
    /// When the state directory cannot be written, or has no space: nothing was begun then.
    pub fn begin(state: &State, plan: Plan) -> Result<Self> {
        let opened = Opened {
            id: unused_id(state, &format!("{}-{}", plan.pool, stamp(SystemTime::now()))),
            boot: identity::boot_id()?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan,
        };
        let path = path_of(state, &opened.id);
        let mut bytes = record::first_line();
        let id = opened.id.clone();
        bytes.extend(Record::Opened(opened).line().with_context(|| format!("writing the journal {id}"))?);
        let journal = Journal::parse(&bytes)?;
        let whole = bytes.len() + RESERVED_FOR_RECORDS;
        bytes.resize(whole, 0);
        fs::make_dir_durably(&state.journals, 0o700)?;
        // Who finds it, finds that somebody is at work on it.
        let file = fs::write_replace_with(&path, &bytes, 0o600, |file| AtWork::begin(file, &path))?;
        Ok(Self { path, journal, file })
    }

    /// Opens a journal that an operation left behind.
    ///
    /// # Errors
    /// Refused when the file is no journal that this dmpool can use.
    pub fn resume(state: &State, id: &str) -> Outcome<Self> {
        let path = path_of(state, id);
        let journal = read(&path)?;
        let file = fs::open_existing(&path)
            .and_then(|file| AtWork::begin(file, &path))
            .map_err(|e| Failure::failed(format!("cannot open the journal `{id}`")).because(e))?;
        Ok(Self { path, journal, file })
    }

    /// Writes one record and syncs it.
    ///
    /// # Errors
    /// When the disk fails; the space is there already.
    pub fn write(&mut self, record: Record) -> Result<()> {
        let line = record.line()?;
        let context = || format!("writing the journal {}", self.path.display());
        let offset = u64::try_from(self.journal.length)?;
        self.file.file().write_all_at(&line, offset).with_context(context)?;
        self.file.file().sync_data().with_context(context)?;
        self.journal.length += line.len();
        self.journal.take(record).map_err(anyhow::Error::msg)
    }

    /// Ends the journal: the operation is whole, or wholly taken back.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn close(self) -> Result<()> {
        fs::remove_durably(&self.path).map(drop)
    }

    /// Ends the journal of an operation that is whole and can be taken back still: it is kept in that folder.
    ///
    /// # Errors
    /// When it cannot be renamed there; it is as it was then.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        rename(&self.path, &folder.join(ENDED))
    }
}

/// Returns the journal that [`Log::keep`] has kept in a folder; nothing when there is none.
///
/// # Errors
/// Refused when it is no journal that this dmpool can use.
pub fn ended(folder: &Path) -> Outcome<Option<Journal>> {
    read_if_there(&folder.join(ENDED))
}

/// Makes an operation whose journal was kept one that has not ended.
///
/// # Errors
/// When the journal is gone, or cannot be renamed.
pub fn reopen(state: &State, folder: &Path) -> Result<()> {
    let from = folder.join(ENDED);
    let id = read(&from).map_err(|failure| anyhow::anyhow!(failure.what))?.opened.id;
    rename(&from, &path_of(state, &id))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).called("rename", from.display())?;
    [to, from].into_iter().filter_map(Path::parent).try_for_each(fs::sync_dir)
}

/// Reads a journal, whether or not the operation is being carried out.
///
/// # Errors
/// Refused when there is none, or it is no journal that this dmpool can use.
pub fn of_id(state: &State, id: &str) -> Outcome<Journal> {
    read(&path_of(state, id))
}

fn read(path: &Path) -> Outcome<Journal> {
    read_if_there(path)?.ok_or_else(|| Failure::refused(format!("there is no journal `{}`", path.display())))
}

fn read_if_there(path: &Path) -> Outcome<Option<Journal>> {
    let bytes = match fs::read_limited(path, MAX_JOURNAL) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(e) => return Err(Failure::refused(format!("cannot read the journal `{}`", path.display())).because(e)),
    };
    Journal::parse(&bytes).map(Some).map_err(|bad| {
        Failure::refused(format!("cannot use the journal `{}`: {bad}", path.display()))
            .fact("state", "nothing was touched; the file was not changed, and the operation it belongs to is not finished")
            .next(format!(
                "look at the pools first (dmpool list); if they are as they should be, move it away:  mv {0} {0}.broken",
                path.display()
            ))
    })
}

/// Returns the ids of all journals, sorted: operations that were begun and not ended.
///
/// # Errors
/// When the directory is there and cannot be listed.
pub fn open_journals(state: &State) -> Result<Vec<String>> {
    let path = state.journals.display();
    let reader = match std::fs::read_dir(&state.journals) {
        Ok(reader) => reader,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).called("opendir", path).context("listing the journals"),
    };
    let mut ids = Vec::new();
    for file in reader {
        let name = file.called("readdir", &path).context("listing the journals")?.file_name();
        ids.extend(name.to_str().and_then(|n| n.strip_suffix(".journal")).map(str::to_owned));
    }
    ids.sort();
    Ok(ids)
}

/// Returns the pools that an operation was interrupted on. A journal that cannot be used says nothing here.
pub fn pools(state: &State) -> Vec<String> {
    let ids = open_journals(state).unwrap_or_default();
    let plans = ids.iter().filter_map(|id| read(&path_of(state, id)).ok()).map(|journal| journal.opened.plan);
    plans.filter(|plan| plan.operation != Operation::AtBoot).map(|plan| plan.pool).collect()
}

/// Returns the operation on a pool that was begun and has not ended.
///
/// # Errors
/// When the journals cannot be listed, or one of them cannot be used: it might be this pool's.
pub fn of_pool(state: &State, pool: &str) -> Outcome<Option<Unfinished>> {
    find(state, |plan| plan.pool == pool)
}

/// Returns an operation that was begun and has not ended, of which that is so.
///
/// # Errors
/// As [`of_pool`].
pub fn find(state: &State, is_it: impl Fn(&Plan) -> bool) -> Outcome<Option<Unfinished>> {
    let ids = open_journals(state).map_err(|e| Failure::failed("cannot list the journals").because(e))?;
    for id in ids {
        let path = path_of(state, &id);
        // One that ended since it was listed, or since it was read, is none.
        let found = read_if_there(&path)?.filter(|journal| is_it(&journal.opened.plan));
        if let Some(journal) = found
            && let Some(at_work) = AtWork::on(&path)
        {
            return Ok(Some(Unfinished { journal, at_work }));
        }
    }
    Ok(None)
}

/// Returns the operations on all pools but one that were begun and have not ended.
///
/// # Errors
/// As [`of_pool`].
pub fn others(state: &State, pool: &str) -> Outcome<Vec<Journal>> {
    let ids = open_journals(state).map_err(|e| Failure::failed("cannot list the journals").because(e))?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(read_if_there(&path_of(state, &id))?.filter(|journal| journal.opened.plan.pool != pool));
    }
    Ok(found)
}

fn path_of(state: &State, id: &str) -> PathBuf {
    state.journals.join(format!("{id}.journal"))
}

/// Returns an id that no journal has: boot activation may begin in the second in which another operation died.
fn unused_id(state: &State, wanted: &str) -> String {
    let others = (2_u32..).map(|number| format!("{wanted}-{number}"));
    let mut ids = std::iter::once(wanted.to_owned()).chain(others);
    ids.find(|id| std::fs::symlink_metadata(path_of(state, id)).is_err()).unwrap_or_else(|| wanted.to_owned())
}

/// Returns a moment as `20261121T101500Z`.
pub fn stamp(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string().replace(['-', ':'], "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_operation_that_is_carried_out_is_never_taken_for_an_interrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::below(dir.path());
        let plan = Plan {
            operation: Operation::Activate,
            pool: "p0".to_owned(),
            what: "activate pool `p0`".to_owned(),
            steps: Vec::new(),
            notes: Vec::new(),
        };
        let over = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    seen.extend(of_pool(&state, "p0").unwrap());
                }
                seen
            });
            for _ in 0..200 {
                Log::begin(&state, plan.clone()).unwrap().close().unwrap();
            }
            over.store(true, Ordering::Relaxed);
            looks.join().unwrap()
        });
        assert!(!seen.is_empty() && seen.iter().all(|it| it.at_work), "{} looks", seen.len());
    }

    #[test]
    fn a_journal_that_is_kept_is_open_no_more_and_can_be_again() {
        let dir = tempfile::tempdir().unwrap();
        let (state, folder) = (State::below(dir.path()), dir.path().join("records"));
        std::fs::create_dir(&folder).unwrap();
        let plan = Plan {
            operation: Operation::Migrate,
            pool: "p0".to_owned(),
            what: "migrate it".to_owned(),
            steps: Vec::new(),
            notes: Vec::new(),
        };
        assert_eq!(ended(&folder).unwrap(), None);
        let log = Log::begin(&state, plan).unwrap();
        log.keep(&folder).unwrap();
        assert_eq!((open_journals(&state).unwrap(), ended(&folder).unwrap()), (Vec::new(), Some(log.journal.clone())));
        reopen(&state, &folder).unwrap();
        assert_eq!(
            (open_journals(&state).unwrap(), ended(&folder).unwrap()),
            (vec![log.journal.opened.id.clone()], None)
        );
        assert!(reopen(&state, &folder).is_err());
    }

    #[test]
    fn a_moment_is_written_without_separators() {
        assert_eq!(stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1_787_393_700)), "20260822T101500Z");
    }
}
