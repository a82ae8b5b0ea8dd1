//! Whole Docker roots with containers, images and volumes, made of files that the input describes, and logs.
//!
//! A line is `PATH KIND CONTENT`: `=` a file, `+` a line of a file, `>` a symbolic link, `/` a directory, `|` a FIFO, `#` a file
//! that is a gigabyte long.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::path::{Component, Path, PathBuf};

use super::text;
use super::tree::{Sandbox, Thing, drop_impossible, is_led_out, lay_out};
use crate::engine::docker_objects::{self, Form, Line, Lines, Objects, Time};
use crate::ops::rescue::{self, Object};
use crate::ops::volumes_of_docker::list;
use crate::report::rescue::{images, inspect, logs, ps, run_line, tree, volumes};

/// Any time after those in the seeds.
pub(crate) const NOW: Time = Time::new(1_615_100_000, 0);

/// The root is read without harm, nothing beside it is, every container is listed, and what is printed steers no terminal.
pub(super) fn docker_objects(bytes: &[u8]) -> bool {
    let _ = Time::parse(&text(bytes)).map(|time| assert_eq!(Time::parse(&time.with_nanoseconds()), Some(time)));
    // Where no temporary files can be made, nothing is learned, and nothing is wrong.
    lay_out(&things(bytes), &[]).is_ok_and(|sandbox| check(&sandbox, bytes))
}

pub(crate) fn check(sandbox: &Sandbox, bytes: &[u8]) -> bool {
    let Ok(objects) = docker_objects::read(&sandbox.root()) else { return false };
    let printed = printed(&objects);
    let seen = format!("{objects:?} {printed:?}");
    assert!(!is_led_out(&seen, bytes), "it was led out: {seen}");
    for text in &printed {
        let steers = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(steers, None, "{text}");
    }
    for container in &objects.containers {
        let found = rescue::container(&objects, &container.id).map(|found| &found.id);
        assert_eq!(found.ok(), Some(&container.id));
        let is_read = container.config.is_object();
        assert!(is_read || !container.problems.is_empty(), "nobody is told: {container:?}");
    }
    !objects.is_empty()
}

/// Everything that is printed of a root.
pub(crate) fn printed(objects: &Objects) -> Vec<String> {
    let rows = list::list(objects, true);
    let mut all = vec![
        ps::text(objects, NOW, false),
        ps::text(objects, NOW, true),
        ps::json(objects),
        images::text(objects, NOW, true, true),
        images::text(objects, NOW, false, false),
        images::json(objects),
        tree::text(objects, false),
        tree::text(objects, true),
        volumes::text(objects, &rows, NOW),
        volumes::json(objects, &rows),
    ];
    for container in &objects.containers {
        all.push(inspect::text(objects, &[Object::Container(container)]));
        all.push(run_line::text(objects, container));
        let _ = rescue::logs::read(objects, container, rescue::logs::Wanted::default(), &mut |_| true);
    }
    let images = objects.stores.iter().flat_map(|store| store.images.iter().map(move |image| (store, image)));
    all.extend(images.map(|(store, image)| inspect::text(objects, &[Object::Image(store, image)])));
    all
}

fn things(bytes: &[u8]) -> BTreeMap<PathBuf, Thing> {
    let mut things = BTreeMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let mut words = line.splitn(3, |b| *b == b' ');
        let (Some(path), Some(kind)) = (words.next().map(text), words.next()) else { continue };
        let content = words.next().unwrap_or_default();
        let path = PathBuf::from(path);
        let names =
            || path.components().filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None });
        let is_below = path.components().count() == names().count() && (1..9).contains(&names().count());
        if !is_below || names().any(|name| name.len() > 200 || name.as_encoded_bytes().contains(&0)) {
            continue;
        }
        let thing = match kind {
            b"+" => {
                let before = match things.remove(&path) {
                    Some(Thing::File(before)) => before,
                    _ => Vec::new(),
                };
                Some(Thing::File([&before, content, b"\n"].concat()))
            }
            _ => Thing::of(kind, content),
        };
        if let Some(thing) = thing {
            things.insert(path, thing);
        }
    }
    drop_impossible(&mut things);
    things
}

/// A log in the form that its first byte says.
pub(super) fn docker_stdout(bytes: &[u8]) -> bool {
    let Some((form, log)) = bytes.split_first() else { return false };
    let form = if *form == b'l' { Form::Local } else { Form::Json };
    let read: io::Result<Vec<Option<Line>>> = Lines::new(BufReader::new(log), form).collect();
    let lines = read.unwrap_or_default();
    let least = if form == Form::Local { 8 } else { 1 };
    assert!(lines.len() <= log.len() / least + 1);
    for line in lines.iter().flatten() {
        assert!(logs::line(line, true).ends_with(&line.bytes));
    }
    lines.iter().any(Option::is_some)
}

/// Lays out a root of `tests/fixtures/docker-roots`.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) fn root(name: &str) -> Sandbox {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/docker-roots/{name}.txt"));
    lay_out(&things(&std::fs::read(path).unwrap()), &[]).unwrap()
}
