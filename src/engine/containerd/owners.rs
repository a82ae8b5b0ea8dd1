//! Whose a snapshot is: in the snapshotter's own database and in containerd's.
//!
//! ```text
//! ROOT_PATH/metadata.db                             v1/snapshots/NAMESPACE/N/KEY/ id (uvarint), kind, parent
//! ROOT/io.containerd.metadata.v1.bolt/meta.db       v1/NAMESPACE/containers/ID/ snapshotter, snapshotKey, image
//!                                                   v1/NAMESPACE/snapshots/SNAPSHOTTER/KEY/
//! ```
//!
//! (snapshots/storage/bolt.go, metadata/buckets.go, metadata/snapshot.go `createKey`.) The device of snapshot 7 is `POOL-snap-7`.

use std::collections::BTreeMap;

use crate::engine::bolt::{BadBolt, Bolt, Bucket};

/// Whose a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// containerd's namespace: `k8s.io`.
    pub namespace: String,
    /// The snapshot's key there: the container's name for its own layer, as a rule, or a layer's digest.
    pub key: String,
    /// The container whose root it is.
    pub container: Option<Container>,
}

/// A container that has a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id: its name, for `ctr`.
    pub id: String,
    /// The image that it was made from, by name.
    pub image: Option<String>,
}

/// The containers of a machine, by namespace and the key of their snapshot.
pub type Containers = BTreeMap<(String, String), Container>;

/// Returns the snapshots in a snapshotter's database, by id.
///
/// # Errors
/// When it is damaged.
pub fn snapshots_in(bytes: &[u8]) -> Result<BTreeMap<u64, Owner>, BadBolt> {
    let mut owners = BTreeMap::new();
    let Some(snapshots) = at(Bolt::parse(bytes)?.root(), &["v1", "snapshots"])? else { return Ok(owners) };
    for (name, snapshot) in snapshots.buckets()? {
        let name = String::from_utf8_lossy(name);
        let mut parts = name.splitn(3, '/');
        let (Some(namespace), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let Some(id) = snapshot.value("id")?.and_then(uvarint) else { continue };
        owners.insert(id, Owner { namespace: namespace.to_owned(), key: key.to_owned(), container: None });
    }
    Ok(owners)
}

/// Returns the containers in containerd's database that have a snapshot of this snapshotter.
///
/// # Errors
/// When it is damaged.
pub fn containers_in(bytes: &[u8], snapshotter: &str) -> Result<Containers, BadBolt> {
    let mut found = Containers::new();
    let Some(namespaces) = at(Bolt::parse(bytes)?.root(), &["v1"])? else { return Ok(found) };
    for (namespace, objects) in namespaces.buckets()? {
        let Some(containers) = objects.bucket("containers")? else { continue };
        for (id, container) in containers.buckets()? {
            let text =
                |key: &str| Ok::<_, BadBolt>(container.value(key)?.map(|v| String::from_utf8_lossy(v).into_owned()));
            let Some(key) = text("snapshotKey")?.filter(|key| !key.is_empty()) else { continue };
            if text("snapshotter")?.as_deref() == Some(snapshotter) {
                let image = text("image")?.filter(|image| !image.is_empty());
                let container = Container { id: String::from_utf8_lossy(id).into_owned(), image };
                found.insert((String::from_utf8_lossy(namespace).into_owned(), key), container);
            }
        }
    }
    Ok(found)
}

/// Returns whether containerd's database names snapshots of another snapshotter than this one.
///
/// # Errors
/// When it is damaged.
pub fn others_in(bytes: &[u8], snapshotter: &str) -> Result<bool, BadBolt> {
    let Some(namespaces) = at(Bolt::parse(bytes)?.root(), &["v1"])? else { return Ok(false) };
    for (_, objects) in namespaces.buckets()? {
        let Some(snapshots) = objects.bucket("snapshots")? else { continue };
        for (name, of_it) in snapshots.buckets()? {
            if name != snapshotter.as_bytes() && !of_it.items()?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn at<'a>(root: Bucket<'a>, path: &[&str]) -> Result<Option<Bucket<'a>>, BadBolt> {
    let mut bucket = root;
    for name in path {
        match bucket.bucket(name)? {
            Some(inner) => bucket = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(bucket))
}

/// Reads Go's `binary.Uvarint`: seven bits a byte, the lowest first.
fn uvarint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * n).ok()?)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_writes_them() {
        assert_eq!(uvarint(&[7]), Some(7));
        assert_eq!(uvarint(&[0xac, 0x02]), Some(300));
        assert_eq!(uvarint(&[0xff; 9]), None);
        assert_eq!(uvarint(&[0xff; 20]), None);
        assert_eq!(uvarint(&[]), None);
    }

    #[test]
    fn what_is_no_database_of_containerd_is_told_or_empty() {
        assert_eq!(snapshots_in(b"").err(), Some(BadBolt::NoMeta));
        assert_eq!(containers_in(b"", "devmapper").err(), Some(BadBolt::NoMeta));
        let other = crate::engine::bolt::tests::database("devices", &[("a", b"1")]);
        assert_eq!(snapshots_in(&other), Ok(BTreeMap::new()));
        assert_eq!(containers_in(&other, "devmapper"), Ok(Containers::new()));
        assert_eq!((others_in(b"", "x").err(), others_in(&other, "x")), (Some(BadBolt::NoMeta), Ok(false)));
    }
}
