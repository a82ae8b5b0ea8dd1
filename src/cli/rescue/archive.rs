//! Where archives go, and what is said while they are written.

use std::io::{self, IsTerminal, Write, stdout};
use std::path::Path;

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::contents::archive::{Output, Remark, Writer};
use crate::ops::named_file;
use crate::report::failure::printable;

/// Says each remark when it is met, and counts what is lost.
#[derive(Debug, Default)]
pub(in crate::cli) struct Teller {
    lost: usize,
}

impl Teller {
    pub(in crate::cli) fn tell(&mut self, remark: &Remark) {
        match remark {
            Remark::Lost(_) => {
                self.lost += 1;
                show::error(&format!("dmpool: {}\n", said(remark)));
            }
            Remark::Socket(_) | Remark::Reached(_) => show::error(&format!("note: {}\n", said(remark))),
        }
    }

    /// Returns the outcome: what was made is there, whole or not.
    ///
    /// # Errors
    /// Damaged when something was lost.
    pub(in crate::cli) fn outcome(self, what: &str) -> Outcome<()> {
        outcome(self.lost, what)
    }
}

/// Returns the outcome when so many things were lost, each of which was said.
///
/// # Errors
/// As [`Teller::outcome`].
pub(in crate::cli) fn outcome(lost: usize, what: &str) -> Outcome<()> {
    let count = match lost {
        0 => return Ok(()),
        1 => "1 thing is".to_owned(),
        several => format!("{several} things are"),
    };
    Err(Failure::new(Kind::Damaged, format!("{what} is not whole: {count} missing or not as it was"))
        .fact("state", "the rest is there")
        .next("what is said above of each"))
}

/// Names in it are from the disk.
fn said(remark: &Remark) -> String {
    printable(&remark.to_string())
}

/// Writes an archive: to a file that is there when it is whole, or to standard output, which must be no terminal.
///
/// # Errors
/// Refused for a terminal; failed when it cannot be written. A reader that goes away is silence.
pub(in crate::cli) fn write(
    file: Option<&Path>,
    fill: &mut dyn FnMut(&mut Writer<&mut dyn Write>) -> io::Result<()>,
) -> Outcome<()> {
    let mut filled = |out: &mut dyn Write| {
        let mut writer = Writer::new(out);
        fill(&mut writer)?;
        writer.finish()
    };
    let Some(file) = file else {
        if stdout().is_terminal() {
            return Err(Failure::refused("cannot write an archive to a terminal")
                .fact("state", "nothing was touched")
                .next("name a file with -o, or send it through a pipe"));
        }
        return show::written(filled(&mut stdout().lock()));
    };
    named_file::may_replace(file)?;
    let mut output = Output::begin(file)?;
    match filled(&mut output) {
        Ok(()) => output.finish(),
        Err(e) => Err(output.broken(&e)),
    }
}

/// Returns the file that `-o` names; nothing for `-`.
pub(in crate::cli) fn file(output: Option<&Path>) -> Option<&Path> {
    output.filter(|path| *path != Path::new("-"))
}
