//! How an operation that was interrupted can be ended: what still can be taken back, and what neither way may delete.

use anyhow::Result;

use crate::kernel::{ask, identity};
use crate::metadata::BadSuperblock;
use crate::ops::daemon::nobody_runs_on;
use crate::ops::journal::{Journal, Opened, Progress, volumes};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Hold, Kit, Step, TakeDown};
use crate::ops::{members, sight};
use crate::pool::Interrupted;

/// Returns which ways out of an interrupted operation there are, as things are now. What cannot be looked at closes none:
/// who goes that way is told then.
pub fn ways_out(kit: &Kit, journal: &Journal) -> Interrupted {
    let opened = &journal.opened;
    let looked = ask::within_limit(|| {
        let can_finish = !matches!(was_brought_up_since(kit, journal), Ok(true))
            && !matches!(volumes::is_back(kit, journal), Ok(Some(_)));
        let can_go_back = !stands(kit, journal)
            && !is_start_unknown(journal)
            && !matches!(used_past_hold(journal), Ok(Some(_)))
            && !matches!(used(kit, opened), Ok(Some(_)))
            && !matches!(volumes::used(kit, journal), Ok(Some(_)))
            && !matches!(volumes::may_have_grown(journal), Ok(true));
        (can_finish, can_go_back)
    });
    let (can_finish, can_go_back) = looked.unwrap_or((true, true));
    Interrupted {
        id: opened.id.clone(),
        what: opened.plan.what.clone(),
        destroys: can_go_back && destroys(&opened.plan),
        can_finish,
        can_go_back,
    }
}

/// Returns whether it is asked for that data go: files, folders, what labels lead to, LVs, a volume.
pub fn destroys(plan: &Plan) -> bool {
    let goes = |step: &Step| {
        matches!(
            step,
            Step::DeleteFile(_)
                | Step::EraseLabel(_)
                | Step::RemoveVolume(_)
                | Step::DeleteThin(_)
                | Step::DeleteFolder(_)
                | Step::TakeDown(TakeDown { deletes: Some(_), .. })
        )
    };
    matches!(plan.operation, Operation::Destroy | Operation::ThinRemove | Operation::DeleteOld)
        && plan.steps.iter().any(goes)
}

/// Returns whether nothing that came before a step is taken back when it stands. Where Docker is held only what Docker is told by, or runs
/// on, does that: what somebody has done to the new pool's devices is no reason to leave Docker stopped.
pub const fn ends_the_way_back(operation: Operation, step: &Step) -> bool {
    !operation.holds_docker()
        || matches!(step, Step::StartDocker(_) | Step::DropHold(_) | Step::WriteConfig(_) | Step::SetAside(_))
}

/// Returns what shows that somebody has started a Docker past the hold, on what had taken the old one's place by then: going back
/// would lose what it has written. Nothing once the hold was dropped as planned: from then on [`Hold::used_since`] tells.
///
/// # Errors
/// When what the root looked like before cannot be read.
///
/// [`Hold::used_since`]: crate::ops::steps::Hold::used_since
pub fn used_past_hold(journal: &Journal) -> Result<Option<String>> {
    let Some(hold) = held_on_what_was_made(journal) else { return Ok(None) };
    let used = hold.used_past()?;
    Ok((!used.is_empty()).then(|| used.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ")))
}

/// Returns what keeps Docker from what has taken the old one's place; nothing when that has not, or Docker was let start as planned.
fn held_on_what_was_made(journal: &Journal) -> Option<&Hold> {
    let steps = || journal.opened.plan.steps.iter().zip(&journal.progress);
    let is_begun = |progress: &Progress| matches!(progress, Progress::Perhaps | Progress::Done);
    let took_its_place = steps().any(|(step, progress)| matches!(step, Step::SetAside(_)) && is_begun(progress));
    let hold = steps().find_map(|(step, _)| match step {
        Step::HoldDocker(held) if !held.hold.was_dropped() => Some(&held.hold),
        _ => None,
    });
    hold.filter(|_| took_its_place)
}

/// Returns whether a Docker runs, or ran, past the hold on what had taken the old one's place by then: nothing is taken back by itself
/// then, as its folder would be renamed under it.
pub fn is_past_hold(journal: &Journal) -> bool {
    held_on_what_was_made(journal).is_some_and(|hold| nobody_runs_on(&hold.root).is_err())
        || matches!(used_past_hold(journal), Ok(Some(_)))
}

/// Returns whether Docker may have run on what was made for it, and nothing says any more what that was like before.
pub fn is_start_unknown(journal: &Journal) -> bool {
    let mut steps = journal.opened.plan.steps.iter().zip(&journal.progress);
    steps.any(|(step, progress)| {
        matches!(step, Step::DropHold(dropped)
            if is_unknown(*progress, dropped.hold.was_dropped(), dropped.hold.is_held()))
    })
}

/// What it was like is written down before the hold is lifted, and goes after it is there again.
const fn is_unknown(drop: Progress, has_marks: bool, is_held: bool) -> bool {
    let may_be_lifted = match drop {
        Progress::Done => true,
        Progress::Perhaps => !is_held,
        Progress::Not | Progress::Reverted => false,
    };
    may_be_lifted && !has_marks
}

/// Returns whether the effect of a step that was begun is there for good.
fn stands(kit: &Kit, journal: &Journal) -> bool {
    let operation = journal.opened.plan.operation;
    let mut steps = journal.opened.plan.steps.iter().zip(&journal.progress);
    let rebooted = identity::boot_id().is_ok_and(|boot| boot != journal.opened.boot);
    // What stands when it is taken back is written down as taken back too.
    steps.any(|(step, progress)| {
        let may_stand = *progress != Progress::Not || rebooted && !step.act().lasts();
        may_stand && ends_the_way_back(operation, step) && step.act().stands(kit).unwrap_or(false)
    })
}

/// Returns what shows that a pool which was being made, or made anew, has been used: taking it back would delete that.
/// Nothing when nothing shows it, or another operation was interrupted.
///
/// # Errors
/// When the pool cannot be looked at.
pub fn used(kit: &Kit, opened: &Opened) -> Result<Option<String>> {
    if !matches!(opened.plan.operation, Operation::Create | Operation::ActivateAnew) {
        return Ok(None);
    }
    let (transaction, data) = if sight::live(&kit.dm, &opened.plan.pool)?.is_some() {
        match sight::status(&kit.dm, &opened.plan.pool)?.working() {
            Some(working) => (working.transaction_id, working.data_used),
            None => return Ok(Some("the pool does not work, and what is in it cannot be told".to_owned())),
        }
    } else {
        let recorded = match opened.plan.entry().map(|entry| members::recorded(&kit.dm, entry)) {
            Some(Err(why)) if members::is_incomplete(&why) => None,
            recorded => recorded.transpose()?,
        };
        match recorded {
            Some(Ok(superblock)) => (superblock.transaction_id, superblock.data_used),
            // A file is empty from when it is made until it has its length: nothing was ever in it.
            Some(Err(BadSuperblock::Zero | BadSuperblock::Short(0))) | None => return Ok(None),
            Some(Err(bad)) => return Ok(Some(format!("what is in it cannot be told: {bad}"))),
        }
    };
    let is_used = transaction > 0 || data.get() > 0;
    Ok(is_used.then(|| format!("transaction id {transaction}, {data} data blocks in use")))
}

/// Returns whether somebody has brought the pool up that an interrupted `destroy` had taken down: finishing it would
/// delete what has been written to it since.
///
/// # Errors
/// When the kernel does not answer.
pub fn was_brought_up_since(kit: &Kit, journal: &Journal) -> Result<bool> {
    let plan = &journal.opened.plan;
    let taken_down = plan.operation == Operation::Destroy
        && plan.steps.iter().zip(&journal.progress).any(|(step, progress)| {
            matches!((step, progress), (Step::TakeDown(TakeDown { made_by, .. }), Progress::Done)
                if matches!(**made_by, Step::MakePool(_)))
        });
    Ok(taken_down && sight::live(&kit.dm, &plan.pool)?.is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::daemon::used;
    use crate::ops::steps::{HoldDocker, MakeDirectory, SetAside};

    #[test]
    fn without_what_it_was_like_before_a_start_cannot_be_told() {
        let told = |has_marks, is_held| {
            use Progress::{Done, Not, Perhaps, Reverted};
            [Not, Perhaps, Done, Reverted].map(|drop| is_unknown(drop, has_marks, is_held))
        };
        assert_eq!(told(false, false), [false, true, true, false]);
        assert_eq!(told(false, true), [false, false, true, false]);
        assert_eq!((told(true, false), told(true, true)), ([false; 4], [false; 4]));
    }

    #[test]
    fn a_docker_past_the_hold_is_seen_once_what_was_made_took_the_old_ones_place() {
        let temp = tempfile::tempdir().unwrap();
        let (root, records) = (temp.path().join("docker"), temp.path().join("records"));
        let networks = root.join("network/files/local-kv.db");
        std::fs::create_dir_all(networks.parent().unwrap()).unwrap();
        std::fs::create_dir(&records).unwrap();
        std::fs::write(&networks, "").unwrap();
        let marks = serde_json::to_vec(&used::look(&root)).unwrap();
        std::fs::write(records.join("while-it-is-held.json"), marks).unwrap();
        let hold = Hold { root, records, ..Hold::of_nothing() };
        let steps = vec![HoldDocker { hold }.into(), SetAside { from: "/a".into(), to: "/b".into() }.into()];
        let plan = Plan {
            operation: Operation::Migrate,
            pool: "p0".to_owned(),
            what: "migrate".to_owned(),
            steps,
            notes: Vec::new(),
        };
        let opened = Opened { id: "p0".to_owned(), boot: "b".to_owned(), version: "0".to_owned(), plan };
        let journal = |aside| Journal {
            opened: opened.clone(),
            progress: vec![Progress::Done, aside],
            boot: "b".to_owned(),
            length: 0,
        };
        assert!(!is_past_hold(&journal(Progress::Done)), "nobody has used it");
        let file = std::fs::File::options().write(true).open(&networks).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let used = used_past_hold(&journal(Progress::Perhaps)).unwrap();
        assert_eq!(used.as_deref(), Some("Docker's networks"));
        assert!(is_past_hold(&journal(Progress::Done)));
        assert!(!is_past_hold(&journal(Progress::Not)), "it ran on the old one");
    }

    #[test]
    fn a_migration_goes_back_over_what_others_did_to_the_new_pool_only() {
        let made = Step::from(MakeDirectory { path: "/srv/p0".into(), parents: false });
        let aside = Step::from(SetAside { from: "/a".into(), to: "/b".into() });
        assert!(!ends_the_way_back(Operation::Migrate, &made) && ends_the_way_back(Operation::Migrate, &aside));
        assert!(ends_the_way_back(Operation::Grow, &made));
    }
}
