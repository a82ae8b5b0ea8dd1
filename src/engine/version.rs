//! Which Docker a root belongs to: by the package that is installed, else by what newer versions make in the root.

use std::fmt;
use std::fs;
use std::path::Path;

use super::small_file::{self, Directory};

/// A version of Docker, as far as anything here depends on it: `20.10`, `1.12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `20` of 20.10.24.
    pub major: u16,
    /// `10` of 20.10.24.
    pub minor: u16,
}

/// A version, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The version; when it is not exact, the oldest that it can be.
    pub version: Version,
    /// Whether it is exactly that one.
    pub exact: bool,
    /// What tells it, as a phrase: `buildkit/ in the root`.
    pub mark: String,
}

/// What versions of Docker make in their root that older ones do not, newest first.
///
/// `buildkit`: 18.06 (builder/builder-next). `containerd`: 17.11 (libcontainerd with containerd 1.0). `builder`: 17.07
/// (fscache of builder sessions). `swarm`: 1.12. `image`: 1.10 (content addressable images). `network`: 1.9
/// (libnetwork's store). `graph`: all before 1.10.
const MARKS: [(&str, Version); 7] = [
    ("buildkit", Version::new(18, 6)),
    ("containerd", Version::new(17, 11)),
    ("builder", Version::new(17, 7)),
    ("swarm", Version::new(1, 12)),
    ("image", Version::new(1, 10)),
    ("network", Version::new(1, 9)),
    ("graph", Version::new(1, 7)),
];

/// What the packages of Docker's daemon are called: Debian's, Docker's own now and before, Red Hat's.
const PACKAGES: [&str; 6] = ["docker-ce", "docker.io", "docker-engine", "docker", "docker-latest", "lxc-docker"];

/// Well above the `status` of any Debian (some 5 MB on a full desktop).
const LARGEST_STATUS: u64 = 64 << 20;

impl Version {
    /// Returns that version.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads what Docker and the packages call a version: `20.10.24+dfsg1`, `5:19.03.8~3-0~debian`, `17.06.0-ce`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once(':').map_or(text, |(_, after_epoch)| after_epoch);
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Docker writes months with two digits: 17.06, 18.09.
        if (17..20).contains(&self.major) {
            write!(f, "{}.{:02}", self.major, self.minor)
        } else {
            write!(f, "{}.{}", self.major, self.minor)
        }
    }
}

/// Returns what the directories of a root tell of the Docker that runs on it: a lower bound.
pub(super) fn of_marks(root: &Directory) -> Option<Known> {
    let (name, version) = MARKS.iter().find(|(name, _)| root.enter(name).is_ok())?;
    Some(Known { version: *version, exact: false, mark: format!("{name}/ in the root") })
}

/// Returns the version of the Docker package that is installed below a root directory (`/`), read from files: dpkg's
/// status, or the documentation directories that RPM packages name after their version.
pub fn installed(base: &Path) -> Option<Known> {
    let status = base.join("var/lib/dpkg/status");
    let of_dpkg = small_file::read_at(&status, LARGEST_STATUS).ok().and_then(|bytes| in_dpkg_status(&bytes));
    if let Some((package, version)) = of_dpkg {
        return Some(Known { version, exact: true, mark: format!("the package {package} is installed") });
    }
    let docs = fs::read_dir(base.join("usr/share/doc")).ok()?;
    let mut names: Vec<String> = docs.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let (name, version) = names.iter().find_map(|name| Some((name, in_directory_name(name)?)))?;
    Some(Known { version, exact: true, mark: format!("/usr/share/doc/{name} is there") })
}

/// Returns name and version of the Docker package that dpkg's status says is installed.
pub(crate) fn in_dpkg_status(status: &[u8]) -> Option<(&'static str, Version)> {
    let text = String::from_utf8_lossy(status);
    text.split("\n\n").find_map(|paragraph| {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let package = field("Package")?.trim();
        let package = PACKAGES.into_iter().find(|known| *known == package)?;
        if !field("Status")?.trim_end().ends_with(" installed") {
            return None;
        }
        // Debian has a `docker` too, a tray for window managers, at 1.5.
        Version::parse(field("Version")?).filter(|_| package != "docker").map(|version| (package, version))
    })
}

/// Returns the version in the name of an RPM's documentation directory: `docker-1.13.1`, `docker-ce-18.09.0`.
pub(crate) fn in_directory_name(name: &str) -> Option<Version> {
    PACKAGES.into_iter().find_map(|package| {
        let version = name.strip_prefix(package)?.strip_prefix('-')?;
        version.starts_with(|c: char| c.is_ascii_digit()).then(|| Version::parse(version)).flatten()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_read_as_packages_write_them() {
        for (text, version) in [
            ("20.10.24+dfsg1-1+deb12u1", Version::new(20, 10)),
            ("5:19.03.8~3-0~debian-buster", Version::new(19, 3)),
            ("17.06.0-ce", Version::new(17, 6)),
            ("1.13.1", Version::new(1, 13)),
            ("1.9", Version::new(1, 9)),
        ] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        for other in ["", "20", "v20.10", "x", "1.", "99999.1"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
        assert_eq!((Version::new(17, 6).to_string(), Version::new(1, 9).to_string()), ("17.06".into(), "1.9".into()));
    }

    #[test]
    fn the_newest_mark_of_a_root_counts() {
        let temp = tempfile::tempdir().unwrap();
        let marked = || of_marks(&Directory::open(temp.path()).unwrap());
        assert_eq!(marked(), None);
        for (name, version) in MARKS.iter().rev() {
            fs::create_dir(temp.path().join(name)).unwrap();
            let known = marked().unwrap();
            assert_eq!((known.version, known.exact), (*version, false));
            assert!(known.mark.starts_with(name), "{known:?}");
        }
    }

    #[test]
    fn dpkg_and_rpm_say_which_is_installed() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(installed(temp.path()), None);
        let docs = temp.path().join("usr/share/doc/docker-1.13.1");
        fs::create_dir_all(&docs).unwrap();
        fs::create_dir_all(temp.path().join("usr/share/doc/docker-selinux")).unwrap();
        assert_eq!(installed(temp.path()).unwrap().version, Version::new(1, 13));
        fs::create_dir_all(temp.path().join("var/lib/dpkg")).unwrap();
        let status = "Package: docker\nStatus: install ok installed\nVersion: 1.5-2\n\n\
                      Package: docker-ce\nStatus: deinstall ok config-files\nVersion: 5:25.0.1\n\n\
                      Package: docker.io\nStatus: install ok installed\nArchitecture: amd64\nVersion: 20.10.24+dfsg1\n";
        fs::write(temp.path().join("var/lib/dpkg/status"), status).unwrap();
        let known = installed(temp.path()).unwrap();
        assert_eq!((known.version, known.exact), (Version::new(20, 10), true));
        assert_eq!(known.mark, "the package docker.io is installed");
    }

    proptest! {
        #[test]
        fn no_status_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,40}") {
            let _ = (in_dpkg_status(&bytes), Version::parse(&text), in_directory_name(&text));
        }
    }
}
