//! How the Docker that dies keeps its layers: what its pool is made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lab::guest::boot;
use lab::guest::docker::Config;
use lab::guest::menagerie::Menagerie;
use lab::guest::run::Cmd;
use lab::guest::sys::{self, dmsetup};

/// Of every pool here, in sectors.
pub(super) const BLOCK: u64 = 128;
const G: u64 = 1 << 30;
const DATA: &str = "dmpool-test-dead-data";
const METADATA: &str = "dmpool-test-dead-metadata";
const POOL: &str = "dmpool-test-dead-pool";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Overlay2,
    /// Two loop files in the root.
    Files,
    /// `dm.datadev` and `dm.metadatadev`.
    Devices,
    /// `dm.thinpooldev`.
    Named,
}

impl Shape {
    pub(super) fn driver(self) -> &'static str {
        if self == Self::Overlay2 { "overlay2" } else { "devicemapper" }
    }

    pub(super) fn config(self, root: &Path) -> Config {
        let config = Menagerie::config(self.driver(), root);
        match self {
            Self::Overlay2 => config,
            Self::Files => config.option("dm.loopdatasize=1G").option("dm.loopmetadatasize=16M"),
            Self::Devices => config.option(&option("datadev", DATA)).option(&option("metadatadev", METADATA)),
            Self::Named => config.option(&option("thinpooldev", POOL)),
        }
    }

    /// That of another Docker with the same driver.
    pub(super) fn fresh(self, root: &Path) -> Config {
        match self {
            Self::Overlay2 | Self::Files => self.config(root),
            Self::Devices | Self::Named => Self::Files.config(root),
        }
    }
}

fn option(name: &str, device: &str) -> String {
    format!("dm.{name}={}", path(device))
}

fn path(name: &str) -> String {
    format!("/dev/mapper/{name}")
}

/// The disks of a pool that is not in the root: pieces of the second spare disk, with the same names in every boot.
pub(super) struct Disks {
    made: Vec<&'static str>,
}

impl Disks {
    /// Makes them; none for a pool in the root.
    pub(super) fn of(shape: Shape) -> Self {
        let mut disks = Self { made: Vec::new() };
        if matches!(shape, Shape::Devices | Shape::Named) {
            disks.make(DATA, &linear(0, G));
            disks.make(METADATA, &linear(G, G / 64));
        }
        disks
    }

    fn make(&mut self, name: &'static str, table: &str) {
        dmsetup(["create", name, "--table", table]).run().checked().unwrap();
        self.made.push(name);
        sys::settle();
    }

    /// Brings up the pool that somebody else than Docker has made, or makes it.
    pub(super) fn activate(&mut self) {
        let (data, metadata) = (path(DATA), path(METADATA));
        self.make(POOL, &format!("0 {} thin-pool {metadata} {data} {BLOCK} 0 1 skip_block_zeroing", G / 512));
    }

    /// Where data and metadata are; nothing when they are in the root.
    pub(super) fn parts(&self) -> Option<[PathBuf; 2]> {
        (!self.made.is_empty()).then(|| [DATA, METADATA].map(|name| PathBuf::from(path(name))))
    }

    /// What `rescue` must be told where the root does not lead to them.
    pub(super) fn named(&self) -> Vec<String> {
        let named = |[data, metadata]: [PathBuf; 2]| {
            let [data, metadata] = [data, metadata].map(|path| path.to_str().unwrap().to_owned());
            vec!["--data".to_owned(), data, "--metadata".to_owned(), metadata]
        };
        self.parts().map(named).unwrap_or_default()
    }

    /// How much has been written to each, by the kernel's count.
    pub(super) fn written(&self) -> BTreeMap<PathBuf, String> {
        let counted = |path: PathBuf| {
            let name = path.canonicalize().unwrap();
            let stat = fs::read_to_string(Path::new("/sys/class/block").join(name.file_name().unwrap()).join("stat"));
            let stat = stat.unwrap();
            let fields: Vec<&str> = stat.split_whitespace().collect();
            // Sectors written, and sectors discarded (Documentation/block/stat.rst).
            let count = format!("{} written, {} discarded", fields[6], fields.get(13).unwrap_or(&"0"));
            (path, count)
        };
        self.parts().into_iter().flatten().map(counted).collect()
    }

    /// What is on them.
    pub(super) fn sums(&self) -> Vec<String> {
        let sum = |path: PathBuf| Cmd::new("sha256sum").arg(path).run().checked().unwrap().stdout;
        self.parts().into_iter().flatten().map(sum).collect()
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for name in self.made.iter().rev() {
            let _ = dmsetup(["remove", "--retry", name]).run();
        }
    }
}

fn linear(from: u64, length: u64) -> String {
    format!("0 {} linear {} {}", length / 512, boot::scratch_disks()[1].display(), from / 512)
}
