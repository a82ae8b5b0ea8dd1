//! A word in `daemon.json` that keeps every Docker from starting which reads that file.
//!
//! Docker refuses a key that it does not know, and prints it (`findConfigurationConflicts`, daemon/config/config.go): so the
//! key is the message. It does so before it looks at its root.

use serde_json::Value;

use super::json::{self, Unfit};

/// The key that no Docker knows.
pub const KEY: &str = "dmpool has stopped this Docker: dmpool continue, or dmpool undo";

/// Returns what a `daemon.json` says with the hold in it, and nothing else changed; `text` is nothing when there is no file.
///
/// # Errors
/// When it is no JSON object.
pub fn held(text: Option<&str>) -> Result<String, Unfit> {
    json::set(text.unwrap_or_default(), KEY, &Value::Bool(true))
}

/// Returns whether a `daemon.json` has the hold in it.
pub fn is_held(text: &str) -> bool {
    let json: Option<Value> = serde_json::from_str(text).ok();
    json.is_some_and(|json| json.get(KEY).is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_with_the_hold_says_what_it_said_and_the_hold() {
        let none = held(None).unwrap();
        assert_eq!(none, format!("{{\n    \"{KEY}\": true\n}}\n"));
        assert_eq!(held(Some(" \n")).unwrap(), none);
        let text = "{\n  \"debug\" : true,\n  \"storage-opts\": [ \"a\" ]\n}\n";
        let with = held(Some(text)).unwrap();
        assert_eq!(with, format!("{{\n  \"debug\" : true,\n  \"storage-opts\": [ \"a\" ],\n  \"{KEY}\": true\n}}\n"));
        assert!(is_held(&with) && !is_held(text) && !is_held("{"));
        assert_eq!(held(Some(&with)).unwrap(), with, "held twice is held once");
        assert!(held(Some("[")).is_err() && held(Some("{")).is_err());
    }

    proptest! {
        #[test]
        fn nothing_but_the_hold_is_added(keys in proptest::collection::btree_map("[a-z \"\\\\]{0,6}", any::<i8>(), 0..5)) {
            let text = serde_json::to_string_pretty(&keys).unwrap();
            let mut with: serde_json::Map<String, Value> = serde_json::from_str(&held(Some(&text)).unwrap()).unwrap();
            prop_assert_eq!(with.remove(KEY), Some(Value::Bool(true)));
            prop_assert_eq!(Value::Object(with), serde_json::to_value(&keys).unwrap());
        }
    }
}
