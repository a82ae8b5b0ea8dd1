//! What Docker and containerd keep, and how they are started.

use super::text;
use crate::engine::api::http;
use crate::engine::bolt;
use crate::engine::bookkeeping::{Device, DeviceSet, MAX_DEVICE_ID, Transaction};
use crate::engine::configure::{containerd as configure, json};
use crate::engine::containerd;
use crate::engine::daemon_json::DaemonJson;
use crate::engine::docker_objects;
use crate::engine::docker_root::DirectLvm;
use crate::engine::dockerd::Flags;
use crate::engine::libdm as library;
use crate::engine::options::StorageOptions;
use crate::engine::start::env_file::{self as file, Reader};
use crate::engine::start::words::{self, Backslash};
use crate::engine::start::{Unit, Variables};
use crate::engine::version::{self, Version};

pub(super) fn dockerd_flags(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let of_containerd = containerd::Flags::of_words(&text.split('\0').collect::<Vec<_>>()).is_some();
    let Some(flags) = Flags::parse(bytes) else { return of_containerd };
    let all = flags.keys.get("storage-opts").map_or(&[][..], Vec::as_slice);
    assert!(flags.storage_options.iter().all(|option| all.contains(option)));
    true
}

/// Options, one a line.
pub(super) fn storage_options(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let options = StorageOptions::parse(text.lines());
    // Docker refuses to start with more (`dm.min_free_space`, daemon/graphdriver/devmapper/deviceset.go).
    assert!(options.min_free_space_percent.is_none_or(|percent| percent < 100));
    assert!(options.unreadable.iter().all(|option| text.lines().any(|line| line == option)));
    assert_eq!(options.named_pool().is_some(), options.thin_pool.is_some() || options.direct_lvm.is_some());
    options.unreadable.is_empty()
}

pub(super) fn daemon_json(bytes: &[u8]) -> bool {
    let Ok(daemon_json) = DaemonJson::parse(bytes) else { return false };
    assert!(daemon_json.storage_options.is_none() || daemon_json.keys.contains_key("storage-opts"));
    assert!(daemon_json.keys.values().all(|shown| shown.chars().count() <= 201));
    let option = "dm.fs=xfs".to_owned();
    if let Ok(edited) = json::append_strings(&text(bytes), "storage-opts", std::slice::from_ref(&option)) {
        let again = DaemonJson::parse(edited.as_bytes()).ok().and_then(|json| json.storage_options);
        assert!(again.is_some_and(|options| options.last() == Some(&option)));
    }
    true
}

/// The files under `devicemapper/metadata`, and `setup-config.json`.
pub(super) fn docker_record(bytes: &[u8]) -> bool {
    let device = Device::parse(bytes);
    assert!(device.as_ref().map_or(0, |device| device.id) <= MAX_DEVICE_ID);
    let others = [DeviceSet::parse(bytes).is_ok(), Transaction::parse(bytes).is_ok(), DirectLvm::parse(bytes).is_ok()];
    device.is_ok() || others.contains(&true)
}

pub(super) fn docker_version(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let version = Version::parse(&text);
    assert_eq!(version.and_then(|version| Version::parse(&version.to_string())), version);
    let named = version::in_directory_name(&text);
    version.or(named).is_some() || version::in_dpkg_status(bytes).is_some()
}

/// A unit, and after each NUL a drop-in.
pub(super) fn unit(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let mut unit = Unit::default();
    text.split('\0').for_each(|piece| unit.read(piece));
    let words = unit.command(&unit.environment);
    let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
    let starts_docker = Flags::of_words(&words).is_some();
    unit.read("[Service]\nExecStart=\nEnvironment=\nEnvironmentFile=\n");
    assert_eq!(unit, Unit::default());
    for backslash in [Backslash::C, Backslash::Plain] {
        let split = words::split(&text, backslash);
        assert!(split.iter().map(String::len).sum::<usize>() <= text.len());
    }
    starts_docker
}

/// A file of variables, as systemd and as a shell read it.
pub(super) fn env_file(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let read = |reader| {
        let mut variables = Variables::new();
        file::read_into(&mut variables, &text, reader);
        assert!(variables.keys().all(|name| words::is_name(name)));
        !variables.is_empty()
    };
    [read(Reader::Systemd), read(Reader::Shell)].contains(&true)
}

pub(super) fn containerd_config(bytes: &[u8]) -> bool {
    let text = text(bytes);
    if let Ok(told) = configure::tell(Some(&text), &configure::Wanted { pool: "p0", discard: true }) {
        let section = containerd::parse(&told.text).ok().and_then(|file| file.section);
        assert_eq!(section.and_then(|section| section.pool).as_deref(), Some("p0"));
    }
    let Ok(file) = containerd::parse(&text) else { return false };
    let section = file.section.unwrap_or_default();
    assert!(section.pool.as_ref().is_none_or(|pool| !pool.is_empty()));
    assert!(section.root_path.is_none_or(|path| !path.as_os_str().is_empty()));
    section.pool.is_some()
}

/// How many bytes of the input make a page of the database; the rest of the page is zeros.
const PIECE: usize = 256;
const PAGE: usize = 4096;

/// A database as it stands; and one whose pages, from number 2 on, begin with a piece of the input each, under a meta page
/// whose checksum is right.
pub(super) fn containerd_database(bytes: &[u8]) -> bool {
    let _ = containerd::devices_in(bytes);
    let devices = containerd::devices_in(&database(bytes)).unwrap_or_default();
    assert!(devices.iter().all(|device| !device.state_name().is_empty()));
    !devices.is_empty()
}

/// Docker's own databases of volumes and networks, in the same two ways.
pub(super) fn docker_database(bytes: &[u8]) -> bool {
    let _ = (docker_objects::volumes_in_database(bytes), docker_objects::networks_in_database(bytes));
    let volumes = docker_objects::volumes_in_database(&database(bytes)).unwrap_or_default();
    assert!(volumes.iter().all(serde_json::Value::is_object));
    let networks = docker_objects::networks_in_database(&database(bytes)).unwrap_or_default();
    assert!(networks.iter().all(|network| !network.id.is_empty() && !network.name.is_empty()));
    !volumes.is_empty() || !networks.is_empty()
}

fn database(bytes: &[u8]) -> Vec<u8> {
    let mut database = meta();
    database.resize(2 * PAGE, 0);
    for piece in bytes.chunks(PIECE) {
        database.extend(piece);
        database.resize(database.len().next_multiple_of(PAGE), 0);
    }
    database
}

/// A meta page that says: pages of 4096 bytes, the root is page 2, transaction 1.
fn meta() -> Vec<u8> {
    let fields: [&[u8]; 9] = [
        &0xED0C_DAED_u32.to_le_bytes(),
        &2_u32.to_le_bytes(),
        &4096_u32.to_le_bytes(),
        &[0; 4],
        &2_u64.to_le_bytes(),
        &[0; 8],
        &[0; 8],
        &[0; 8],
        &1_u64.to_le_bytes(),
    ];
    let summed = fields.concat();
    [vec![0; 16], summed.clone(), bolt::fnv_1a(&summed).to_le_bytes().to_vec()].concat()
}

pub(super) fn libdm(bytes: &[u8]) -> bool {
    let version = library::version_in_library(bytes);
    assert!(version.as_deref().is_none_or(|version| library::version_numbers(version).is_some()));
    version.is_some() || library::mapped_library(bytes).is_some()
}

/// What a daemon answers over its socket: what is whole before it has ended stays what it is.
pub(super) fn http_answer(bytes: &[u8]) -> bool {
    match http::read(bytes, true) {
        Ok(http::Progress::Whole(answer)) => {
            assert!(answer.body.len() <= bytes.len());
            if let Ok(early @ http::Progress::Whole(_)) = http::read(bytes, false) {
                assert_eq!(early, http::Progress::Whole(answer));
            }
            true
        }
        Ok(http::Progress::More) => unreachable!("nothing more comes"),
        Err(_) => false,
    }
}
