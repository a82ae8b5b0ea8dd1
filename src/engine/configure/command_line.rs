//! Storage options on a command line, changed in the text that it is written in: a variable's value, or an `ExecStart=`.
//!
//! Words are cut at white space and quotes alike, whatever the quotes mean there: storage options need none. Where that
//! is wrong, what the reader makes of the result is not what was wanted, and the caller refuses it.

use std::ops::Range;

/// What is to be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change<'c> {
    /// The storage driver, when its name is to be on this command line.
    pub driver: Option<&'c str>,
    /// Storage options to be added.
    pub options: &'c [String],
    /// What the keys of storage options begin with that are to go, each.
    pub without: &'c [&'c str],
}

/// The flags of the storage driver (cmd/dockerd/config.go); Docker 1.x took one dash too.
const DRIVER: [&str; 3] = ["--storage-driver", "-storage-driver", "-s"];
const OPTION: [&str; 2] = ["--storage-opt", "-storage-opt"];

/// Returns the text with the change made beside the storage options that are there; nothing when there are none.
pub fn edited(text: &str, change: &Change<'_>) -> Option<String> {
    let words = words(text);
    let driver = value_of(text, &words, &DRIVER);
    let last = [driver.clone(), value_of(text, &words, &OPTION)].into_iter().flatten().max_by_key(|at| at.end)?;
    let mut added = String::new();
    let mut text = text.to_owned();
    if let (Some(name), None) = (change.driver, &driver) {
        added.push_str(&format!(" --storage-driver {name}"));
    }
    for option in change.options {
        added.push_str(&format!(" --storage-opt {option}"));
    }
    text.insert_str(last.end, &added);
    // Behind where the driver stands, the text may just have become longer.
    if let (Some(name), Some(at)) = (change.driver, driver) {
        text.replace_range(at, name);
    }
    Some(change.without.iter().fold(text, |text, prefix| without(&text, prefix)))
}

/// Takes storage options out, with the white space before them.
fn without(text: &str, prefix: &str) -> String {
    let words = words(text);
    let mut gone: Vec<Range<usize>> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let written = text.get(word.clone()).unwrap_or_default();
        let value = match written.split_once('=') {
            Some((name, value)) if OPTION.contains(&name) && !value.is_empty() => {
                Some(word.end - value.len()..word.end)
            }
            // The value is the next word, or stands in quotes of its own.
            Some((name, _)) if OPTION.contains(&name) => words.next().cloned(),
            None if OPTION.contains(&written) => words.next().cloned(),
            _ => None,
        };
        let is_meant = |at: &Range<usize>| {
            text.get(at.clone()).is_some_and(|value| value.to_ascii_lowercase().starts_with(prefix))
        };
        let Some(value) = value.filter(is_meant) else { continue };
        let before = text.get(..word.start).unwrap_or_default();
        let start = before.trim_end_matches([' ', '\t']).len();
        let quote =
            value.start.checked_sub(1).and_then(|at| text.get(at..value.start)).filter(|c| ["\"", "'"].contains(c));
        let is_own_quote = value.start > word.end && quote.is_some() && text.get(value.end..=value.end) == quote;
        gone.push(start..value.end + usize::from(is_own_quote));
    }
    let mut text = text.to_owned();
    gone.into_iter().rev().for_each(|range| text.replace_range(range, ""));
    text
}

/// Returns where the last value of a flag is, however it is attached.
fn value_of(text: &str, words: &[Range<usize>], names: &[&str]) -> Option<Range<usize>> {
    let mut found = None;
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let written = text.get(word.clone()).unwrap_or_default();
        match written.split_once('=') {
            Some((name, _)) if names.contains(&name) => {
                let value = word.start + name.len() + 1;
                // The value may stand in quotes of its own.
                let quoted = words.next_if(|next| value == word.end && next.start == word.end + 1);
                found = Some(quoted.cloned().unwrap_or(value..word.end));
            }
            None if names.contains(&written) => found = words.next().cloned().or(found),
            _ => {}
        }
    }
    found
}

/// Returns where the words of a text are.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = None;
    for (at, c) in text.char_indices() {
        let is_line_end = c == '\\' && text.get(at + 1..).is_some_and(|rest| rest.starts_with('\n'));
        match (c.is_whitespace() || matches!(c, '"' | '\'') || is_line_end, open) {
            (true, Some(start)) => {
                words.push(start..at);
                open = None;
            }
            (false, None) => open = Some(at),
            _ => {}
        }
    }
    words.extend(open.map(|start| start..text.len()));
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(text: &str) -> Option<String> {
        let options = ["dm.thinpooldev=/dev/mapper/p".to_owned()];
        edited(text, &Change { driver: Some("devicemapper"), options: &options, without: &[] })
    }

    #[test]
    fn options_go_with_the_space_before_them() {
        for (text, expected) in [
            ("-s devicemapper --storage-opt dm.fs=xfs --foo", "-s overlay2 --foo"),
            ("--storage-opt=dm.a=b --storage-opt dm.c=d ", " --storage-driver overlay2 "),
            (
                "--storage-driver=devicemapper \\\n --storage-opt \"dm.basesize=20G\" \\\n --storage-opt overlay2.a=b",
                "--storage-driver=overlay2 \\\n \\\n --storage-opt overlay2.a=b",
            ),
            ("--storage-opt='dm.fs=xfs' -s devicemapper -D", " -s overlay2 -D"),
            ("--storage-opt DM.fs=xfs -s devicemapper -D", " -s overlay2 -D"),
        ] {
            let edited = edited(text, &Change { driver: Some("overlay2"), options: &[], without: &["dm."] });
            assert_eq!(edited.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_change_is_made_where_storage_options_are() {
        let added = "--storage-opt dm.thinpooldev=/dev/mapper/p";
        for (text, expected) in [
            ("--storage-driver overlay2 ", format!("--storage-driver devicemapper {added} ")),
            ("-D -s=overlay2 --foo", format!("-D -s=devicemapper {added} --foo")),
            (
                "--storage-opt dm.fs=xfs \\\n  --storage-driver=aufs \\\n --foo",
                format!("--storage-opt dm.fs=xfs \\\n  --storage-driver=devicemapper {added} \\\n --foo"),
            ),
            (
                "--storage-opt=dm.basesize=20G --foo",
                format!("--storage-opt=dm.basesize=20G --storage-driver devicemapper {added} --foo"),
            ),
            ("-s devicemapper", format!("-s devicemapper {added}")),
        ] {
            assert_eq!(both(text).as_deref(), Some(expected.as_str()), "{text}");
        }
        for none in ["", "-D --foo", "--storage-driver", "--foo=--storage-driver"] {
            assert_eq!(both(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(--storage-(opt|driver)[= ]?|-s |[\\PC\\\\\"'= \n]){0,12}") {
            let _ = both(&text);
            let _ = edited(&text, &Change { driver: Some("x"), options: &[], without: &["dm."] });
        }

        #[test]
        fn other_words_are_kept(before in "[a-rt-z $=\"'-]{0,20}", after in "[a-rt-z $=\"'-]{0,20}") {
            let text = format!("{before} --storage-driver overlay2 {after}");
            let edited = edited(&text, &Change { driver: Some("x"), ..Change::default() });
            let edited = edited.map(|edited| edited.replace("--storage-driver x ", "--storage-driver overlay2 "));
            prop_assert_eq!(edited, Some(text));
        }
    }
}
