//! What Docker's files say about what Docker will do with the pool.

use super::Facts;
use super::ways;
use crate::engine::docker_root::DockerRoot;
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
    findings
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
            finding.sentence.push_str(&format!("; from {} on it would not", enough.human()));
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
            finding.sentence.push_str(&format!("; from {} on it would not", enough.human()));
        }
        finding.ways.extend(ways::grow_metadata(pool));
        return Some(finding);
    }
    None
}

/// A stopped Docker whose open transaction is ahead of the pool takes the creation it was for back when it starts: it
/// deletes that device and its file. A running one has done so, or is in the middle of a creation.
fn transaction(pool: &PoolReport, root: &DockerRoot) -> Option<Finding> {
    if root.daemon.is_some() {
        return None;
    }
    let open = root.transaction.as_ref()?;
    let working = pool.status.as_ref().and_then(PoolStatus::working);
    let of_pool = working.map(|w| w.transaction_id).or_else(|| pool.recorded.map(|r| r.transaction_id))?;
    let ahead = open.id.checked_sub(of_pool).filter(|by| *by > 0)?;
    let kept = quote(&root.path.join("devicemapper/metadata").to_string_lossy());
    let device =
        if open.device_hash.is_empty() { "a device".to_owned() } else { format!("device {}", open.device_hash) };
    let says = format!("Docker's open transaction is {}, the pool's is {of_pool}: Docker deletes {device}", open.id);
    let (severity, sentence) = if ahead == 1 {
        // One ahead is what a power cut in the middle of a creation leaves, and then the deletion is right.
        (Severity::Warning, format!("{says} when it starts, as after a power cut while it was being made"))
    } else {
        (Severity::Critical, format!("{says} when it starts; the pool is older than Docker's files, or another one"))
    };
    let object = root.path.to_string_lossy();
    let finding = Finding::new(Key::TransactionAhead, severity, object, sentence);
    let finding = finding.way(format!("cp -a {kept} {kept}.before"), "seconds; Docker stays stopped");
    Some(if ahead == 1 { finding } else { finding.way("dmpool list", "to find the newer pool; Docker stays stopped") })
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
            .way(format!("mv {path} {path}.old"), "online, when no loop device has it"),
    )
}
