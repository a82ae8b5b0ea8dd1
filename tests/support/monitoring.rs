//! The examples for monitoring, compiled in, since a guest has no sources; and the metrics that they speak of.

use std::collections::BTreeSet;

use serde_json::Value;

pub const RULES: &str = include_str!("../../examples/monitoring/dmpool.rules.yml");
pub const RULES_TEST: &str = include_str!("../../examples/monitoring/dmpool.rules.test.yml");
pub const DASHBOARD: &str = include_str!("../../examples/monitoring/grafana-dashboard.json");

/// Every metric that a text names.
pub fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("dmpool_"));
    words.map(str::to_owned).collect()
}

/// Every metric that has a sample in what `dmpool metrics` printed.
pub fn sampled(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The metrics that rules and dashboard need and that `printed` does not have.
pub fn missing(printed: &str) -> Vec<String> {
    let there = sampled(printed);
    let needed = named(RULES).into_iter().chain(named(&expressions().join("\n")));
    needed.filter(|name| !there.contains(name)).collect()
}

/// What the dashboard asks Prometheus for, its variable filled in.
pub fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().replace("$instance", ".*")).collect();
    assert!(asked.len() >= panels.len(), "a panel asks for nothing");
    asked
}
