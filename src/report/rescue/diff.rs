//! What a container has changed, a line each, as `docker diff` prints it.

use crate::ops::contents::archive::Change;
use crate::ops::contents::tree::shown;

/// Returns the line of one change, ended. Names that are no text, or would steer a terminal, are escaped.
pub fn line(change: &Change) -> String {
    format!("{} /{}\n", change.kind.letter(), shown(&change.path))
}
