//! The `docker run` that would make a container again: every option that its files have and its image and Docker itself
//! would not have given it (docker/cli, cli/command/container/opts.go). What has no option stands before it as a comment.

mod host;
mod network;
mod place;

use serde_json::Value;

use super::words::{self, cell};
use crate::engine::docker_objects::{Container, Fields, Objects};
use crate::ops::rescue;
use crate::process;

/// What there is to know of a container that is made again.
struct Of<'a> {
    objects: &'a Objects,
    container: &'a Container,
    /// Its own configuration.
    config: &'a Value,
    /// What it has of the host.
    host: &'a Value,
    /// Its image's configuration; null when the image is not there.
    image: &'a Value,
}

/// The options of a line, and what they cannot say.
#[derive(Debug, Default)]
struct Options {
    /// Each with its value.
    all: Vec<Vec<String>>,
    remarks: Vec<String>,
}

impl Options {
    fn flag(&mut self, name: &str) {
        self.all.push(vec![name.to_owned()]);
    }

    fn value(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        // What begins with a dash would be taken for an option, and what is empty for none.
        match value.starts_with('-') && name.starts_with("--") {
            true => self.all.push(vec![format!("{name}={value}")]),
            false => self.all.push(vec![name.to_owned(), value]),
        }
    }

    fn values<'v>(&mut self, name: &str, values: impl IntoIterator<Item = &'v str>) {
        values.into_iter().for_each(|value| self.value(name, value));
    }

    fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }
}

/// Returns the comments and the line, broken before each option so that it can be read, and pasted as it is.
pub fn text(objects: &Objects, container: &Container) -> String {
    let image = objects.image_of(container).map(|(_, image)| image);
    let of = Of {
        objects,
        container,
        config: container.config.at(&["Config"]),
        host: &container.host_config,
        image: image.map_or(&Value::Null, |image| image.config.at(&["config"])),
    };
    let mut options = Options::default();
    if image.is_none() {
        options.remark("its image is not there: what it had of it stands below too");
    }
    if of.host.is_null() {
        options
            .remark("its hostconfig.json is not there: ports, volumes, limits and all else of the host are not known");
    }
    if container.legacy {
        options.remark("the links of Docker before 1.10 are in linkgraph.db, which is not read");
    }
    attached(&of, &mut options);
    options.values("--name", container.name());
    of_config(&of, &mut options);
    network::options(&of, &mut options);
    place::options(&of, &mut options);
    host::options(&of, &mut options);
    health(&of, &mut options);
    let command = command(&of, &mut options);
    shown(&options, &named(&of), &command)
}

fn shown(options: &Options, image: &str, command: &[String]) -> String {
    let mut text: String = options.remarks.iter().map(|remark| format!("# {}\n", cell(remark))).collect();
    let pieces = options.all.iter().map(Vec::as_slice);
    let last = [std::slice::from_ref(&image.to_owned()), command].concat();
    let words: Vec<String> = pieces
        .chain([last.as_slice()])
        .map(|words| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
        .collect();
    if words.iter().any(|words| words.contains("$'")) {
        text.insert_str(0, "# $'…' is for bash and zsh: a value has characters that no other quotes can show\n");
    }
    text.push_str(&format!("docker run {}\n", words.join(" \\\n  ")));
    text
}

/// Returns a word as a shell needs it, without a byte that would steer the terminal.
fn quoted(word: &str) -> String {
    if !word.chars().any(char::is_control) {
        return process::quote(word);
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_ascii_control() => text.push_str(&format!("\\{:03o}", u32::from(c))),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// Returns the image: by the name that it was run with when that still means it, else by its id.
fn named(of: &Of<'_>) -> String {
    let name = of.container.image_name().unwrap_or_default();
    let id = of.container.image_id().unwrap_or_default();
    let meant = rescue::image(of.objects, name).ok().map(|(_, image)| image.id.as_str());
    match meant {
        Some(meant) if meant == id => name.to_owned(),
        // With no image to compare with, the name is what can be pulled again.
        _ if of.image.is_null() && !name.is_empty() => name.to_owned(),
        _ => id.to_owned(),
    }
}

fn attached(of: &Of<'_>, options: &mut Options) {
    let is = |key: &str| of.config.flag(&[key]);
    match (is("AttachStdout"), is("AttachStderr")) {
        (false, false) => options.flag("-d"),
        (true, false) => options.value("-a", "stdout"),
        (false, true) => options.value("-a", "stderr"),
        (true, true) => {}
    }
    for (key, option) in [("OpenStdin", "-i"), ("Tty", "-t")] {
        if is(key) {
            options.flag(option);
        }
    }
}

/// What differs from the image's configuration.
fn of_config(of: &Of<'_>, options: &mut Options) {
    let differs = |key: &str| of.config.text(&[key]).filter(|value| of.image.text(&[key]) != Some(*value));
    let shares_network =
        matches!(of.host.text(&["NetworkMode"]), Some(mode) if mode == "host" || mode.starts_with("container:"));
    let given = of.config.text(&["Hostname"]).filter(|name| !shares_network && !of.container.id.starts_with(*name));
    options.values("-h", given);
    options.values("--domainname", of.config.text(&["Domainname"]));
    options.values("-u", differs("User"));
    options.values("-w", differs("WorkingDir"));
    let of_image = of.image.texts(&["Env"]);
    options.values("-e", of.config.texts(&["Env"]).into_iter().filter(|variable| !of_image.contains(variable)));
    for (key, value) in of.config.entries(&["Labels"]) {
        if of.image.at(&["Labels", key]) != value {
            options.value("--label", format!("{key}={}", value.as_str().unwrap_or_default()));
        }
    }
    // Docker before 17.06 kept its own default.
    options.values("--stop-signal", differs("StopSignal").filter(|signal| *signal != "SIGTERM"));
    options.values("--stop-timeout", of.config.at(&["StopTimeout"]).as_i64().map(|s| s.to_string()).as_deref());
    if of.config.flag(&["NetworkDisabled"]) {
        options.remark("its network was disabled (NetworkDisabled), which is near --network none");
    }
}

fn health(of: &Of<'_>, options: &mut Options) {
    let (own, images) = (of.config.at(&["Healthcheck"]), of.image.at(&["Healthcheck"]));
    if own == images {
        return;
    }
    match own.texts(&["Test"]).as_slice() {
        ["NONE"] => return options.flag("--no-healthcheck"),
        test if test == images.texts(&["Test"]) => {}
        ["CMD-SHELL", command] => options.value("--health-cmd", *command),
        test => options
            .remark(format!("its health check runs without a shell, for which there is no option: {}", test.join(" "))),
    }
    let durations = [
        ("Interval", "--health-interval"),
        ("Timeout", "--health-timeout"),
        ("StartPeriod", "--health-start-period"),
        ("StartInterval", "--health-start-interval"),
    ];
    let differs = |key: &str| own.number(&[key]).filter(|number| images.number(&[key]) != Some(*number));
    for (key, option) in durations {
        options.values(option, differs(key).map(duration).as_deref());
    }
    options.values("--health-retries", differs("Retries").map(|count| count.to_string()).as_deref());
}

/// Nanoseconds as Docker reads them.
fn duration(nanoseconds: i64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let unit = units.into_iter().find(|(length, _)| nanoseconds % length == 0);
    unit.map_or_else(|| format!("{nanoseconds}ns"), |(length, unit)| format!("{}{unit}", nanoseconds / length))
}

/// Returns what stands behind the image, and adds the entrypoint when it is another than the image's. With one, Docker
/// drops the image's command.
fn command(of: &Of<'_>, options: &mut Options) -> Vec<String> {
    let own = |key: &str| of.config.texts(&[key]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let images = |key: &str| of.image.texts(&[key]);
    let (entrypoint, command) = (own("Entrypoint"), own("Cmd"));
    if entrypoint == images("Entrypoint") {
        return if command == images("Cmd") { Vec::new() } else { command };
    }
    match entrypoint.split_first() {
        None => options.value("--entrypoint", ""),
        Some((first, rest)) => {
            options.value("--entrypoint", first.as_str());
            return [rest, &command].concat();
        }
    }
    command
}

/// Returns another container by its name where the root has it, and as it is written otherwise.
fn of_container(objects: &Objects, id: &str) -> String {
    let found = rescue::container(objects, id).ok().and_then(|container| container.name());
    found.map_or_else(|| words::id(id, true), str::to_owned)
}

/// Returns a mode with the name of the container that it means: `container:web`.
fn mode(objects: &Objects, mode: &str) -> String {
    match mode.strip_prefix("container:") {
        Some(id) => format!("container:{}", of_container(objects, id)),
        None => mode.to_owned(),
    }
}
