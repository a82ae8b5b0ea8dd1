//! The command lines of README and docs, so that a test can run them.
//!
//! A fenced block of commands is one of two kinds. ```` ```console ```` is run by a test, as root in a guest, all blocks
//! of a file in their order and in one guest; each line that begins with `# ` is a command and ends with status 0 unless
//! `(exit N)` stands on a line below it; the other lines are what it printed when the text was written. A second word
//! names what the guest must have: ```` ```console docker ````.
//! Any other block of commands carries `<!-- not run: REASON -->` on the line before its fence.

use std::path::{Path, PathBuf};

/// A fenced block of a Markdown file.
#[derive(Clone, Debug)]
pub struct Block {
    /// The file, relative to the project.
    pub file: PathBuf,
    /// The line of its fence, from 1.
    pub line: usize,
    /// What stands behind the fence: `console docker`, `json`.
    pub info: String,
    /// The reason of the mark before it, when there is one.
    pub not_run: Option<String>,
    /// Its lines.
    pub lines: Vec<String>,
}

/// A command line of a block, and the status it must end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The line, for a shell.
    pub line: String,
    /// 0, or what `(exit N)` says.
    pub exit: i32,
}

/// What a runnable block needs of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Device-mapper and dmpool.
    Plain,
    /// A Docker on its default loop-file pool besides.
    Docker,
}

impl Block {
    /// Returns what the block needs, when it is to be run.
    pub fn needs(&self) -> Option<Needs> {
        match self.info.as_str() {
            "console" if self.not_run.is_none() => Some(Needs::Plain),
            "console docker" if self.not_run.is_none() => Some(Needs::Docker),
            _ => None,
        }
    }

    /// Returns the commands of a console block, in order.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for line in &self.lines {
            let exit = line.strip_prefix("(exit ").and_then(|rest| rest.strip_suffix(')')?.parse().ok());
            if let Some(line) = line.strip_prefix("# ") {
                commands.push(Command { line: line.to_owned(), exit: 0 });
            } else if let (Some(exit), Some(last)) = (exit, commands.last_mut()) {
                last.exit = exit;
            }
        }
        commands
    }
}

/// The files, relative to the project, and their texts: compiled in, since a guest has no sources. `tests/docs.rs` sees
/// that none is missing.
pub const TEXTS: [(&str, &str); 16] = [
    ("README.md", include_str!("../../README.md")),
    (
        "docs/decisions/0001-what-status-knows-without-asking.md",
        include_str!("../../docs/decisions/0001-what-status-knows-without-asking.md"),
    ),
    (
        "docs/decisions/0002-json-has-its-own-types.md",
        include_str!("../../docs/decisions/0002-json-has-its-own-types.md"),
    ),
    ("docs/decisions/0003-what-status-costs.md", include_str!("../../docs/decisions/0003-what-status-costs.md")),
    (
        "docs/decisions/0004-what-containerd-is-left-when-a-pool-comes-back-blank.md",
        include_str!("../../docs/decisions/0004-what-containerd-is-left-when-a-pool-comes-back-blank.md"),
    ),
    (
        "docs/decisions/0005-migrate-carries-blocks-and-files-itself.md",
        include_str!("../../docs/decisions/0005-migrate-carries-blocks-and-files-itself.md"),
    ),
    (
        "docs/decisions/0006-a-larger-base-is-copied-and-grown.md",
        include_str!("../../docs/decisions/0006-a-larger-base-is-copied-and-grown.md"),
    ),
    (
        "docs/decisions/0007-a-smaller-base-is-made-anew.md",
        include_str!("../../docs/decisions/0007-a-smaller-base-is-made-anew.md"),
    ),
    ("docs/design.md", include_str!("../../docs/design.md")),
    ("docs/exit-codes.md", include_str!("../../docs/exit-codes.md")),
    ("docs/guide.md", include_str!("../../docs/guide.md")),
    ("docs/journal-format.md", include_str!("../../docs/journal-format.md")),
    ("docs/label-format.md", include_str!("../../docs/label-format.md")),
    ("docs/root-archive.md", include_str!("../../docs/root-archive.md")),
    ("docs/support.md", include_str!("../../docs/support.md")),
    ("docs/volumes-format.md", include_str!("../../docs/volumes-format.md")),
];

/// Returns every fenced block of README.md and of the files under docs, files in the order of their names.
#[allow(dead_code, reason = "for tests on the host")]
pub fn blocks() -> Vec<Block> {
    TEXTS.iter().flat_map(|(file, text)| parse(Path::new(file), text)).collect()
}

/// The files that have commands to run, as they were when the test was built: a guest does not have the project.
pub const EMBEDDED: [(&str, &str); 2] =
    [("README.md", include_str!("../../README.md")), ("docs/guide.md", include_str!("../../docs/guide.md"))];

/// Returns the blocks of [`EMBEDDED`], in order.
#[allow(dead_code, reason = "for tests in a guest")]
pub fn embedded() -> Vec<Block> {
    EMBEDDED.iter().flat_map(|(file, text)| parse(Path::new(file), text)).collect()
}

/// Returns the fenced blocks of one file's text.
pub fn parse(file: &Path, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(String, Block)> = None;
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match &mut open {
            Some((fence, block)) => {
                if trimmed.trim_end() == fence {
                    blocks.extend(open.take().map(|(_, block)| block));
                } else {
                    block.lines.push(line.to_owned());
                }
            }
            None if trimmed.starts_with("```") => {
                let ticks = trimmed.chars().take_while(|c| *c == '`').count();
                let (fence, info) = trimmed.split_at(ticks);
                let not_run = before
                    .trim()
                    .strip_prefix("<!-- not run:")
                    .and_then(|rest| rest.strip_suffix("-->"))
                    .map(|reason| reason.trim().to_owned());
                let block = Block {
                    file: file.to_owned(),
                    line: number + 1,
                    info: info.trim().to_owned(),
                    not_run,
                    lines: Vec::new(),
                };
                open = Some((fence.to_owned(), block));
            }
            None => {}
        }
        before = line;
    }
    assert!(
        open.is_none(),
        "{}: the fence of line {} is never closed",
        file.display(),
        open.map_or(0, |(_, b)| b.line)
    );
    blocks
}
