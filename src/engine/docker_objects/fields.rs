//! Looking into JSON for whose shape nobody vouches: what is not there, or of another type, reads as nothing.

use serde::de::Error;
use serde_json::{Map, Value};

use crate::engine::bookkeeping::BadFile;

static NOTHING: Value = Value::Null;

/// Reads a JSON object; what stands behind it is passed over, as Docker's decoder does (`FromDisk`, container/container.go).
///
/// # Errors
/// When the bytes are none, or do not begin with an object.
pub fn parse(bytes: &[u8]) -> Result<Value, BadFile> {
    if bytes.iter().all(|b| *b == 0) {
        return Err(BadFile::Empty);
    }
    match serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next() {
        Some(Ok(value)) if value.is_object() => Ok(value),
        Some(Ok(_)) | None => Err(BadFile::Json(serde_json::Error::custom("it holds no object"))),
        Some(Err(error)) => Err(BadFile::Json(error)),
    }
}

/// Fields of a JSON value, by the keys that lead to them.
pub trait Fields {
    /// Returns what is there; null when nothing is.
    fn at(&self, path: &[&str]) -> &Value;

    /// Returns the text there; nothing when there is none, or an empty one, as Go writes what was not set.
    fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path).as_str().filter(|text| !text.is_empty())
    }

    /// Returns the whole number there; nothing when it is 0 or none, as Go writes what was not set.
    fn number(&self, path: &[&str]) -> Option<i64> {
        self.at(path).as_i64().filter(|number| *number != 0)
    }

    /// Whether `true` stands there.
    fn flag(&self, path: &[&str]) -> bool {
        self.at(path) == &Value::Bool(true)
    }

    /// Returns the texts of the list there; a text alone is a list of one, as Go's `strslice` reads it.
    fn texts(&self, path: &[&str]) -> Vec<&str> {
        match self.at(path) {
            Value::String(text) => vec![text.as_str()],
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the items of the list there.
    fn items(&self, path: &[&str]) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns the entries of the object there, in its own order.
    fn entries(&self, path: &[&str]) -> impl Iterator<Item = (&str, &Value)> {
        self.at(path).as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
    }
}

impl Fields for Value {
    fn at(&self, path: &[&str]) -> &Value {
        path.iter().try_fold(self, |value, key| value.get(key)).unwrap_or(&NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_and_nothing_else() {
        assert!(parse(b"{\"a\": 1}\n\0\0").is_ok_and(|value| value.number(&["a"]) == Some(1)));
        for bytes in [&b""[..], &[0; 9], b"[1]", b"{\"a\": ", b"null", b"  "] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_there_or_of_another_type_is_nothing() {
        let value = json!({"Config": {"Cmd": ["sh", 7, "-c"], "Entrypoint": "run", "User": "", "Tty": true}, "Pid": 0});
        assert_eq!(value.texts(&["Config", "Cmd"]), ["sh", "-c"]);
        assert_eq!(value.texts(&["Config", "Entrypoint"]), ["run"]);
        assert_eq!((value.text(&["Config", "User"]), value.number(&["Pid"])), (None, None));
        assert!(value.flag(&["Config", "Tty"]) && !value.flag(&["Config"]) && !value.flag(&["Config", "Tty", "x"]));
        assert_eq!(
            value.entries(&["Config"]).map(|(key, _)| key).collect::<Vec<_>>(),
            ["Cmd", "Entrypoint", "User", "Tty"]
        );
        assert_eq!((value.items(&["Pid"]).len(), value.entries(&["Pid"]).count()), (0, 0));
    }
}
