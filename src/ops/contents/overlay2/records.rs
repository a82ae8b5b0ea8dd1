//! What Docker has written of a root: as long as it is the same, no container has run and no layer was made.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::engine::configure::json;
use crate::engine::docker_objects::CONTAINERS;
use crate::engine::driver::Driver;
use crate::engine::small_file::{Directory, Kind};

/// No configuration is longer.
const LONGEST: u64 = 16 << 20;

/// Returns a checksum of Docker's records of its layers, volumes and containers. A container's is written when it starts and when
/// it ends; what it says of the storage driver does not count, since dmpool writes that.
///
/// # Errors
/// When one cannot be read.
pub(in crate::ops) fn records(root: &Path) -> Result<String> {
    let mut sum = Sha256::new();
    let opened = Directory::open(root).with_context(|| format!("opening {}", root.display()))?;
    let mut take = |what: &str, bytes: &[u8]| {
        sum.update(what.len().to_le_bytes());
        sum.update(what);
        sum.update(bytes.len().to_le_bytes());
        sum.update(bytes);
    };
    let driver = Driver::Devicemapper.name();
    for folders in [vec![driver, "metadata"], vec!["image", driver, "layerdb", "mounts"], vec![CONTAINERS]] {
        let Some(folder) = below(&opened, &folders)? else { continue };
        let mut names = folder.names()?;
        names.sort();
        for name in names {
            let Some(name) = name.to_str() else { continue };
            let context = || format!("reading {}", folder.path().join(name).display());
            take(name, b"");
            if folder.kind(name)? == Some(Kind::File) {
                take("", &folder.read(name, LONGEST).with_context(context)?);
                continue;
            }
            let Ok(inner) = folder.enter(name) else { continue };
            for file in ["mount-id", "init-id", "parent"] {
                if inner.kind(file)?.is_some() {
                    take(file, &inner.read(file, LONGEST).with_context(context)?);
                }
            }
            for file in ["config.v2.json", "hostconfig.json"] {
                if inner.kind(file)?.is_some() {
                    let bytes = inner.read(file, LONGEST).with_context(context)?;
                    let text = String::from_utf8_lossy(&bytes);
                    take(file, with_driver(&text, driver).unwrap_or_else(|_| text.into_owned()).as_bytes());
                }
            }
        }
    }
    Ok(format!("sha256:{:x}", sum.finalize()))
}

fn below(root: &Directory, folders: &[&str]) -> Result<Option<Directory>> {
    let mut at: Option<Directory> = None;
    for name in folders {
        let folder = at.as_ref().unwrap_or(root);
        if folder.kind(name)?.is_none() {
            return Ok(None);
        }
        at = Some(folder.enter(name).with_context(|| format!("opening {}", folder.path().join(name).display()))?);
    }
    Ok(at)
}

/// Returns a container's configuration with another storage driver, and not one other byte changed. One that names none, as Docker before
/// 1.3 wrote it, is as it was.
///
/// # Errors
/// When it is no JSON object, or has two.
pub(in crate::ops) fn with_driver(text: &str, driver: &str) -> Result<String> {
    let found = serde_json::from_str::<serde_json::Value>(text)?;
    if !found.get("Driver").is_some_and(serde_json::Value::is_string) {
        return Ok(text.to_owned());
    }
    json::set_string(text, "Driver", driver).map_err(|unfit| anyhow::anyhow!("{unfit:?}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_drivers_name_changes_in_a_containers_configuration() {
        let text = "{\"State\":{\"Driver\":\"x\"},\"Args\":[\"\\\"Driver\\\":\"],\"Driver\":\"devicemapper\",  \"MountLabel\":\"\\u0041\"}\n";
        let other = with_driver(text, "overlay2").unwrap();
        assert_eq!(other, text.replace("devicemapper", "overlay2"));
        assert_eq!(with_driver(&other, "devicemapper").unwrap(), text);
        assert_eq!(with_driver("{\"ID\":\"a\"}", "overlay2").unwrap(), "{\"ID\":\"a\"}");
        assert!(
            with_driver("{", "overlay2").is_err() && with_driver("{\"Driver\":\"a\",\"Driver\":\"b\"}", "c").is_err()
        );
    }
}
