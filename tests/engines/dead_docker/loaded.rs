//! What comes out goes into Docker again: run-lines, images, volumes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lab::guest::docker::{Docker, IMAGE};
use lab::guest::inventory::{Except, Field, Inventory};
use lab::guest::menagerie::{Container, Menagerie, names};
use lab::guest::run::Cmd;
use serde_json::Value;

use super::Source;
use super::shape::Shape;

/// Types every container's run-line with another name, as `docker create`, and compares what Docker then says of both.
pub(super) fn run_lines_make_them_again(source: &Source<'_>, docker: &Docker, made: &Menagerie) {
    let mut differing = Vec::new();
    for container in &made.containers {
        let line = source.run(&["rescue", "run-line", &container.id]).whole().text();
        if container.name == names::ORPHAN {
            assert!(line.starts_with("# its image is not there: "), "{line}");
            continue;
        }
        let again = Cmd::new("bash").arg("-c").arg(under_another_name(&line, &container.name)).run();
        assert!(again.ok(), "{line}\n{again}");
        let found = docker.cmd(["inspect", "again"]).run().checked().unwrap().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        compare(container, &found[0], &mut differing);
        docker.cmd(["rm", "-v", "again"]).run().checked().unwrap();
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn under_another_name(line: &str, name: &str) -> String {
    assert!(line.contains(&format!("--name {name} ")), "{line}");
    let create = line.replacen("docker run -d ", "docker create ", 1).replacen("docker run ", "docker create ", 1);
    create.replacen(&format!("--name {name} "), "--name again ", 1)
}

fn compare(container: &Container, again: &Value, differing: &mut Vec<String>) {
    let (old, new) = (told(container, &container.inspect), told(container, again));
    for (key, old) in &old {
        let new = new.iter().find(|(other, _)| other == key).map(|(_, value)| value);
        if new != Some(old) {
            differing.push(format!("{}: {key}: {} instead of {old}", container.name, new.unwrap_or(&Value::Null)));
        }
    }
}

/// What of a container somebody has chosen.
fn told(container: &Container, inspect: &Value) -> Vec<(String, Value)> {
    let id = inspect["Id"].as_str().unwrap();
    let shares_network = inspect["HostConfig"]["NetworkMode"].as_str().unwrap().starts_with("container:");
    let mut all = Vec::new();
    for part in ["Config", "HostConfig"] {
        for (key, value) in inspect[part].as_object().unwrap() {
            let value = match key.as_str() {
                // Docker's own when nobody gave one: the beginning of its id.
                "Hostname" if shares_network || id.starts_with(value.as_str().unwrap()) => Value::Null,
                // The start of a container takes away what the kernel cannot do.
                "OomKillDisable" => Value::Bool(value == true),
                "Links" => value.to_string().replace("/again/", &format!("/{}/", container.name)).into(),
                // A volume that Docker named is asked for by its name; the mounts are compared.
                "Volumes" => continue,
                // Docker merges them in a Go map.
                "Env" => {
                    let mut env = value.clone();
                    if let Some(env) = env.as_array_mut() {
                        env.sort_by_key(Value::to_string);
                    }
                    env
                }
                "Binds" => {
                    let named = |bind: &&Value| bind.as_str().is_some_and(|bind| bind.find(':') != Some(64));
                    value.as_array().into_iter().flatten().filter(named).cloned().collect()
                }
                _ => value.clone(),
            };
            all.push((format!("{part}.{key}"), value));
        }
    }
    for mount in inspect["Mounts"].as_array().unwrap() {
        let mut mount = mount.clone();
        // Of a volume that is given by its name, Docker notes that nobody said more.
        mount["Mode"] = mount["Mode"].as_str().unwrap().replace('z', "").into();
        all.push((format!("the mount at {}", mount["Destination"]), mount));
    }
    for (name, network) in inspect["NetworkSettings"]["Networks"].as_object().unwrap() {
        all.push((format!("the network {name}"), network["IPAMConfig"].clone()));
    }
    all
}

/// Saves all images and volumes, and gives them to a Docker that has nothing.
pub(super) fn images_and_volumes(source: &Source<'_>, shape: Shape, made: &Menagerie) {
    let (images, volumes) = (source.out.join("images.tar"), source.out.join("volumes.tar"));
    let dangling = made.container(names::DANGLING).unwrap().inspect["Image"].as_str().unwrap();
    let tags: Vec<&str> = made.images.iter().flat_map(|image| image.tags()).collect();
    let line = [&["rescue", "save", "-o", images.to_str().unwrap(), dangling], tags.as_slice()].concat();
    source.run(&line).whole();

    let kept: Vec<&str> = made.volumes.iter().filter(|v| v.contents.is_some()).map(|v| v.name.as_str()).collect();
    let elsewhere = [names::NFS_VOLUME, names::BOUND_VOLUME];
    let listed = source.run(&["volumes", "list"]).whole().text();
    for name in kept.iter().chain(&elsewhere) {
        assert!(listed.contains(&name[..name.len().min(12)]), "{name} in {listed}");
    }
    for name in elsewhere {
        let ended = source.run(&["volumes", "save", "data", name, "-o", volumes.to_str().unwrap()]);
        ended.says(3, &[name]);
        assert!(!volumes.exists());
    }
    source.run(&[&["volumes", "save", "-o", volumes.to_str().unwrap()], kept.as_slice()].concat()).whole();

    let root = source.out.join("fresh");
    let mut fresh = Docker::start(shape.fresh(&root)).unwrap();
    fresh.cmd(["load", "-i"]).arg(&images).run().checked().unwrap();
    let listed = fresh.cmd(["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]).run();
    let listed = listed.checked().unwrap().stdout;
    let found: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let named =
        made.images.iter().flat_map(|image| image.tags().into_iter().map(move |tag| format!("{} {tag}", image.id)));
    let expected: BTreeSet<String> = named.chain([format!("{dangling} <none>:<none>")]).collect();
    assert_eq!(found, expected);
    let ran = fresh.cmd(["run", "--rm", "--network", "none", names::COMMITTED_IMAGE, "cat", "/www/appended.log"]).run();
    assert_eq!(ran.checked().unwrap().stdout, "first line\nsecond line\n");
    fresh.cmd(["run", "--rm", "--network", "none", IMAGE, "ls", "/bin/sh"]).run().checked().unwrap();

    // Docker makes them and knows their labels.
    let to = Source::live(&root, &source.out);
    let told = to.run(&["volumes", "restore", volumes.to_str().unwrap()]).whole().text();
    assert_eq!(told.lines().count(), kept.len(), "{told}");
    volumes_are(&root, made, &kept);
    let label = fresh.cmd(["volume", "inspect", "-f", "{{.Labels.purpose}}", names::DATA_VOLUME]).run();
    assert_eq!(label.checked().unwrap().stdout, "shop\n");
    to.run(&["volumes", "restore", volumes.to_str().unwrap()]).says(3, &["there is one of that name"]);
    fresh.cmd(["volume", "rm"]).args(&kept).run().checked().unwrap();

    // Without Docker, through a pipe; labels are Docker's to write.
    fresh.stop().unwrap();
    let pipe = format!(
        "set -o pipefail; dmpool --root {} volumes save {} -o - | dmpool --root {} volumes restore -",
        source.root.display(),
        kept.join(" "),
        root.display()
    );
    let ran = Cmd::new("bash").args(["-c", &pipe]).run();
    assert!(ran.code() == Some(5) && ran.stderr.contains("label"), "{ran}");
    volumes_are(&root, made, &kept);
    fresh.up().unwrap();
    let listed = fresh.cmd(["volume", "ls", "-q"]).run().checked().unwrap().stdout;
    assert_eq!(listed.lines().collect::<BTreeSet<_>>(), kept.iter().copied().collect());
    let read = ["run", "--rm", "--network", "none", "-v", "read-only-data:/v", IMAGE, "cat", "/v/configuration"];
    assert_eq!(fresh.cmd(read).run().checked().unwrap().stdout, "answer=42\n");
    drop(fresh);
    fs::remove_dir_all(&root).unwrap();
}

#[track_caller]
fn volumes_are(root: &Path, made: &Menagerie, kept: &[&str]) {
    for name in kept {
        let found = Inventory::of(&root.join("volumes").join(name).join("_data")).unwrap();
        let kept = made.volume(name).unwrap().contents.as_ref().unwrap();
        // Sockets are no part of an archive.
        let except = Except::nothing().field(Field::DirectorySize).kind(lab::guest::inventory::Kind::Socket);
        kept.assert_is(&found, &except);
    }
}
