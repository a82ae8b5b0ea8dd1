//! A plan as `--dry-run` shows it: what would be done, in order, what of it outlasts a reboot, and how each step is taken
//! back.

use similar::TextDiff;

use super::failure::printable;
use crate::ops::plan::Plan;
use crate::ops::steps::{Rewrite, Step, WayBack};

/// Returns the text of a plan, each line ended.
///
/// ```text
/// dmpool would grow the data of pool `p0` to 20.0 GiB:
///   1. make the file /srv/p0/data 20.0 GiB long
///      outlasts a reboot; way back: shortened again
/// nothing was changed
/// ```
pub fn text(plan: &Plan) -> String {
    let mut text = if plan.is_empty() {
        format!("dmpool would {}: there is nothing to do\n", printable(&plan.what))
    } else {
        format!("dmpool would {}:\n", printable(&plan.what))
    };
    let width = plan.steps.len().to_string().len();
    for (number, step) in plan.steps.iter().enumerate() {
        text.push_str(&step_text(number + 1, width, step));
    }
    for rewrite in plan.steps.iter().filter_map(|step| step.act().rewrite()) {
        text.push_str(&difference(&rewrite));
    }
    for note in &plan.notes {
        text.push_str(&format!("note: {}\n", printable(note)));
    }
    text.push_str("nothing was changed\n");
    text
}

/// Returns the same for who is asked next whether it shall be done.
pub fn steps(plan: &Plan) -> String {
    let mut text = format!("dmpool will {}:\n", printable(&plan.what));
    for (number, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {}\n", number + 1, printable(&step.act().sentence())));
    }
    for note in &plan.notes {
        text.push_str(&format!("note: {}\n", printable(note)));
    }
    text
}

/// Returns a step with its number, what of it outlasts a reboot, and how it is taken back.
pub(super) fn step_text(number: usize, width: usize, step: &Step) -> String {
    let act = step.act();
    let lasts = if act.lasts() { "outlasts a reboot" } else { "until a reboot" };
    let way_back = match act.way_back() {
        WayBack::By(way) => format!("way back: {way}"),
        WayBack::None => "no way back".to_owned(),
    };
    format!("  {number:>width$}. {}\n  {:width$}  {lasts}; {way_back}\n", printable(&act.sentence()), "")
}

/// Returns what changes in a file, as `diff -u` shows it.
fn difference(rewrite: &Rewrite<'_>) -> String {
    let path = rewrite.path.display().to_string();
    let diff = TextDiff::from_lines(rewrite.before, rewrite.after);
    let unified = diff.unified_diff().context_radius(3).header(&path, &path).to_string();
    // White space counts here, so it stays as it is.
    let shown = |c: char| c == '\n' || c == '\t' || !c.is_control();
    unified.chars().map(|c| if shown(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plan::Operation;
    use crate::ops::steps::{MakeDirectory, MakeFile, Part, ReloadPool};
    use crate::units::Bytes;

    #[test]
    fn every_step_says_what_it_does_and_how_it_is_taken_back() {
        let plan = Plan {
            operation: Operation::Create,
            pool: "p0".to_owned(),
            what: "create the pool `p0`".to_owned(),
            steps: vec![
                MakeDirectory { path: "/srv/p0".into(), parents: false }.into(),
                MakeFile { path: "/srv/p0/data".into(), size: Bytes::new(10 << 30), preallocate: false }.into(),
                ReloadPool {
                    name: "p0".to_owned(),
                    metadata: "/srv/p0/metadata".into(),
                    part: Part::Data,
                    from: Bytes::new(10 << 30),
                    to: Bytes::new(20 << 30),
                }
                .into(),
            ],
            notes: vec!["the files promise 1.0 GiB more than /srv has".to_owned()],
        };
        let shown = text(&plan);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.first(), Some(&"dmpool would create the pool `p0`:"));
        assert_eq!(lines.get(1), Some(&"  1. make the directory /srv/p0 (mode 0700)"));
        assert_eq!(lines.get(2), Some(&"     outlasts a reboot; way back: removed when empty"));
        assert_eq!(lines.get(6), Some(&"     outlasts a reboot; no way back"), "{shown}");
        assert_eq!(lines.get(7), Some(&"note: the files promise 1.0 GiB more than /srv has"));
        assert_eq!(lines.last(), Some(&"nothing was changed"));
    }

    #[test]
    fn a_file_that_is_written_is_shown_as_diff_shows_it() {
        let rewrite = Rewrite { path: "/etc/d.json".as_ref(), before: "{\n  \"a\": 1\n}", after: "{\n  \"a\": 2\n}" };
        let shown = "--- /etc/d.json\n+++ /etc/d.json\n@@ -1,3 +1,3 @@\n {\n-  \"a\": 1\n+  \"a\": 2\n }\n\\ No newline at end of file\n";
        assert_eq!(difference(&rewrite), shown);
    }

    #[test]
    fn a_plan_without_steps_says_so() {
        let plan = Plan {
            operation: Operation::Activate,
            pool: "p0".to_owned(),
            what: "activate the pool `p0`".to_owned(),
            steps: Vec::new(),
            notes: Vec::new(),
        };
        assert_eq!(text(&plan), "dmpool would activate the pool `p0`: there is nothing to do\nnothing was changed\n");
    }
}
