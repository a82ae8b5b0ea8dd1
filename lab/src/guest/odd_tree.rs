//! A directory of everything that a copy gets wrong, the same for the same [`Plan`] wherever it is made: on a guest's own
//! disk or by `lab-inmate` in a container. What is there is known from how it was made.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// The first of the times that are nothing special.
const BEGAN: i64 = 1_400_000_000;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Contents and small files' sizes follow from it.
    pub seed: u64,
    /// Number of small files.
    pub small: u32,
    /// Also what an image cannot hold: holes, attributes that only root may set, device nodes,
    /// sockets, and names that begin with `.wh.`, over which
    /// `docker save` of a commit fails. It needs a container with all privileges.
    pub everything: bool,
}

/// Makes the tree in `dir`, which is made and must not be there.
///
/// # Errors
/// When the directory is there, or its file system refuses something.
pub fn make(dir: &Path, plan: Plan) -> Result<()> {
    let mut tree = Tree { top: dir.to_owned(), random: plan.seed, made: Vec::new() };
    tree.dir("")?;
    tree.contents()?;
    tree.permissions()?;
    tree.links()?;
    tree.attributes()?;
    tree.times()?;
    tree.names()?;
    tree.small(plan.small)?;
    tree.fifo("pipe")?;
    if plan.everything {
        tree.root_attributes()?;
        tree.sparse()?;
        tree.nodes()?;
        tree.whiteouts()?;
    }
    tree.settle()
}

struct Tree {
    top: PathBuf,
    random: u64,
    /// Everything made, with a time of its own where it has one.
    made: Vec<(PathBuf, Option<TimeSpec>)>,
}

impl Tree {
    fn at(&mut self, name: impl AsRef<Path>) -> PathBuf {
        let name = name.as_ref();
        let path = if name.as_os_str().is_empty() { self.top.clone() } else { self.top.join(name) };
        self.made.push((path.clone(), None));
        path
    }

    fn dir(&mut self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.at(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mode(&path, 0o755)?;
        Ok(path)
    }

    fn file(&mut self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.at(name);
        fs::write(&path, bytes).with_context(|| format!("cannot make {}", path.display()))?;
        mode(&path, 0o644)?;
        Ok(path)
    }

    fn link(&mut self, name: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.at(name);
        symlink(target, &path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    fn fifo(&mut self, name: &str) -> Result<()> {
        let path = self.at(name);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).context("cannot make a pipe")?;
        mode(&path, 0o620)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length).collect()
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random ^ self.random >> 31
    }

    fn contents(&mut self) -> Result<()> {
        self.dir("contents")?;
        for length in [0, 1, 511, 512, 4095, 4096, 65_537, 300_000] {
            let bytes = self.bytes(length);
            self.file(format!("contents/{length}-bytes"), &bytes)?;
        }
        self.file("contents/zeroes", &[0; 10_000])?;
        Ok(())
    }

    fn permissions(&mut self) -> Result<()> {
        let dir = self.dir("permissions")?;
        for bits in [0o4755, 0o2711, 0o6555, 0o1644, 0o000, 0o200, 0o777] {
            let path = self.file(format!("permissions/{bits:o}"), b"x")?;
            mode(&path, bits)?;
        }
        for bits in [0o1777, 0o2770, 0o500] {
            let path = self.dir(format!("permissions/directory-{bits:o}"))?;
            mode(&path, bits)?;
        }
        for (uid, gid) in [(1, 2), (65_534, 65_534), (100_000, 3_000_000_000)] {
            let path = self.file(format!("permissions/of-{uid}-{gid}"), b"x")?;
            own(&path, uid, gid)?;
        }
        let path = self.link("permissions/link-of-7-8", "nowhere")?;
        own(&path, 7, 8)?;
        own(&dir, 9, 10)?;
        // Changing the owner takes set-user-id away, so that comes last.
        let path = self.file("permissions/setuid-of-11", b"x")?;
        own(&path, 11, 12)?;
        mode(&path, 0o6750)
    }

    fn links(&mut self) -> Result<()> {
        self.dir("links")?;
        self.dir("links/hard")?;
        let first = self.file("links/first", b"three names")?;
        for name in ["links/hard/second", "third-in-the-top"] {
            let path = self.at(name);
            fs::hard_link(&first, path)?;
        }
        let link = self.link("links/relative", "hard/second")?;
        let path = self.at("links/hard/link-of-a-link");
        fs::hard_link(&link, path)?;
        self.link("links/absolute", "/etc/passwd")?;
        self.link("links/out", "../../../../../../../../etc/shadow")?;
        self.link("links/dangling", "no such file")?;
        self.link("links/self", "self")?;
        self.link("links/directory", "../contents")?;
        self.link("links/long", "l".repeat(1000))?;
        self.link("links/not-utf8", OsStr::from_bytes(b"caf\xe9\n"))?;
        Ok(())
    }

    fn attributes(&mut self) -> Result<()> {
        let dir = self.dir("attributes")?;
        let every: Vec<u8> = (0..=255).collect();
        let path = self.file("attributes/user", b"x")?;
        for (name, value) in [("user.plain", &b"value"[..]), ("user.empty", b""), ("user.every.byte", &every)] {
            attribute(&path, name, value)?;
        }
        let large = self.bytes(2000);
        let path = self.file("attributes/large", b"x")?;
        attribute(&path, "user.large", &large)?;
        let path = self.file("attributes/capability", b"x")?;
        mode(&path, 0o755)?;
        attribute(&path, "security.capability", &capability())?;
        attribute(&dir, "user.of-a-directory", b"d")?;

        let path = self.file("attributes/acl", b"x")?;
        attribute(&path, "system.posix_acl_access", &acl())?;
        let path = self.dir("attributes/default-acl")?;
        attribute(&path, "system.posix_acl_default", &acl())?;
        attribute(&path, "system.posix_acl_access", &acl())?;
        self.file("attributes/default-acl/inherits", b"x")?;
        Ok(())
    }

    fn root_attributes(&mut self) -> Result<()> {
        self.dir("root-attributes")?;
        let path = self.file("root-attributes/trusted", b"x")?;
        attribute(&path, "trusted.note", b"for root")?;
        let path = self.file("root-attributes/security", b"x")?;
        attribute(&path, "security.other", b"one\0two")?;
        let path = self.link("root-attributes/link", "trusted")?;
        attribute(&path, "trusted.of-a-link", b"not of its target")
    }

    fn sparse(&mut self) -> Result<()> {
        self.dir("sparse")?;
        let path = self.at("sparse/islands");
        let file = File::create_new(&path)?;
        for at in [0, 1 << 20, (5 << 20) + 4096, 40 << 20] {
            let bytes = self.bytes(8192);
            file.write_all_at(&bytes, at)?;
        }
        file.set_len(48 << 20)?;
        mode(&path, 0o644)?;
        let path = self.at("sparse/all-hole");
        File::create_new(&path)?.set_len((1 << 20) + 1)?;
        mode(&path, 0o644)?;
        let path = self.at("sparse/begins-with-a-hole");
        File::create_new(&path)?.write_all_at(b"end", 200_000)?;
        mode(&path, 0o644)
    }

    fn times(&mut self) -> Result<()> {
        self.dir("times")?;
        let times = [
            ("nanoseconds", 1_500_000_000, 123_456_789),
            ("last-nanosecond", 1_500_000_000, 999_999_999),
            ("epoch", 0, 0),
            ("before-1970", -1_000_000_000, 5),
            ("just-before-1970", -1, 999_999_999),
            ("in-2100", 4_102_444_800, 1),
        ];
        for (name, seconds, nanoseconds) in times {
            let time = Some(TimeSpec::new(seconds, nanoseconds));
            self.file(format!("times/{name}"), b"x")?;
            self.link(format!("times/link-{name}"), name)?;
            self.dir(format!("times/directory-{name}"))?;
            for made in self.made.iter_mut().rev().take(3) {
                made.1 = time;
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<()> {
        self.dir("names")?;
        let long = "n".repeat(250);
        let names: [&[u8]; 16] = [
            long.as_bytes(),
            "Ω ünïcödé 日本".as_bytes(),
            b"not-utf8-\xff\xfe",
            b"\xe9",
            b"new\nline",
            b"tab\tand\x1b[31mescape",
            b" blanks ",
            b"-rf",
            b"--",
            b"...",
            b"*",
            b"quote'quote\"",
            b"back\\slash\\012",
            b"$(reboot)",
            b"colon:comma,equals=",
            b"pax_global_header",
        ];
        for name in names {
            self.file(Path::new("names").join(OsStr::from_bytes(name)), name)?;
        }
        let mut deep = PathBuf::from("names/deep");
        self.dir(&deep)?;
        for level in 0..12 {
            deep.push(format!("level-{level}-{}", "d".repeat(90)));
            self.dir(&deep)?;
        }
        self.file(deep.join(long), b"at the end of a path of 1400 bytes")?;
        let name = Path::new("names").join(OsStr::from_bytes(b"directory-\xff"));
        self.dir(&name)?;
        self.file(name.join("inside"), b"x")?;
        self.dir("names/empty")?;
        Ok(())
    }

    fn small(&mut self, count: u32) -> Result<()> {
        self.dir("small")?;
        for number in 0..count {
            if number % 100 == 0 {
                self.dir(format!("small/{:03}", number / 100))?;
            }
            let length = usize::try_from(self.next() % 200)?;
            let bytes = self.bytes(length);
            self.file(format!("small/{:03}/{:02}", number / 100, number % 100), &bytes)?;
        }
        Ok(())
    }

    fn nodes(&mut self) -> Result<()> {
        self.dir("nodes")?;
        for (name, kind, major, minor) in [
            ("null", SFlag::S_IFCHR, 1, 3),
            ("large-numbers", SFlag::S_IFCHR, 511, 200_000),
            ("block", SFlag::S_IFBLK, 7, 99),
        ] {
            let path = self.at(format!("nodes/{name}"));
            mknod(&path, kind, Mode::from_bits_truncate(0o600), makedev(major, minor)).context("cannot make a node")?;
            mode(&path, 0o640)?;
        }
        let path = self.at("nodes/socket");
        drop(UnixListener::bind(&path).context("cannot make a socket")?);
        mode(&path, 0o755)
    }

    fn whiteouts(&mut self) -> Result<()> {
        self.dir("whiteouts")?;
        for name in [".wh.file", ".wh..wh..opq", ".wh..wh.plnk", ".wh."] {
            self.file(format!("whiteouts/{name}"), b"an ordinary file")?;
        }
        self.file("whiteouts/file", b"not deleted")?;
        self.dir("whiteouts/.wh.directory")?;
        self.file("whiteouts/.wh.directory/inside", b"x")?;
        Ok(())
    }

    /// Gives everything its time, the youngest first: what is made in a directory changes the directory's.
    fn settle(&self) -> Result<()> {
        for (number, (path, time)) in self.made.iter().enumerate().rev() {
            let number = i64::try_from(number)?;
            let time = time.unwrap_or_else(|| TimeSpec::new(BEGAN + number, number * 1001 % 1_000_000_000));
            utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
                .with_context(|| format!("cannot set the time of {}", path.display()))?;
        }
        Ok(())
    }
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    lchown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give away {}", path.display()))
}

fn attribute(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    xattr::set(path, name, value).with_context(|| format!("cannot set {name} of {}", path.display()))
}

/// `cap_net_raw=ep` as `struct vfs_cap_data`, revision 2, of linux/capability.h.
pub(super) fn capability() -> Vec<u8> {
    let (revision_and_effective, net_raw) = (0x0200_0001_u32, 1_u32 << 13);
    [revision_and_effective, net_raw, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `user::rw-,user:1234:r-x,group::r--,group:77:---,mask::rwx,other::---` as linux/posix_acl_xattr.h has it.
fn acl() -> Vec<u8> {
    let nobody = u32::MAX;
    let entries: [(u16, u16, u32); 6] =
        [(1, 6, nobody), (2, 5, 1234), (4, 4, nobody), (8, 0, 77), (16, 7, nobody), (32, 0, nobody)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
