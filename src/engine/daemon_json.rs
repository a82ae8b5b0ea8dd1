//! `/etc/docker/daemon.json`, as far as it says where Docker's storage is.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

/// The file Docker reads when `--config-file` names no other.
pub const DEFAULT_PATH: &str = "/etc/docker/daemon.json";

/// The longest value of a key that is kept to be shown.
const LONGEST_SHOWN: usize = 200;

/// What the file says about storage; of keys of no concern here only that they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonJson {
    /// `data-root`, from Docker 17.05 on.
    data_root: Option<String>,
    /// `graph`, its name before that; still read up to 22.06.
    graph: Option<String>,
    /// `storage-driver`.
    pub storage_driver: Option<String>,
    /// `storage-opts`. When it is there, Docker refuses `--storage-opt` on the command line, so it is all of them.
    pub storage_options: Option<Vec<String>>,
    /// Every key with its value as JSON, cut to a length that can be shown.
    pub keys: BTreeMap<String, String>,
}

impl DaemonJson {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are not a JSON object whose named keys have the types that Docker wants. An empty file is no error for
    /// Docker, and none here.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let object: Map<String, Value> = serde_json::from_slice(bytes)?;
        Ok(Self {
            data_root: field(&object, "data-root")?,
            graph: field(&object, "graph")?,
            storage_driver: field(&object, "storage-driver")?,
            storage_options: field(&object, "storage-opts")?,
            keys: object.iter().map(|(key, value)| (key.clone(), shown(value))).collect(),
        })
    }

    /// Returns the Docker root that the file names, if it does.
    pub fn root(&self) -> Option<&str> {
        self.data_root.as_deref().or(self.graph.as_deref())
    }
}

fn field<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Result<Option<T>, serde_json::Error> {
    let value = object.get(key).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|error| serde_json::Error::custom(format!("{key}: {error}")))
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(LONGEST_SHOWN) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_names_of_the_root_are_read() {
        let old = DaemonJson::parse(br#"{"graph": "/srv/docker", "debug": true}"#).unwrap();
        assert_eq!((old.root(), old.keys["debug"].as_str()), (Some("/srv/docker"), "true"));
        let new = DaemonJson::parse(br#"{"data-root": "/data", "storage-opts": ["dm.basesize=20G"]}"#).unwrap();
        assert_eq!(new.root(), Some("/data"));
        assert_eq!(new.storage_options.unwrap(), ["dm.basesize=20G"]);
        let null = DaemonJson::parse(br#"{"data-root": null, "storage-opts": null}"#).unwrap();
        assert_eq!((null.root(), null.storage_options.as_ref()), (None, None));
    }

    #[test]
    fn an_empty_file_says_nothing_and_a_broken_one_is_an_error() {
        assert_eq!(DaemonJson::parse(b" \n").unwrap(), DaemonJson::default());
        for broken in [&b"{"[..], b"[]", b"{\"storage-opts\": \"dm.basesize=20G\"}", b"\xff\xfe", b"{} trailing"] {
            assert!(DaemonJson::parse(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
        let deep = "[".repeat(100_000);
        assert!(DaemonJson::parse(deep.as_bytes()).is_err(), "without end");
        let error = DaemonJson::parse(b"{\"data-root\": 7}").unwrap_err().to_string();
        assert!(error.contains("data-root"), "{error}");
    }

    #[test]
    fn a_long_value_is_cut_where_a_character_ends() {
        let json = format!(r#"{{"label": "{}"}}"#, "ä".repeat(500));
        let shown = &DaemonJson::parse(json.as_bytes()).unwrap().keys["label"];
        assert_eq!(shown.chars().count(), LONGEST_SHOWN + 1);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = DaemonJson::parse(&bytes);
        }
    }
}
