//! Who has the old pool in use beside Docker that runs: it would be found only when all is stopped.

use anyhow::Result;

use super::blocks::Origin;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::kernel::holders;
use crate::ops::{sight, volumes};
use crate::process::quote;

/// A volume of the old pool that the kernel has.
struct Active {
    /// Its dm name.
    name: String,
    /// Who has it open, when somebody does.
    open: Option<String>,
}

/// Refuses an old pool that somebody will have in use when Docker is down: `prefix` is what the names of Docker's own volumes begin
/// with, where Docker runs and will let go of them.
///
/// # Errors
/// Refused with who it is; when the kernel does not answer.
pub(super) fn none_else(
    dm: &Dm,
    pool: &str,
    origin: &Origin,
    prefix: Option<&str>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    let look = || -> Result<Option<Vec<Active>>> {
        let Some(live) = sight::live(dm, pool)? else { return Ok(None) };
        let active = volumes::devices(dm, live.info.devno)?.into_iter().map(|thin| {
            let who = || holders::of(thin.info.devno).map(|all| all.into_iter().next());
            let open = match thin.info.open_count {
                0 => None,
                _ => Some(who()?.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string())),
            };
            Ok(Active { name: thin.info.name, open })
        });
        active.collect::<Result<_>>().map(Some)
    };
    let active = look().map_err(|e| refuse("who uses its pool cannot be told".to_owned()).because(e))?;
    active.map_or(Ok(()), |active| judge(pool, origin, prefix, &active, refuse))
}

fn judge(
    pool: &str,
    origin: &Origin,
    prefix: Option<&str>,
    active: &[Active],
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    let is_dockers =
        |name: &str| prefix.and_then(|prefix| name.strip_prefix(prefix)).is_some_and(|rest| rest.starts_with('-'));
    let others = active.iter().filter(|thin| !is_dockers(&thin.name));
    if let Some((name, by)) = others.clone().find_map(|thin| Some((&thin.name, thin.open.as_ref()?))) {
        let whom = if prefix.is_some() { ", and not by Docker" } else { "" };
        return Err(refuse(format!("the volume `{name}` of the pool `{pool}` is in use{whom}"))
            .fact("by", by)
            .fact("state", "nothing was touched")
            .next("let go of it (umount it, or stop who has it), then run this again"));
    }
    if prefix.is_none() && matches!(origin, Origin::Parts { .. }) {
        let names: Vec<_> = active.iter().map(|thin| thin.name.as_str()).chain([pool]).map(quote).collect();
        return Err(refuse(format!("Docker is down, and its pool `{pool}` is still up"))
            .fact("state", "nothing was touched")
            .next(format!("dmsetup remove {}    # Docker brings it up again when it starts", names.join(" "))));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_dockers_own_volumes_may_be_in_use_and_only_while_it_runs() {
        let refuse = |why: String| Failure::refused(why);
        let parts = Origin::Parts { data: "/d/data".into(), metadata: "/d/metadata".into() };
        let named = Origin::Pool("p0".to_owned());
        let thin = |name: &str, open: bool| Active { name: name.to_owned(), open: open.then(|| "/mnt".to_owned()) };
        let why = |origin, prefix, active: &[Active]| {
            judge("p0", origin, prefix, active, &refuse).map_or_else(|failure| failure.what, |()| String::new())
        };
        let own = Some("docker-8:1-2");
        for origin in [&parts, &named] {
            assert_eq!(why(origin, own, &[thin("docker-8:1-2-abc", true), thin("p0-web", false)]), "");
            assert!(why(origin, own, &[thin("p0-web", true)]).contains("`p0-web` of the pool `p0` is in use, and not"));
            assert!(why(origin, own, &[thin("docker-8:1-23-abc", true)]).contains("in use"), "of another root");
            assert!(why(origin, None, &[thin("docker-8:1-2-abc", true)]).ends_with("is in use"));
        }
        assert_eq!(why(&named, None, &[thin("p0-web", false)]), "");
        let up = judge("p0", &parts, None, &[thin("docker-8:1-2-abc", false)], &refuse).unwrap_err();
        assert!(up.what.contains("still up") && up.next.unwrap().starts_with("dmsetup remove docker-8:1-2-abc p0 "));
    }
}
