//! What `continue` and `undo` would do, and what `undo` says of an operation that it could not take back.

use std::path::Path;

use super::failure::printable;
use super::plan::step_text;
use crate::ops::migrate::back::End;
use crate::ops::migrate::over::{Former, Over, Since, Sizes};
use crate::ops::resume::{Described, Remaining};
use crate::ops::steps::{Leftover, WayBack};
use crate::process::quote;

/// Returns what `continue` would do, each line ended.
pub fn would_finish(described: &Described) -> String {
    would("finish", described, |remaining, width| step_text(remaining.number, width, &remaining.step))
}

/// Returns what `undo` would do, each line ended: the last step first.
pub fn would_take_back(described: &Described) -> String {
    would("take back", described, |remaining, width| {
        let act = remaining.step.act();
        let back = match act.way_back() {
            _ if remaining.stands => "stays, with what was done before it: there is no way back".to_owned(),
            WayBack::By(way) => format!("taken back: {way}"),
            WayBack::None => "not done yet, or stays: there is no way back".to_owned(),
        };
        format!("  {:>width$}. {}\n  {:width$}  {back}\n", remaining.number, printable(&act.sentence()), "")
    })
}

fn would(verb: &str, described: &Described, line: impl Fn(&Remaining, usize) -> String) -> String {
    let what = printable(&described.what);
    let mut text = match described.steps.as_slice() {
        [] => format!("dmpool would {verb}: {what}: no step is left, its journal would be closed\n"),
        _ => format!("dmpool would {verb}: {what}:\n"),
    };
    let width = described.steps.iter().map(|remaining| remaining.number.to_string().len()).max().unwrap_or_default();
    described.steps.iter().for_each(|remaining| text.push_str(&line(remaining, width)));
    text.push_str("nothing was changed\n");
    text
}

/// Returns what is to be known once a migration has ended, each a sentence: what was kept, what leads back, and what deletes the old pool.
pub fn ended(end: &End) -> Vec<String> {
    let End { over, records, is_undoable, deletes, .. } = end;
    let kept = format!(
        "what was kept of Docker, its records and its configuration, is in {}, {}",
        over.records.display(),
        records.human()
    );
    let back = match is_undoable {
        true => "until somebody starts Docker everything leads back:  dmpool undo".to_owned(),
        false => format!("undo leads back no more; {}", way_back(over)),
    };
    let deletes = deletes.as_ref().map(|command| {
        format!("the old pool is on devices, and dmpool migrate --delete-old leaves these alone; when Docker has run well without it:  {command}")
    });
    [kept, back].into_iter().chain(deletes).map(|sentence| printable(&sentence)).collect()
}

/// Returns the sentence on a migration that has ended: what leads back then.
pub fn over(over: &Over) -> String {
    let (place, old) = match &over.old {
        Former::Pool(name) => ("", format!("`{name}`")),
        Former::At(path) => ("at ", path.display().to_string()),
    };
    let back = way_back(over);
    printable(&format!(
        "a migration has ended ({}), and Docker has what it made since only there; the old pool is {place}{old}, as it was; {back}",
        over.what
    ))
}

fn way_back(over: &Over) -> String {
    let root = quote(&over.root.to_string_lossy());
    let sizes = match over.sizes {
        Some(Sizes { data, block }) => format!("--data-size {} --block-size {}", data.typed(), block.typed()),
        None => "--data-size SIZE --block-size SIZE".to_owned(),
    };
    match over.new {
        Since::LoopFiles => format!(
            "what leads back and loses nothing is another migration, with sizes and blocks as they were:  dmpool migrate {root} {sizes}"
        ),
        Since::Pool => format!(
            "what leads back and loses nothing is another migration, to a pool with sizes and blocks as they were:  dmpool migrate \
             {root} --name OTHER --dir DIR {sizes}"
        ),
        Since::Overlay2 => {
            "nothing carries that back into it but Docker itself (docker save and load, export and import)".to_owned()
        }
    }
}

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
            Leftover::File(path) => (path.as_path(), "the file", "rm"),
            Leftover::Directory(path) => (path.as_path(), "the directory", "rmdir"),
            Leftover::Tree(path) => (path.as_path(), "what is left of the directory", "rm -r --one-file-system"),
            Leftover::Volume(word) => (Path::new(word), "the LV", "lvremove"),
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
    use crate::ops::steps::DeleteFile;

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
    fn what_is_half_deleted_is_removed_with_all_that_is_in_it() {
        let text = stands("delete it", &[], &[Leftover::Tree("/d/devicemapper.old.dmpool-deleted".into())]);
        assert!(text.contains("rm -r --one-file-system /d/devicemapper.old.dmpool-deleted "), "{text}");
    }

    #[test]
    fn what_would_be_done_is_told_by_the_steps_that_are_left() {
        let remaining = |number, file: &str, stands| Remaining {
            number,
            step: DeleteFile { path: file.into(), file: None }.into(),
            stands,
        };
        let (id, what) = ("p0-1".to_owned(), "destroy pool `p0`".to_owned());
        let described =
            Described { id, what, destroys: true, steps: vec![remaining(9, "/a", false), remaining(10, "/b", true)] };
        assert_eq!(
            would_finish(&described),
            "\
dmpool would finish: destroy pool `p0`:
   9. delete the file /a
      outlasts a reboot; no way back
  10. delete the file /b
      outlasts a reboot; no way back
nothing was changed
"
        );
        let back = would_take_back(&described);
        assert!(back.contains("  10. delete the file /b\n      stays, with what was done before it"), "{back}");
        let none = Described { steps: Vec::new(), ..described };
        assert!(would_take_back(&none).contains("no step is left"), "{}", would_take_back(&none));
    }

    #[test]
    fn where_nothing_is_left_nothing_is_to_be_done() {
        let said = stands("grow", &["the pool `p0` has its new data size, 2.0 GiB".to_owned()], &[]);
        assert!(!said.contains("next:") && said.ends_with("2.0 GiB\n"), "{said}");
    }
}
