//! A tree as a tar archive, or as files in a directory; and what one tree has changed of another.

mod acl;
mod changes;
mod compare;
mod destination;
mod measure;
mod output;
mod pack;
mod plant;
mod tar;

use std::fmt;
use std::path::PathBuf;

pub use acl::Acl;
pub use changes::{Change, ChangeKind, changes};
pub(crate) use compare::{Difference, compare, compare_with_flags};
pub use destination::{Destination, Source};
pub use measure::{Measure, measure, measure_changes};
pub use output::Output;
pub(crate) use pack::{OnBelow, Taken, pack_layer, pack_some};
pub use pack::{pack, pack_changes};
pub use plant::plant;
pub(crate) use plant::{DEFAULT, Keeping, Onto, Upper, ends_all, plant_onto, plant_upper, unfit};
pub use tar::{Member, Writer, made};

use crate::kernel::KernelError;
use crate::kernel::folder::Filled;
use crate::ops::contents::tree::{Lost, shown};

/// Something that is said while a tree is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// An entry was left out, or is not as it was.
    Lost(Lost),
    /// A socket was left out: an archive cannot hold one, and it is nothing without the program behind it.
    Socket(PathBuf),
    /// How the files were reached.
    Reached(String),
}

/// Who is told.
pub type Tell<'a> = dyn FnMut(Remark) + 'a;

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(lost) => write!(f, "`/{}`: {}", shown(&lost.path), lost.why),
            Self::Reached(how) => f.write_str(how),
            Self::Socket(path) => write!(f, "`/{}` is a socket and left out", shown(path)),
        }
    }
}

/// Says what of a file was filled with zeros.
pub(crate) fn filled(filled: &Filled) -> Option<String> {
    if filled.bytes == 0 {
        return None;
    }
    let why = match filled.errno {
        Some(errno) => KernelError { errno, call: "read", object: format!("byte {}", filled.first) }.to_string(),
        None => "the file has become shorter".to_owned(),
    };
    Some(format!(
        "{} bytes from byte {} on could not be read and are zeros in the copy: {why}",
        filled.bytes, filled.first
    ))
}

#[cfg(test)]
mod tests;
