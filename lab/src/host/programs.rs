//! Building what runs in guests, and packing it into the payload.
//!
//! Everything is linked statically, as the program that users get is: it runs on any guest's C library.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::image;
use super::place::Places;
use super::promtool;
use super::show;
use super::suites::{SUITES, Suite};
use super::trouble::{OrTrouble, Result, Trouble};

/// What guests' programs are built for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs built for guests, each by its name.
#[derive(Debug, Default)]
pub struct Programs {
    /// Put on the guest's PATH.
    pub binaries: BTreeMap<String, PathBuf>,
    /// dmpool's examples.
    pub examples: BTreeMap<String, PathBuf>,
    /// Test binaries, by the suite's name.
    pub tests: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// The agent.
    ///
    /// # Errors
    /// When it was not built.
    pub fn agent(&self) -> Result<PathBuf> {
        let found = self.binaries.get("lab-agent").cloned();
        found.ok_or_else(|| Trouble::new("cannot boot a guest: cargo built no program `lab-agent`"))
    }
}

/// Builds dmpool as users get it and the lab's own guest programs; with `suites`, also their test binaries, the examples,
/// dmpool with the feature `faults` (called `dmpool-faults` in the guest), and what the tests check its output with.
///
/// # Errors
/// When cargo fails; what the compiler said has been shown.
pub fn build(places: &Places, suites: &[Suite]) -> Result<Programs> {
    let mut programs = Programs::default();
    let mut dmpool = vec!["build", "--package", "dmpool", "--bin", "dmpool"];
    if suites.is_empty() {
        // What is shown and measured is what users get; tests share the compiled dependencies of the tests themselves.
        dmpool.push("--release");
    } else {
        dmpool.push("--examples");
    }
    for (kind, name, path) in cargo(places, &dmpool)? {
        programs.keep(&kind, name, keep_apart(path)?);
    }
    let mut words = vec!["test", "--no-run", "--package", "lab", "--features", "lab/guest"];
    if suites.is_empty() {
        // A test target brings its package's programs with it; this is the smallest.
        words.extend(["--test", "selfcheck"]);
    } else {
        words.extend(["--package", "dmpool", "--features", "dmpool/guest,dmpool/faults"]);
        words.extend(suites.iter().filter(|s| has_target(places, s)).flat_map(|s| ["--test", s.name]));
    }
    for (kind, name, path) in cargo(places, &words)? {
        let name = if (kind.as_str(), name.as_str()) == ("bin", "dmpool") { "dmpool-faults".to_string() } else { name };
        programs.keep(&kind, name, path);
    }
    if !suites.is_empty() {
        programs.binaries.insert("promtool".to_owned(), promtool::file(places)?);
    }
    Ok(programs)
}

/// Returns a copy beside a program that the next build would replace: the same package with other features.
fn keep_apart(path: PathBuf) -> Result<PathBuf> {
    let kept = path.with_extension("plain");
    fs::copy(&path, &kept).or_trouble(|| format!("cannot copy `{}`", path.display()))?;
    Ok(kept)
}

/// Whether the package has the suite's test target.
#[must_use]
pub fn has_target(places: &Places, suite: &Suite) -> bool {
    let packages = places.metadata.get("packages").and_then(Value::as_array);
    packages.into_iter().flatten().filter(|p| text(p, "name") == suite.package).any(|package| {
        let targets = package.get("targets").and_then(Value::as_array);
        targets.into_iter().flatten().any(|t| text(t, "name") == suite.name && kind_of(t) == "test")
    })
}

impl Programs {
    fn keep(&mut self, kind: &str, name: String, path: PathBuf) {
        let known = SUITES.iter().any(|s| s.name == name);
        match kind {
            "bin" => self.binaries.insert(name, path),
            "example" => self.examples.insert(name, path),
            "test" if known => self.tests.insert(name, path),
            _ => None,
        };
    }

    /// Packs the programs, and `extra` files by name, into an image that guests mount.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pack(&self, folder: &Path, extra: &[(&str, &str)]) -> Result<PathBuf> {
        let tree = self.stage(&folder.join("payload"))?;
        for (name, content) in extra {
            fs::write(tree.join(name), content).or_trouble(|| format!("cannot write in `{}`", tree.display()))?;
        }
        let image = folder.join("payload.img");
        image::ext4(&image, image::size_for(&tree)?, &tree, false)?;
        Ok(image)
    }

    /// Puts the programs into a folder, sorted as guests find them; returns the folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn stage(&self, tree: &Path) -> Result<PathBuf> {
        let cannot = || format!("cannot write in `{}`", tree.display());
        for (part, programs) in [("bin", &self.binaries), ("examples", &self.examples), ("tests", &self.tests)] {
            let place = tree.join(part);
            fs::create_dir_all(&place).or_trouble(cannot)?;
            // `lab` itself and the agent have no business on the guest's PATH.
            for (name, path) in programs.iter().filter(|(name, _)| !["lab", "lab-agent"].contains(&name.as_str())) {
                let to = place.join(name);
                if fs::hard_link(path, &to).is_err() {
                    fs::copy(path, &to).or_trouble(|| format!("cannot copy `{}`", path.display()))?;
                }
            }
        }
        Ok(tree.to_path_buf())
    }

    /// Programs that `cargo lab dist` made ready beside the binary.
    ///
    /// # Errors
    /// When they are not there.
    pub fn prebuilt(dist: &Path) -> Result<Programs> {
        let in_folder = |folder: &Path| -> Result<BTreeMap<String, PathBuf>> {
            let entries = fs::read_dir(folder).or_trouble(|| format!("cannot list `{}`", folder.display()))?;
            Ok(entries.flatten().map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect())
        };
        let payload = dist.join("payload");
        let mut programs = Programs {
            binaries: in_folder(&payload.join("bin"))?,
            examples: in_folder(&payload.join("examples"))?,
            tests: in_folder(&payload.join("tests"))?,
        };
        programs.binaries.insert("lab-agent".to_string(), dist.join("lab-agent"));
        Ok(programs)
    }
}

/// The compiler flags that link a program statically.
#[must_use]
pub fn static_flags() -> String {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" -C target-feature=+crt-static");
    flags.trim().to_owned()
}

/// Runs cargo for the guests' target; returns kind, name and path of every program it has (built or found fresh).
fn cargo(places: &Places, words: &[&str]) -> Result<Vec<(String, String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    show::line(&format!("cargo {} --target {TARGET} …", words.join(" ")));
    let mut child = Command::new(cargo)
        .args(words)
        .args(["--target", TARGET, "--message-format=json-render-diagnostics"])
        .current_dir(&places.workspace)
        .env("RUSTFLAGS", static_flags())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .or_trouble(|| "cannot run `cargo`".into())?;
    let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
    let mut found = Vec::new();
    for line in lines.into_iter().flatten().map_while(std::result::Result::ok) {
        found.extend(artifact(&line));
    }
    let status = child.wait().or_trouble(|| "cannot run `cargo`".into())?;
    if !status.success() {
        return Err(Trouble::new(format!("cannot build the guests' programs: `cargo {}` failed", words.join(" "))));
    }
    Ok(found)
}

/// The program that one of cargo's JSON lines names, if it does.
fn artifact(line: &str) -> Option<(String, String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    let target = message.get("target")?;
    let is_unit_test = kind_of(target) != "test" && message.get("profile")?.get("test")?.as_bool()?;
    (!is_unit_test).then(|| (kind_of(target).to_string(), text(target, "name").to_string(), path))
}

fn kind_of(target: &Value) -> &str {
    target.get("kind").and_then(Value::as_array).and_then(|k| k.first()).and_then(Value::as_str).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages_and_unit_tests_are_not_programs() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["KIND"],"name":"n"},"profile":{"test":T},"executable":"/x"}"#;
        let of = |kind: &str, test: &str| {
            artifact(&line.replace("KIND", kind).replace("\"test\":T", &format!("\"test\":{test}")))
        };
        assert_eq!(of("bin", "false"), Some(("bin".into(), "n".into(), "/x".into())));
        assert_eq!(of("test", "true"), Some(("test".into(), "n".into(), "/x".into())));
        assert_eq!(of("bin", "true"), None);
        assert_eq!(artifact("{\"reason\":\"build-finished\"}"), None);
    }
}
