//! Fuzzing: every parser of dmpool is fed by libFuzzer, which keeps what reaches code that nothing reached before.
//!
//! The compiler on stable has LLVM's instrumentation, though no name for it: the flags below are those that cargo-fuzz
//! gives a nightly one, without the address sanitizer, which safe code does not need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::packages;
use super::place::Places;
use super::programs::TARGET;
use super::session::{Outcome, Report};
use super::show;
use super::tally::Tally;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// How long each parser is tried in `cargo lab test --full`.
pub const USUAL: Duration = Duration::from_secs(20);

/// Counters at every edge, a table of them, and what comparisons compare (clang's SanitizerCoverage).
const FLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares";

/// The variable that tells the program which parser.
const WHICH: &str = "DMPOOL_FUZZ";

/// Longer than any seed; libFuzzer makes no longer input.
const LONGEST_INPUT: usize = 8192;

/// The folders of fuzzing.
struct Room {
    /// The seeds, by parser: in the project.
    seeds: PathBuf,
    /// What libFuzzer has found worth keeping, by parser.
    corpus: PathBuf,
    /// Inputs that a parser is wrong about.
    found: PathBuf,
    /// Where cargo builds, apart from everything without those flags.
    target: PathBuf,
}

/// Builds the program and tries every parser whose `fuzz::NAME` contains the filter, each that long.
///
/// # Errors
/// When it cannot be built.
pub fn run(places: &Places, filter: Option<&str>, time: Duration) -> Result<Tally> {
    let mut tally = Tally::default();
    let room = Room::of(places);
    let names: Vec<String> =
        room.names()?.into_iter().filter(|name| filter.is_none_or(|f| test_name(name).contains(f))).collect();
    if names.is_empty() {
        return Ok(tally);
    }
    packages::install(packages::TO_FUZZ)?;
    let program = room.build(places)?;
    let at_a_time = std::thread::available_parallelism().map_or(1, usize::from);
    for some in names.chunks(at_a_time) {
        let reports: Vec<Result<Report>> = std::thread::scope(|scope| {
            let runs: Vec<_> = some.iter().map(|name| scope.spawn(|| room.fuzz(&program, name, time))).collect();
            let ended = |run: std::thread::ScopedJoinHandle<'_, _>| {
                run.join().unwrap_or_else(|_| Err(Trouble::new("cannot watch a fuzzer: its thread ended")))
            };
            runs.into_iter().map(ended).collect()
        });
        for (name, report) in some.iter().zip(reports) {
            tally.test("this machine", &test_name(name), &report?);
        }
    }
    Ok(tally)
}

fn test_name(parser: &str) -> String {
    format!("fuzz::{parser}")
}

impl Room {
    fn of(places: &Places) -> Room {
        let lab = places.lab().join("fuzz");
        Room {
            seeds: places.workspace.join("fuzz/seeds"),
            corpus: lab.join("corpus"),
            found: lab.join("found"),
            target: lab.join("build"),
        }
    }

    /// The parsers, by their folders of seeds; a test of dmpool holds that each has one.
    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.seeds).or_trouble(|| format!("cannot list `{}`", self.seeds.display()))?;
        let folders = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn build(&self, places: &Places) -> Result<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let flags = format!("{} {FLAGS}", std::env::var("RUSTFLAGS").unwrap_or_default());
        show::step("building the fuzzer", || {
            // With `--target` the flags are not those of build scripts, which would not link with them.
            tool::run(
                Command::new(cargo)
                    .args(["build", "--package", "dmpool-fuzz", "--profile", "fuzz", "--target", TARGET])
                    .env("RUSTFLAGS", flags.trim())
                    .env("CARGO_TARGET_DIR", &self.target)
                    .current_dir(&places.workspace),
            )
        })?;
        Ok(self.target.join(TARGET).join("fuzz/dmpool-fuzz"))
    }

    /// Tries one parser.
    fn fuzz(&self, program: &Path, name: &str, time: Duration) -> Result<Report> {
        let cannot = || format!("cannot write in `{}`", self.corpus.display());
        let corpus = self.corpus.join(name);
        fs::create_dir_all(&corpus).or_trouble(cannot)?;
        fs::create_dir_all(&self.found).or_trouble(cannot)?;
        let found = self.found.join(format!("{name}-"));
        let start = Instant::now();
        let said = Command::new(program)
            .env(WHICH, name)
            .arg(format!("-max_total_time={}", time.as_secs()))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            .arg(format!("-artifact_prefix={}", found.display()))
            // An optimizer makes one comparison of several bytes without a branch between them: how near each comes
            // counts too.
            .args(["-use_value_profile=1", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
            .arg(&corpus)
            .arg(self.seeds.join(name))
            .stdin(Stdio::null())
            .output()
            .or_trouble(|| format!("cannot run `{}`", program.display()))?;
        let lines = String::from_utf8_lossy(&said.stderr);
        let mut output: Vec<String> = lines.lines().map(str::to_owned).collect();
        let seconds = start.elapsed().as_secs_f64();
        let runs = runs_in(&lines);
        let outcome = match (said.status.success(), runs) {
            (true, Some(runs)) if runs > 0 => {
                show::line(&format!("fuzz::{name}: {runs} inputs, {} kept", kept(&corpus)));
                Outcome::Passed
            }
            (true, _) => Outcome::Failed("it tried nothing".to_owned()),
            (false, _) => {
                output.extend(self.advice(program, name, &lines));
                Outcome::Failed(format!("it is wrong about an input ({})", said.status))
            }
        };
        Ok(Report { outcome, seconds, output, silent: Vec::new(), wreck: None })
    }

    /// How to see a finding again: alone, and as a seed that every `cargo test` reads from then on.
    fn advice(&self, program: &Path, name: &str, said: &str) -> Vec<String> {
        let Some(file) = said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, file)| file)
        else {
            return Vec::new();
        };
        vec![
            format!("to see it again:  {WHICH}={name} {} {file}", program.display()),
            format!("to keep it:  cp {file} {}/  &&  cargo test --lib fuzzing", self.seeds.join(name).display()),
        ]
    }
}

/// How many inputs libFuzzer says it has tried.
fn runs_in(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim().parse().ok()
}

/// How many files are in a folder.
fn kept(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_how_much_it_tried() {
        assert_eq!(runs_in("INFO: x\nstat::number_of_executed_units: 975325\nstat::y: 1\n"), Some(975_325));
        assert_eq!(runs_in("INFO: A corpus is not provided\n"), None);
    }

    #[test]
    fn a_finding_comes_with_its_commands() {
        let lab = PathBuf::from("/t/lab");
        let places = Places { workspace: "/w".into(), target: "/t".into(), metadata: serde_json::Value::Null };
        let room = Room::of(&places);
        let said = "==1== ERROR\nartifact_prefix='x'; Test unit written to /t/lab/fuzz/found/unit-crash-1\n";
        let advice = room.advice(&lab.join("dmpool-fuzz"), "unit", said);
        assert_eq!(
            advice,
            [
                "to see it again:  DMPOOL_FUZZ=unit /t/lab/dmpool-fuzz /t/lab/fuzz/found/unit-crash-1",
                "to keep it:  cp /t/lab/fuzz/found/unit-crash-1 /w/fuzz/seeds/unit/  &&  cargo test --lib fuzzing",
            ]
        );
        assert!(room.advice(&lab, "unit", "killed").is_empty());
    }
}
