//! Storage options in a file of variables: an `EnvironmentFile=`, or what an init script reads with the shell.

use super::command_line::{self, Change};
use crate::engine::start::env_file::{self, Reader};

/// Returns the text with the change made in the last variable that holds storage options; nothing when none does.
pub fn edited(text: &str, reader: Reader, change: &Change<'_>) -> Option<String> {
    env_file::assignments(text, reader).into_iter().rev().find_map(|value| {
        let written = text.get(value.clone())?;
        let edited = command_line::edited(written, change)?;
        let mut whole = text.to_owned();
        whole.replace_range(value, &quoted_as(written, edited));
        Some(whole)
    })
}

/// One word needs no quotes, several do: a shell would take the second for a command.
fn quoted_as(before: &str, after: String) -> String {
    let had_one = !before.trim().contains([' ', '\t', '\n', '"', '\'', '\\']);
    if had_one && after.trim().contains(' ') { format!("\"{}\"", after.trim()) } else { after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(text: &str) -> Option<String> {
        let options = ["dm.blkdiscard=true".to_owned()];
        edited(text, Reader::Shell, &Change { driver: Some("devicemapper"), options: &options, without: &[] })
    }

    #[test]
    fn the_variable_with_storage_options_is_changed_and_nothing_else() {
        let text = "# --storage-driver in a comment\nOPTIONS='--selinux-enabled -s overlay' # and why\n\
                    DOCKER_STORAGE_OPTIONS=\"--storage-driver overlay2 \"\n;x\nOTHER=--debug\n";
        let expected = text.replace("overlay2 ", "devicemapper --storage-opt dm.blkdiscard=true ");
        assert_eq!(both(text).as_deref(), Some(expected.as_str()));
        assert_eq!(
            both("A=--storage-driver=overlay2\nB=1").as_deref(),
            Some("A=\"--storage-driver=devicemapper --storage-opt dm.blkdiscard=true\"\nB=1")
        );
        let long = "export DOCKER_OPTS=\"--debug \\\n  --storage-opt dm.fs=xfs\"\n";
        assert_eq!(
            both(long).as_deref(),
            Some(
                "export DOCKER_OPTS=\"--debug \\\n  --storage-opt dm.fs=xfs --storage-driver devicemapper --storage-opt dm.blkdiscard=true\"\n"
            )
        );
        assert_eq!(both("DOCKER_STORAGE_OPTIONS=\n# DOCKER_OPTS='-s x'\n"), None);
    }
}
