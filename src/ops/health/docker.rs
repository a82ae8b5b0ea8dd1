//! What Docker's files say about what Docker will do with the pool.

use super::Facts;
use super::ways;
use crate::engine::configuration::Twice;
use crate::engine::docker_root::{DockerRoot, Standing};
use crate::engine::minimum_free::{kept_free, lets_docker_work, smallest_total};
use crate::pool::{Finding, Key, Mode, PoolReport, PoolStatus, Severity};
use crate::process::quote;
use crate::units::{Bytes, DataBlocks, META_BLOCK_BYTES};

/// Judges a Docker pool by Docker's own bookkeeping.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(root) = facts.docker else { return Vec::new() };
    let mut findings = Vec::new();
    findings.extend(minimum_free(facts.pool, root));
    findings.extend(transaction(facts.pool, root));
    findings.extend(old_loop_files(facts.pool, root));
    findings.extend(root.twice.iter().map(|twice| option_twice(root, twice)));
    findings
}

/// An option in two places: the daemon that runs took one, and the next one takes none.
fn option_twice(root: &DockerRoot, twice: &Twice) -> Finding {
    let Twice { key, flag, from, value, file } = twice;
    let (file, from) = (file.display(), from.display());
    let severity = if root.daemon.is_some() { Severity::Warning } else { Severity::Critical };
    let sentence = format!("Docker does not start with `{key}` in two places: {flag} in {from}, and {value} in {file}");
    Finding::new(Key::OptionTwice, severity, file.to_string(), sentence).act(
        format!("remove `{key}` from {file}, or from the command line in {from}"),
        "seconds; before the next start",
    )
}

/// Whether Docker makes layers on the pool as full as it is: asked of the data, then of the metadata.
fn minimum_free(pool: &PoolReport, root: &DockerRoot) -> Option<Finding> {
    let mode = pool.status.as_ref().and_then(PoolStatus::working).and_then(|w| w.mode);
    if matches!(mode, Some(Mode::OutOfDataSpace | Mode::ReadOnly)) {
        return None;
    }
    let percent = root.options.minimum_free_percent()?;
    let block = pool.block_size()?;
    let (data, metadata) = (pool.data_space()?, pool.metadata_space()?);
    let blocks = |bytes: Bytes, unit: u64| bytes.get().checked_div(unit).unwrap_or(0);
    let critical = |what: &str, keeps: Bytes, free: Bytes| {
        let sentence = format!(
            "the next docker pull or run fails: Docker keeps {percent}% of the {what} free, {}, and {} are",
            keeps.human(),
            free.human()
        );
        Finding::new(Key::MinimumFree, Severity::Critical, root.path.to_string_lossy(), sentence)
    };
    let unit = block.bytes().get();
    let (used, total) = (blocks(data.used, unit), blocks(data.total, unit));
    if !lets_docker_work(used, total, percent) {
        let keeps = block.bytes_of(DataBlocks::new(kept_free(total, percent)));
        let mut finding = critical("data", keeps, data.free());
        if let Some(enough) = smallest_total(used, percent) {
            let enough = block.bytes_of(DataBlocks::new(enough));
            finding.sentence.push_str(&format!("; from {} on it would not", enough.exact()));
            finding.ways.extend(ways::grow_data_to(pool, enough));
        }
        finding.ways.extend(ways::prune(Some(root)));
        return Some(finding);
    }
    let (used, total) = (blocks(metadata.used, META_BLOCK_BYTES), blocks(metadata.total, META_BLOCK_BYTES));
    if !lets_docker_work(used, total, percent) {
        let keeps = Bytes::new(kept_free(total, percent).saturating_mul(META_BLOCK_BYTES));
        let mut finding = critical("metadata", keeps, metadata.free());
        if let Some(enough) = smallest_total(used, percent) {
            let enough = Bytes::new(enough.saturating_mul(META_BLOCK_BYTES));
            finding.sentence.push_str(&format!("; from {} on it would not", enough.exact()));
        }
        finding.ways.extend(ways::grow_metadata(pool));
        return Some(finding);
    }
    None
}

/// A stopped Docker whose open transaction is ahead of the pool takes the creation it was for back when it starts: it
/// deletes that device and its file. A running one has done so, or is in the middle of a creation.
fn transaction(pool: &PoolReport, root: &DockerRoot) -> Option<Finding> {
    if root.daemon.is_some() || root.standing == Standing::Left {
        return None;
    }
    let open = root.transaction.as_ref()?;
    let working = pool.status.as_ref().and_then(PoolStatus::working);
    let of_pool = working.map(|w| w.transaction_id).or_else(|| pool.recorded.map(|r| r.transaction_id))?;
    let ahead = open.id.checked_sub(of_pool).filter(|by| *by > 0)?;
    let kept = quote(&root.path.join("devicemapper/metadata").to_string_lossy());
    let base = open.device_hash.is_empty();
    let device = if base { "its base device".to_owned() } else { format!("device {}", open.device_hash) };
    let says = format!("Docker's open transaction is {}, the pool's is {of_pool}: Docker deletes {device}", open.id);
    // One ahead is what a power cut in the middle of a creation leaves, and then the deletion is right; not so when the
    // pool has never had a transaction, or when it is the base that all others stand on.
    let creation = ahead == 1 && of_pool > 0 && !base;
    let (severity, sentence) = if creation {
        (Severity::Warning, format!("{says} when it starts, as after a power cut while it was being made"))
    } else {
        (Severity::Critical, format!("{says} when it starts; the pool is older than Docker's files, or another one"))
    };
    let object = root.path.to_string_lossy();
    let finding = Finding::new(Key::TransactionAhead, severity, object, sentence);
    let finding = finding.run(format!("cp -a {kept} {kept}.before"), "seconds; Docker stays stopped");
    Some(if creation { finding } else { finding.run("dmpool list", "to find the newer pool; Docker stays stopped") })
}

/// Docker with another pool, and its old loop files still there: started once without its option, it takes those.
fn old_loop_files(pool: &PoolReport, root: &DockerRoot) -> Option<Finding> {
    let data = root.data_file.as_ref()?;
    let option = root.options.known()?.named_pool()?;
    if option != pool.name {
        return None;
    }
    let path = quote(&data.to_string_lossy());
    let sentence = format!(
        "the old loop file {} is still there: Docker started once without its option for `{option}` uses it, and \
         deletes what only the new pool has",
        data.display()
    );
    Some(
        Finding::new(Key::OldLoopFiles, Severity::Warning, data.to_string_lossy(), sentence)
            .run(format!("mv {path} {path}.old"), "online, when no loop device has it"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::bookkeeping::Transaction;
    use crate::engine::docker_root::Options;
    use crate::engine::options::StorageOptions;
    use crate::report::samples::{docker_pool, docker_root, stopped_docker_pool};

    fn found(pool: &PoolReport, root: &DockerRoot) -> Vec<Finding> {
        judge(&Facts { docker: Some(root), ..Facts::of(pool) })
    }

    fn with_used(data: u64, metadata: u64) -> PoolReport {
        let line = format!("9 {metadata}/524288 {data}/1638400 - rw discard_passdown queue_if_no_space - 1024");
        docker_pool(&line, 1 << 40)
    }

    #[test]
    fn the_next_pull_fails_below_dockers_minimum_and_the_size_is_told() {
        let root = docker_root();
        assert_eq!(found(&with_used(1_474_560, 9), &root), []);
        let refused = found(&with_used(1_474_561, 9), &root);
        assert_eq!((refused[0].key, refused[0].severity), (Key::MinimumFree, Severity::Critical));
        // 1474561 / 0.9 rounded up, times 64 KiB.
        assert!(refused[0].sentence.ends_with("from 100.0 GiB (107374247936 bytes) on it would not"), "{refused:?}");
        assert_eq!(refused[0].ways[0].command.as_deref().unwrap(), "dmpool grow docker 101G");
        let metadata = found(&with_used(9, 471_861), &root);
        assert!(metadata[0].sentence.contains("10% of the metadata free, 204.8 MiB"), "{metadata:?}");
        assert_eq!(metadata[0].ways[0].command.as_deref().unwrap(), "dmpool grow docker --metadata +1G");
        let none = Options::Running(StorageOptions::parse(["dm.min_free_space=0%"]));
        assert_eq!(found(&with_used(1_600_000, 9), &DockerRoot { options: none, ..docker_root() }), []);
        assert_eq!(found(&with_used(1_600_000, 9), &DockerRoot { options: Options::Unknown, ..docker_root() }), []);
    }

    #[test]
    fn a_transaction_ahead_is_told_while_docker_is_stopped() {
        let root = |id, hash: &str| DockerRoot {
            daemon: None,
            transaction: Some(Transaction { id, device_hash: hash.to_owned(), device_id: 7 }),
            ..docker_root()
        };
        // The pool is at 180.
        let pool = stopped_docker_pool();
        assert_eq!(found(&pool, &root(180, "aa")), []);
        assert_eq!(found(&pool, &root(179, "aa")), []);
        let cut = found(&pool, &root(181, "aa"));
        assert_eq!((cut[0].key, cut[0].severity), (Key::TransactionAhead, Severity::Warning));
        assert_eq!(found(&pool, &root(181, ""))[0].severity, Severity::Critical, "the base device");
        let older = found(&pool, &root(186, "aa"));
        assert_eq!(older[0].severity, Severity::Critical);
        assert!(older[0].sentence.contains("is 186, the pool's is 180: Docker deletes device aa"), "{older:?}");
        assert!(
            older[0].ways[0].command.as_deref().unwrap().starts_with("cp -a /var/lib/docker/devicemapper/metadata "),
            "{older:?}"
        );
        let running = DockerRoot { daemon: docker_root().daemon, ..root(186, "aa") };
        assert_eq!(found(&pool, &running), []);
    }

    #[test]
    fn an_option_in_two_places_is_as_bad_as_docker_is_down() {
        let twice = Twice {
            key: "storage-opts".to_owned(),
            flag: "dm.basesize=20G".to_owned(),
            from: "/etc/systemd/system/docker.service".into(),
            value: "[\"dm.basesize=10G\"]".to_owned(),
            file: "/etc/docker/daemon.json".into(),
        };
        let running = DockerRoot { twice: vec![twice], ..docker_root() };
        let warned = found(&with_used(9, 9), &running);
        assert_eq!((warned[0].key, warned[0].severity), (Key::OptionTwice, Severity::Warning));
        assert!(warned[0].sentence.contains("dm.basesize=20G in /etc/systemd/system/docker.service"), "{warned:?}");
        let down = found(&with_used(9, 9), &DockerRoot { daemon: None, ..running });
        assert_eq!(down[0].severity, Severity::Critical);
    }

    #[test]
    fn old_loop_files_beside_another_pool_are_told() {
        let options = Options::Running(StorageOptions::parse(["dm.thinpooldev=/dev/mapper/tp"]));
        let root = DockerRoot { options, ..docker_root() };
        let other = PoolReport { name: "tp".to_owned(), ..with_used(9, 9) };
        let old = found(&other, &root);
        assert_eq!((old[0].key, old[0].severity), (Key::OldLoopFiles, Severity::Warning));
        assert!(old[0].ways[0].command.as_deref().unwrap().ends_with("devicemapper/data.old"), "{old:?}");
        assert_eq!(found(&other, &DockerRoot { data_file: None, ..root }), []);
        assert_eq!(found(&with_used(9, 9), &docker_root()), [], "its own files are no old ones");
    }
}
