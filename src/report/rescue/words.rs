//! Words, cells and tables as Docker's client prints them.

use crate::engine::docker_objects::{Time, digits};
use crate::engine::docker_root::Problem;
use crate::report::failure::printable;
use crate::report::human::docker_duration;

/// A column's least width, and what stands between columns (docker/cli, cli/command/formatter).
const LEAST: usize = 10;
const BETWEEN: usize = 3;
/// `docker ps` shows so much of a command (formatter/container.go).
const COMMAND: usize = 20;
/// And so much of an id.
const SHORT: usize = 12;

/// Returns a text that stays in its line and cannot steer a terminal.
pub(super) fn cell(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Returns an id as it is shown: twelve digits, or the whole of it.
pub(super) fn id(id: &str, whole: bool) -> String {
    if whole { cell(id) } else { cell(&digits(id).chars().take(SHORT).collect::<String>()) }
}

/// Returns how long ago a time was; `N/A` for one that is not known.
pub(super) fn ago(now: Time, then: Option<Time>) -> String {
    then.map_or_else(|| "N/A".to_owned(), |then| format!("{} ago", docker_duration(now.since(then))))
}

/// Returns a command in quotes, its end replaced by `…` where it is long, as Go's `strconv.Quote` writes it.
pub(super) fn command(command: &str, whole: bool) -> String {
    let long = !whole && command.chars().count() > COMMAND;
    let shown: String =
        if long { command.chars().take(COMMAND - 1).chain(['…']).collect() } else { command.to_owned() };
    let mut quoted = String::from("\"");
    for c in shown.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || is_unseen(c) => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Characters that change the direction of what follows, or have no width.
fn is_unseen(c: char) -> bool {
    matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

/// Returns rows below their headings as Docker's client lines them up: the last column is not filled up.
pub(super) fn columns<const N: usize>(headings: &[&str; N], rows: &[[String; N]]) -> String {
    let heading = headings.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heading).chain(rows).collect();
    let mut text = String::new();
    let widths: Vec<usize> = (0..N)
        .map(|at| all.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .map(|width| (width + BETWEEN).max(LEAST))
        .collect();
    for row in all {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if at + 1 < N {
                text.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

/// Returns a problem in one line.
pub(super) fn problem(problem: &Problem) -> String {
    cell(&format!("{}: {}", problem.path.display(), problem.why))
}

/// Returns a section of what is not as it should be, with its heading; nothing when it is empty.
pub(super) fn section(heading: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("\n{heading}:\n{lines}")
}

/// A problem, for JSON.
#[derive(Debug, serde::Serialize)]
pub(super) struct ProblemOf {
    path: String,
    why: String,
}

impl ProblemOf {
    pub(super) fn all<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<Self> {
        let of = |problem: &Problem| Self { path: problem.path.display().to_string(), why: problem.why.clone() };
        problems.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut_as_docker_does() {
        for (text, shown) in [
            ("sh", "\"sh\""),
            ("docker-entrypoint.sh nginx", "\"docker-entrypoint.s…\""),
            ("12345678901234567890", "\"12345678901234567890\""),
            ("say \"a\\b\"\t\u{1b}[m", "\"say \\\"a\\\\b\\\"\\t\\x1b[m\""),
            ("a\u{202e}b", "\"a\\u202eb\""),
        ] {
            assert_eq!(command(text, false), shown);
        }
        assert_eq!(command("docker-entrypoint.sh nginx", true), "\"docker-entrypoint.sh nginx\"");
    }

    #[test]
    fn columns_are_ten_wide_and_three_apart() {
        let rows = [["a".to_owned(), "12345678".to_owned(), "x".to_owned()]];
        assert_eq!(columns(&["ID", "IMAGE", "NAMES"], &rows), "ID        IMAGE      NAMES\na         12345678   x\n");
    }
}
