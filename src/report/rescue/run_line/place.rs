//! Volumes, directories of the host, tmpfs.

use serde_json::Value;

use super::{Of, Options, of_container};
use crate::engine::docker_objects::{Fields, MountPoint};
use crate::ops::rescue;

pub(super) fn options(of: &Of<'_>, options: &mut Options) {
    let binds = of.host.texts(&["Binds"]);
    options.values("-v", binds.iter().copied());
    let mounts = of.host.items(&["Mounts"]);
    for mount in mounts {
        options.value("--mount", mount_of(mount));
    }
    let from = of.host.texts(&["VolumesFrom"]);
    for source in &from {
        let named = |name| of_container(of.objects, name);
        let value =
            source.split_once(':').map_or_else(|| named(source), |(name, how)| format!("{}:{how}", named(name)));
        options.value("--volumes-from", value);
    }
    options.values("--volume-driver", of.host.text(&["VolumeDriver"]));
    let points = of.container.mount_points();
    for point in &points {
        if !is_named(point, &binds, mounts) && !is_inherited(of, point, &from) {
            unnamed(point, options);
        }
    }
    for (destination, _) in of.config.entries(&["Volumes"]) {
        if points.iter().all(|point| point.destination != destination) {
            options.value("-v", destination);
        }
    }
    for (destination, settings) in of.host.entries(&["Tmpfs"]) {
        let settings = settings.as_str().filter(|settings| !settings.is_empty());
        options.value("--tmpfs", settings.map_or_else(|| destination.to_owned(), |s| format!("{destination}:{s}")));
    }
}

/// Whether an option names it already.
fn is_named(point: &MountPoint<'_>, binds: &[&str], mounts: &[Value]) -> bool {
    let by_bind = |bind: &&str| bind.split(':').skip(1).any(|part| same_place(part, point.destination));
    let by_mount = |mount: &Value| mount.text(&["Target"]).is_some_and(|target| same_place(target, point.destination));
    binds.iter().any(by_bind) || mounts.iter().any(by_mount)
}

fn same_place(typed: &str, kept: &str) -> bool {
    typed.trim_end_matches('/') == kept.trim_end_matches('/')
}

/// Whether it comes from one of the containers of `--volumes-from`.
fn is_inherited(of: &Of<'_>, point: &MountPoint<'_>, from: &[&str]) -> bool {
    let names = from.iter().map(|source| source.split_once(':').map_or(*source, |(name, _)| name));
    names.filter_map(|name| rescue::container(of.objects, name).ok()).any(|other| {
        other
            .mount_points()
            .iter()
            .any(|theirs| theirs.destination == point.destination && theirs.volume == point.volume)
    })
}

/// A volume that Docker named itself: by that name, so that what is in it is there again.
fn unnamed(point: &MountPoint<'_>, options: &mut Options) {
    let end = if point.writable { "" } else { ":ro" };
    match (point.volume, point.source) {
        (Some(volume), _) => options.value("-v", format!("{volume}:{}{end}", point.destination)),
        (None, Some(source)) => options.value("-v", format!("{source}:{}{end}", point.destination)),
        (None, None) => {}
    }
}

/// The value of `--mount`, a line of CSV (docker/cli, opts/mount.go).
fn mount_of(mount: &Value) -> String {
    let mut fields = Vec::new();
    let mut put = |key: &str, value: Option<String>| fields.extend(value.map(|value| csv(&format!("{key}={value}"))));
    let text = |path: &[&str]| mount.text(path).map(str::to_owned);
    put("type", text(&["Type"]));
    put("src", text(&["Source"]));
    put("dst", text(&["Target"]));
    put("consistency", text(&["Consistency"]).filter(|value| value != "default"));
    put("bind-propagation", text(&["BindOptions", "Propagation"]));
    let set = |path: &[&str]| mount.flag(path).then(|| "true".to_owned());
    put("readonly", set(&["ReadOnly"]));
    put("bind-nonrecursive", set(&["BindOptions", "NonRecursive"]));
    put("volume-nocopy", set(&["VolumeOptions", "NoCopy"]));
    put("volume-subpath", text(&["VolumeOptions", "Subpath"]));
    put("volume-driver", text(&["VolumeOptions", "DriverConfig", "Name"]));
    for (option, path) in [
        ("volume-opt", &["VolumeOptions", "DriverConfig", "Options"][..]),
        ("volume-label", &["VolumeOptions", "Labels"]),
    ] {
        for (key, value) in mount.entries(path) {
            put(option, Some(format!("{key}={}", value.as_str().unwrap_or_default())));
        }
    }
    put("tmpfs-size", mount.number(&["TmpfsOptions", "SizeBytes"]).map(|size| size.to_string()));
    put("tmpfs-mode", mount.number(&["TmpfsOptions", "Mode"]).map(|mode| format!("{mode:o}")));
    fields.join(",")
}

fn csv(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}
