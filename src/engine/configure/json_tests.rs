//! Tests of the JSON editor: what it changes, and that it changes nothing else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;

const OPTIONS: [&str; 2] = ["dm.thinpooldev=/dev/mapper/p", "dm.blkdiscard=true"];

fn edited(text: &str) -> String {
    let driven = set_string(text, "storage-driver", "devicemapper").unwrap();
    append_strings(&driven, "storage-opts", &OPTIONS.map(str::to_owned)).unwrap()
}

#[test]
fn a_new_key_looks_as_its_neighbours_do() {
    let options =
        "\"storage-opts\": [\n        \"dm.thinpooldev=/dev/mapper/p\",\n        \"dm.blkdiscard=true\"\n    ]";
    let alone = format!("{{\n    \"storage-driver\": \"devicemapper\",\n    {options}\n}}\n");
    for nothing in ["", " \n\t", "{}\n", "{\n}\n"] {
        assert_eq!(edited(nothing), alone, "{nothing:?}");
    }
    let four = "{\n    \"debug\": true,\n    \"hosts\": [ ]\n}\n";
    assert_eq!(
        edited(four),
        format!(
            "{{\n    \"debug\": true,\n    \"hosts\": [ ],\n    \"storage-driver\": \"devicemapper\",\n    {options}\n}}\n"
        )
    );
    let tabs = "{\n\t\"debug\" : true\n}";
    assert_eq!(
        edited(tabs),
        "{\n\t\"debug\" : true,\n\t\"storage-driver\": \"devicemapper\",\n\t\"storage-opts\": [\n\t\t\
         \"dm.thinpooldev=/dev/mapper/p\",\n\t\t\"dm.blkdiscard=true\"\n\t]\n}"
    );
    let line = r#"{"debug": true, "a": 1}"#;
    assert_eq!(
        edited(line),
        r#"{"debug": true, "a": 1, "storage-driver": "devicemapper", "storage-opts": ["dm.thinpooldev=/dev/mapper/p", "dm.blkdiscard=true"]}"#
    );
}

#[test]
fn what_is_there_is_kept_and_added_to() {
    let there = "{\n  \"storage-opts\" : [\n    \"dm.basesize=20G\"\n  ],\n  \"storage-driver\":\"overlay2\",  \"x\": {\"storage-driver\": 1}\n}";
    assert_eq!(
        edited(there),
        "{\n  \"storage-opts\" : [\n    \"dm.basesize=20G\",\n    \"dm.thinpooldev=/dev/mapper/p\",\n    \
         \"dm.blkdiscard=true\"\n  ],\n  \"storage-driver\":\"devicemapper\",  \"x\": {\"storage-driver\": 1}\n}"
    );
    assert_eq!(
        edited("{\"storage-opts\": [], \"storage-driver\": null}"),
        r#"{"storage-opts": ["dm.thinpooldev=/dev/mapper/p", "dm.blkdiscard=true"], "storage-driver": "devicemapper"}"#
    );
    assert_eq!(append_strings("{\"k\": null}", "k", &["a".to_owned()]).unwrap(), "{\"k\": [\"a\"]}");
}

#[test]
fn what_is_no_object_or_has_a_key_twice_is_left_alone() {
    for damaged in ["{", "[]", "{} x", "{\"a\": 1,}", "// a comment\n{}"] {
        assert!(matches!(set_string(damaged, "k", "v"), Err(Unfit::Damaged(_))), "{damaged}");
    }
    assert!(matches!(append_strings(r#"{"k": "v"}"#, "k", &[]), Err(Unfit::Damaged(_))));
    let twice = r#"{"k": 1, "\u006b": 2, "j": 3}"#;
    assert_eq!(set_string(twice, "k", "v"), Err(Unfit::Twice("k".to_owned())));
    assert_eq!(set_string(twice, "j", "v").unwrap(), r#"{"k": 1, "\u006b": 2, "j": "v"}"#);
}

fn space() -> impl Strategy<Value = String> {
    "[ \n\t\r]{0,3}"
}

/// Any JSON value, with any white space in it.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        "[\\PC\\\\\"{}\\[\\],:]{0,8}".prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = proptest::collection::vec((space(), inner.clone(), space()), 0..3);
        let pairs = proptest::collection::vec((space(), "[a-z]{1,3}", space(), inner, space()), 0..3);
        prop_oneof![
            list.prop_map(|items| {
                let items: Vec<_> = items.iter().map(|(a, v, b)| format!("{a}{v}{b}")).collect();
                format!("[{}]", items.join(","))
            }),
            pairs.prop_map(|items| {
                let items: Vec<_> = items.iter().map(|(a, k, b, v, c)| format!("{a}\"{k}\"{b}:{v}{c}")).collect();
                format!("{{{}}}", items.join(","))
            }),
        ]
    })
}

/// An object with members of other names, and perhaps those that are edited.
fn daemon_json() -> impl Strategy<Value = String> {
    let options = proptest::collection::vec((space(), "[a-z.=\"\\\\]{0,6}", space()), 0..3).prop_map(|items| {
        let items: Vec<_> = items.iter().map(|(a, v, b)| format!("{a}{}{b}", Value::from(v.as_str()))).collect();
        format!("[{}]", items.join(","))
    });
    let ours = (proptest::option::of(options), proptest::option::of("[a-z0-9]{1,8}"));
    let others = proptest::collection::btree_map("[a-r][a-z-]{0,6}", (space(), value(), space()), 0..4);
    (space(), others, ours, space(), space(), 0..4_usize).prop_map(
        |(before, others, (options, driver), gap, after, at)| {
            let mut members: Vec<_> =
                others.into_iter().map(|(key, (a, value, b))| format!("{a}\"{key}\"{b}:{a}{value}{b}")).collect();
            let driver = driver.map(|driver| format!("{gap}\"storage-driver\":\"{driver}\""));
            let options = options.map(|options| format!("{gap}\"storage-opts\":{gap}{options}"));
            for member in [driver, options].into_iter().flatten() {
                members.insert(at.min(members.len()), member);
            }
            format!("{before}{{{gap}{}{gap}}}{after}", members.join(","))
        },
    )
}

/// How many bytes of a text are in the other one, before and after one place.
fn kept(text: &str, other: &str) -> usize {
    let same = |(a, b): &(u8, u8)| a == b;
    let before = text.bytes().zip(other.bytes()).take_while(same).count();
    let most = text.len().min(other.len()) - before;
    before + text.bytes().rev().zip(other.bytes().rev()).take(most).take_while(same).count()
}

proptest! {
    #[test]
    fn only_what_is_wanted_changes(text in daemon_json()) {
        let mut wanted: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let mut options = wanted.get("storage-opts").and_then(Value::as_array).cloned().unwrap_or_default();
        options.extend(OPTIONS.map(Value::from));
        let driver = wanted.insert("storage-driver".to_owned(), "devicemapper".into());
        let driven = set_string(&text, "storage-driver", "devicemapper").unwrap();
        prop_assert_eq!(&serde_json::from_str::<Map<String, Value>>(&driven).unwrap(), &wanted);
        let gone = driver.map_or(0, |driver| driver.to_string().len());
        prop_assert!(kept(&text, &driven) >= text.len() - gone, "{:?} {:?}", text, driven);

        wanted.insert("storage-opts".to_owned(), options.into());
        let after = append_strings(&driven, "storage-opts", &OPTIONS.map(str::to_owned)).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Map<String, Value>>(&after).unwrap(), &wanted);
        prop_assert_eq!(kept(&driven, &after), driven.len(), "{:?} {:?}", driven, after);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\PC\"\\\\{}\\[\\],: \n]{0,60}") {
        let _ = (set_string(&text, "k", "v"), append_strings(&text, "k", &["v".to_owned()]));
    }
}

#[test]
fn strings_go_from_an_array_and_leave_the_others_as_they_stand() {
    let removed = |text: &str| remove_strings(text, "a", |value| value.starts_with('x'));
    for (text, expected) in [
        ("{\"a\": [\"x1\", \"y\", \"x2\"], \"b\": [\"x\"]}", "{\"a\": [\"y\"], \"b\": [\"x\"]}"),
        ("{\"a\":[\"x\"]}", "{\"a\":[]}"),
        ("{\"a\": [\n  \"x1\",\n  \"x2\"\n]}", "{\"a\": []}"),
        ("{\"a\": [\n  \"y\",\n  \"x\"\n]}", "{\"a\": [\n  \"y\"\n]}"),
        ("{\"a\": null}", "{\"a\": null}"),
        ("{\"b\": 1}", "{\"b\": 1}"),
    ] {
        assert_eq!(removed(text).unwrap(), expected);
    }
    assert!(removed("{\"a\": 1}").is_err() && removed("{\"a\": [], \"a\": []}").is_err());
}
