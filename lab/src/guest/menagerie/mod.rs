//! A Docker root with one of everything, and the truth about it: what Docker said and what its containers, images and
//! volumes held while it was well. Whatever is read out of that root later is compared with this.
//!
//! [`Menagerie::make`] is dear (most of a minute): make one, and check much on it. The truth survives a reboot in a file
//! ([`Menagerie::save`]).

mod make;
pub mod names;
mod roots;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bytes::Bytes;
use super::docker::{Config, Docker, get};
use super::inventory::{Except, Inventory};

pub use roots::Roots;

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// All 64 digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// `docker inspect`.
    pub inspect: Value,
    /// Everything in its root file system.
    pub root: Inventory,
    /// The lines of `docker diff`, such as `C /etc`.
    pub changes: Vec<String>,
    /// What `docker logs` prints on standard output; empty for one that was never started.
    pub stdout: Bytes,
    /// What `docker logs` prints on standard error.
    pub stderr: Bytes,
}

impl Container {
    /// `.State.Status`: `running`, `exited`, `paused`, `created`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.inspect.pointer("/State/Status").and_then(Value::as_str).unwrap_or_default()
    }
}

/// An image, those without a tag among them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:` and 64 digits.
    pub id: String,
    /// `docker inspect`.
    pub inspect: Value,
    /// `docker history`, as the API says it.
    pub history: Value,
}

impl Image {
    /// Its names with their tags.
    #[must_use]
    pub fn tags(&self) -> Vec<&str> {
        let tags = self.inspect.get("RepoTags").and_then(Value::as_array);
        tags.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its name; 64 digits where Docker gave it.
    pub name: String,
    /// `docker volume inspect`.
    pub inspect: Value,
    /// Everything in it; `None` when its data is not below Docker's root.
    pub contents: Option<Inventory>,
}

/// What a Docker holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Menagerie {
    /// The storage driver.
    pub driver: String,
    /// The youngest first.
    pub containers: Vec<Container>,
    /// With those between the steps of a build.
    pub images: Vec<Image>,
    /// By name.
    pub volumes: Vec<Volume>,
    /// `docker network ls`, as the API says it.
    pub networks: Value,
    /// `docker ps -a --no-trunc`.
    pub ps: String,
    /// `docker images -a --no-trunc`.
    pub image_list: String,
    /// `docker volume ls`.
    pub volume_list: String,
}

impl Menagerie {
    /// How the daemon is to run: with a bridge, and a small base device on `devicemapper`.
    #[must_use]
    pub fn config(driver: &str, root: impl Into<PathBuf>) -> Config {
        let config = Config { driver: driver.to_owned(), bridge: true, ..Config::new(root) };
        if driver == "devicemapper" { config.option("dm.basesize=1G") } else { config }
    }

    /// Fills a new Docker that was started with [`Self::config`], and looks at it; [`names::ODD`] has `small` small files.
    ///
    /// # Errors
    /// When Docker refuses something.
    pub fn make(docker: &Docker, small: u32) -> Result<Self> {
        make::all(docker, small)?;
        Self::of(docker)
    }

    /// Looks at what any running Docker holds.
    ///
    /// # Errors
    /// When Docker does not answer, or something of it cannot be read.
    pub fn of(docker: &Docker) -> Result<Self> {
        let roots = Roots::new(docker)?;
        let list = |args: &[&str]| -> Result<String> { Ok(docker.cmd(args).run().checked()?.stdout) };
        let containers = each(&ask("/containers/json?all=1")?, "Id", |id| container(&roots, id))?;
        let mut volumes = Vec::new();
        for inspect in ask("/volumes")?.get("Volumes").and_then(Value::as_array).into_iter().flatten() {
            volumes.push(volume(inspect)?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            driver: roots.driver().to_owned(),
            containers,
            images: each(&ask("/images/json?all=1")?, "Id", image)?,
            volumes,
            networks: ask("/networks")?,
            ps: list(&["ps", "--all", "--no-trunc"])?,
            image_list: list(&["images", "--all", "--no-trunc"])?,
            volume_list: list(&["volume", "ls"])?,
        })
    }

    /// The container of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn container(&self, name: &str) -> Result<&Container> {
        self.containers.iter().find(|c| c.name == name).with_context(|| format!("no container is named {name}"))
    }

    /// The image with this tag.
    ///
    /// # Errors
    /// When there is none.
    pub fn image(&self, tag: &str) -> Result<&Image> {
        self.images.iter().find(|i| i.tags().contains(&tag)).with_context(|| format!("no image is tagged {tag}"))
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn volume(&self, name: &str) -> Result<&Volume> {
        self.volumes.iter().find(|v| v.name == name).with_context(|| format!("no volume is named {name}"))
    }

    /// How the contents of another Docker's containers (by name) and volumes, and its images, differ from these. What Docker says
    /// of them is not compared: times and ids are new after every start.
    #[must_use]
    pub fn differences(&self, found: &Self, except: &Except) -> Vec<String> {
        let mut lines = Vec::new();
        for ours in &self.containers {
            match found.container(&ours.name) {
                Err(_) => lines.push(format!("container {}: missing", ours.name)),
                Ok(theirs) => {
                    let differences = ours.root.differences(&theirs.root, except);
                    lines.extend(differences.into_iter().map(|line| format!("container {}: {line}", ours.name)));
                }
            }
        }
        for ours in &self.volumes {
            match found.volume(&ours.name) {
                Err(_) => lines.push(format!("volume {}: missing", ours.name)),
                Ok(theirs) => {
                    let none = Inventory::default();
                    let of = |volume: &Volume| volume.contents.clone().unwrap_or_else(|| none.clone());
                    let differences = of(ours).differences(&of(theirs), except);
                    lines.extend(differences.into_iter().map(|line| format!("volume {}: {line}", ours.name)));
                }
            }
        }
        for ours in &self.images {
            match found.images.iter().find(|image| image.id == ours.id) {
                None => lines.push(format!("image {} {:?}: missing", ours.id, ours.tags())),
                Some(theirs) if theirs.tags() != ours.tags() => {
                    lines.push(format!("image {}: tags {:?} instead of {:?}", ours.id, theirs.tags(), ours.tags()));
                }
                Some(_) => {}
            }
        }
        lines
    }

    /// Writes it to a file that survives a power cut once this has returned.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let write = |out: File| -> Result<()> {
            serde_json::to_writer(std::io::BufWriter::new(&out), self)?;
            Ok(out.sync_all()?)
        };
        let new = file.with_extension("new");
        File::create(&new)
            .map_err(Into::into)
            .and_then(write)
            .with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, file)?;
        Ok(File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()?)
    }

    /// Reads it from such a file.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// What the web server in [`names::WEB`] answers for [`names::PAGE`] on the port that Docker publishes.
///
/// # Errors
/// When it does not answer within a minute.
pub fn served() -> Result<String> {
    let once = || -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", names::PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET /{} HTTP/1.0\r\n\r\n", names::PAGE)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a header")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{head}");
        Ok(body.to_owned())
    };
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match once() {
            Err(why) if Instant::now() >= until => return Err(why).context("the web server does not answer"),
            // Docker's proxy takes the connection before the server is there.
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            page => return page,
        }
    }
}

/// What Docker's API answers.
fn ask(path: &str) -> Result<Value> {
    let (status, body) = get(path)?;
    ensure!(status == 200, "docker answers {status} to {path}: {}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}

fn each<T>(list: &Value, key: &str, one: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let items = list.as_array().with_context(|| format!("no list: {list}"))?;
    items.iter().map(|item| one(text(item, &format!("/{key}"))?)).collect()
}

fn container(roots: &Roots<'_>, id: &str) -> Result<Container> {
    let inspect = ask(&format!("/containers/{id}/json"))?;
    let name = text(&inspect, "/Name")?.trim_start_matches('/').to_owned();
    let look = || -> Result<Container> {
        let (stdout, stderr) = logs(id, &inspect)?;
        let root = roots.inventory(&inspect)?;
        // Null where nothing has changed.
        let changes = ask(&format!("/containers/{id}/changes"))?;
        let changes = changes.as_array().into_iter().flatten().map(change).collect::<Result<_>>()?;
        Ok(Container { id: id.to_owned(), name: name.clone(), inspect: inspect.clone(), root, changes, stdout, stderr })
    };
    look().with_context(|| format!("cannot look at the container {name}"))
}

fn change(change: &Value) -> Result<String> {
    let letter = match change.get("Kind").and_then(Value::as_u64) {
        Some(0) => 'C',
        Some(1) => 'A',
        _ => 'D',
    };
    Ok(format!("{letter} {}", text(change, "/Path")?))
}

/// Standard output and standard error. One that was never started is not asked: Docker would make its log file.
fn logs(id: &str, inspect: &Value) -> Result<(Bytes, Bytes)> {
    let readable = matches!(text(inspect, "/HostConfig/LogConfig/Type")?, "json-file" | "local");
    if text(inspect, "/State/Status")? == "created" || !readable {
        return Ok(<(Bytes, Bytes)>::default());
    }
    let (status, body) = get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))?;
    ensure!(status == 200, "docker logs: {status} {}", String::from_utf8_lossy(&body));
    if inspect.pointer("/Config/Tty") == Some(&Value::Bool(true)) {
        return Ok((Bytes(body), Bytes::default()));
    }
    apart(&body)
}

/// Takes the streams apart: each piece has a header of its stream's number, three zeroes and its length.
fn apart(mut body: &[u8]) -> Result<(Bytes, Bytes)> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while !body.is_empty() {
        let (head, rest) = body.split_at_checked(8).context("half a header in docker's log")?;
        let (stream, length) = head.split_at(4);
        let length = u32::from_be_bytes(length.try_into()?);
        let (piece, rest) = rest.split_at_checked(usize::try_from(length)?).context("half a piece in docker's log")?;
        let to = if stream.first() == Some(&2) { &mut stderr } else { &mut stdout };
        to.extend(piece);
        body = rest;
    }
    Ok((Bytes(stdout), Bytes(stderr)))
}

fn image(id: &str) -> Result<Image> {
    let inspect = ask(&format!("/images/{id}/json"))?;
    Ok(Image { id: id.to_owned(), inspect, history: ask(&format!("/images/{id}/history"))? })
}

fn volume(inspect: &Value) -> Result<Volume> {
    let options = inspect.get("Options").and_then(Value::as_object);
    let here = options.is_none_or(serde_json::Map::is_empty);
    let point = Path::new(text(inspect, "/Mountpoint")?);
    let contents = if here { Some(Inventory::of(point)?) } else { None };
    Ok(Volume { name: text(inspect, "/Name")?.to_owned(), inspect: inspect.clone(), contents })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_streams_of_a_log_are_taken_apart() {
        let body = b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x01b";
        assert_eq!(apart(body).unwrap(), (Bytes(b"a\nb".to_vec()), Bytes(b"e".to_vec())));
        assert!(apart(b"\x01\0\0\0\0\0\0\x02a").is_err());
    }
}
