//! Looking whether an archive of a root is whole, and what it says.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, stdin};
use std::os::fd::AsFd;
use std::path::Path;

use super::contents::Contents;
use super::walk::{OnContents, OnEntry, Wrong, walk};
use crate::error::{Failure, Outcome};
use crate::kernel::Called;
use crate::ops::volumes_of_docker::Stop;

/// Reads an archive to its end, and compares every checksum; `-` is standard input.
///
/// # Errors
/// Refused when it is damaged or none, by what of it; when it cannot be read.
pub fn check(input: &Path) -> Outcome<Contents> {
    let from = opened(input)?;
    checked(&from, &mut |_| Ok(()), &mut |_, _, _| Ok(())).map_err(|wrong| failed(input, wrong))
}

/// Opens the archive that is named.
pub(super) fn opened(input: &Path) -> Outcome<File> {
    if input == Path::new("-") {
        let from = stdin().as_fd().try_clone_to_owned();
        return from.map(File::from).map_err(|e| Failure::failed("cannot read standard input").because(e));
    }
    File::open(input).called("open", input.display()).map_err(|e| {
        Failure::refused(format!("cannot read `{}`", input.display())).because(e).fact("state", "nothing was touched")
    })
}

/// Goes through an archive, and makes nothing of it.
pub(super) fn checked<'f>(
    from: &'f File,
    on_contents: &mut OnContents<'_>,
    on_entry: &mut OnEntry<'_, BufReader<&'f File>>,
) -> Result<Contents, Wrong> {
    walk(BufReader::with_capacity(256 << 10, from), on_contents, on_entry)
}

/// Whether an archive can be read twice; it is at its beginning then.
pub(super) fn can_be_read_twice(from: &mut File) -> bool {
    from.seek(SeekFrom::Start(0)).is_ok()
}

/// Says why an archive is not taken.
pub(super) fn failed(input: &Path, wrong: Wrong) -> Failure {
    let what = format!("cannot load `{}`", input.display());
    match wrong {
        Wrong::Told(failure) => failure,
        Wrong::Stop(Stop::Bad(why)) => Failure::refused(format!("{what}: {why}"))
            .fact("state", "nothing was put in place")
            .next("copy the archive again from where it was made; when it is the same there, make another one"),
        Wrong::Stop(Stop::Kernel(e)) => {
            Failure::failed(what).because(e).fact("state", "nothing was put in place; what was made is removed")
        }
        Wrong::Stop(Stop::Signal) => Failure::failed(format!("{what}: a signal came"))
            .fact("state", "nothing was put in place; what was made is removed"),
    }
}
