//! Containers of `--rm` are saved by Docker itself: `docker commit`, and a container of that image, which is not started.

use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use serde_json::{Value, json};

use super::containers::{inspected, name_of, needed_by};
use super::saved::{Asked, LABEL, asked, from, mounted, name};
use super::vanishing;
use crate::engine::api::{Api, ApiError, SOON};
use crate::ops::fault::{self, Point};
use crate::ops::progress::{Watcher, may_go_on};
use crate::units::Bytes;

/// All files of a container are read and written: as long as a disk needs for hundreds of gigabytes.
const COMMITS_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// All files of a container are looked at.
const SIZED_WITHIN: Duration = Duration::from_secs(1800);
/// What Docker copies and mounts to make a container, and to remove one.
const MADE_WITHIN: Duration = Duration::from_secs(300);

/// What a container takes beside its files: an image and a container, each with what their file systems write of themselves.
const BESIDE: u64 = 32 << 20;

/// What was made of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The id of the container of `--rm`.
    pub of: String,
    /// What the new ones are called.
    pub name: String,
    /// The image's id, once there is one.
    image: Option<String>,
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
    for it in all.iter().filter(|it| vanishing::is(it)) {
        let sized = match api.get(&format!("/containers/{}/json?size=1", id_of(it)), SIZED_WITHIN) {
            Err(why) if why.status() == Some(404) => continue,
            sized => sized.with_context(|| format!("asking Docker how large the container `{}` is", name_of(it)))?,
        };
        let written = sized.get("SizeRw").and_then(Value::as_u64).unwrap_or_default();
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

/// Returns how much Docker may write before it makes nothing more, or its disk is full, as `docker info` tells it; nothing where it does not.
pub fn room(info: &Value) -> Option<Bytes> {
    let status = info.get("DriverStatus").and_then(Value::as_array)?;
    let value = |key: &str| {
        let pair = status.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?;
        decimal(pair.get(1)?.as_str()?)
    };
    Some(value("Data Space Available")?.saturating_sub(value("Thin Pool Minimum Free Space").unwrap_or_default()))
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
    /// What a dmpool has left of it that died at it: a container, and its image.
    left: [Option<String>; 2],
}

fn save_each(api: &Api, all: &[Value], watcher: &Watcher, made: &mut Vec<Made>) -> Result<()> {
    let images = api.get("/images/json", SOON).context("asking Docker for its images")?;
    let images = images.as_array().cloned().unwrap_or_default();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for it in in_order(all.iter().filter(|it| vanishing::is(it)).collect()) {
        let job = job(it, all, &images, &jobs);
        jobs.push(job);
    }
    let renamed = |of: &str| {
        let is_it = |job: &&Job<'_>| name_of(job.inspected) == of || job.made.of == of;
        jobs.iter().find(is_it).map(|job| job.made.name.clone())
    };
    for (number, job) in jobs.iter().enumerate() {
        may_go_on()?;
        let name = name_of(job.inspected);
        watcher.next(&format!("saving the container {name} as {}", job.made.name));
        let mut this = job.made.clone();
        let saved = save_one(api, job, &asked(job.inspected, &job.made.name, &renamed), &mut this, number);
        if this.image.is_some() {
            made.push(this);
        }
        saved.with_context(|| format!("saving the container `{name}`"))?;
    }
    Ok(())
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
    Job { inspected: it, made: Made { of: id.to_owned(), name, ..Made::default() }, left }
}

fn save_one(api: &Api, job: &Job<'_>, asked: &Asked, made: &mut Made, number: usize) -> Result<()> {
    let Made { of, name, .. } = &job.made;
    let commit = format!("/commit?container={of}&repo={name}&tag=latest&pause=1&changes=LABEL%20{LABEL}%3D{of}");
    let image = match api.post(&commit, COMMITS_WITHIN) {
        // It has ended meanwhile, and there is nothing of it.
        Err(why) if why.status() == Some(404) => return Ok(()),
        image => image?,
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
    if let Some(image) = image {
        // Nobody misses it, and it is in nobody's way.
        let _ = api.delete(&format!("/images/{image}?noprune=1"), MADE_WITHIN);
    }
    Ok(())
}

/// Removes what was made. Returns what could not be, each a sentence.
pub fn remove(api: &Api, made: &[Made]) -> Vec<String> {
    let mut left = Vec::new();
    // One may need another that was made before it.
    for Made { name, image, container, .. } in made.iter().rev() {
        let mut gone = |kind: &str, command: &str, path: Option<String>| {
            let removed: Result<Value, ApiError> = path.map_or(Ok(Value::Null), |path| api.delete(&path, MADE_WITHIN));
            match removed {
                Err(why) if why.status() != Some(404) => {
                    left.push(format!("the {kind} `{name}` is there still ({why}):  docker {command} {name}"));
                }
                _ => {}
            }
        };
        gone("container", "rm", container.as_ref().map(|id| format!("/containers/{id}")));
        gone("image", "rmi", image.as_ref().map(|id| format!("/images/{id}?noprune=1")));
    }
    left
}

/// Removes what was made of those that are there still. Returns what could not be, each a sentence, and what was saved of those that
/// are gone.
///
/// # Errors
/// When Docker does not say what there is.
pub fn remove_needless(api: &Api, made: Vec<Made>) -> Result<(Vec<String>, Vec<Made>)> {
    let there = inspected(api)?;
    let (needless, kept): (Vec<_>, Vec<_>) =
        made.into_iter().partition(|made| there.iter().any(|of| id_of(of) == made.of));
    Ok((remove(api, &needless), kept))
}

fn id_of(of: &Value) -> &str {
    of.get("Id").and_then(Value::as_str).unwrap_or_default()
}

/// Returns them in an order in which none comes before one that it needs; of a circle the first goes first.
fn in_order(mut all: Vec<&Value>) -> Vec<&Value> {
    let mut order: Vec<&Value> = Vec::new();
    while !all.is_empty() {
        let needs = |it: &Value, other: &Value| {
            let is = |need: &String| *need == name_of(other) || need == id_of(other);
            id_of(it) != id_of(other) && needed_by(it).iter().any(is)
        };
        let ready = all.iter().position(|it| all.iter().all(|other| !needs(it, other)));
        order.push(all.remove(ready.unwrap_or_default()));
    }
    order
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::api::tests::answering;

    fn job_named(name: &str, host: &Value) -> Value {
        let mut host = host.clone();
        host["AutoRemove"] = json!(true);
        json!({"Id": format!("{name}-id"), "Name": format!("/{name}"), "HostConfig": host})
    }

    fn json_of(status: &str, body: &str) -> &'static str {
        Box::leak(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
    }

    fn served(texts: &[&'static str]) -> (tempfile::TempDir, Api, std::thread::JoinHandle<Vec<String>>) {
        answering(Box::leak(texts.to_vec().into_boxed_slice()))
    }

    #[test]
    fn what_was_made_is_removed_again_where_one_cannot_be_saved() {
        let (_dir, api, server) = served(&[
            json_of("200 OK", r#"[{"Id": "i0", "RepoTags": ["saved-a:latest"]}]"#),
            json_of("201 Created", r#"{"Id": "i1"}"#),
            json_of("201 Created", r#"{"Id": "c1"}"#),
            json_of("200 OK", "{}"),
            json_of("500 x", r#"{"message": "no space"}"#),
            json_of("204 No Content", ""),
            json_of("409 x", r#"{"message": "in use"}"#),
        ]);
        let all = [job_named("b", &json!({"Links": ["/a:/b/x"]})), job_named("a", &json!({}))];
        let unsaved = save(&api, &all, None, &Watcher::none()).unwrap_err();
        let why = format!("{:#}", unsaved.why);
        assert!(why.contains("saving the container `b`") && why.contains("with 500: no space"), "{why}");
        assert!(unsaved.left[0].contains("the image `saved-a-2` is there still"), "{:?}", unsaved.left);
        assert!(unsaved.left[0].ends_with("docker rmi saved-a-2"), "{:?}", unsaved.left);
        let asked = server.join().unwrap();
        for (at, is) in [
            (
                1,
                "POST /commit?container=a-id&repo=saved-a-2&tag=latest&pause=1&changes=LABEL%20dmpool.saved-from%3Da-id HTTP/1.1",
            ),
            (2, "POST /containers/create?name=saved-a-2 HTTP/1.1"),
            (5, "DELETE /containers/c1 HTTP/1.1"),
            (6, "DELETE /images/i1?noprune=1 HTTP/1.1"),
        ] {
            assert_eq!(asked[at], is);
        }
    }

    #[test]
    fn what_a_dead_dmpool_has_left_is_replaced_and_nobody_elses() {
        let images = r#"[{"Id": "i0", "RepoTags": ["saved-a:latest"], "Labels": {"dmpool.saved-from": "a-id"}}]"#;
        let (_dir, api, server) = served(&[
            json_of("200 OK", images),
            json_of("201 Created", r#"{"Id": "i1"}"#),
            json_of("204 No Content", ""),
            json_of("201 Created", r#"{"Id": "c1"}"#),
            json_of("200 OK", "{}"),
            json_of("200 OK", "[]"),
        ]);
        let mut left = json!({"Id": "c0", "Name": "/saved-a", "State": {"Status": "created"}});
        left["Config"]["Labels"][LABEL] = json!("a-id");
        let made = save(&api, &[job_named("a", &json!({})), left.clone()], None, &Watcher::none()).unwrap();
        assert_eq!((made.len(), made[0].name.as_str()), (1, "saved-a"));
        let asked = server.join().unwrap();
        assert_eq!(asked[2], "DELETE /containers/c0 HTTP/1.1");
        assert_eq!(asked[5], "DELETE /images/i0?noprune=1 HTTP/1.1");
        // Somebody has started it since.
        left["State"]["Status"] = json!("exited");
        let it = job_named("a", &json!({}));
        assert_eq!(job(&it, &[it.clone(), left], &[], &[]).made.name, "saved-a-2");
    }

    #[test]
    fn one_that_has_ended_meanwhile_is_not_saved() {
        let (_dir, api, _server) = served(&[json_of("200 OK", "[]"), json_of("404 x", "{}")]);
        assert_eq!(save(&api, &[job_named("a", &json!({}))], None, &Watcher::none()).unwrap(), []);
    }

    #[test]
    fn what_would_fill_the_pool_is_not_tried() {
        let info = |available: &str| json!({"DriverStatus": [["Data Space Available", available], ["Thin Pool Minimum Free Space", "429.5MB"]]});
        let room = |available: &str| super::room(&info(available)).map(Bytes::get);
        assert_eq!((room("1.5GB"), room("12kB"), room("unknown")), (Some(1_070_500_000), Some(0), None));
        assert_eq!(super::room(&json!({"DriverStatus": [["Backing Filesystem", "xfs"]]})), None);
        let sized = [json_of("200 OK", r#"{"SizeRw": 950000000}"#)];
        let (_dir, api, server) = served(&sized);
        let unsaved =
            save(&api, &[job_named("a", &json!({}))], super::room(&info("1.5GB")), &Watcher::none()).unwrap_err();
        let why = unsaved.why.to_string();
        assert!(why.contains("is written once more, 1.0 GiB") && why.contains("room for 1020.9 MiB"), "{why}");
        assert_eq!(server.join().unwrap(), ["GET /containers/a-id/json?size=1 HTTP/1.1"]);
    }
}
