//! A line of a log, as `docker logs` prints it.

use crate::engine::docker_objects::Line;

/// Returns the bytes that the container wrote, behind their time when that is wanted.
pub fn line(line: &Line, timestamps: bool) -> Vec<u8> {
    match line.time.filter(|_| timestamps) {
        Some(time) => [time.with_nanoseconds().as_bytes(), b" ", &line.bytes].concat(),
        None => line.bytes.clone(),
    }
}
