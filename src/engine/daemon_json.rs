//! `/etc/docker/daemon.json`, as far as it says where Docker's storage is.

use serde::Deserialize;

/// The file Docker reads when `--config-file` names no other.
pub const DEFAULT_PATH: &str = "/etc/docker/daemon.json";

/// What the file says about storage; keys of no concern here are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DaemonJson {
    /// `data-root`, from Docker 17.05 on.
    #[serde(rename = "data-root")]
    data_root: Option<String>,
    /// `graph`, its name before that; still read up to 22.06.
    graph: Option<String>,
    /// `storage-driver`.
    #[serde(rename = "storage-driver")]
    pub storage_driver: Option<String>,
    /// `storage-opts`. When it is there, Docker refuses `--storage-opt` on the command line, so it is all of them.
    #[serde(rename = "storage-opts")]
    pub storage_options: Option<Vec<String>>,
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
        serde_json::from_slice(bytes)
    }

    /// Returns the Docker root that the file names, if it does.
    pub fn root(&self) -> Option<&str> {
        self.data_root.as_deref().or(self.graph.as_deref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_the_root_are_read() {
        let old = DaemonJson::parse(br#"{"graph": "/srv/docker", "debug": true}"#).unwrap();
        assert_eq!(old.root(), Some("/srv/docker"));
        let new = DaemonJson::parse(br#"{"data-root": "/data", "storage-opts": ["dm.basesize=20G"]}"#).unwrap();
        assert_eq!(new.root(), Some("/data"));
        assert_eq!(new.storage_options.unwrap(), ["dm.basesize=20G"]);
    }

    #[test]
    fn an_empty_file_says_nothing_and_a_broken_one_is_an_error() {
        assert_eq!(DaemonJson::parse(b" \n").unwrap(), DaemonJson::default());
        for broken in [&b"{"[..], b"[]", b"{\"storage-opts\": \"dm.basesize=20G\"}", b"\xff\xfe", b"{} trailing"] {
            assert!(DaemonJson::parse(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
