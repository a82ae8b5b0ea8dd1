//! `show`: what a registered pool is, as the file that makes it again, and as the commands that bring it up without dmpool.

use std::path::Path;

use crate::error::{Failure, Outcome};
use crate::metadata::MAGIC;
use crate::ops::steps::Kit;
use crate::ops::{facts, find, members, placed, volumes};
use crate::pool::label::{Assembly, DeviceUuid, Purpose, SLOTS, layout};
use crate::pool::{Entry, FileStore, Place, PoolReport, PoolStatus, Spec, Store, THIN};
use crate::process::quote;
use crate::units::Sectors;

/// Returns what a registered pool is: `create --file --ensure` takes it for the one that is there.
///
/// # Errors
/// Refused when its sizes cannot be read.
pub fn spec(kit: &Kit, entry: &Entry) -> Outcome<Spec> {
    if let Some(again) = entry.again() {
        return Ok(again);
    }
    let report = report(kit, entry)?;
    let (data, metadata) = sizes(&report, entry)?;
    let has = |word: &str| entry.pool.features.iter().any(|feature| feature == word);
    let on = match &entry.store {
        Store::Files { data, .. } => {
            // DIR/POOL/data, as `create` has made it.
            let directory = data.file.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
            Place::Files { directory: directory.to_owned(), preallocate: data.preallocated }
        }
        Store::Devices(_) => placed::of(kit, entry).map_err(|e| cannot(entry).because(e))?,
    };
    Ok(Spec {
        name: entry.name.clone(),
        data_size: Some(data.bytes()),
        metadata_size: Some(metadata.bytes()),
        block_size: entry.pool.block_size,
        low_water: entry.pool.low_water,
        zero: !has("skip_block_zeroing"),
        error_when_full: has("error_if_no_space"),
        discard: !has("ignore_discard"),
        ephemeral: false,
        on,
    })
}

/// Returns a script for `sh` that brings a registered pool up as `activate` does, with losetup and dmsetup alone.
///
/// # Errors
/// Refused when its sizes, or its labels, cannot be read.
pub fn commands(kit: &Kit, entry: &Entry) -> Outcome<String> {
    let report = report(kit, entry)?;
    let (data, metadata) = sizes(&report, entry)?;
    let name = entry.name.as_str();
    let mut script = format!(
        "#!/bin/sh\n# Brings the pool {name} up without dmpool, as root: {} of data, {} of metadata. What is there already stays.\nset -e\n{THERE}\n{BYTES_OF}\n",
        data.bytes().human(),
        metadata.bytes().human()
    );
    let parts = [
        (Purpose::Metadata, metadata, entry.name.metadata_device(), entry.uuid.metadata()),
        (Purpose::Data, data, entry.name.data_device(), entry.uuid.data()),
    ];
    match &entry.store {
        Store::Files { metadata: metadata_file, data: data_file } => {
            script.push_str(&unless_formatted(entry, &metadata_file.file.to_string_lossy(), Sectors::new(0)));
            for ((_, length, device, uuid), store) in parts.into_iter().zip([metadata_file, data_file]) {
                script.push_str(&over_a_file(store, length, &device, &uuid));
            }
        }
        Store::Devices(_) => {
            let assembly = assembled(kit, entry)?;
            let sight = members::look(&kit.dm).map_err(|e| cannot(entry).because(e))?;
            let paths = |uuid| {
                let found = sight.labelled.iter().find(|labelled| labelled.member.label.device == uuid);
                found.map(|labelled| labelled.member.name.clone()).unwrap_or_default()
            };
            for device in assembly.label.devices() {
                script.push_str(&unless_labelled(entry, &paths(device), device));
            }
            let first = layout::pieces(&assembly.label.map, Purpose::Metadata, metadata);
            if let Some(leg) = first.first().and_then(|piece| piece.legs.first()) {
                script.push_str(&unless_formatted(entry, &paths(leg.device), leg.start));
            }
            for (purpose, length, device, uuid) in parts {
                let mut lines = String::new();
                for piece in layout::pieces(&assembly.label.map, purpose, length) {
                    let legs: Vec<_> =
                        piece.legs.iter().map(|leg| format!("{} {}", paths(leg.device), leg.start.get())).collect();
                    let target = match piece.chunk {
                        None => format!("linear {}", legs.join(" ")),
                        Some(chunk) => format!("striped {} {} {}", legs.len(), chunk.get(), legs.join(" ")),
                    };
                    lines.push_str(&format!("{} {} {target}\n", piece.start.get(), piece.length.get()));
                }
                let make = make(&device, &uuid);
                script.push_str(&format!("{make} <<'TABLE'\n{lines}TABLE\n"));
            }
        }
    }
    let behaviour = &entry.pool;
    let features = match behaviour.features.as_slice() {
        [] => String::new(),
        words => format!(" {} {}", words.len(), words.join(" ")),
    };
    let table = format!(
        "0 {} thin-pool /dev/mapper/{} /dev/mapper/{} {} {}{features}",
        data.get(),
        entry.name.metadata_device(),
        entry.name.data_device(),
        behaviour.block_size.sectors().get(),
        behaviour.low_water.get()
    );
    script.push_str(&format!("{} --table {}\n", make(name, &entry.uuid.pool()), quote(&table)));
    script.push_str(&of_volumes(kit, entry, &report));
    Ok(script)
}

/// The function of the script that says whether a device is there, and the right one.
const THERE: &str = r#"there() { [ "$(dmsetup info -c --noheadings -o uuid "$1" 2>/dev/null)" = "$2" ]; }"#;

/// The function of the script that says which bytes are at 32 of the block that begins at a sector of a file or device: so many.
/// Past the page cache, which device-mapper does not write through, where that can be.
const BYTES_OF: &str = r#"bytes_of() { { dd if="$1" bs=512 skip="$2" count=8 iflag=direct || dd if="$1" bs=512 skip="$2" count=8; } 2>/dev/null | od -An -v -tx1 -j32 -N"$3" | tr -d ' \n'; }"#;

/// Returns the lines that end the script unless the metadata has a superblock: the kernel formats a new pool where it has none,
/// over what whoever has the disk since keeps on it.
fn unless_formatted(entry: &Entry, path: &str, start: Sectors) -> String {
    let magic: String = MAGIC.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let (name, uuid, at) = (entry.name.as_str(), entry.uuid.pool(), start.bytes().get());
    let says =
        format!("{name} is not brought up: {path} has no superblock of a thin pool at byte {at}. Nothing was made.");
    format!(
        "there {} {uuid} || [ \"$(bytes_of {} {} 8)\" = {magic} ] || {{ echo {} >&2; exit 1; }}\n",
        quote(name),
        quote(path),
        start.get(),
        quote(&says)
    )
}

/// Returns the lines that end the script unless a device has its label, in one of the two slots: the pool's uuid and its own,
/// 16 bytes each (docs/label-format.md).
fn unless_labelled(entry: &Entry, path: &str, device: DeviceUuid) -> String {
    let (name, uuid) = (entry.name.as_str(), entry.uuid.pool());
    let label = format!("{:032x}{}", entry.uuid.bits(), device);
    let is_it = SLOTS.map(|slot| format!("[ \"$(bytes_of {} {} 32)\" = {label} ]", quote(path), slot.sectors().get()));
    let says = format!("{name} is not brought up: {path} does not have its label. Nothing was made.");
    format!("there {} {uuid} || {} || {{ echo {} >&2; exit 1; }}\n", quote(name), is_it.join(" || "), quote(&says))
}

/// Returns the beginning of the line that makes a device, when it is not there yet.
fn make(device: &str, uuid: &str) -> String {
    let device = quote(device);
    format!("there {device} {uuid} || dmsetup create {device} --uuid {uuid}")
}

/// Returns the lines for its volumes: one that cannot be made keeps no other from it.
fn of_volumes(kit: &Kit, entry: &Entry, report: &PoolReport) -> String {
    let transaction = match report.status.as_ref().and_then(PoolStatus::working) {
        Some(working) => Some(working.transaction_id),
        None => report.recorded.map(|recorded| recorded.transaction_id),
    };
    let record = match volumes::look(&kit.state, &entry.name, &entry.uuid) {
        Ok(record) if record.is_blank() => return String::new(),
        Ok(record) => record,
        Err(bad) => return format!("# Its volumes are not here: {} cannot be used.\n", bad.path.display()),
    };
    let Some((transaction, state)) = transaction.and_then(|at| record.at(at).map(|state| (at, state))) else {
        return "# Its volumes are not here: their record is of another transaction id than the pool.\n".to_owned();
    };
    // An id may be another volume's since.
    let says = format!(
        "The volumes of {} are not brought up: its transaction id is not {transaction}, so they are not those of this script.",
        entry.name
    );
    let mut lines = format!(
        "[ \"$(dmsetup status --noflush {} | cut -d' ' -f4)\" = {transaction} ] || {{ echo {} >&2; exit 1; }}\nstatus=0\n",
        quote(entry.name.as_str()),
        quote(&says)
    );
    for volume in &state.volumes {
        let map = volumes::device_of(entry, volume);
        let table = format!("0 {} {THIN} /dev/mapper/{} {}", map.length.get(), map.pool, map.id);
        lines.push_str(&format!("{} --table {} || status=1\n", make(&map.name, &map.uuid), quote(&table)));
    }
    lines + "exit $status\n"
}

/// The loop device is detached with its last user: it goes when the linear device over it does.
fn over_a_file(store: &FileStore, length: Sectors, device: &str, uuid: &str) -> String {
    let (file, device, length) = (quote(&store.file.to_string_lossy()), quote(device), length.get());
    format!(
        "if ! there {device} {uuid}; then\n  loop=$(losetup --find --show {file})\n  dmsetup create {device} --uuid {uuid} --table \"0 {length} linear $loop 0\" || {{ losetup --detach \"$loop\"; exit 1; }}\n  losetup --detach \"$loop\"\nfi\n"
    )
}

fn cannot(entry: &Entry) -> Failure {
    Failure::refused(format!("cannot show pool `{}`", entry.name)).next(format!("dmpool status {}", entry.name))
}

fn assembled(kit: &Kit, entry: &Entry) -> Outcome<Assembly> {
    members::assembled(&kit.dm, &entry.uuid).map_err(|e| cannot(entry).because(e))
}

fn report(kit: &Kit, entry: &Entry) -> Outcome<PoolReport> {
    let found = find::Found::registered(entry.clone());
    facts::look(kit, &found)
}

/// Returns how long its data and its metadata are: as the kernel has them, else as the superblock records them.
fn sizes(report: &PoolReport, entry: &Entry) -> Outcome<(Sectors, Sectors)> {
    match (report.data_space(), report.metadata_space()) {
        (Some(data), Some(metadata)) => Ok((data.total.sectors(), metadata.total.sectors())),
        _ => Err(cannot(entry).fact("cause", "its sizes are not known").fact("unread", report.unread.join("; "))),
    }
}
