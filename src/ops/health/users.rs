//! Who is told to use a pool: two engines on one are in each other's way.

use crate::ops::told::Told;
use crate::pool::{Finding, Key, PoolReport, Severity};

/// Judges a pool that more than one engine is told to use.
pub(super) fn judge(pool: &PoolReport, told: &[Told]) -> Option<Finding> {
    let first = told.first()?;
    let other = told.iter().find(|other| other.engine != first.engine)?;
    let by = |told: &Told| format!("{} (by {})", told.engine.name(), told.by);
    let sentence = format!(
        "both {} and {} are told to use it: each takes ids and space of it as if it were alone",
        by(first),
        by(other)
    );
    let finding = Finding::new(Key::TwoUsers, Severity::Warning, &pool.name, sentence);
    let way = |told: &Told, stays: &Told| {
        let (engine, stays) = (told.engine.name(), stays.engine.name());
        format!("if it is {stays}'s pool, {}, and start {engine} again", told.way_out())
    };
    Some(finding.act(way(other, first), "seconds").act(way(first, other), "seconds"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::handover::Engine;
    use crate::report::samples::mute_pool;

    #[test]
    fn two_engines_on_one_pool_are_told_of_and_one_is_not() {
        let told = |engine: Engine, by: &str, words: &str| Told {
            engine,
            by: by.to_owned(),
            words: words.to_owned(),
            runs: false,
        };
        let docker = told(Engine::Docker, "/etc/docker/daemon.json", "dm.thinpooldev=p0");
        let unit = Told { by: "docker.service".to_owned(), ..docker.clone() };
        let containerd = told(Engine::Containerd, "/etc/containerd/config.toml", "pool_name = \"p0\"");
        let pool = mute_pool();
        assert_eq!(judge(&pool, &[]), None);
        assert_eq!(judge(&pool, &[docker.clone(), unit]), None);
        let found = judge(&pool, &[docker, containerd]).unwrap();
        let said = "both Docker (by /etc/docker/daemon.json) and containerd (by /etc/containerd/config.toml)";
        assert!(found.sentence.starts_with(said), "{found:?}");
        let way = found.ways[0].first.as_deref().unwrap();
        assert!(
            way.contains("if it is Docker's pool, take pool_name") && way.ends_with("start containerd again"),
            "{way}"
        );
    }
}
