//! What dmpool's guest tests share.

#[allow(dead_code, reason = "each suite uses its part")]
pub mod at_boot;
#[allow(dead_code, reason = "each suite uses its part")]
pub mod health;
#[allow(dead_code, reason = "each suite uses its part")]
pub mod labels;
#[allow(dead_code, reason = "each suite uses its part")]
pub mod linear;
#[allow(dead_code, reason = "each suite uses its part")]
pub mod lvm;
pub mod pools;
pub mod refusals;

use std::path::{Path, PathBuf};

use lab::guest::run::{Cmd, Ran};
use lab::guest::sweep::Sweep;

/// A dmpool with a state directory of its own, on a directory of its own.
pub struct Bench {
    pub sweep: Sweep,
    pub state: PathBuf,
    pub dir: PathBuf,
    program: &'static str,
}

impl Bench {
    /// The binary that users get.
    pub fn new() -> Self {
        Self::with("dmpool")
    }

    /// The binary with faults.
    #[allow(dead_code, reason = "for the tests of failures")]
    pub fn with_faults() -> Self {
        Self::with("dmpool-faults")
    }

    fn with(program: &'static str) -> Self {
        let sweep = Sweep::new().unwrap();
        let fresh = |name: &str| {
            // A power cut leaves the folder of the process that had the same number.
            let _ = std::fs::remove_dir_all(sweep.path(name));
            sweep.subdir(name).unwrap()
        };
        let (state, dir) = (fresh("state"), fresh("pools"));
        Self { sweep, state, dir, program }
    }

    /// The same with state and pools below another folder, as on a file system that outlives the machine.
    pub fn at(mut self, base: &Path) -> Self {
        self.state = base.join("state");
        self.dir = base.join("pools");
        for dir in [&self.state, &self.dir] {
            std::fs::create_dir_all(dir).unwrap();
        }
        self
    }

    /// The name of this test's pool.
    pub fn pool(&self) -> String {
        self.sweep.name("p")
    }

    /// Where the pool's file of that name is: `data` or `metadata`.
    pub fn file(&self, which: &str) -> PathBuf {
        self.dir.join(self.pool()).join(which)
    }

    /// A dmpool command line, not yet run.
    pub fn cmd(&self, args: &[&str]) -> Cmd {
        Cmd::new(self.program).arg("--state-dir").arg(&self.state).args(args)
    }

    /// Runs dmpool.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.cmd(args).run()
    }

    /// Runs dmpool and returns its standard output; anything but exit 0 fails the test.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.ok(), "{ran}");
        ran.stdout
    }

    /// Makes this test's pool with 1 GiB of data and 16 MiB of metadata.
    pub fn create(&self) -> String {
        let pool = self.pool();
        let dir = self.dir.to_str().unwrap();
        self.ok(&["create", &pool, "--dir", dir, "--data-size", "1G", "--metadata-size", "16M"]);
        pool
    }

    /// The status of this test's pool as JSON text.
    pub fn json(&self) -> String {
        self.ok(&["status", &self.pool(), "--format", "json"])
    }

    /// A whole number in the JSON status: `/pool/data/total`.
    pub fn number(&self, pointer: &str) -> u64 {
        let json: serde_json::Value = serde_json::from_str(&self.json()).unwrap();
        json.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {json:#}"))
    }
}

/// Makes a thin volume with the kernel's own words and returns its device.
pub fn volume(pool: &str, id: u32, name: &str, bytes: u64) -> PathBuf {
    use lab::guest::sys::dmsetup;
    dmsetup(["message", pool, "0", &format!("create_thin {id}")]).run().checked().unwrap();
    let table = format!("0 {} thin /dev/mapper/{pool} {id}", bytes / 512);
    dmsetup(["create", name, "--table", &table]).run().checked().unwrap();
    Path::new("/dev/mapper").join(name)
}

/// Whether dm has a device of that name.
pub fn exists(name: &str) -> bool {
    lab::guest::sys::dm_exists(name).unwrap()
}
