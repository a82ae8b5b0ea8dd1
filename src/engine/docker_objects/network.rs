//! Docker's networks: `network/files/local-kv.db`, a bolt database (libnetwork/network.go, `MarshalJSON`;
//! libnetwork/internal/kvstore/boltdb, which puts a number of eight bytes before each value). The bucket is `libnetwork`, the keys
//! are `docker/network/v1.0/network/ID/`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{self, Fields};
use super::reader::Reader;
use crate::engine::bolt::{BadBolt, Bolt, Item};
use crate::engine::small_file::Directory;

const DATABASE: &str = "local-kv.db";
const BUCKET: &str = "libnetwork";
const NETWORKS: &[u8] = b"docker/network/v1.0/network/";
/// The number before each value.
const NUMBER: usize = 8;
/// Under which the options of a driver stand.
const GENERIC: &str = "com.docker.network.generic";

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver: `bridge`, `overlay`, `macvlan`.
    pub driver: String,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether containers beside a swarm's services may use it.
    pub attachable: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// The addresses that somebody chose for it.
    pub pools: Vec<Pool>,
    /// The options of its driver.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Addresses of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// The subnet: `172.28.0.0/16`.
    pub subnet: Option<String>,
    /// The part of it that containers get theirs from.
    pub range: Option<String>,
    /// The address of the host in it.
    pub gateway: Option<String>,
}

/// Reads the networks of a root.
pub(super) fn read(root: &Directory, reader: &mut Reader) -> Vec<Network> {
    let Some(folder) = reader.folders(root, &["network", "files"]) else { return Vec::new() };
    reader.database(&folder, DATABASE, networks_in_database)
}

/// Reads Docker's database of networks. A value that is no network is passed over.
///
/// # Errors
/// When the database is damaged.
pub fn networks_in_database(bytes: &[u8]) -> Result<Vec<Network>, BadBolt> {
    let Some(bucket) = Bolt::parse(bytes)?.root().bucket(BUCKET)? else { return Ok(Vec::new()) };
    let values = bucket.items()?.into_iter().filter_map(|(key, item)| match item {
        Item::Value(value) if key.starts_with(NETWORKS) => fields::parse(value.get(NUMBER..)?).ok(),
        Item::Value(_) | Item::Bucket(_) => None,
    });
    Ok(values.filter_map(|value| network(&value)).collect())
}

fn network(value: &Value) -> Option<Network> {
    let texts = |path: &[&str]| {
        value.entries(path).filter_map(|(key, text)| Some((key.to_owned(), text.as_str()?.to_owned()))).collect()
    };
    let pools =
        ["ipamV4Config", "ipamV6Config"].into_iter().flat_map(|key| pools(value.text(&[key]).unwrap_or_default()));
    Some(Network {
        id: value.text(&["id"])?.to_owned(),
        name: value.text(&["name"])?.to_owned(),
        driver: value.text(&["networkType"]).unwrap_or("bridge").to_owned(),
        internal: value.flag(&["internal"]),
        attachable: value.flag(&["attachable"]),
        ipv6: value.flag(&["enableIPv6"]),
        pools: pools.filter(|pool| *pool != Pool::default()).collect(),
        options: texts(&["generic", GENERIC]),
        labels: texts(&["labels"]),
    })
}

/// A list of JSON that stands as a text in the JSON around it.
fn pools(text: &str) -> Vec<Pool> {
    let list: Value = serde_json::from_str(text).unwrap_or_default();
    let of = |pool: &Value, key: &str| pool.text(&[key]).map(str::to_owned);
    list.items(&[])
        .iter()
        .map(|pool| Pool {
            subnet: of(pool, "PreferredPool"),
            range: of(pool, "SubPool"),
            gateway: of(pool, "Gateway"),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::bolt::tests::database;

    #[test]
    fn networks_are_read_with_what_makes_them_again() {
        let value = |json: &str| [&[7, 0, 0, 0, 0, 0, 0, 0], json.as_bytes()].concat();
        let front = value(
            r#"{"addrSpace":"LocalDefault","created":"2021-03-01T10:00:00Z","enableIPv6":true,"generic":{
            "com.docker.network.enable_ipv6":true,"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400"}},
            "id":"aa","inDelete":false,"internal":true,"attachable":false,"ipamType":"default","labels":{"tier":"front"},
            "ipamV4Config":"[{\"PreferredPool\":\"172.28.0.0/16\",\"SubPool\":\"\",\"Gateway\":\"172.28.0.1\",\"AuxAddresses\":null}]",
            "ipamV6Config":"[{\"PreferredPool\":\"\",\"SubPool\":\"\",\"Gateway\":\"\"}]","name":"front","networkType":"bridge","scope":"local"}"#,
        );
        let bytes = database(
            "libnetwork",
            &[
                ("docker/network/v1.0/endpoint_count/aa/", &value(r#"{"Count":1}"#)),
                ("docker/network/v1.0/network/aa/", &front),
                ("docker/network/v1.0/network/bb/", b"short"),
            ],
        );
        let networks = networks_in_database(&bytes).unwrap();
        assert_eq!(networks.len(), 1);
        let front = &networks[0];
        assert_eq!(
            (front.name.as_str(), front.driver.as_str(), front.internal, front.ipv6),
            ("front", "bridge", true, true)
        );
        let pool =
            Pool { subnet: Some("172.28.0.0/16".to_owned()), range: None, gateway: Some("172.28.0.1".to_owned()) };
        assert_eq!(front.pools, [pool]);
        assert_eq!(
            (front.options["com.docker.network.driver.mtu"].as_str(), front.labels["tier"].as_str()),
            ("1400", "front")
        );
    }
}
