//! What the user should know of a pool at its new size.

use crate::engine::minimum_free;
use crate::ops::grow::{Facts, Options};
use crate::ops::health;
use crate::ops::steps::Part;
use crate::pool::{PoolReport, Space, Working, sizing};
use crate::units::{BlockSize, Bytes, DataBlocks, MAX_META_BLOCKS, META_BLOCK_BYTES};

/// Returns it, each a sentence.
pub(super) fn after(facts: &Facts, options: &Options, to: Bytes, working: &Working) -> Vec<String> {
    let part = options.part;
    let mut notes = Vec::new();
    let metadata = facts.report.metadata_space().map(|space| space.total.max(options.metadata.unwrap_or_default()));
    if let (Part::Data, Some(metadata)) = (part, metadata) {
        notes.extend(more_metadata(&facts.report, to, metadata));
    }
    if facts.report.gave_up_queueing() {
        notes.push(
            "the pool was full for longer than the kernel queues writes: writes that had been acknowledged were lost; check the file systems on its volumes"
                .to_owned(),
        );
    }
    if let (Some(percent), Some(block), Some(metadata)) =
        (facts.docker_minimum, facts.report.block_size(), facts.report.metadata_space())
    {
        let (data, metadata) = match part {
            Part::Data => (block.blocks_in(to.sectors()), metadata),
            Part::Metadata => (working.data_total, Space { total: to, ..metadata }),
        };
        notes.extend(docker_note(working.data_used, data, metadata, block, percent));
    }
    notes
}

/// Returns what to say of data that so much metadata cannot map by the kernel's rule. It is said and not done: on a full
/// pool the data comes first, and nothing may fail before it.
fn more_metadata(report: &PoolReport, data: Bytes, metadata: Bytes) -> Option<String> {
    let blocks = report.block_size()?.blocks_in(data.sectors());
    let (rule, most) = (sizing::metadata_for(blocks).bytes(), MAX_META_BLOCKS.bytes());
    let may_be_full = "may be full before the data is: the kernel's rule (48 bytes for each block) asks for";
    if metadata >= most && blocks.get().saturating_mul(48) > most.get() {
        return Some(format!(
            "its metadata has {}, all that the kernel uses, and {may_be_full} more",
            metadata.human()
        ));
    }
    let enough = Bytes::new(rule.get().next_multiple_of(1 << 20)).min(most);
    (metadata < rule).then(|| {
        format!(
            "its metadata has {} and {may_be_full} {}; next: dmpool grow {} --metadata {}",
            metadata.human(),
            rule.human(),
            health::argument(report),
            enough.typed()
        )
    })
}

/// Returns what Docker makes of a pool's size: whether it makes new layers, and from which size on it does. It asks the
/// same of data and metadata, the data first (`poolHasFreeSpace`).
fn docker_note(used: DataBlocks, total: DataBlocks, metadata: Space, block: BlockSize, percent: u8) -> Option<String> {
    let kept = block.bytes_of(DataBlocks::new(minimum_free::kept_free(total.get(), percent)));
    let metadata = [metadata.used, metadata.total].map(|bytes| bytes.get() / META_BLOCK_BYTES);
    let [metadata_used, metadata_total] = metadata;
    if minimum_free::lets_docker_work(used.get(), total.get(), percent)
        && !minimum_free::lets_docker_work(metadata_used, metadata_total, percent)
    {
        let enough = minimum_free::smallest_total(metadata_used, percent)?;
        return Some(format!(
            "Docker keeps {percent}% of its pool's metadata free too: it still refuses pulls and new containers; with {} of metadata it does not",
            Bytes::new(enough.saturating_mul(META_BLOCK_BYTES)).exact()
        ));
    }
    if minimum_free::lets_docker_work(used.get(), total.get(), percent) {
        return Some(format!(
            "Docker keeps {percent}% of its pool free, {} of {}: pulls and new containers work at that size",
            kept.human(),
            block.bytes_of(total).human()
        ));
    }
    let enough = minimum_free::smallest_total(used.get(), percent)?;
    Some(format!(
        "Docker keeps {percent}% of its pool free, {} of {}: it still refuses pulls and new containers; from {} on it does not",
        kept.human(),
        block.bytes_of(total).human(),
        block.bytes_of(DataBlocks::new(enough)).exact()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::docker_pool;

    #[test]
    fn data_that_its_metadata_cannot_map_by_the_rule_is_told_with_the_way_out() {
        let pool = docker_pool("0 6211/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024", 1 << 40);
        let told = |gib: u64, metadata: Bytes| more_metadata(&pool, Bytes::new(gib << 30), metadata);
        let two = Bytes::new(2 << 30);
        // 2 GiB are 48 bytes for each of 44739242 blocks of 64 KiB.
        assert_eq!(told(2730, two), None);
        let said = told(2731, two).unwrap_or_default();
        assert!(said.ends_with("asks for 2.0 GiB; next: dmpool grow docker --metadata 2049M"), "{said}");
        let most = MAX_META_BLOCKS.bytes();
        assert!(told(100 << 10, two).is_some_and(|said| said.ends_with("--metadata 16646400K")));
        assert!(told(100 << 10, most).is_some_and(|said| said.ends_with("all that the kernel uses, and may be full before the data is: the kernel's rule (48 bytes for each block) asks for more")));
        assert_eq!(told(20 << 10, most), None);
    }
}
