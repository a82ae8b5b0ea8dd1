//! The examples for monitoring, as far as they can be held against the program without a kernel; guests do the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use yaml_rust2::YamlLoader;

#[path = "support/monitoring.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod examples;

/// What three pools print, a Docker's among them.
const PRINTED: &str = include_str!("fixtures/metrics/three-pools.prom");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn example(name: &str) -> String {
    read(&format!("examples/monitoring/{name}"))
}

/// The long options that a command of dmpool has.
fn options_of(command: &str) -> Vec<String> {
    let command = dmpool::cli::command().find_subcommand(command).unwrap().clone();
    command.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect()
}

#[test]
fn rules_and_dashboard_use_metrics_that_exist() {
    assert_eq!(examples::missing(PRINTED), Vec::<String>::new());
    assert!(examples::named(examples::RULES).len() > 5);
}

#[test]
fn the_guide_has_every_metric_and_no_other() {
    let guide = read("docs/guide.md");
    let there: Vec<String> = examples::sampled(PRINTED).into_iter().collect();
    let told: Vec<String> = examples::named(&guide).into_iter().collect();
    assert_eq!(told, there);
}

#[test]
fn every_panel_of_the_dashboard_has_its_place() {
    let dashboard: Value = serde_json::from_str(examples::DASHBOARD).unwrap();
    let mut taken = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && taken.insert(cell), "{title} overlaps another");
        }
    }
    assert!(ids.len() > 5);
}

#[test]
fn the_commands_of_nagios_and_icinga_have_options_that_exist() {
    let known = options_of("health");
    for name in ["nagios.cfg", "icinga2.conf"] {
        let text = example(name);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let used: Vec<&str> = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("--")).collect();
        assert!(used.len() > 5, "{name} has {used:?}");
        for option in used {
            assert!(known.iter().any(|o| o == option), "{name}: dmpool health has no {option}");
        }
    }
}

#[test]
fn nagios_own_command_line_is_taken() {
    let text = example("nagios.cfg");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("command_line")).unwrap();
    let mut line = line.trim().to_owned();
    for (argument, value) in [("$ARG1$", "80"), ("$ARG2$", "95"), ("$ARG3$", "80"), ("$ARG4$", "95")] {
        line = line.replace(argument, value);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "/usr/local/sbin/dmpool");
    dmpool::cli::command().try_get_matches_from(words).unwrap();
}

#[test]
fn the_unit_runs_what_there_is() {
    let text = example("dmpool-metrics.service");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    dmpool::cli::command().try_get_matches_from(line.split_whitespace()).unwrap();
}

#[test]
fn the_playbook_is_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring/ansible/dmpool-list.yml");
    let plays = YamlLoader::load_from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(plays[0].as_vec().unwrap().len(), 2);
    for name in ["dmpool.rules.yml", "dmpool.rules.test.yml"] {
        assert_eq!(YamlLoader::load_from_str(&example(name)).unwrap().len(), 1, "{name}");
    }
    // Where ansible is installed it knows more than YAML.
    if Command::new("ansible-playbook").arg("--version").output().is_ok() {
        let run = Command::new("ansible-playbook").arg("--syntax-check").arg(&path).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn lists_of_many_machines_are_merged_without_root_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let list = |host: &str, seconds: &str| {
        format!(
            "{{\"format\":1,\"hostname\":\"{host}\",\"time\":\"2026-11-21T05:00:00Z\",\"pools\":[{{\"name\":\"p0\",\
             \"maker\":\"dmpool\",\"user\":\"unknown\",\"docker_root\":null,\"activity\":\"active\",\"mode\":\"rw\",\
             \"verdict\":{{\"state\":\"ok\",\"reason\":null}},\"data\":{{\"used\":1,\"total\":1073741824}},\
             \"metadata\":{{\"used\":1,\"total\":4}},\"full\":{{\"state\":\"in\",\"limit\":\"pool\",\"seconds\":{seconds}}}}}]}}"
        )
    };
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let later = file("later", &list("later", "9000000"));
    let sooner = file("sooner", &list("sooner", "900000"));
    let broken = file("broken", "ssh: connect to host db1 port 22: No route to host\n");
    let run = |files: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmpool"));
        command.args(["list", "--from"]).args(files).stdin(fs::File::open(&sooner).unwrap());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, table, errors) = run(&[&later, Path::new("-")]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let hosts: Vec<&str> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(hosts, ["HOST", "sooner", "later"], "{table}");
    let (code, table, errors) = run(&[&broken, &later, &dir.path().join("missing")]);
    assert_eq!(code, Some(5), "{errors}");
    assert!(table.contains("later"), "{table}");
    assert!(errors.contains("broken`: it is not what"), "{errors}");
    let beside = format!(
        "missing`\n  cause:  ENOENT (No such file or directory) from open on {0}/missing\n  next:   ls -la {0}\n",
        dir.path().display()
    );
    assert!(errors.contains(&beside) && !errors.contains("os error"), "{errors}");
    assert!(errors.contains("2 of 3 files"), "{errors}");
}
