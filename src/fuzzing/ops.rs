//! What dmpool itself has written, what programs answer, and what people type.

use super::text;
use crate::cli;
use crate::ops::boot::found;
use crate::ops::filesystem;
use crate::ops::health::{docker_log as log, lvm as volume_manager};
use crate::ops::history as past;
use crate::ops::journal::Journal;
use crate::ops::lvm as reports;
use crate::ops::registry as entries;
use crate::ops::volumes as records;
use crate::pool::{PoolName, PoolUuid, VolumeName};
use crate::report::{merged, plan};

/// The words of a command line, one a line; only the parser runs.
pub(super) fn command_line(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let words = std::iter::once("dmpool").chain(text.lines());
    let matches = cli::command().try_get_matches_from(words);
    assert!(matches.as_ref().err().is_none_or(|error| !error.to_string().is_empty()));
    matches.is_ok()
}

/// A journal whose records get the checksums that belong to them, and one as it stands.
pub(super) fn journal(bytes: &[u8]) -> bool {
    let mut is_journal = false;
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        if let Ok(journal) = Journal::parse(&bytes) {
            assert!(journal.length <= bytes.len());
            assert_eq!(journal.progress.len(), journal.opened.plan.steps.len());
            let again = bytes.get(..journal.length).unwrap_or_default();
            assert_eq!(Journal::parse(again).as_ref(), Ok(&journal), "what was torn off did not happen");
            assert!(!plan::text(&journal.opened.plan).is_empty());
            is_journal = true;
        }
    }
    is_journal
}

/// Puts the right checksum before every line but the first.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut lines = bytes.split_inclusive(|b| *b == b'\n');
    let mut whole = lines.next().unwrap_or_default().to_vec();
    for line in lines {
        let json = line.iter().position(|b| *b == b' ').and_then(|at| line.get(at + 1..)).unwrap_or(line);
        let summed = json.strip_suffix(b"\n").unwrap_or(json);
        whole.extend(format!("{:08x} ", crc32c::crc32c(summed)).into_bytes());
        whole.extend(json);
    }
    whole
}

pub(super) fn history(bytes: &[u8]) -> bool {
    past::parse(bytes).is_ok()
}

pub(super) fn registry(bytes: &[u8]) -> bool {
    if let Ok(name) = PoolName::new(&text(bytes)) {
        assert_eq!(name.as_str().as_bytes(), bytes);
    }
    let Ok(name) = PoolName::new("p0") else { return false };
    let Ok(entry) = entries::parse(bytes, &name) else { return false };
    let written = toml::to_string_pretty(&entry);
    assert_eq!(written.map(|text| entries::parse(text.as_bytes(), &name)), Ok(Ok(entry)));
    true
}

/// The record of a pool's volumes, the name of one, and a thin target's parameters.
pub(super) fn volumes(bytes: &[u8]) -> bool {
    let text = text(bytes);
    if let Ok(name) = VolumeName::new(&text) {
        assert_eq!(name.as_str().as_bytes(), bytes);
    }
    let is_table = records::parse_table(&text).is_some();
    let Ok(name) = PoolName::new("p0") else { return false };
    let uuid = PoolUuid::from_random(7);
    let Ok(record) = records::parse(bytes, &name, &uuid) else { return is_table };
    let written = toml::to_string_pretty(&record);
    assert_eq!(written.map(|text| records::parse(text.as_bytes(), &name, &uuid)), Ok(Ok(record)));
    true
}

/// What `list --format json` printed elsewhere.
pub(super) fn list(bytes: &[u8]) -> bool {
    let Ok(mut rows) = merged::parse(bytes) else { return false };
    merged::sort(&mut rows);
    assert!(merged::text(&rows).lines().all(|line| !line.contains(char::is_control)));
    assert_eq!(merged::parse(merged::json(&rows).as_bytes()), Ok(rows), "what was merged can be merged again");
    true
}

/// What `lvs` answers, and settings as `lvmconfig` prints them.
pub(super) fn lvm(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let (monitored, profile) = volume_manager::parse_lvs(&text);
    assert!(profile.is_none_or(|profile| !profile.is_empty() && !profile.contains('\n')));
    let set = volume_manager::setting(&text, "thin_pool_autoextend_threshold");
    assert!(set.as_ref().is_none_or(|value| !value.contains('\n')));
    monitored.is_some() || set.is_some()
}

/// What `vgs` and `lvs` report, and a setting that decides which LVs come up.
pub(super) fn lvm_report(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let (groups, volumes) = (reports::groups(&text), reports::volumes(&text));
    for group in &groups {
        assert!(group.free <= group.extents && group.extents_for(group.extent) == 1);
        let _ = reports::may_activate(&text, group, "p0_data", &[]);
    }
    for volume in &volumes {
        assert!(!volume.types.is_empty() && volume.dm_uuid().starts_with("LVM-"));
    }
    let (segments, disks) = text.split_once("\n\n").unwrap_or_default();
    let pieces = reports::pieces(segments, disks, "pool_tdata").unwrap_or_default();
    let ends = pieces.iter().map(|piece| piece.start.get() + piece.length.get());
    assert!(ends.zip(pieces.iter().skip(1)).all(|(end, next)| end == next.start.get()));
    !groups.is_empty() || !volumes.is_empty() || !pieces.is_empty() || text.starts_with("volume_list")
}

pub(super) fn docker_log(bytes: &[u8]) -> bool {
    let Some(cause) = log::parse(bytes) else { return false };
    assert!(cause.line.chars().all(|c| !c.is_control()));
    true
}

/// The first bytes of a volume.
pub(super) fn file_system(bytes: &[u8]) -> bool {
    let Some(found) = filesystem::parse(bytes) else { return false };
    assert!(found.size.get() > 0);
    true
}

pub(super) fn activation(bytes: &[u8]) -> bool {
    found::activates(bytes, "p0", None)
}
