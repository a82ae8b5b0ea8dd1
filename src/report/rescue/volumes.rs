//! Docker's volumes, one a line, and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::words::{self, ProblemOf, cell};
use crate::engine::docker_objects::{Data, Objects, Time, User, Volume};
use crate::engine::docker_root::Problem;
use crate::ops::volumes_of_docker::Restored;
use crate::ops::volumes_of_docker::list::Row;
use crate::report::docker_info::UNKNOWN;
use crate::report::human::docker_image_size;
use crate::report::json::{FORMAT, document};
use crate::units::Bytes;

const HEADINGS: [&str; 7] = ["VOLUME NAME", "DRIVER", "KIND", "SIZE", "LAST CHANGE", "USED BY", "HOLDS"];

/// Returns the table, and below it what could not be read.
pub fn text(objects: &Objects, rows: &[Row<'_>], now: Time) -> String {
    let mut text = match rows {
        [] => "no volumes in this root\n".to_owned(),
        rows => words::columns(&HEADINGS, &rows.iter().map(|row| cells(row, now)).collect::<Vec<_>>()),
    };
    let broken = rows.iter().flat_map(|row| {
        let name = cell(&row.volume.name);
        row.problems.iter().map(move |problem| format!("{name}: {}", words::problem(problem)))
    });
    text.push_str(&words::section("not whole", &broken.collect::<Vec<_>>()));
    let of_root: Vec<_> = of_root(objects).map(words::problem).collect();
    text.push_str(&words::section("could not be read", &of_root));
    text
}

/// Returns what is damaged or missing of the volumes.
pub fn problems(objects: &Objects, rows: &[Row<'_>]) -> usize {
    rows.iter().map(|row| row.problems.len()).sum::<usize>() + of_root(objects).count()
}

fn of_root(objects: &Objects) -> impl Iterator<Item = &Problem> {
    let places = ["volumes", "vfs", "containers"].map(|name| objects.path.join(name));
    objects.problems.iter().filter(move |problem| places.iter().any(|place| problem.path.starts_with(place)))
}

fn cells(row: &Row<'_>, now: Time) -> [String; 7] {
    let volume = row.volume;
    let size = match row.size {
        Some(size) if size.whole => docker_image_size(size.bytes),
        Some(size) => format!("more than {}", docker_image_size(size.bytes)),
        None => "-".to_owned(),
    };
    let changed = row.changed.map_or_else(|| "-".to_owned(), |changed| words::ago(now, Some(changed)));
    let users: Vec<_> = volume.users.iter().map(user).collect();
    [
        cell(&volume.name),
        cell(&volume.driver),
        kind(volume).to_owned(),
        size,
        changed,
        if users.is_empty() { "nobody".to_owned() } else { users.join(", ") },
        holds(row),
    ]
}

fn kind(volume: &Volume) -> &'static str {
    match (volume.anonymous, is_old(volume)) {
        (false, false) => "named",
        (true, false) => "anonymous",
        // Docker before 1.9 knew no names.
        (_, true) => "anonymous, in vfs/dir",
    }
}

/// Whether it is where Docker before 1.9 had volumes.
fn is_old(volume: &Volume) -> bool {
    matches!(&volume.data, Data::Here(path) if path.first().is_some_and(|first| first == "vfs"))
}

fn user(user: &User) -> String {
    let name = user.name.clone().unwrap_or_else(|| user.container.chars().take(12).collect());
    let end = if user.writable { "" } else { " (ro)" };
    cell(&format!("{name}:{}{end}", user.destination))
}

fn holds(row: &Row<'_>) -> String {
    match (&row.volume.data, &row.names) {
        (Data::Elsewhere(place), _) => cell(&format!("elsewhere: {place}")),
        (Data::Missing, _) => "it is missing".to_owned(),
        (Data::Here(_), None) => UNKNOWN.to_owned(),
        (Data::Here(_), Some(names)) if names.is_empty() => "nothing".to_owned(),
        (Data::Here(_), Some(names)) => {
            let more = if row.more == 0 { String::new() } else { format!(" and {} more", row.more) };
            let names: Vec<_> = names.iter().map(|name| cell(&name.to_string_lossy())).collect();
            names.join(" ") + &more
        }
    }
}

/// Returns the same as JSON.
pub fn json(objects: &Objects, rows: &[Row<'_>]) -> String {
    document(&List {
        format: FORMAT,
        root: objects.path.display().to_string(),
        volumes: rows.iter().map(|row| VolumeOf::of(objects, row)).collect(),
        problems: ProblemOf::all(of_root(objects)),
    })
}

#[derive(Serialize)]
struct List<'a> {
    format: u32,
    root: String,
    volumes: Vec<VolumeOf<'a>>,
    problems: Vec<ProblemOf>,
}

#[derive(Serialize)]
struct VolumeOf<'a> {
    name: &'a str,
    driver: &'a str,
    anonymous: bool,
    /// Whether no container uses it.
    dangling: bool,
    options: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
    path: Option<String>,
    elsewhere: Option<&'a str>,
    size: Option<Bytes>,
    size_is_whole: Option<bool>,
    /// RFC 3339, UTC.
    changed: Option<String>,
    names: Option<Vec<String>>,
    more_names: usize,
    used_by: Vec<UserOf<'a>>,
    problems: Vec<ProblemOf>,
}

#[derive(Serialize)]
struct UserOf<'a> {
    container: &'a str,
    name: Option<&'a str>,
    destination: &'a str,
    writable: bool,
}

impl<'a> VolumeOf<'a> {
    fn of(objects: &Objects, row: &Row<'a>) -> Self {
        let volume = row.volume;
        let (path, elsewhere) = match &volume.data {
            Data::Here(names) => (Some(names.iter().fold(objects.path.clone(), |path, name| path.join(name))), None),
            Data::Elsewhere(place) => (None, Some(place.as_str())),
            Data::Missing => (None, None),
        };
        let users = volume.users.iter().map(|user| UserOf {
            container: &user.container,
            name: user.name.as_deref(),
            destination: &user.destination,
            writable: user.writable,
        });
        let names =
            row.names.as_ref().map(|names| names.iter().map(|name| name.to_string_lossy().into_owned()).collect());
        Self {
            name: &volume.name,
            driver: &volume.driver,
            anonymous: volume.anonymous,
            dangling: volume.users.is_empty(),
            options: &volume.options,
            labels: &volume.labels,
            path: path.map(|path| path.display().to_string()),
            elsewhere,
            size: row.size.map(|size| size.bytes),
            size_is_whole: row.size.map(|size| size.whole),
            changed: row.changed.map(Time::with_nanoseconds),
            names,
            more_names: row.more,
            used_by: users.collect(),
            problems: ProblemOf::all(&row.problems),
        }
    }
}

/// Returns a line for each volume that was restored, with who will see it.
pub fn restored(all: &[Restored]) -> String {
    let line = |Restored { name, entries, users }: &Restored| {
        let users: Vec<_> = users.iter().map(|user| cell(user)).collect();
        let used = if users.is_empty() { String::new() } else { format!("; used by {}", users.join(", ")) };
        let entries = if *entries == 1 { "an empty directory".to_owned() } else { format!("{entries} entries") };
        format!("restored volume `{name}`: {entries}{used}\n")
    };
    all.iter().map(line).collect()
}
