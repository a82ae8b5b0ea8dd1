//! Every parser of what comes from outside, each with a check that holds for any bytes: it does not panic, and what it
//! returns is true of itself (what was read and is written again reads the same; no count above its total).
//!
//! libFuzzer runs the checks under `cargo lab fuzz`, which sets `--cfg fuzzing`; the tests below run them on every seed
//! (`fuzz/seeds/NAME/`) and on damaged ones. A seed is a file that somebody once wrote, or one that was once read wrong.

mod engine;
mod kernel;
pub(crate) mod objects;
mod ops;
mod pool;
mod rescue;
mod tree;

/// A parser, or several of one kind of text.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its name, also that of its folder of seeds.
    pub name: &'static str,
    /// The files it is in, below `src`.
    pub files: &'static [&'static str],
    /// Panics when the parser is wrong about these bytes; returns whether it took them for what it reads.
    pub check: fn(&[u8]) -> bool,
}

const fn parser(name: &'static str, files: &'static [&'static str], check: fn(&[u8]) -> bool) -> Parser {
    Parser { name, files, check }
}

/// All of them, by name.
pub const PARSERS: [Parser; 46] = [
    parser("acl", &["ops/contents/archive/acl.rs"], rescue::acl),
    parser("activation", &["ops/boot/found.rs"], ops::activation),
    parser("backing_file", &["kernel/loopdev.rs"], kernel::backing_file),
    parser("command_line", &["cli/health.rs", "cli/parse.rs"], ops::command_line),
    parser(
        "containerd_config",
        &["engine/containerd/config.rs", "engine/configure/containerd.rs"],
        engine::containerd_config,
    ),
    parser("containerd_database", &["engine/bolt.rs", "engine/containerd/mod.rs"], engine::containerd_database),
    parser("daemon_json", &["engine/daemon_json.rs", "engine/configure/json.rs"], engine::daemon_json),
    parser("device_number", &["pool/devno.rs"], pool::device_number),
    parser("dm_answer", &["kernel/dm/header.rs"], kernel::dm_answer),
    parser(
        "docker_database",
        &["engine/docker_objects/network.rs", "engine/docker_objects/volume.rs"],
        engine::docker_database,
    ),
    parser("docker_log", &["ops/health/docker_log.rs"], ops::docker_log),
    parser(
        "docker_objects",
        &["engine/docker_objects/fields.rs", "engine/docker_objects/time.rs", "cli/rescue/logs.rs"],
        objects::docker_objects,
    ),
    parser(
        "docker_record",
        &["engine/bookkeeping.rs", "engine/docker_root/mod.rs", "engine/docker_root/records.rs"],
        engine::docker_record,
    ),
    parser("docker_root", &["engine/docker_root/mod.rs", "ops/health/owners.rs"], tree::docker_root),
    parser("docker_stdout", &["engine/docker_objects/log.rs"], objects::docker_stdout),
    parser("docker_version", &["engine/version.rs"], engine::docker_version),
    parser("dockerd_flags", &["engine/dockerd.rs", "engine/containerd/daemon.rs"], engine::dockerd_flags),
    parser("env_file", &["engine/start/env_file.rs"], engine::env_file),
    parser("file_system", &["ops/filesystem.rs"], ops::file_system),
    parser("file_system_head", &["ops/contents/source/devicemapper/filesystem.rs"], rescue::file_system_head),
    parser("history", &["ops/history.rs"], ops::history),
    parser("http_answer", &["engine/api/http.rs"], engine::http_answer),
    parser("journal", &["ops/journal/record.rs"], ops::journal),
    parser("label", &["pool/label/bytes.rs", "pool/label/mod.rs"], pool::label),
    parser("layer_chain", &["ops/contents/source/chain.rs"], rescue::layer_chain),
    parser("libdm", &["engine/libdm.rs"], engine::libdm),
    parser("list", &["report/merged.rs"], ops::list),
    parser("lvm", &["ops/health/lvm.rs"], ops::lvm),
    parser("lvm_report", &["ops/lvm/report.rs"], ops::lvm_report),
    parser("mapping_tree", &["metadata/mapping.rs"], pool::mapping_tree),
    parser("mountinfo", &["kernel/mounts.rs"], kernel::mountinfo),
    parser("pool_spec", &["pool/spec.rs"], pool::pool_spec),
    parser("pool_status", &["pool/status.rs", "ops/health/volumes.rs"], pool::pool_status),
    parser("pool_table", &["pool/table.rs"], pool::pool_table),
    parser("proc", PROC, kernel::proc),
    parser("registry", &["ops/registry.rs", "pool/name.rs"], ops::registry),
    parser("root_archive", &["ops/root_archive/contents.rs"], rescue::root_archive),
    parser("signatures", &["kernel/disks/signatures.rs"], kernel::signatures),
    parser("size", &["units.rs"], pool::size),
    parser("storage_options", &["engine/options.rs"], engine::storage_options),
    parser("superblock", &["metadata/superblock.rs"], pool::superblock),
    parser("tar_split", &["ops/contents/layer/tar_split.rs"], rescue::tar_split),
    parser("unit", &["engine/start/unit.rs", "engine/start/words.rs"], engine::unit),
    parser("volume_tree", &["metadata/details.rs", "metadata/node.rs"], pool::volume_tree),
    parser("volumes", &["ops/volumes.rs", "pool/volume.rs"], ops::volumes),
    parser(
        "volumes_archive",
        &["ops/volumes_of_docker/entries.rs", "ops/volumes_of_docker/manifest.rs"],
        rescue::volumes_archive,
    ),
];

/// The small texts of /proc and of lock files.
const PROC: &[&str] = &[
    "engine/stuck.rs",
    "kernel/dm/open.rs",
    "kernel/fs/facts.rs",
    "kernel/holders.rs",
    "kernel/identity.rs",
    "kernel/lock.rs",
    "kernel/udev.rs",
];

/// Returns bytes as text, as most parsers' callers do.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
