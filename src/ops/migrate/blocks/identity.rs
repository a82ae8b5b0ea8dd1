//! What tells a pool from another one in the same place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::source::Origin;
use crate::engine::bookkeeping::{DEVICE_SET, DeviceSet};
use crate::kernel::dm::Dm;
use crate::kernel::fs as durable;
use crate::ops::sight;
use crate::ops::steps::FileId;
use crate::units::Bytes;

/// Docker's records are some hundred bytes long.
const LONGEST: Bytes = Bytes::new(64 << 10);

/// Returns what tells the pool of Docker's driver with that folder from another one in its place: a pool that Docker makes anew has
/// the ids and times of the old one from the beginning, its files may have the same inodes, and its base device has another file system.
///
/// # Errors
/// When that cannot be read, or nothing tells it.
pub fn identity(dm: &Dm, home: &Path, origin: &Origin) -> Result<String> {
    match origin {
        Origin::Parts { data, metadata } => of_parts(home, data, metadata),
        Origin::Pool(name) => {
            let live = sight::live(dm, name)?.with_context(|| format!("looking for the pool `{name}`: it is down"))?;
            let uuid = live.info.uuid.unwrap_or_default();
            with_base(home, &format!("{name} {uuid}"), !uuid.is_empty())
        }
    }
}

fn of_parts(home: &Path, data: &Path, metadata: &Path) -> Result<String> {
    let [(data, is_born), (metadata, is_born_too)] = [of_part(data)?, of_part(metadata)?];
    with_base(home, &format!("{data}, {metadata}"), is_born && is_born_too)
}

/// Describes a file or device, and says whether another one at its path would be described otherwise.
fn of_part(path: &Path) -> Result<(String, bool)> {
    let real: PathBuf = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
    let file = FileId::of(&real)?;
    if !real.is_file() {
        return Ok((real.display().to_string(), false));
    }
    let born = file.born.map_or_else(|| "unknown".to_owned(), |born| born.to_string());
    Ok((format!("{} inode {} born {born}", path.display(), file.inode), file.born.is_some()))
}

fn with_base(home: &Path, place: &str, is_told: bool) -> Result<String> {
    let path = home.join("metadata").join(DEVICE_SET);
    let context = || format!("reading {}", path.display());
    let base = match durable::read_limited(&path, LONGEST).with_context(context)? {
        Some(bytes) => DeviceSet::parse(&bytes).with_context(context)?.base_uuid,
        None => String::new(),
    };
    ensure!(
        is_told || !base.is_empty(),
        "nothing would tell another pool from this one: {} has no BaseDeviceUUID, and the pool no identity of its own",
        path.display()
    );
    Ok(format!("{place}, base device {base}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_pool_made_anew_in_the_same_place_is_another_one() {
        let home = tempfile::tempdir().unwrap();
        let [data, metadata] = ["data", "other"].map(|name| home.path().join(name));
        let records = home.path().join("metadata");
        fs::create_dir(&records).unwrap();
        let set = |uuid: &str| {
            let text = format!(r#"{{"next_device_id":3,"BaseDeviceUUID":"{uuid}"}}"#);
            fs::write(records.join(DEVICE_SET), text).unwrap();
        };
        [&data, &metadata].iter().for_each(|path| fs::write(path, "a").unwrap());
        let look = || of_parts(home.path(), &data, &metadata);
        set("24cb");
        let first = look().unwrap();
        fs::write(&data, "longer, as after grow").unwrap();
        assert_eq!(look().unwrap(), first);
        set("77aa");
        assert_ne!(look().unwrap(), first, "the base device was made anew");
        set("24cb");
        fs::remove_file(&data).unwrap();
        // The kernel tells times of files in ticks.
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::write(&data, "a").unwrap();
        let again = look().unwrap();
        assert!(FileId::of(&data).unwrap().born.is_none() || again != first, "the file was made anew: {again}");
        // A disk has no birth: without Docker's word nothing tells it.
        let disk = Path::new("/dev/null");
        assert!(of_parts(home.path(), disk, &metadata).is_ok());
        set("");
        assert!(of_parts(home.path(), disk, &metadata).unwrap_err().to_string().contains("BaseDeviceUUID"));
        fs::remove_file(records.join(DEVICE_SET)).unwrap();
        assert!(of_parts(home.path(), disk, &metadata).is_err());
    }
}
