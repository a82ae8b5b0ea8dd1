//! Containers of `--rm` are saved by Docker itself: `docker commit`, and a container of that image, which is not started.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};

use super::containers::{inspected, name_of, needed_by};
use super::saved::{Asked, LABEL, Saved, asked, from, mounted, name};
use super::vanishing;
use crate::engine::api::{Api, ApiError, SOON};
use crate::kernel::critical::wanted_end;
use crate::ops::fault::{self, Point};
use crate::ops::progress::{Watcher, may_go_on};
use crate::units::Bytes;

/// All files of a container are read and written: as long as a disk needs for hundreds of gigabytes.
const COMMITS_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// All files of a container are looked at.
const SIZED_WITHIN: Duration = Duration::from_secs(1800);
/// What Docker copies and mounts to make a container, and to remove one.
const MADE_WITHIN: Duration = Duration::from_secs(300);

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What a block of data takes in the metadata at most: its place in a volume's tree and its count, in nodes half full, each written anew.
const MAPPED: u64 = 64;

/// What a container takes beside its files: an image and a container, each with what their file systems write of themselves.
const BESIDE: u64 = 32 << 20;

/// What was made of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The id of the container of `--rm`.
    pub of: String,
    /// What the new ones are called.
    pub name: String,
    /// The containers of `--rm`, by id, that it needs and that are saved too.
    needs: Vec<String>,
    /// The image's id, once there is one.
    image: Option<String>,
    /// Whether there may be an image all the same: Docker was asked, and has not said.
    is_unsure: bool,
    /// The container's id, once there is one.
    container: Option<String>,
}

/// Why not all were saved.
#[derive(Debug)]
pub struct Unsaved {
    /// The reason, with the container.
    pub why: Error,
    /// What was made, and could not be removed again, each a sentence.
    pub left: Vec<String>,
}

/// Returns what is to be told of those that were saved, in the order in which they can be started.
pub fn told(all: &[Value], made: &[Made]) -> Vec<Saved> {
    let vanishing = vanishing::all(others(all));
    let of = |made: &Made| {
        let of = vanishing.iter().find(|of| of.id == made.of)?;
        let volumes = of.volumes.iter().map(|volume| volume.name.clone()).collect();
        Some(Saved { id: of.id.clone(), name: of.name.clone(), as_name: made.name.clone(), volumes })
    };
    made.iter().filter_map(of).collect()
}

/// Those that nothing was saved as: what that has is the container's that it was saved from.
fn others(all: &[Value]) -> impl Iterator<Item = &Value> + Clone {
    all.iter().filter(|it| from(it).is_none())
}

/// Those that are to be saved.
fn to_save(all: &[Value]) -> impl Iterator<Item = &Value> {
    all.iter().filter(|it| vanishing::is(it) && !vanishing::is_going(it))
}

/// Saves every container of `--rm` that `all` names; `all` is what `docker inspect` says of every container. What a dmpool has left of the
/// same that died at it is replaced. `room` is what Docker may write: a commit that fills a pool has everybody's writes wait or fail.
///
/// # Errors
/// With the first that cannot be saved, or when there is no room for all; what was made is removed again.
pub fn save(api: &Api, all: &[Value], room: Option<Bytes>, watcher: &Watcher) -> Result<Vec<Made>, Unsaved> {
    let mut made = Vec::new();
    match has_room(api, all, room).and_then(|()| save_each(api, all, watcher, &mut made)) {
        Ok(()) => Ok(made),
        Err(why) => Err(Unsaved { why, left: remove(api, &made) }),
    }
}

/// Fails unless there is room for what the containers have written, which a commit writes once more.
fn has_room(api: &Api, all: &[Value], room: Option<Bytes>) -> Result<()> {
    let Some(room) = room else { return Ok(()) };
    let mut need: u64 = 0;
    for it in to_save(all) {
        let sized = match api.get(&format!("/containers/{}/json?size=1", id_of(it)), SIZED_WITHIN) {
            Err(why) if why.status() == Some(404) => continue,
            sized => sized.with_context(|| format!("asking Docker how large the container `{}` is", name_of(it)))?,
        };
        // Docker says -1 where it could not look.
        let written = sized.get("SizeRw").and_then(Value::as_u64);
        let written =
            written.with_context(|| format!("Docker does not say how large the container `{}` is", name_of(it)))?;
        // Blocks are written whole, and not full.
        need = need.saturating_add(written.saturating_add(written / 8)).saturating_add(BESIDE);
    }
    ensure!(
        need <= room.get(),
        "what is in them is written once more, {} with what that takes, and Docker has room for {}",
        Bytes::new(need).human(),
        room.human()
    );
    Ok(())
}

/// Returns how much Docker may write before it makes nothing more, or its disk or its pool's metadata is full, as `docker info` tells it;
/// nothing where it does not.
pub fn room(info: &Value) -> Option<Bytes> {
    let status = info.get("DriverStatus").and_then(Value::as_array)?;
    let value = |key: &str| {
        let pair = status.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?;
        decimal(pair.get(1)?.as_str()?)
    };
    let kept = value("Thin Pool Minimum Free Space").unwrap_or_default();
    let data = value("Data Space Available")?.saturating_sub(kept);
    let metadata = || {
        // Docker keeps as much of it free as of the data, in percent.
        let total = u128::from(value("Metadata Space Total")?.get());
        let share = total * u128::from(kept.get()) / u128::from(value("Data Space Total")?.get()).max(1);
        let free = value("Metadata Space Available")?.saturating_sub(Bytes::new(u64::try_from(share).ok()?));
        let block = value("Pool Blocksize")?.get();
        Some(Bytes::new((free.get() / MAPPED).saturating_mul(block)))
    };
    Some(metadata().map_or(data, |metadata| metadata.min(data)))
}

/// Reads a size as Docker writes it: `454.1MB`.
fn decimal(text: &str) -> Option<Bytes> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(end)?;
    let unit: u64 = match unit {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "PB" => 1_000_000_000_000_000,
        _ => return None,
    };
    let (whole, part) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
    let tenths = u32::try_from(part.len()).ok().and_then(|digits| 10_u64.checked_pow(digits))?;
    let part = if part.is_empty() { 0 } else { part.parse::<u64>().ok()?.checked_mul(unit)? / tenths };
    Some(Bytes::new(whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part)?))
}

/// A container that is to be saved.
struct Job<'i> {
    inspected: &'i Value,
    made: Made,
    /// The volumes that go with it.
    volumes: Vec<String>,
    /// What a dmpool has left of it that died at it: a container, and its image.
    left: [Option<String>; 2],
}

fn save_each(api: &Api, all: &[Value], watcher: &Watcher, made: &mut Vec<Made>) -> Result<()> {
    let images = api.get("/images/json", SOON).context("asking Docker for its images")?;
    let images = images.as_array().cloned().unwrap_or_default();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for it in in_order(to_save(all).collect()) {
        let job = job(it, all, &images, &jobs);
        jobs.push(job);
    }
    let mut ended: Vec<&Value> = all.iter().filter(|it| vanishing::is(it) && vanishing::is_going(it)).collect();
    let renamed = |of: &str| {
        let is_it = |job: &&Job<'_>| name_of(job.inspected) == of || job.made.of == of;
        jobs.iter().find(is_it).map(|job| job.made.name.clone())
    };
    for (number, job) in jobs.iter().enumerate() {
        may_go_on()?;
        let name = name_of(job.inspected);
        if let Some(other) = ended.iter().find(|other| needs(job.inspected, other)) {
            let other = name_of(other);
            bail!(
                "saving the container `{name}`: it needs the container `{other}`, which was made with --rm too and has ended meanwhile"
            );
        }
        watcher.next(&format!("saving the container {name} as {}", job.made.name));
        let mut this = job.made.clone();
        let asked = asked(job.inspected, &job.made.name, &renamed);
        let saved = save_one(api, job, &asked, &mut this, number, watcher);
        if this.image.is_some() || this.is_unsure {
            made.push(this);
        }
        if saved.with_context(|| format!("saving the container `{name}`"))? == End::Ended {
            ended.push(job.inspected);
        }
    }
    may_go_on()
}

/// Returns how a container is saved: under a name that no image and no container has.
fn job<'i>(it: &'i Value, all: &[Value], images: &[Value], before: &[Job<'_>]) -> Job<'i> {
    let id = id_of(it);
    let is_left = |of: &Value| from(of) == Some(id) && of.pointer("/State/Status") == Some(&json!("created"));
    let is_image_left = |of: &Value| of.get("Labels").and_then(|of| of.get(LABEL)?.as_str()) == Some(id);
    let has_tag = |of: &Value, name: &str| {
        let tags = of.get("RepoTags").and_then(Value::as_array);
        tags.into_iter().flatten().any(|of| of.as_str().and_then(|tag| tag.strip_suffix(":latest")) == Some(name))
    };
    let taken = |name: &str| {
        all.iter().any(|of| name_of(of) == name && !is_left(of))
            || images.iter().any(|of| has_tag(of, name) && !is_image_left(of))
            || before.iter().any(|job| job.made.name == name)
    };
    let name = name(&name_of(it), &taken);
    let left = [
        all.iter().find(|of| name_of(of) == name).map(|of| id_of(of).to_owned()),
        images.iter().find(|of| has_tag(of, &name)).map(|of| id_of(of).to_owned()),
    ];
    let needs = to_save(all).filter(|other| needs(it, other)).map(|other| id_of(other).to_owned()).collect();
    let own = vanishing::all(others(all)).into_iter().find(|of| of.id == id);
    let volumes = own.into_iter().flat_map(|of| of.volumes).map(|volume| volume.name).collect();
    Job { inspected: it, made: Made { of: id.to_owned(), name, needs, ..Made::default() }, volumes, left }
}

/// What became of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is saved.
    Saved,
    /// It has ended by itself, and nothing of it is left, as without us.
    Ended,
}

fn save_one(api: &Api, job: &Job<'_>, asked: &Asked, made: &mut Made, number: usize, watcher: &Watcher) -> Result<End> {
    let Made { of, name, .. } = &job.made;
    let commit = format!("/commit?container={of}&repo={name}&tag=latest&pause=1&changes=LABEL%20{LABEL}%3D{of}");
    let image = match committed(api, &commit, name, watcher) {
        Err(why) if why.status() == Some(404) => return Ok(End::Ended),
        Err(why) if why.status().is_some() && has_ended(api, of).unwrap_or(false) => return Ok(End::Ended),
        Err(why) => {
            made.is_unsure = why.status().is_none();
            return Err(why.into());
        }
        Ok(image) => image,
    };
    made.image = Some(id_of(&image).to_owned());
    fault::reached(number, Point::Saved)?;
    let [container, image] = &job.left;
    if let Some(container) = container {
        api.delete(&format!("/containers/{container}"), MADE_WITHIN)?;
    }
    let new = api.make(&format!("/containers/create?name={name}"), &asked.container, MADE_WITHIN)?;
    made.container = Some(id_of(&new).to_owned());
    for (network, endpoint) in &asked.networks {
        let connected = json!({ "Container": id_of(&new), "EndpointConfig": endpoint });
        api.make(&format!("/networks/{network}/connect"), &connected, SOON)?;
    }
    let there = api.get(&format!("/containers/{}/json", id_of(&new)), SOON)?;
    let (was, is) = (mounted(job.inspected), mounted(&there));
    ensure!(was == is, "Docker has given what it is saved as other volumes: {is:?} instead of {was:?}");
    // A volume that went with it before was made anew by its name, and is empty.
    if has_ended(api, of)? {
        let left = remove(api, std::slice::from_ref(made));
        ensure!(left.is_empty(), "it has ended meanwhile, and what it was saved as does not go");
        for volume in &job.volumes {
            // Docker keeps one that another container has.
            let _ = api.delete(&format!("/volumes/{volume}"), SOON);
        }
        (made.image, made.container) = (None, None);
        return Ok(End::Ended);
    }
    if let Some(image) = image {
        // Nobody misses it, and it is in nobody's way.
        let _ = api.delete(&format!("/images/{image}?noprune=1"), MADE_WITHIN);
    }
    Ok(End::Saved)
}

/// Has Docker commit a container; who wants an end meanwhile is told when that comes: Docker goes on with it whoever waits.
fn committed(api: &Api, commit: &str, name: &str, watcher: &Watcher) -> Result<Value, ApiError> {
    thread::scope(|scope| {
        let Ok(begun) = thread::Builder::new().spawn_scoped(scope, || api.post(commit, COMMITS_WITHIN)) else {
            return api.post(commit, COMMITS_WITHIN);
        };
        let mut is_told = false;
        while !begun.is_finished() {
            if let Some(signal) = wanted_end().filter(|_| !is_told) {
                watcher.next(&format!(
                    "  {signal}: Docker makes {name} to its end first, then what was saved is removed again"
                ));
                is_told = true;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        begun.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns whether a container of `--rm` has gone, or goes.
fn has_ended(api: &Api, id: &str) -> Result<bool, ApiError> {
    match api.get(&format!("/containers/{id}/json"), SOON) {
        Err(why) if why.status() == Some(404) => Ok(true),
        inspected => inspected.map(|inspected| vanishing::is_going(&inspected)),
    }
}

/// Removes what was made. Returns what could not be, each a sentence.
pub fn remove(api: &Api, made: &[Made]) -> Vec<String> {
    let mut left = Vec::new();
    // One may need another that was made before it.
    for Made { name, image, container, is_unsure, .. } in made.iter().rev() {
        if *is_unsure {
            left.push(format!("Docker may be making the image `{name}` still, once it is there:  docker rmi {name}"));
        }
        let mut gone = |kind: &str, command: &str, path: Option<String>| {
            let removed: Result<Value, ApiError> = path.map_or(Ok(Value::Null), |path| api.delete(&path, MADE_WITHIN));
            match removed {
                Err(why) if why.status() != Some(404) => {
                    left.push(format!("the {kind} `{name}` is there still ({why}):  docker {command} {name}"));
                }
                _ => {}
            }
        };
        // With the volumes that Docker has made for it alone: those that have a name stay.
        gone("container", "rm -v", container.as_ref().map(|id| format!("/containers/{id}?v=1")));
        gone("image", "rmi", image.as_ref().map(|id| format!("/images/{id}?noprune=1")));
    }
    left
}

/// Removes what was made of those that are there still, unless what stays needs it. Returns what could not be, each a sentence, and what
/// stays: first what was saved of those that are gone, then what that needs.
///
/// # Errors
/// When Docker does not say what there is.
pub fn remove_needless(api: &Api, made: Vec<Made>) -> Result<(Vec<String>, [Vec<Made>; 2])> {
    let there = inspected(api)?;
    let is_there = |made: &Made| there.iter().any(|of| id_of(of) == made.of && !vanishing::is_going(of));
    let (mut needless, gone): (Vec<_>, Vec<_>) = made.into_iter().partition(is_there);
    let mut needed: Vec<Made> = Vec::new();
    while let Some(at) = needless.iter().position(|it| gone.iter().chain(&needed).any(|of| of.needs.contains(&it.of))) {
        needed.push(needless.remove(at));
    }
    Ok((remove(api, &needless), [gone, needed]))
}

fn id_of(of: &Value) -> &str {
    of.get("Id").and_then(Value::as_str).unwrap_or_default()
}

/// Returns whether a container needs another one.
fn needs(it: &Value, other: &Value) -> bool {
    let is = |need: &String| *need == name_of(other) || need == id_of(other);
    id_of(it) != id_of(other) && needed_by(it).iter().any(is)
}

/// Returns them in an order in which none comes before one that it needs; of a circle the first goes first.
fn in_order(mut all: Vec<&Value>) -> Vec<&Value> {
    let mut order: Vec<&Value> = Vec::new();
    while !all.is_empty() {
        let ready = all.iter().position(|it| all.iter().all(|other| !needs(it, other)));
        order.push(all.remove(ready.unwrap_or_default()));
    }
    order
}

#[cfg(test)]
#[path = "saving_tests.rs"]
mod tests;
