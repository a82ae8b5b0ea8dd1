//! `show`: what a registered pool is, as the file that makes it again, and as the commands that bring it up without dmpool.

use std::path::{Path, PathBuf};

use crate::error::{Failure, Outcome};
use crate::ops::steps::Kit;
use crate::ops::{facts, find, members};
use crate::pool::label::{Assembly, Purpose, layout};
use crate::pool::{Entry, FileStore, Place, PoolReport, Spec, Store};
use crate::process::quote;
use crate::units::Sectors;

/// Returns what a registered pool is: `create --file --ensure` takes it for the one that is there.
///
/// # Errors
/// Refused when its sizes cannot be read.
pub fn spec(kit: &Kit, entry: &Entry) -> Outcome<Spec> {
    let report = report(kit, entry)?;
    let (data, metadata) = sizes(&report, entry)?;
    let has = |word: &str| entry.pool.features.iter().any(|feature| feature == word);
    let on = match &entry.store {
        Store::Files { data, .. } => {
            // DIR/POOL/data, as `create` has made it.
            let directory = data.file.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
            Place::Files { directory: directory.to_owned(), preallocate: data.preallocated }
        }
        Store::Devices(_) => on_devices(kit, entry)?,
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
        on,
    })
}

/// Returns the devices as they are called now, as `create` would be told them.
fn on_devices(kit: &Kit, entry: &Entry) -> Outcome<Place> {
    let sight = members::look(&kit.dm).map_err(|e| cannot(entry).because(e))?;
    let assembly = assembled(kit, entry)?;
    let mut data: Vec<PathBuf> = Vec::new();
    let mut metadata = None;
    let mut stripe = None;
    for segment in &assembly.label.map {
        for leg in &segment.legs {
            let is_it = |labelled: &&members::Labelled| labelled.member.label.device == leg.device;
            let Some(found) = sight.labelled.iter().find(is_it) else { continue };
            let path = PathBuf::from(&found.member.name);
            match segment.purpose {
                Purpose::Metadata => metadata = Some(path),
                Purpose::Data if !data.contains(&path) => data.push(path),
                Purpose::Data | Purpose::Room => {}
            }
        }
        stripe = stripe.or(segment.chunk.map(Sectors::bytes));
    }
    // The first for data carries the metadata too, without one of its own.
    let metadata = metadata.filter(|path| data.first() != Some(path));
    Ok(Place::Devices { data, metadata, stripe })
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
        "#!/bin/sh\n# Brings the pool {name} up without dmpool, as root: {} of data, {} of metadata.\nset -e\n",
        data.bytes().human(),
        metadata.bytes().human()
    );
    let parts = [
        (Purpose::Metadata, metadata, entry.name.metadata_device(), entry.uuid.metadata()),
        (Purpose::Data, data, entry.name.data_device(), entry.uuid.data()),
    ];
    match &entry.store {
        Store::Files { metadata: metadata_file, data: data_file } => {
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
                script.push_str(&format!("dmsetup create {} --uuid {uuid} <<'TABLE'\n{lines}TABLE\n", quote(&device)));
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
    script.push_str(&format!(
        "dmsetup create {} --uuid {} --table {}\n",
        quote(name),
        entry.uuid.pool(),
        quote(&table)
    ));
    Ok(script)
}

/// The loop device is detached with its last user: it goes when the linear device over it does.
fn over_a_file(store: &FileStore, length: Sectors, device: &str, uuid: &str) -> String {
    let file = quote(&store.file.to_string_lossy());
    format!(
        "loop=$(losetup --find --show {file})\ndmsetup create {} --uuid {uuid} --table \"0 {} linear $loop 0\"\nlosetup --detach \"$loop\"\n",
        quote(device),
        length.get()
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
