//! What a container has written, from the files of its log driver.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use flate2::bufread::MultiGzDecoder;

use super::label;
use crate::engine::docker_objects::{CONTAINERS, Container, Fields, Form, Lines, Objects};
pub use crate::engine::docker_objects::{Line, Stream, Time};
use crate::engine::small_file::Directory;
use crate::error::{Failure, Outcome};
use crate::process::quote;

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The last so many lines; all of them without.
    pub tail: Option<usize>,
    /// Only those from then on.
    pub since: Option<Time>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How many lines, or places, were damaged and passed over.
    pub damaged: usize,
    /// Files that could not be read to their end, and why.
    pub unread: Vec<(String, String)>,
}

/// One file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// How many times it was rotated.
    age: u32,
    name: String,
    packed: bool,
}

/// Where a container's log is.
#[derive(Debug)]
struct Log {
    folder: Directory,
    form: Form,
    /// The oldest first.
    pieces: Vec<Piece>,
}

/// Hands on what a container has written, the oldest first, until `show` returns false.
///
/// # Errors
/// Refused when its log is not in the root: with where it is.
pub fn read(
    objects: &Objects,
    container: &Container,
    wanted: Wanted,
    show: &mut dyn FnMut(&Line) -> bool,
) -> Outcome<Told> {
    let log = find(objects, container)?;
    let mut told = Told::default();
    // Read twice rather than kept: lines are as long as their container likes.
    let mut before = match wanted.tail {
        Some(most) => {
            let mut count = 0_usize;
            log.read(&mut Told::default(), &mut |_| {
                count += 1;
                true
            });
            count.saturating_sub(most)
        }
        None => 0,
    };
    log.read(&mut told, &mut |line| {
        if before > 0 {
            before -= 1;
            return true;
        }
        wanted.since.is_some_and(|since| line.time.is_some_and(|time| time < since)) || show(line)
    });
    Ok(told)
}

impl Log {
    /// Hands on every line, until `take` returns false.
    fn read(&self, told: &mut Told, take: &mut dyn FnMut(&Line) -> bool) {
        for piece in &self.pieces {
            let lines = match open(&self.folder, piece) {
                Ok(from) => Lines::new(from, self.form),
                Err(error) => {
                    told.unread.push((piece.name.clone(), error.to_string()));
                    continue;
                }
            };
            for line in lines {
                match line {
                    Ok(Some(line)) if !take(&line) => return,
                    Ok(Some(_)) => {}
                    Ok(None) => told.damaged += 1,
                    Err(error) => told.unread.push((piece.name.clone(), error.to_string())),
                }
            }
        }
    }
}

fn open(folder: &Directory, piece: &Piece) -> io::Result<Box<dyn BufRead>> {
    let file: File = folder.open_file(&piece.name)?;
    let file = BufReader::new(file);
    Ok(if piece.packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

fn find(objects: &Objects, container: &Container) -> Outcome<Log> {
    let place = objects.path.join(CONTAINERS).join(&container.id);
    let folder = Directory::open(&objects.path).and_then(|root| root.enter(CONTAINERS)?.enter(&container.id));
    let folder = folder.map_err(|e| {
        Failure::refused(format!(
            "cannot read the log of container `{}`: its folder cannot be opened",
            label(container)
        ))
        .next(format!("ls -la {}", quote(&place.to_string_lossy())))
        .because(e)
    })?;
    let json = format!("{}-json.log", container.id);
    let local = folder.enter("local-logs").ok();
    let (folder, form, name) = match (container.log_driver(), local) {
        (Some("json-file") | None, None) => (folder, Form::Json, json),
        (Some("local") | None, Some(local)) => (local, Form::Local, "container.log".to_owned()),
        (Some("json-file"), Some(_)) => (folder, Form::Json, json),
        (Some("local"), None) => {
            return Err(nothing(container, "local-logs", &place.to_string_lossy()));
        }
        // What Docker 20.10 and later keeps beside, unless it was told not to.
        (Some(_), _) => (folder, Form::Local, "container-cached.log".to_owned()),
    };
    let pieces = pieces(&folder, &name);
    if !pieces.is_empty() {
        return Ok(Log { folder, form, pieces });
    }
    match container.log_driver() {
        Some("json-file" | "local") | None => Err(nothing(container, &name, &folder.path().to_string_lossy())),
        Some(driver) => Err(elsewhere(container, driver)),
    }
}

fn nothing(container: &Container, name: &str, place: &str) -> Failure {
    let failure = Failure::refused(format!("container `{}` has no log", label(container)))
        .fact("needed", format!("{name} in {place}"));
    if container.started().is_none() {
        return failure.fact("found", "it was never started").next("nothing: it has written nothing");
    }
    failure.next(format!("ls -la {}    # shows what is left of it", quote(place)))
}

/// Says where the log is when the root does not have it.
fn elsewhere(container: &Container, driver: &str) -> Failure {
    let failure = Failure::refused(format!(
        "cannot read the log of container `{}`: its log driver {driver} keeps nothing in the root",
        label(container)
    ));
    let options: Vec<_> = container
        .host_config
        .entries(&["LogConfig", "Config"])
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let failure = if options.is_empty() { failure } else { failure.fact("options", options.join(", ")) };
    match driver {
        "journald" => failure.next(format!("journalctl -o cat CONTAINER_ID_FULL={}", quote(&container.id))),
        "syslog" => {
            let tag: String = container.id.chars().take(12).collect();
            failure.next(format!(
                "grep -r {tag} /var/log    # where its tag is the container's id, and its address this machine"
            ))
        }
        "none" => failure.next("nothing: what it wrote was kept nowhere"),
        _ => failure.next("look where its options send it"),
    }
}

/// Returns the files of a log, the oldest first: `NAME.2.gz`, `NAME.1`, `NAME`.
fn pieces(folder: &Directory, name: &str) -> Vec<Piece> {
    let of = |found: &str| {
        let rest = found.strip_prefix(name)?;
        let (rest, packed) = rest.strip_suffix(".gz").map_or((rest, false), |rest| (rest, true));
        let age = match rest {
            "" if !packed => 0,
            _ => rest.strip_prefix('.')?.parse().ok().filter(|age| *age > 0)?,
        };
        Some(Piece { age, name: found.to_owned(), packed })
    };
    let names = folder.names().unwrap_or_default();
    let mut pieces: Vec<_> = names.iter().filter_map(|name| of(name.to_str()?)).collect();
    // While Docker packs one, both are there, and the packed one is not whole.
    pieces.sort_by_key(|piece| (Reverse(piece.age), piece.packed));
    pieces.dedup_by_key(|piece| piece.age);
    pieces
}
