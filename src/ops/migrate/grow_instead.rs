//! What `grow` would do without a copy, and whether it can.

use std::path::Path;

use super::Ground;
use super::blocks::Origin;
use super::size::Old;
use crate::kernel::dm::Dm;
use crate::kernel::fs::FsFacts;
use crate::ops::{State, promised, sight};
use crate::pool::PoolStatus;
use crate::units::Bytes;

/// Whether `grow` takes a pool as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grow {
    /// It does.
    Now,
    /// Once the pool is up.
    OnceUp,
    /// Not before somebody has looked what is wrong with the pool.
    Not,
}

/// Returns whether `grow` takes a pool: one that is down it refuses, and one that is suspended, has failed or needs a check.
pub(super) fn may_grow(dm: &Dm, pool: &str, needs_check: bool) -> Grow {
    let live = match sight::live(dm, pool) {
        Ok(Some(live)) => live,
        Ok(None) => return if needs_check { Grow::Not } else { Grow::OnceUp },
        Err(_) => return Grow::Not,
    };
    let is_well = |status| matches!(status, PoolStatus::Working(working) if working.needs_check != Some(true));
    let is_well = !needs_check && !live.info.suspended && sight::status(dm, pool).is_ok_and(is_well);
    if is_well { Grow::Now } else { Grow::Not }
}

/// Returns the sentence on a pool that becomes larger and nothing else: it names what does that without a copy.
pub(super) fn sentence(ground: &Ground<'_>, old: &Old, data: Bytes, metadata: Bytes) -> String {
    if data == old.data && metadata == old.metadata {
        return "the pool is as large as that already, with blocks of that length: it is only copied".to_owned();
    }
    let name = ground.root.as_typed();
    let mut sizes = String::new();
    if data > old.data {
        sizes.push_str(&format!(" {}", data.typed()));
    }
    if metadata > old.metadata {
        sizes.push_str(&format!(" --metadata {}", metadata.typed()));
    }
    let overcommits = matches!(&old.origin, Origin::Parts { data, .. } if has_no_room(&ground.kit.state, data));
    if overcommits {
        sizes.push_str(" --overcommit");
    }
    told(may_grow(&ground.kit.dm, &old.pool, old.superblock.needs_check), &name, &sizes)
}

fn told(grow: Grow, name: &str, sizes: &str) -> String {
    match grow {
        Grow::Now => format!(
            "nothing needs to be copied for that:  dmpool grow {name}{sizes}    # does it in a moment, while containers run"
        ),
        Grow::OnceUp => format!("nothing needs to be copied for that, once Docker is up:  dmpool grow {name}{sizes}"),
        Grow::Not => format!(
            "grow would copy nothing, and refuses the pool as it is now:  dmpool health {name}    # says what is wrong with it"
        ),
    }
}

/// Whether all that the file system of a loop file has is promised to pools already: `grow` wants to hear then that it is known.
fn has_no_room(state: &State, file: &Path) -> bool {
    if !file.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    FsFacts::of(file).is_ok_and(|fs| fs.free <= promised::by_others(state, fs.devno, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grow_would_refuse_is_not_promised() {
        let says = |grow| told(grow, "docker", " 200G");
        assert!(says(Grow::Now).contains("dmpool grow docker 200G    # does it in a moment"));
        assert!(says(Grow::OnceUp).ends_with("once Docker is up:  dmpool grow docker 200G"));
        assert!(!says(Grow::Not).contains("dmpool grow") && says(Grow::Not).contains("dmpool health docker"));
    }
}
