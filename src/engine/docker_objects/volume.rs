//! Docker's volumes: what the local driver keeps, and what Docker has written down of them and of those of other drivers.
//!
//! ```text
//! volumes/NAME/_data              the files (volume/local/local.go)
//! volumes/NAME/opts.json          what is mounted there: {"MountType":"nfs","MountOpts":"addr=…","MountDevice":":/x"}
//! volumes/metadata.db             bolt: bucket `volumes`, NAME -> {"Name","Driver","Labels","Options"} (volume/service/db.go)
//! vfs/dir/ID, volumes/ID/config.json        before Docker 1.9 (volumes/repository.go)
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::container::Container;
use super::fields::{self, Fields};
use super::reader::{Reader, is_id};
use crate::engine::bolt::{BadBolt, Bolt, Item};
use crate::engine::docker_root::Problem;
use crate::engine::small_file::{Directory, Kind};

/// The driver that keeps volumes in the root.
pub const LOCAL: &str = "local";
const VOLUMES: &str = "volumes";
const DATABASE: &str = "metadata.db";
const OPTIONS: &str = "opts.json";
/// The files of a volume, in its folder.
pub const DATA: &str = "_data";

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether nobody named it.
    pub anonymous: bool,
    /// The options that it was made with, by name.
    pub options: BTreeMap<String, String>,
    /// Its labels, by name.
    pub labels: BTreeMap<String, String>,
    /// Where its files are.
    pub data: Data,
    /// The containers that use it.
    pub users: Vec<User>,
    /// What could not be read of it, or is missing.
    pub problems: Vec<Problem>,
}

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// In the root, in folders of these names, one in the other.
    Here(Vec<String>),
    /// Elsewhere: where, in words. What is in the root is not the volume's.
    Elsewhere(String),
    /// Nowhere: there is no folder for them.
    Missing,
}

/// A container that uses a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: Option<String>,
    /// Where it sees the volume.
    pub destination: String,
    /// Whether it may write there.
    pub writable: bool,
}

impl Volume {
    fn new(name: &str, driver: &str, data: Data) -> Self {
        Self {
            name: name.to_owned(),
            driver: driver.to_owned(),
            anonymous: is_id(name),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            data,
            users: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Says why it is not known whether something is mounted over its folder: its options are written down nowhere readable.
    pub fn unknown_options(&self) -> Option<String> {
        let damage = self.problems.iter().find(|problem| problem.path.ends_with(OPTIONS));
        damage.filter(|_| self.options.is_empty()).map(|problem| format!("{}: {}", problem.path.display(), problem.why))
    }
}

/// Reads the volumes in the root and those that are known of in it, by name.
///
/// Where the vfs driver has no layers, what is in its folder is a volume's.
pub(super) fn read(
    root: &Directory,
    containers: &[Container],
    vfs_has_layers: bool,
    reader: &mut Reader,
) -> Vec<Volume> {
    let mut found = BTreeMap::new();
    if let Some(volumes) = reader.folder(root, VOLUMES) {
        in_folder(&volumes, &mut found, reader);
        let known = reader.database(&volumes, DATABASE, in_database);
        known.into_iter().for_each(|record| note(record, &mut found));
    }
    for container in containers {
        of_container(container, &mut found);
    }
    of_vfs(root, vfs_has_layers, &mut found, reader);
    found.into_values().collect()
}

/// The folders of the local driver.
fn in_folder(volumes: &Directory, found: &mut BTreeMap<String, Volume>, reader: &mut Reader) {
    for name in reader.names(volumes) {
        match volumes.kind(&name) {
            Ok(Some(Kind::Directory)) => {
                let (volume, problems) = reader.apart(|reader| one(volumes, &name, reader));
                found.extend(volume.map(|volume| (name, Volume { problems, ..volume })));
            }
            Ok(Some(Kind::Link(target))) => {
                let data = Data::Elsewhere(format!("it is a symbolic link to {}", target.display()));
                found.insert(name.clone(), Volume::new(&name, LOCAL, data));
            }
            // The database, and the device that quotas are set with.
            Ok(_) => {}
            Err(error) => reader.problem(volumes, Some(&name), error.to_string()),
        }
    }
}

/// Nothing for what Docker before 1.9 wrote of a directory of the host.
fn one(volumes: &Directory, name: &str, reader: &mut Reader) -> Option<Volume> {
    let here = || Data::Here([VOLUMES, name, DATA].map(str::to_owned).to_vec());
    let Some(folder) = reader.folder(volumes, name) else { return Some(Volume::new(name, LOCAL, Data::Missing)) };
    let record = reader.json(&folder, "config.json");
    if record.as_ref().is_some_and(|record| record.flag(&["IsBindMount"])) {
        return None;
    }
    let mut volume = match folder.kind(DATA) {
        Ok(Some(Kind::Directory)) => Volume::new(name, LOCAL, here()),
        Ok(Some(Kind::Link(target))) => {
            Volume::new(name, LOCAL, Data::Elsewhere(format!("its _data is a symbolic link to {}", target.display())))
        }
        // Its files are in vfs/dir, if they are anywhere.
        Ok(None) if record.is_some() => Volume::new(name, LOCAL, Data::Missing),
        Ok(_) | Err(_) => {
            reader.problem(&folder, Some(DATA), "it is missing, or no directory".to_owned());
            Volume::new(name, LOCAL, Data::Missing)
        }
    };
    if let Some(options) = reader.json(&folder, OPTIONS) {
        for (key, option) in [("MountType", "type"), ("MountOpts", "o"), ("MountDevice", "device")] {
            volume.options.extend(options.text(&[key]).map(|value| (option.to_owned(), value.to_owned())));
        }
    }
    mounted(&mut volume);
    Some(volume)
}

/// The local driver mounts what its options name over the volume's folder, when a container starts (volume/local/local_unix.go).
fn mounted(volume: &mut Volume) {
    let option = |name: &str| volume.options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if volume.driver == LOCAL && (option("type").is_some() || option("device").is_some()) {
        let kind = option("type").unwrap_or("none");
        let device = option("device").unwrap_or("nothing");
        let options = option("o").map(|o| format!(" ({o})")).unwrap_or_default();
        volume.data = Data::Elsewhere(format!("{device}, of type {kind}{options}, is mounted there when it is used"));
    }
}

/// Reads Docker's database of volumes.
///
/// # Errors
/// When it is damaged. A record that is no JSON is passed over, as Docker does.
pub fn in_database(bytes: &[u8]) -> Result<Vec<Value>, BadBolt> {
    let Some(bucket) = Bolt::parse(bytes)?.root().bucket(VOLUMES)? else { return Ok(Vec::new()) };
    let values = bucket.items()?.into_iter().filter_map(|(_, item)| match item {
        Item::Value(value) => fields::parse(value).ok(),
        Item::Bucket(_) => None,
    });
    Ok(values.collect())
}

fn note(record: Value, found: &mut BTreeMap<String, Volume>) {
    let Some(name) = record.text(&["Name"]) else { return };
    let driver = record.text(&["Driver"]).unwrap_or(LOCAL);
    let volume = found.entry(name.to_owned()).or_insert_with(|| Volume::new(name, driver, of(driver)));
    if volume.driver != driver {
        volume.driver = driver.to_owned();
        volume.data = of(driver);
    }
    let texts = |key: &str| {
        record.entries(&[key]).filter_map(|(k, v)| Some((k.to_owned(), v.as_str()?.to_owned()))).collect::<Vec<_>>()
    };
    volume.labels.extend(texts("Labels"));
    volume.anonymous |= volume.labels.contains_key("com.docker.volume.anonymous");
    // The folder's own file is what the driver goes by.
    for (key, value) in texts("Options") {
        volume.options.entry(key).or_insert(value);
    }
    if !matches!(volume.data, Data::Elsewhere(_)) {
        mounted(volume);
    }
}

/// Where a volume's files are of which the root has no folder.
fn of(driver: &str) -> Data {
    if driver == LOCAL { Data::Missing } else { Data::Elsewhere(format!("the driver {driver} has them")) }
}

/// The volumes of Docker before 1.9, in the folder of the vfs driver: those that are known, and, where it has no layers, those
/// that nothing names any more.
fn of_vfs(root: &Directory, has_layers: bool, found: &mut BTreeMap<String, Volume>, reader: &mut Reader) {
    let Some(folder) = reader.folders(root, &["vfs", "dir"]) else { return };
    for name in reader.names(&folder) {
        if !is_id(&name) || !matches!(folder.kind(&name), Ok(Some(Kind::Directory))) {
            continue;
        }
        let data = Data::Here(["vfs", "dir", &name].map(str::to_owned).to_vec());
        match found.get_mut(&name) {
            Some(volume) if volume.data == Data::Missing => volume.data = data,
            None if !has_layers => drop(found.insert(name.clone(), Volume::new(&name, LOCAL, data))),
            Some(_) | None => {}
        }
    }
}

fn of_container(container: &Container, found: &mut BTreeMap<String, Volume>) {
    for point in container.mount_points() {
        let Some(name) = point.volume else { continue };
        let driver = point.driver.unwrap_or(LOCAL);
        let volume = found.entry(name.to_owned()).or_insert_with(|| Volume::new(name, driver, of(driver)));
        volume.users.push(User {
            container: container.id.clone(),
            name: container.name().map(str::to_owned),
            destination: point.destination.to_owned(),
            writable: point.writable,
        });
    }
}
