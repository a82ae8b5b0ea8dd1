//! Whether all that says where Docker's layers are says the same: the daemon itself, what it was told and what the next one will be.

use std::path::Path;

use serde_json::Value;

use crate::engine::docker_root::{DockerRoot, Options};
use crate::engine::driver::Driver;
use crate::engine::options::StorageOptions;
use crate::error::{Failure, Outcome};

/// Refuses a Docker whose layers are not in the pool of its root, or of which that cannot be told: `info` is what it says, null when
/// it does not run, and `pool` the dm name that its options mean.
///
/// # Errors
/// Refused with who says what.
pub(super) fn is_one(root: &DockerRoot, info: &Value, pool: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    uses_the_driver(root, info, refuse)?;
    is_told_of_it(root, info, pool, refuse)
}

/// Refuses a Docker that is told of another pool than it uses, or will be.
///
/// # Errors
/// Refused with who says what.
pub(super) fn is_told_of_it(
    root: &DockerRoot,
    info: &Value,
    pool: &str,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    same_when_started(&root.options, &root.next_options, refuse)?;
    same_as_used(&root.options, info, pool, refuse)
}

/// Refuses a Docker that runs on another driver, or that would.
///
/// # Errors
/// Refused with which one.
pub(super) fn uses_the_driver(root: &DockerRoot, info: &Value, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let own = Driver::Devicemapper.name();
    let runs = info.get("Driver").and_then(Value::as_str);
    if runs == Some(own) {
        return Ok(());
    }
    let names: Vec<_> = root.drivers.iter().map(|driver| driver.name()).collect();
    let refusal = match (runs, root.other_driver()) {
        (Some(other), _) => refuse(format!("Docker runs on the {other} driver, and the pool is not what it uses")),
        (None, Some(other)) => refuse(format!("Docker uses the {other} driver, and the pool is not what it uses")),
        (None, None) if root.storage_driver.is_none() && names.len() > 1 => {
            refuse("several storage drivers have run in that root, and nothing says which one Docker uses".to_owned())
        }
        (None, None) => return Ok(()),
    };
    Err(refusal
        .fact("found", format!("layers of {}", names.join(" and of ")))
        .fact("state", "nothing was touched")
        .next("dmpool rescue images    # shows what is in the pool; when Docker shall use it, set  \"storage-driver\": \"devicemapper\"  , start it, then run this again"))
}

/// Refuses when the next daemon would have another pool than the one that runs.
fn same_when_started(now: &Options, next: &Options, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let (Some(now), Some(next)) = (now.known().map(named), next.known().map(named)) else { return Ok(()) };
    if now == next {
        return Ok(());
    }
    Err(refuse("the next Docker is told of another storage than the one that runs".to_owned())
        .fact("found", format!("it runs with {}", said(&now)))
        .fact("configured", said(&next))
        .fact("state", "nothing was touched")
        .next("make the configuration say what the pool is that Docker uses now, then run this again"))
}

/// Returns what the driver says of itself in `docker info`; nothing where it says nothing.
pub(super) fn status(info: &Value, key: &str) -> Option<String> {
    let status = info.get("DriverStatus").and_then(Value::as_array).into_iter().flatten();
    let value = |pair: &Value| {
        (pair.get(0).and_then(Value::as_str) == Some(key)).then(|| pair.get(1)?.as_str().map(str::to_owned))?
    };
    status.filter_map(value).find(|value| !value.is_empty())
}

/// Refuses when the daemon says that it uses another pool than what it is told now means: somebody has changed that since.
fn same_as_used(now: &Options, info: &Value, pool: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let says = |key: &str| status(info, key);
    let not_started = |uses: String, told: String| {
        Err(refuse("Docker has not been started with what it is told now".to_owned())
            .fact("found", format!("it uses {uses}"))
            .fact("configured", told)
            .fact("state", "nothing was touched")
            .next("make the configuration say what the pool is that Docker uses now, then run this again"))
    };
    if let Some(uses) = says("Pool Name").filter(|uses| uses != pool) {
        return not_started(format!("the pool {uses}"), format!("the pool {pool}"));
    }
    let options = now.known();
    for (key, name, told) in [
        ("Data", "dm.datadev", options.and_then(|options| options.data_device.as_deref())),
        ("Metadata", "dm.metadatadev", options.and_then(|options| options.metadata_device.as_deref())),
    ] {
        let on_loop = says(&format!("{key} loop file"));
        let Some(on) = on_loop.clone().or_else(|| says(&format!("{key} file"))) else { continue };
        // Docker 1.2 and older say the loop file where others say the loop device.
        let is_device = on_loop.is_none() && Path::new(&on).starts_with("/dev");
        if options.is_some_and(|options| options.named_pool().is_none()) && is_device != told.is_some() {
            let told = told.map_or_else(|| format!("no {name}"), |told| format!("{name}={told}"));
            return not_started(on, told);
        }
    }
    Ok(())
}

/// Returns the options that say where the pool is.
fn named(options: &StorageOptions) -> Vec<String> {
    let all = [
        ("dm.thinpooldev", &options.thin_pool),
        ("dm.directlvm_device", &options.direct_lvm),
        ("dm.datadev", &options.data_device),
        ("dm.metadatadev", &options.metadata_device),
    ];
    all.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect()
}

fn said(options: &[String]) -> String {
    if options.is_empty() { "loop files of its own".to_owned() } else { options.join(", ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn refuse(why: String) -> Failure {
        Failure::refused(why)
    }

    fn options(given: &[&str]) -> Options {
        Options::Running(StorageOptions::parse(given.iter().copied()))
    }

    fn root(now: &[&str], next: &[&str]) -> DockerRoot {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("devicemapper/metadata")).unwrap();
        let root = crate::ops::docker::at(temp.path()).unwrap();
        DockerRoot { options: options(now), next_options: options(next), storage_driver: None, ..root }
    }

    fn info(pool: &str, more: &[(&str, &str)]) -> Value {
        let mut status = vec![json!(["Pool Name", pool])];
        status.extend(more.iter().map(|(key, value)| json!([key, value])));
        json!({"Driver": "devicemapper", "DriverStatus": status})
    }

    const LOOPS: [(&str, &str); 2] =
        [("Data file", "/dev/loop0"), ("Data loop file", "/d/devicemapper/devicemapper/data")];

    fn why(root: &DockerRoot, info: &Value, pool: &str) -> String {
        is_one(root, info, pool, &refuse).map_or_else(|failure| failure.what, |()| String::new())
    }

    #[test]
    fn what_runs_on_another_driver_is_not_migrated() {
        let plain = root(&[], &[]);
        assert_eq!(why(&plain, &info("own", &LOOPS), "own"), "");
        assert_eq!(why(&plain, &Value::Null, "own"), "");
        assert!(why(&plain, &json!({"Driver": "overlay2"}), "own").contains("runs on the overlay2 driver"));
        let told = DockerRoot { storage_driver: Some("overlay2".to_owned()), ..plain.clone() };
        assert!(why(&told, &Value::Null, "own").contains("uses the overlay2 driver"));
        let both = DockerRoot { drivers: vec![Driver::Devicemapper, Driver::Overlay2], ..plain };
        assert!(why(&both, &Value::Null, "own").contains("several storage drivers"));
        assert_eq!(why(&both, &info("own", &LOOPS), "own"), "", "it says itself which one it uses");
        let told = DockerRoot { storage_driver: Some("devicemapper".to_owned()), ..both };
        assert_eq!(why(&told, &Value::Null, "own"), "");
    }

    #[test]
    fn what_was_not_started_with_is_seen() {
        let [thin, data] = ["dm.thinpooldev=/dev/mapper/p0", "dm.datadev=/dev/sdb"];
        assert!(why(&root(&[], &[thin]), &info("own", &LOOPS), "own").contains("the next Docker is told"));
        assert!(why(&root(&[data], &[]), &Value::Null, "own").contains("the next Docker is told"));
        let unused = why(&root(&[thin], &[thin]), &info("own", &LOOPS), "p0");
        assert!(unused.contains("not been started"), "{unused}");
        assert_eq!(why(&root(&[thin], &[thin]), &info("p0", &[("Data file", "")]), "p0"), "");
        assert!(why(&root(&[data], &[data]), &info("own", &LOOPS), "own").contains("not been started"));
        assert_eq!(why(&root(&[data], &[data]), &info("own", &[("Data file", "/dev/sdb")]), "own"), "");
        assert!(why(&root(&[], &[]), &info("own", &[("Data file", "/dev/sdb")]), "own").contains("not been started"));
        assert_eq!(
            why(&root(&[], &[]), &info("own", &[("Data file", "/d/devicemapper/data")]), "own"),
            "",
            "Docker 1.2"
        );
    }
}
