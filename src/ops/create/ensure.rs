//! `create --ensure`: whether the pool that is there is the one that is asked for.

use std::path::Path;

use crate::error::{Failure, Outcome};
use crate::kernel::block;
use crate::ops::create::{Options, files};
use crate::ops::gate;
use crate::ops::handover::{Engine, Handover};
use crate::ops::plan::{Operation, Plan};
use crate::pool::{Entry, Place, PoolReport, Spec, Store};
use crate::units::{BlockSize, Bytes};

/// Decides about a name that is registered: with `--ensure`, the same pool is success.
pub(super) fn already_there(
    entry: &Entry,
    report: &PoolReport,
    placed: Option<&Result<Place, String>>,
    options: &Options,
    what: &str,
) -> Outcome<Plan> {
    let spec = &options.spec;
    let refuse = |why: &str| Failure::refused(format!("cannot {what}: {why}"));
    if !options.ensure {
        return Err(refuse("a pool of that name is registered already").next(format!(
            "dmpool status {}    # or, if the same pool being there is fine:  dmpool create {} --ensure …",
            spec.name, spec.name
        )));
    }
    gate::not_prepared(entry, what)?;
    let differences = differences(entry, report, placed, spec);
    if !differences.is_empty() {
        return Err(refuse("it is there already and is not the same").fact("found", differences.join("; ")).next(
            format!("dmpool grow {} SIZE    # where only the size is too small; else choose another name", spec.name),
        ));
    }
    if report.table.is_none() {
        return Err(refuse("it is there already, and is not active").next(format!("dmpool activate {}", spec.name)));
    }
    Ok(Plan {
        operation: Operation::Create,
        pool: spec.name.to_string(),
        what: what.to_owned(),
        steps: Vec::new(),
        notes: vec![format!("pool `{}` is there already, just so: unchanged", spec.name)],
    })
}

/// Adds what an engine, or the boot, still has to be told of a pool that is there.
pub(super) fn handed_over(mut plan: Plan, handover: Handover, engine: Option<Engine>) -> Plan {
    if !handover.steps.is_empty() {
        plan.what = match engine {
            Some(engine) => format!("hand pool `{}` to {}", plan.pool, engine.name()),
            None => format!("have pool `{}` brought up at boot", plan.pool),
        };
        plan.notes = vec![format!("pool `{}` is there already, just so", plan.pool)];
    }
    plan.steps.extend(handover.steps);
    plan.notes.extend(handover.notes);
    plan
}

/// Returns what is otherwise than asked for, each a phrase. Sizes that were left out on devices are not asked for: what the
/// devices have is right.
fn differences(entry: &Entry, report: &PoolReport, placed: Option<&Result<Place, String>>, spec: &Spec) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, there: String, wanted: String| {
        if there != wanted {
            found.push(format!("{what}: {there} is there, {wanted} is wanted"));
        }
    };
    let size = |space: Option<crate::pool::Space>| space.map_or_else(|| "unknown".to_owned(), |s| s.total.exact());
    let (data, metadata) = match &spec.on {
        Place::Files { .. } => {
            let (data, metadata) = spec.sizes_in_files();
            (Some(data), Some(metadata))
        }
        Place::Devices { .. } | Place::Volumes { .. } => (spec.data_size, spec.metadata_size),
    };
    if let Some(data) = data {
        compare("data", size(report.data_space()), data.exact());
    }
    if let Some(metadata) = metadata {
        compare("metadata", size(report.metadata_space()), metadata.meta_blocks().bytes().exact());
    }
    let block = |size: BlockSize| size.bytes().human();
    compare("block size", block(entry.pool.block_size), block(spec.block_size));
    compare("low water mark", entry.pool.low_water.to_string(), spec.low_water.to_string());
    compare("features", format!("[{}]", entry.pool.features.join(" ")), format!("[{}]", spec.features().join(" ")));
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    compare("ephemeral", yes(entry.ephemeral.is_some()), yes(spec.ephemeral));
    match (&entry.store, placed, &spec.on) {
        (Store::Files { data, .. }, _, Place::Files { directory, preallocate }) => {
            let wanted = files::Wanted { spec, directory, preallocate: *preallocate };
            compare("data file", data.file.display().to_string(), wanted.data_file().display().to_string());
            compare("preallocated", yes(data.preallocated), yes(*preallocate));
        }
        (Store::Files { .. }, _, Place::Volumes { .. }) => compare("kept", "in files".into(), "on LVs".into()),
        (Store::Files { .. }, _, Place::Devices { .. }) => compare("kept", "in files".into(), "on devices".into()),
        (Store::Devices(_), _, Place::Files { .. }) => compare("kept", "on devices".into(), "in files".into()),
        (Store::Devices(_), Some(Ok(there)), wanted) => {
            for (what, there, wanted) in where_it_lies(there, wanted) {
                compare(what, there, wanted);
            }
        }
        (Store::Devices(_), None, _) => {}
        (Store::Devices(_), Some(Err(why)), _) => {
            found.push(format!("what it lies on cannot be told: {why}"));
        }
    }
    found
}

/// Returns what there is to compare of where a pool on devices lies: what it is, how it is there, and how it is wanted.
fn where_it_lies(there: &Place, wanted: &Place) -> Vec<(&'static str, String, String)> {
    let told = |place: &Place| match place {
        Place::Files { .. } => ["in files".to_owned(), String::new(), String::new()],
        Place::Volumes { group, .. } => [format!("LVs of {group}"), String::new(), String::new()],
        Place::Devices { data, metadata, stripe } => [
            devices(data.iter().map(AsRef::as_ref)),
            metadata
                .as_ref()
                .map_or_else(|| "with the data".to_owned(), |path| devices(std::iter::once(path.as_ref()))),
            stripe.map_or_else(|| "none".to_owned(), Bytes::human),
        ],
    };
    let whats = ["data devices", "metadata device", "stripe"];
    whats.into_iter().zip(told(there)).zip(told(wanted)).map(|((what, there), wanted)| (what, there, wanted)).collect()
}

/// Returns the names of devices as a text that is the same for the same devices in the same order, whatever name each is given
/// by.
fn devices<'p>(paths: impl Iterator<Item = &'p Path>) -> String {
    let names: Vec<_> = paths
        .map(|path| match block::devno_of(path).ok().and_then(block::name) {
            Some(name) => format!("/dev/{name}"),
            None => path.display().to_string(),
        })
        .collect();
    names.join(" ")
}
