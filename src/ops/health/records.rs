//! What is wrong with Docker's records of its devices, one small file for each: two with one device, and those that Docker
//! cannot use.

use std::path::Path;

use super::Facts;
use super::ways::with_docker_stopped;
use crate::engine::bookkeeping::BASE;
use crate::engine::docker_root::{DockerRoot, Problem, Standing};
use crate::ops::cost::{self, ONLINE};
use crate::pool::{Finding, Key, Severity};
use crate::process::quote;

/// How many records a sentence names.
const NAMED: usize = 5;

/// Judges what the count of the devices has found.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let (Some(root), Some(devices)) = (facts.docker, facts.devices) else { return Vec::new() };
    if root.standing == Standing::Left {
        return Vec::new();
    }
    [duplicate(root, &devices.duplicates), damaged(root, &devices.problems)].into_iter().flatten().collect()
}

/// Two layers on one device: what one writes the other reads, and when one is deleted the other is gone.
fn duplicate(root: &DockerRoot, duplicates: &[Problem]) -> Option<Finding> {
    let named = named(duplicates)?;
    let folder = root.path.join("devicemapper/metadata");
    let sentence = format!("two of Docker's records name one device, and deleting either deletes both: {named}");
    let kept = quote(&folder.to_string_lossy());
    Some(
        Finding::new(Key::DuplicateDevice, Severity::Critical, folder.to_string_lossy(), sentence)
            .run(format!("cp -a {kept} {kept}.before"), "seconds; before Docker deletes anything")
            .act(
                "move away the record whose name is not the one in the file `id` at the top of the device's file system, \
                 with Docker stopped",
                "Docker stopped meanwhile; what that record's layer was is lost",
            ),
    )
}

/// Docker reads every record when it starts, and ends when it cannot (`loadDeviceFilesOnStart`,
/// daemon/graphdriver/devmapper/deviceset.go); an id that no device can have is to it as a file it cannot read.
fn damaged(root: &DockerRoot, problems: &[Problem]) -> Option<Finding> {
    let named = named(problems)?;
    let folder = root.path.join("devicemapper/metadata");
    let sentence =
        format!("records of devices cannot be read, and Docker does not start with what it cannot read: {named}");
    let finding = Finding::new(Key::DamagedRecord, Severity::Critical, folder.to_string_lossy(), sentence);
    let finding = finding.act("put the records back, from a backup", ONLINE);
    // The folder itself is no record, a name that is no text cannot be told, and without the base's record Docker makes
    // another base.
    let is_a_layers = |path: &Path| path.parent() == Some(&folder) && !path.ends_with(BASE);
    let records = problems.iter().filter(|problem| is_a_layers(&problem.path));
    let files: Vec<String> = records.filter_map(|problem| Some(quote(problem.path.to_str()?))).collect();
    if files.is_empty() {
        return Some(finding);
    }
    let away = quote(&root.path.join("devicemapper/metadata.unusable").to_string_lossy());
    let move_away = format!("mkdir -p {away} && mv {} {away}", files.join(" "));
    let cost = format!("{}; what these records are of is lost to Docker", cost::docker_stopped(0));
    Some(finding.with(with_docker_stopped(root, &move_away, cost)))
}

/// The first records with what is wrong with each; nothing when there is none.
fn named(problems: &[Problem]) -> Option<String> {
    problems.first()?;
    let name = |problem: &Problem| {
        let name = problem.path.file_name().unwrap_or(problem.path.as_os_str());
        format!("{}: {}", name.to_string_lossy(), problem.why)
    };
    let more = match problems.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(problems.iter().take(NAMED).map(name).collect::<Vec<_>>().join("; ") + &more)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_root::DeviceCounts;
    use crate::report::samples::{docker_pool, docker_root};

    fn problem(path: &str, why: &str) -> Problem {
        Problem { path: path.into(), why: why.to_owned() }
    }

    fn found(root: &DockerRoot, devices: &DeviceCounts) -> Vec<Finding> {
        let pool = docker_pool("0 1/2 3/4", 0);
        judge(&Facts { docker: Some(root), devices: Some(devices), ..Facts::of(&pool) })
    }

    #[test]
    fn records_are_named_and_moved_away_by_name() {
        let folder = "/var/lib/docker/devicemapper/metadata";
        let bad = |name: &str| problem(&format!("{folder}/{name}"), "it is empty or holds NUL bytes only");
        let problems = ["a", "b", "c", "d", "e", "it's"].map(bad).to_vec();
        let duplicates = vec![problem(&format!("{folder}/bb"), "its device id 2 is that of aa too")];
        let devices = DeviceCounts { problems, duplicates, ..DeviceCounts::default() };
        let told = found(&docker_root(), &devices);
        assert_eq!([told[0].key, told[1].key], [Key::DuplicateDevice, Key::DamagedRecord]);
        assert!(told[0].sentence.ends_with("deletes both: bb: its device id 2 is that of aa too"), "{told:?}");
        assert!(told[1].sentence.ends_with("e: it is empty or holds NUL bytes only and 1 more"), "{told:?}");
        let command = told[1].ways[1].command.as_deref().unwrap();
        assert!(
            command.contains(&format!("{folder}/e '{folder}/it'\\''s' {folder}.unusable && systemctl")),
            "{command}"
        );
        for stays in [folder, "/var/lib/docker/devicemapper/metadata/base"] {
            let whole = DeviceCounts { problems: vec![problem(stays, "EIO")], ..DeviceCounts::default() };
            assert!(found(&docker_root(), &whole)[0].ways.iter().all(|way| way.command.is_none()), "{stays}");
        }
        assert_eq!(found(&docker_root(), &DeviceCounts::default()), []);
        let left = DockerRoot { standing: Standing::Left, ..docker_root() };
        assert_eq!(found(&left, &devices), []);
    }
}
