//! The containers of a root, as `docker ps -a` prints them.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::words::{self, ProblemOf, cell};
use crate::engine::docker_objects::{Container, Fields, Objects, State, Time};
use crate::engine::docker_root::Problem;
use crate::ops::rescue::{self, familiar};
use crate::report::docker_info::UNKNOWN;
use crate::report::human::docker_duration;
use crate::report::json::{FORMAT, document};

const HEADINGS: [&str; 7] = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];

/// Returns the table, the newest container first, and below it what could not be read of each and of the root.
pub fn text(objects: &Objects, now: Time, whole: bool) -> String {
    let aliases = if whole { aliases(objects) } else { BTreeMap::new() };
    let row = |container: &Container| {
        let aliases = container.name().and_then(|name| aliases.get(name)).map_or(&[][..], Vec::as_slice);
        row(objects, container, aliases, now, whole)
    };
    let rows: Vec<_> = sorted(objects).into_iter().map(row).collect();
    let mut text = words::columns(&HEADINGS, &rows);
    let of_containers = objects.containers.iter().flat_map(|container| {
        let label = rescue::label(container);
        container.problems.iter().map(move |problem| format!("{}: {}", cell(&label), words::problem(problem)))
    });
    text.push_str(&words::section("not whole", &of_containers.collect::<Vec<_>>()));
    let of_root: Vec<_> = of_root(objects).map(words::problem).collect();
    text.push_str(&words::section("could not be read", &of_root));
    text
}

/// Returns what is damaged or missing of the containers, and of what they are shown with.
pub fn problems(objects: &Objects) -> usize {
    objects.containers.iter().map(|container| container.problems.len()).sum::<usize>() + of_root(objects).count()
}

/// What belongs to volumes and networks is told with them.
fn of_root(objects: &Objects) -> impl Iterator<Item = &Problem> {
    let others = ["volumes", "network"].map(|name| objects.path.join(name));
    objects.problems.iter().filter(move |problem| others.iter().all(|other| !problem.path.starts_with(other)))
}

/// Docker's order: the newest first; those of which nothing says it last.
fn sorted(objects: &Objects) -> Vec<&Container> {
    let mut all: Vec<_> = objects.containers.iter().collect();
    all.sort_by_key(|container| std::cmp::Reverse(container.created()));
    all
}

fn row(objects: &Objects, container: &Container, aliases: &[String], now: Time, whole: bool) -> [String; 7] {
    let is_read = container.config.is_object();
    let mut names: Vec<&str> = container.name().into_iter().chain(aliases.iter().map(String::as_str)).collect();
    names.sort_unstable();
    let or_unknown = |text: String| if is_read { text } else { UNKNOWN.to_owned() };
    [
        words::id(&container.id, whole),
        or_unknown(image(objects, container, whole)),
        or_unknown(words::command(&container.command(), whole)),
        or_unknown(words::ago(now, container.created())),
        or_unknown(status(container, now)),
        cell(&ports(container)),
        cell(&names.join(",")),
    ]
}

/// Returns the image as it was named, or by its id when that name means another one today
/// (`refreshImage`, daemon/list.go; `Image`, formatter/container.go).
fn image(objects: &Objects, container: &Container, whole: bool) -> String {
    let name = container.image_name().unwrap_or_default();
    let id = container.image_id().unwrap_or_default();
    let named = rescue::image(objects, name).ok().map(|(_, image)| image.id.as_str());
    // Where no image is left, its name says more than its id.
    let has_images = objects.stores.iter().any(|store| !store.images.is_empty());
    let shown = if has_images && named != Some(id) { id } else { name };
    match shown {
        "" => "<no image>".to_owned(),
        _ if whole => cell(shown),
        _ if words::id(shown, false) == words::id(id, false) => words::id(id, false),
        _ => cell(&familiar(shown.split('@').next().unwrap_or(shown))),
    }
}

/// Returns the status in Docker's words (`String`, container/state.go). That it runs only its Docker could say: what is
/// printed is that it did.
pub(super) fn status(container: &Container, now: Time) -> String {
    let long = |time: Option<Time>| time.map_or_else(|| "unknown".to_owned(), |time| docker_duration(now.since(time)));
    let code = container.config.number(&["State", "ExitCode"]).unwrap_or(0);
    match container.state() {
        State::Created => "Created".to_owned(),
        State::Exited if container.finished().is_none() => String::new(),
        State::Exited => format!("Exited ({code}) {} ago", long(container.finished())),
        State::Dead => "Dead".to_owned(),
        State::Removing => "Removal In Progress".to_owned(),
        State::Restarting => format!("was restarting ({code}), {} ago", long(container.finished())),
        State::Paused => format!("was paused, started {} ago", long(container.started())),
        State::Running => format!("was running, started {} ago", long(container.started())),
        State::Unknown => UNKNOWN.to_owned(),
    }
}

/// A port of a container, and where on the host it was bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    private: u16,
    ip: Option<IpAddr>,
    public: u16,
    protocol: String,
}

/// Returns the ports as Docker shows those of a running container (`DisplayablePorts`, formatter/container.go): those in a row
/// together, then those that have another number on the host. Docker forgets them when a container ends.
fn ports(container: &Container) -> String {
    let mut groups: Vec<(String, u16, u16)> = Vec::new();
    let (mut done, mut mapped) = (Vec::new(), Vec::new());
    for port in bound(container) {
        let key = match port.ip {
            Some(ip) if port.public != port.private => {
                mapped.push(format!("{}->{}/{}", joined(ip, &port.public.to_string()), port.private, port.protocol));
                continue;
            }
            Some(ip) => format!("{ip}/{}", port.protocol),
            None => port.protocol.clone(),
        };
        match groups.iter_mut().find(|(of, ..)| *of == key) {
            Some((_, _, last)) if last.checked_add(1) == Some(port.private) => *last = port.private,
            Some((_, first, last)) => {
                done.push(group(&key, *first, *last));
                (*first, *last) = (port.private, port.private);
            }
            None => groups.push((key, port.private, port.private)),
        }
    }
    done.extend(groups.iter().map(|(key, first, last)| group(key, *first, *last)));
    done.extend(mapped);
    done.join(", ")
}

fn group(key: &str, first: u16, last: u16) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match key.split_once('/') {
        Some((ip, protocol)) => match ip.parse() {
            Ok(ip) => format!("{}->{range}/{protocol}", joined(ip, &range)),
            Err(_) => format!("{range}/{protocol}"),
        },
        None => format!("{range}/{key}"),
    }
}

fn joined(ip: IpAddr, port: &str) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

fn bound(container: &Container) -> BTreeSet<Port> {
    let mut ports = BTreeSet::new();
    for (port, bindings) in container.config.entries(&["NetworkSettings", "Ports"]) {
        let (private, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(private) = private.parse() else { continue };
        let of = |ip, public| Port { private, ip, public, protocol: protocol.to_owned() };
        let bindings = bindings.items(&[]);
        if bindings.is_empty() {
            ports.insert(of(None, 0));
        }
        for binding in bindings {
            let ip = binding.text(&["HostIp"]).map_or(Ok(Ipv4Addr::UNSPECIFIED.into()), str::parse);
            let public = binding.text(&["HostPort"]).unwrap_or("0").parse();
            ports.extend(ip.ok().zip(public.ok()).map(|(ip, public)| of(Some(ip), public)));
        }
    }
    ports
}

/// Returns the names that `--link` has given to containers, by their own: `web/alias`, for `db`.
fn aliases(objects: &Objects) -> BTreeMap<&str, Vec<String>> {
    let mut aliases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (other, links) in objects.containers.iter().filter_map(|other| Some((other.name()?, other.links()))) {
        for (to, alias) in links {
            if let Some(name) = rescue::container(objects, to).ok().and_then(Container::name) {
                aliases.entry(name).or_default().push(format!("{other}/{alias}"));
            }
        }
    }
    aliases
}

/// Returns the same as JSON.
pub fn json(objects: &Objects) -> String {
    document(&List {
        format: FORMAT,
        root: objects.path.display().to_string(),
        containers: sorted(objects).into_iter().map(|container| Row::of(objects, container)).collect(),
        problems: ProblemOf::all(of_root(objects)),
    })
}

#[derive(Serialize)]
struct List {
    format: u32,
    root: String,
    containers: Vec<Row>,
    problems: Vec<ProblemOf>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: Option<String>,
    image: Option<String>,
    image_id: Option<String>,
    command: Option<String>,
    /// As Docker wrote it, RFC 3339.
    created: Option<String>,
    /// Docker's word; `running` is what it was.
    state: &'static str,
    exit_code: Option<i64>,
    started: Option<String>,
    finished: Option<String>,
    ports: Vec<String>,
    driver: Option<String>,
    /// The driver's name for its own layer.
    layer: Option<String>,
    log_driver: Option<String>,
    problems: Vec<ProblemOf>,
}

impl Row {
    fn of(objects: &Objects, container: &Container) -> Self {
        let config = &container.config;
        let text = |path: &[&str]| config.text(path).map(str::to_owned);
        let ports = ports(container);
        Self {
            id: container.id.clone(),
            name: container.name().map(str::to_owned),
            image: container.image_name().map(str::to_owned),
            image_id: container.image_id().map(str::to_owned),
            command: config.is_object().then(|| container.command()),
            created: container.created().and(text(&["Created"])),
            state: container.state().word(),
            exit_code: config.at(&["State", "ExitCode"]).as_i64(),
            started: container.started().and(text(&["State", "StartedAt"])),
            finished: container.finished().and(text(&["State", "FinishedAt"])),
            ports: ports.split(", ").filter(|port| !port.is_empty()).map(str::to_owned).collect(),
            driver: container
                .driver()
                .or_else(|| Some(objects.store_of(container)?.driver.as_str()))
                .map(str::to_owned),
            layer: container.mount.as_ref().and_then(|mount| mount.mount_id.clone()),
            log_driver: container.log_driver().map(str::to_owned),
            problems: ProblemOf::all(&container.problems),
        }
    }
}
