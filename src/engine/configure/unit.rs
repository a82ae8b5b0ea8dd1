//! Storage options on the command line of a service unit, in the file it is written in or in a drop-in over it.

use std::ops::Range;

use super::command_line::{self, Change};

/// Returns the text of a unit or drop-in with the change made in its last `ExecStart=`; nothing when that has no storage
/// options.
pub fn edited(text: &str, change: &Change<'_>) -> Option<String> {
    let command = command(text)?;
    let edited = command_line::edited(text.get(command.clone())?, change)?;
    let mut whole = text.to_owned();
    whole.replace_range(command, &edited);
    Some(whole)
}

/// Returns a drop-in that replaces the command line of a unit by the same one with the change made; nothing when the
/// unit's has no storage options.
pub fn drop_in(text: &str, change: &Change<'_>) -> Option<String> {
    let edited = command_line::edited(text.get(command(text)?)?, change)?;
    Some(format!(
        "# Written by dmpool: the unit's own command line with other storage options.\n[Service]\nExecStart=\nExecStart={edited}\n"
    ))
}

/// Returns whether a unit or drop-in gives a command line.
pub fn has_command(text: &str) -> bool {
    command(text).is_some()
}

/// Returns where the value of the last `ExecStart=` is that has one, all its lines without the last line's end.
fn command(text: &str) -> Option<Range<usize>> {
    let mut found = None;
    let mut in_service = false;
    let mut open: Option<usize> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let begun = line.trim();
        let is_comment = begun.starts_with(['#', ';']);
        let goes_on = begun.ends_with('\\') && !is_comment;
        let ends = at + line.trim_end().len();
        if open.is_none() && !is_comment {
            if begun.starts_with('[') {
                in_service = begun == "[Service]";
            } else if in_service && begun.split_once('=').is_some_and(|(key, _)| key.trim_end() == "ExecStart") {
                open = line.find('=').map(|equals| at + equals + 1);
            }
        }
        // A comment between the lines of a command is not part of it, and does not end it.
        if let Some(start) = open.filter(|_| !goes_on && !is_comment) {
            open = None;
            found = text.get(start..ends).filter(|value| !value.trim().is_empty()).map(|_| start..ends).or(found);
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: &str = "[Unit]\nExecStart=-s no\n[Service]\n# ExecStart=-s no\nExecStart = /usr/bin/dockerd \\\n# why\n  \
                        --storage-driver=overlay2 \\\n  $OPTIONS\nExecReload=/bin/kill -s HUP $MAINPID\n";

    fn change() -> Change<'static> {
        Change { driver: Some("devicemapper"), ..Change::default() }
    }

    #[test]
    fn the_command_line_is_changed_in_its_place() {
        let edited = edited(UNIT, &change());
        assert_eq!(edited.as_deref(), Some(UNIT.replace("overlay2", "devicemapper").as_str()));
        assert_eq!(super::edited("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n", &change()), None);
        assert!(!has_command("[Service]\nExecStart=\n") && has_command(UNIT));
    }

    #[test]
    fn a_drop_in_takes_the_units_command_back_first() {
        let drop_in = drop_in(UNIT, &change()).unwrap_or_default();
        let expected = "[Service]\nExecStart=\nExecStart= /usr/bin/dockerd \\\n# why\n  --storage-driver=devicemapper \\\n  $OPTIONS\n";
        assert!(drop_in.ends_with(expected), "{drop_in}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[Service\\]\n|ExecStart=|-s |[\\PC\\\\\"'$=#; \n]){0,20}") {
            let _ = (edited(&text, &change()), drop_in(&text, &change()));
        }
    }
}
