//! Packages of any Debian suite, fetched with apt's own client from the mirror that this machine is set up for.
//!
//! The machine's own package lists are never touched: each suite has an apt folder of its own under `target/lab/apt`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// The keys that sign Debian's suites, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite, with its package lists fetched.
#[derive(Debug)]
pub struct Suite {
    configuration: PathBuf,
}

/// A package source of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    address: String,
    suite: String,
}

impl Suite {
    /// Makes the apt folder of `suite` and fetches its lists.
    ///
    /// # Errors
    /// When the machine has no Debian mirror set up, and when apt-get fails.
    pub fn open(lab: &Path, suite: &str) -> Result<Suite> {
        let folder = lab.join("apt").join(suite);
        let cannot = || format!("cannot prepare `{}`", folder.display());
        for part in ["state/lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(folder.join(part)).or_trouble(cannot)?;
        }
        fs::write(folder.join("status"), "").or_trouble(cannot)?;
        fs::write(folder.join("etc/sources.list"), sources(suite)?.join("\n") + "\n").or_trouble(cannot)?;
        let configuration = folder.join("apt.conf");
        let at = folder.display();
        let text = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/etc/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n\
             Acquire::Check-Valid-Until \"false\";\n"
        );
        fs::write(&configuration, text).or_trouble(cannot)?;
        let suite = Suite { configuration };
        tool::run(suite.apt("apt-get").args(["update", "--quiet=2", "--error-on=any"]))?;
        Ok(suite)
    }

    /// The packages that `name` depends on and whose names begin with `prefix`.
    ///
    /// # Errors
    /// When apt-cache fails, as for a package that the suite does not have.
    pub fn depends(&self, name: &str, prefix: &str) -> Result<Vec<String>> {
        let text = tool::run(self.apt("apt-cache").args(["depends", name]))?;
        let all = text.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
        Ok(all.filter(|p| p.starts_with(prefix)).map(str::to_string).collect())
    }

    /// Downloads packages (checked by apt against the suite's signature) and unpacks them into one folder.
    ///
    /// # Errors
    /// When apt-get or dpkg-deb fails.
    pub fn unpack<S: AsRef<OsStr>>(&self, packages: &[S], into: &Path) -> Result<()> {
        let debs = into.join(".debs");
        fs::create_dir_all(&debs).or_trouble(|| format!("cannot create `{}`", debs.display()))?;
        tool::run(self.apt("apt-get").args(["download", "--quiet=2"]).args(packages).current_dir(&debs))?;
        for deb in fs::read_dir(&debs).or_trouble(|| format!("cannot list `{}`", debs.display()))?.flatten() {
            tool::run(Command::new("dpkg-deb").arg("--extract").arg(deb.path()).arg(into))?;
        }
        fs::remove_dir_all(&debs).or_trouble(|| format!("cannot remove `{}`", debs.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }
}

/// Lines of a sources.list for `suite`: the machine's own Debian mirror, and its security mirror for released suites.
///
/// # Errors
/// When the machine has no Debian mirror set up.
pub fn sources(suite: &str) -> Result<Vec<String>> {
    let mut known = machine_sources()?;
    if known.is_empty() && nix::unistd::geteuid().is_root() {
        // A machine whose lists were never fetched names no sources.
        tool::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        known = machine_sources()?;
    }
    let lines = lines_for(suite, &known, &machine_suite());
    if lines.is_empty() {
        return Err(Trouble::new("cannot fetch packages: this machine has no Debian mirror set up")
            .fact("found", format!("{known:?}"))
            .next("add a mirror to /etc/apt/sources.list.d, run `apt-get update`, then run this again"));
    }
    Ok(lines)
}

/// The name of this machine's own Debian suite, as in `bookworm`; empty if it has none.
#[must_use]
pub fn machine_suite() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().trim_matches('"').to_string()
}

fn machine_sources() -> Result<Vec<Source>> {
    let text = tool::run(Command::new("apt-get").args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    Ok(parse_sources(&text))
}

fn parse_sources(text: &str) -> Vec<Source> {
    let pair = |line: &str| {
        let (address, suite) = line.split_once(' ')?;
        Some(Source { address: address.to_string(), suite: suite.to_string() })
    };
    text.lines().filter_map(pair).collect()
}

fn lines_for(suite: &str, known: &[Source], own: &str) -> Vec<String> {
    let line = |address: &str, suite: &str| format!("deb [signed-by={KEYRING}] {address} {suite} main");
    let address_of = |wanted: &str| known.iter().find(|s| s.suite == wanted).map(|s| s.address.as_str());
    let mut lines: Vec<String> = address_of(own).map(|a| line(a, suite)).into_iter().collect();
    // sid has no security suite; those of bullseye are gone from some mirrors, and its kernel is in main.
    if suite == own
        && let Some(address) = address_of(&format!("{own}-security"))
    {
        lines.push(line(address, &format!("{suite}-security")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_suites_come_from_the_machines_own_mirror() {
        let known =
            parse_sources("http://mirror/debian/ bookworm\nhttp://mirror/sec/ bookworm-security\nhttps://x/ y\n");
        assert_eq!(
            lines_for("trixie", &known, "bookworm"),
            ["deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian/ trixie main"]
        );
        assert_eq!(lines_for("bookworm", &known, "bookworm").len(), 2);
        assert!(lines_for("trixie", &known, "jammy").is_empty());
    }
}
