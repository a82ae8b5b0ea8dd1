//! What `undo` says of an operation that it could not take back.

use std::path::Path;

use super::failure::printable;
use crate::ops::steps::Leftover;

/// Returns what stands, what is left over, and how that is removed, each line ended.
pub fn stands(what: &str, stands: &[String], left: &[Leftover]) -> String {
    let mut text = format!("could not be taken back, and is closed: {what}\n");
    let mut line = |label: &str, value: &str| text.push_str(&format!("  {label:<8}{}\n", printable(value)));
    for sentence in stands {
        line("stands:", sentence);
    }
    let mut commands = Vec::new();
    for leftover in left {
        let (path, is, removed_by) = match leftover {
            Leftover::File(path) => (path, "the file", "rm"),
            Leftover::Directory(path) => (path, "the directory", "rmdir"),
        };
        line("left:", &format!("{is} {}", path.display()));
        commands.push(format!("{removed_by} {}", word(path)));
    }
    if !commands.is_empty() {
        line("next:", &format!("{}    without what is deleted they are of no use", commands.join(" && ")));
    }
    text
}

/// Returns a path as one word of a shell's.
fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c)) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_with_the_command_that_removes_it() {
        let left = [Leftover::File("/srv/my pools/p0/metadata".into()), Leftover::Directory("/srv/my pools/p0".into())];
        assert_eq!(
            stands("destroy pool `p0`", &["the file /srv/my pools/p0/data is deleted".to_owned()], &left),
            "\
could not be taken back, and is closed: destroy pool `p0`
  stands: the file /srv/my pools/p0/data is deleted
  left:   the file /srv/my pools/p0/metadata
  left:   the directory /srv/my pools/p0
  next:   rm '/srv/my pools/p0/metadata' && rmdir '/srv/my pools/p0'    without what is deleted they are of no use
"
        );
    }

    #[test]
    fn where_nothing_is_left_nothing_is_to_be_done() {
        let said = stands("grow", &["the pool `p0` has its new data size, 2.0 GiB".to_owned()], &[]);
        assert!(!said.contains("next:") && said.ends_with("2.0 GiB\n"), "{said}");
    }
}
