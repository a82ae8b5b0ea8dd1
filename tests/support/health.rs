//! What `dmpool health` says, and helpers to ask it.

use lab::guest::run::{Cmd, Ran};
use serde_json::Value;

use super::Bench;

/// One answer of `health --format json`.
pub struct Said {
    pub code: i32,
    json: Value,
    ran: Ran,
}

impl Said {
    /// Reads what a command printed; it must be one JSON document, and its exit code must be the one it names.
    #[track_caller]
    pub fn of(cmd: Cmd) -> Self {
        let ran = cmd.run();
        let json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
        let code = ran.code().unwrap();
        assert_eq!(json.pointer("/exit"), Some(&code.into()), "{ran}");
        Self { code, json, ran }
    }

    /// Asks about one pool, with more arguments.
    #[track_caller]
    pub fn about(bench: &Bench, pool: &str, more: &[&str]) -> Self {
        Self::of(bench.cmd(&["health", pool, "--format", "json"]).args(more))
    }

    /// Whether it tells how full that pool is.
    pub fn knows(&self, pool: &str) -> bool {
        let pools = self.json.pointer("/pools").and_then(Value::as_array).into_iter().flatten();
        let mut of_name = pools.filter(|found| found.pointer("/name") == Some(&pool.into()));
        of_name.any(|found| found.pointer("/data/used").is_some_and(Value::is_u64))
    }

    /// The sentence of that pool's finding of that key; without one the test fails.
    #[track_caller]
    pub fn about_pool(&self, pool: &str, key: &str) -> String {
        let pools = self.json.pointer("/pools").and_then(Value::as_array).into_iter().flatten();
        let of_name = pools.filter(|found| found.pointer("/name") == Some(&pool.into()));
        let findings = of_name.flat_map(|found| found.pointer("/findings").and_then(Value::as_array)).flatten();
        let found =
            findings.filter(|f| f.pointer("/key") == Some(&key.into())).find_map(|f| f.pointer("/sentence")?.as_str());
        found.unwrap_or_else(|| panic!("{pool} has no finding {key}: {}", self.ran)).to_owned()
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        let pools = self.json.pointer("/pools").and_then(Value::as_array).into_iter().flatten();
        pools.flat_map(|pool| pool.pointer("/findings").and_then(Value::as_array).into_iter().flatten())
    }

    /// The sentence of the finding of that key and severity; anything else fails the test.
    #[track_caller]
    pub fn sentence(&self, key: &str, severity: &str) -> String {
        self.text(key, severity, "/sentence")
    }

    /// The first way out of that finding.
    #[track_caller]
    pub fn way(&self, key: &str, severity: &str) -> String {
        self.text(key, severity, "/ways/0/command")
    }

    /// The command of the second way out of it.
    #[track_caller]
    pub fn other_way(&self, key: &str, severity: &str) -> String {
        self.text(key, severity, "/ways/1/command")
    }

    /// What is to be done by hand in its first way out.
    #[track_caller]
    pub fn by_hand(&self, key: &str, severity: &str) -> String {
        self.text(key, severity, "/ways/0/first")
    }

    /// Which limit a writer to that pool meets first, and after how many bytes.
    #[track_caller]
    pub fn binds_first(&self, pool: &str) -> (String, u64) {
        let pools = self.json.pointer("/pools").and_then(Value::as_array).into_iter().flatten();
        let found = pools.filter(|found| found.pointer("/name") == Some(&pool.into())).find_map(|found| {
            let binds = found.pointer("/binds_first")?;
            Some((binds.pointer("/limit")?.as_str()?.to_owned(), binds.pointer("/after")?.as_u64()?))
        });
        found.unwrap_or_else(|| panic!("{pool} has no limit: {}", self.ran))
    }

    #[track_caller]
    fn text(&self, key: &str, severity: &str, pointer: &str) -> String {
        let is =
            |f: &&Value| f.pointer("/key") == Some(&key.into()) && f.pointer("/severity") == Some(&severity.into());
        let found = self.findings().find(is);
        let text = found.and_then(|f| f.pointer(pointer)).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no {severity} finding {key} with {pointer}: {}", self.ran)).to_owned()
    }

    /// Fails the test when there is a finding of that key.
    #[track_caller]
    pub fn without(&self, key: &str) {
        assert!(self.findings().all(|f| f.pointer("/key") != Some(&key.into())), "{key}: {}", self.ran);
    }
}

/// The part of a command that is carried out while Docker is stopped, by what runs the guest; anything else around it fails
/// the test.
#[track_caller]
pub fn while_stopped(command: &str) -> &str {
    let booted = std::path::Path::new("/run/systemd/system").is_dir();
    let around = match booted {
        true => ["systemctl stop docker.socket; systemctl stop docker && ", " && systemctl start docker"],
        false => ["service docker stop && ", " && service docker start"],
    };
    let middle = command.strip_prefix(around[0]).and_then(|rest| rest.strip_suffix(around[1]));
    middle.unwrap_or_else(|| panic!("it stops and starts no Docker: {command}"))
}

/// Runs a way out as an admin pastes it.
#[track_caller]
pub fn paste(command: &str) {
    let ran = Cmd::new("sh").args(["-c", command]).run();
    assert!(ran.ok(), "{ran}");
}
