//! What an archive of a Docker root has, and what was made of it.

use std::path::Path;

use crate::ops::root_archive::{Contents, Item, Loaded};
use crate::process::quote;
use crate::report::failure::printable;
use crate::units::Bytes;

/// Returns what was saved.
pub fn saved(contents: &Contents, file: &Path) -> String {
    format!("saved {} to {}\n{}", counts(contents), printable(&file.display().to_string()), remarks(contents))
}

/// Returns what would be saved of a root whose Docker is down.
pub fn would_save(contents: &Contents, file: Option<&Path>) -> String {
    let to = file.map_or_else(|| "a pipe".to_owned(), |file| printable(&file.display().to_string()));
    let size = Bytes::new(contents.bytes).human();
    let (counts, remarks) = (counts(contents), remarks(contents));
    format!(
        "dmpool would save {counts}, about {size} and what containers have changed, to {to}\n{remarks}nothing was changed\n"
    )
}

/// Returns a line on what is to be known.
pub fn note(what: &str) -> String {
    format!("note: {}\n", printable(what))
}

/// Returns a line on what could not be read.
pub fn lost(what: &str) -> String {
    format!("dmpool: {}\n", printable(what))
}

/// Returns what is to be known of an archive: what the host has of it, and what is not in it.
pub fn remarks(contents: &Contents) -> String {
    let mut lines = Vec::new();
    for (number, bind) in contents.binds.iter().enumerate() {
        let whose = bind.containers.join(", ");
        let source = bind.source.display();
        lines.push(match &bind.left_out {
            Some(why) => format!("not in it: {source}, mounted into {whose}: {why}"),
            None => format!("{source}, mounted into {whose}, is in it as binds/{number}"),
        });
    }
    lines.extend(contents.left_out.iter().map(|left| format!("not in it: {left}")));
    lines.iter().map(|line| format!("note: {}\n", printable(line))).collect()
}

/// Returns what an archive that is whole has.
pub fn checked(contents: &Contents, file: &Path) -> String {
    format!(
        "{} is whole: {}, of {} ({})\n{}",
        printable(&file.display().to_string()),
        counts(contents),
        printable(&contents.root.display().to_string()),
        printable(&contents.driver),
        remarks(contents)
    )
}

/// Returns what would be loaded; of a pipe nothing is known before it is read.
pub fn planned(contents: Option<&Contents>, root: &Path, driver: &str, notes: &[String]) -> String {
    let root = printable(&root.display().to_string());
    let mut text = match contents {
        Some(contents) => format!(
            "load {}, about {}, into {root} for the storage driver {driver}\n{}",
            counts(contents),
            Bytes::new(contents.bytes).human(),
            remarks(contents)
        ),
        None => format!("load what comes through the pipe into {root} for the storage driver {driver}\n"),
    };
    text.extend(notes.iter().map(|note| format!("note: {}\n", printable(note))));
    text
}

/// Returns what was loaded, and what is left to do; `start` is the command that starts Docker on it, where it is known.
pub fn loaded(loaded: &Loaded, root: &Path, notes: &[String], start: Option<&str>) -> String {
    let contents = &loaded.contents;
    let mut text = format!("loaded {} into {}\n", counts(contents), printable(&root.display().to_string()));
    text.push_str(&format!("{} images have the configuration that their id says\n", loaded.images));
    text.push_str(&remarks(contents));
    if root != contents.root {
        let was = printable(&contents.root.display().to_string());
        text.push_str(&format!("note: it was {was}: containers name paths below that until they are started\n"));
    }
    text.extend(loaded.powers.iter().chain(notes).map(|note| format!("note: {}\n", printable(note))));
    text.push_str(
        "note: how Docker was told on the other host is in the archive, below host/; nothing of it was taken over\n",
    );
    if contents.binds.iter().any(|bind| bind.left_out.is_none()) {
        let line = "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf FILE binds";
        text.push_str(&format!(
            "note: what containers mount of the host was not put in its place: {line} unpacks it\n"
        ));
    }
    let root = quote(&root.to_string_lossy());
    text.push_str(&match start {
        Some(start) => format!("next: {start}    # its root is {root}\n"),
        None => format!("next: start Docker; its root is {root}\n"),
    });
    text
}

fn counts(contents: &Contents) -> String {
    let count = |what: &str, is_meant: fn(&Item) -> bool| {
        let count = contents.count(is_meant);
        if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
    };
    [
        count("container", |item| matches!(item, Item::Container { .. })),
        count("layer", |item| matches!(item, Item::Layer { .. })),
        count("volume", |item| matches!(item, Item::Volume { .. })),
    ]
    .join(", ")
}
