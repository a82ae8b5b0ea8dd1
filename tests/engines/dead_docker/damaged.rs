//! Copies of a root that are damaged, each in one way: what comes out is what was there, and what cannot is named.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dmpool::metadata::{Superblock, mapping};
use dmpool::units::MetaBlock;
use lab::guest::boot;
use lab::guest::menagerie::{Container, Menagerie, names};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use super::shape::{BLOCK, Disks, Shape};
use super::{Source, Stages, as_cp_sees};
use crate::rescue_devicemapper::{assert_nothing_left, patch};

/// Block size of a metadata device and the salt of its superblock's checksum.
const METADATA_BLOCK: usize = 4096;
const SUPERBLOCK_SALT: u32 = 160_774;
const POOL: &str = "dmpool-test-damaged";

/// A root, a copy of it to take copies of, and what is looked at in them.
pub(super) struct Cases<'a> {
    pub(super) stages: &'a mut Stages,
    pub(super) source: &'a Source<'a>,
    pub(super) base: &'a Path,
    pub(super) shape: Shape,
    pub(super) made: &'a Menagerie,
}

/// Where a pool's data and metadata are.
type Parts = [PathBuf; 2];

impl Cases<'_> {
    /// Copies the root by sharing its blocks, damages the copy, and looks at it.
    fn root(&mut self, what: &str, damage: impl FnOnce(&Path), look: impl FnOnce(&Source<'_>)) {
        let root = self.source.out.join("damaged");
        let _ = fs::remove_dir_all(&root);
        copy(self.base, &root);
        let damaged = Source::live(&root, &self.source.out);
        self.stages.run(what, || {
            damage(&root);
            // Nothing in the copy leads to the disks.
            let damaged = match self.source.disks {
                Some(disks) => damaged.on(disks, disks.named()),
                None => damaged.watched(),
            };
            look(&damaged);
            assert_nothing_left(&root);
        });
        fs::remove_dir_all(&root).unwrap();
    }

    /// As [`Self::root`], and of disks the metadata is what it was afterwards.
    fn pool(&mut self, what: &str, damage: impl FnOnce(&Parts), look: impl FnOnce(&Source<'_>)) {
        let Some(parts) = self.source.disks.and_then(Disks::parts) else {
            let part = |root: &Path, name: &str| root.join("devicemapper/devicemapper").join(name);
            return self.root(what, |root| damage(&["data", "metadata"].map(|name| part(root, name))), look);
        };
        let kept = fs::read(&parts[1]).unwrap();
        let source = self.source;
        self.stages.run(what, || {
            damage(&parts);
            look(&source.clone().watched());
            assert_nothing_left(&source.root);
        });
        let metadata = File::options().write(true).open(&parts[1]).unwrap();
        metadata.write_all_at(&kept, 0).unwrap();
        metadata.sync_all().unwrap();
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    Cmd::new("cp").args(["-a", "--reflink=always"]).arg(from).arg(to).run().checked().unwrap();
}

/// `cp` of a container gives what it was, ends with that code and says these words.
#[track_caller]
fn comes_out(source: &Source<'_>, container: &Container, code: i32, words: &[&str]) {
    // What is the host's is named, and is no part of what is compared.
    let found = source.copied(&container.id, code, words);
    container.root.assert_is(&found, &as_cp_sees());
}

/// What Docker has written beside the layers.
pub(super) fn root(cases: &mut Cases<'_>) {
    let (made, shape) = (cases.made, cases.shape);
    let of = |name: &str| made.container(name).unwrap();
    let (odd, changed, paused) = (of(names::ODD), of(names::CHANGED), of(names::PAUSED));

    let empty = |root: &Path| {
        let file = root.join("containers").join(&changed.id).join("config.v2.json");
        fs::write(file, "").unwrap();
    };
    cases.root("an empty config", empty, |damaged| {
        let listed = damaged.run(&["rescue", "ps", "--no-trunc"]).says(5, &["config.v2.json", &changed.id]).text();
        for container in &made.containers {
            assert!(listed.contains(&container.id), "{} in {listed}", container.name);
        }
        damaged.run(&["rescue", "inspect", &changed.id]).says(5, &["config.v2.json"]);
        comes_out(damaged, changed, 0, &[]);
    });

    let half = |root: &Path| {
        let layers = root.join(format!("image/{}/layerdb", shape.driver()));
        let mut all: Vec<_> = fs::read_dir(layers.join("sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        for gone in all.iter().step_by(2) {
            fs::remove_dir_all(gone).unwrap();
        }
        fs::remove_dir_all(layers.join("mounts").join(&paused.id)).unwrap();
    };
    cases.root("half of layerdb", half, |damaged| {
        damaged.run(&["rescue", "images", "-a"]).says(5, &["not whole:"]);
        damaged.run(&["rescue", "images", "--tree"]).says(5, &["not whole:"]);
        damaged.run(&["rescue", "ps"]).says(5, &[&paused.id[..12]]);
        damaged.run(&["rescue", "export", &paused.id]).says(3, &["nothing says which layer is its own"]);
        comes_out(damaged, odd, 0, &[]);
        comes_out(damaged, changed, 0, &[]);
        let mut refused = 0;
        let most = if boot::full() { made.images.len() } else { 2 };
        for image in made.images.iter().take(most) {
            let ended = damaged.run(&["rescue", "save", &image.id]);
            match ended.code {
                Some(0) => {}
                code => {
                    refused += 1;
                    ended.says(code.unwrap(), &["layer"]);
                }
            }
        }
        assert!(refused > 0 || !boot::full());
    });

    // Every run has this in rescue_devicemapper.
    if shape != Shape::Overlay2 && boot::full() {
        let records = |root: &Path| fs::remove_dir_all(root.join("devicemapper/metadata")).unwrap();
        cases.root("no records of devices", records, |damaged| {
            // In a copy of the root nothing leads to disks.
            if shape == Shape::Files {
                damaged.run(&["rescue", "images", "--tree"]).says(5, &["layer"]);
            }
            comes_out(damaged, odd, 0, &[]);
        });
    }
}

/// The pool's own data and metadata.
pub(super) fn pool(cases: &mut Cases<'_>) {
    let (made, shape) = (cases.made, cases.shape);
    let of = |name: &str| made.container(name).unwrap();
    let (odd, web, changed) = (of(names::ODD), of(names::WEB), of(names::CHANGED));

    // Not a block is free.
    let full = |parts: &Parts| {
        let pool = Pool::of(parts);
        dmsetup(["message", POOL, "0", "create_thin 60001"]).run().checked().unwrap();
        let table = format!("0 {} thin /dev/mapper/{POOL} 60001", pool.sectors);
        dmsetup(["create", "dmpool-test-filler", "--table", &table]).run().checked().unwrap();
        let filled =
            Cmd::new("dd").args(["if=/dev/zero", "of=/dev/mapper/dmpool-test-filler", "bs=1M", "oflag=direct"]).run();
        assert!(!filled.ok(), "{filled}");
        dmsetup(["remove", "--retry", "dmpool-test-filler"]).run().checked().unwrap();
        let status = dmsetup(["status", POOL]).run().checked().unwrap().stdout;
        let whole = pool.sectors / BLOCK;
        assert!(status.contains(&format!(" {whole}/{whole} ")), "{status}");
    };
    cases.pool("full to the last block", full, |damaged| {
        comes_out(damaged, odd, 0, &[]);
    });

    // A container's volume is gone from it.
    let gone = |parts: &Parts| {
        let pool = Pool::of(parts);
        let id = changed.inspect.pointer("/GraphDriver/Data/DeviceId").unwrap().as_str().unwrap();
        dmsetup(["message", POOL, "0", &format!("delete {id}")]).run().checked().unwrap();
        drop(pool);
    };
    cases.pool("a volume gone", gone, |damaged| {
        damaged.run(&["rescue", "export", &changed.id]).says(3, &["its thin device cannot be read"]);
        comes_out(damaged, odd, 0, &[]);
    });

    let check = |parts: &Parts| patch(&parts[1], 0, Some(SUPERBLOCK_SALT), |superblock| superblock[4] |= 1);
    cases.pool("needs_check", check, |damaged| comes_out(damaged, odd, 0, &[]));

    // The index of the space map that the metadata has of itself.
    let index = |parts: &Parts| {
        let superblock = block(parts, MetaBlock::new(0)).unwrap();
        let at = u64::from_le_bytes(superblock[208..216].try_into().unwrap());
        patch(&parts[1], at, None, |node| node[64..128].fill(0xff));
    };
    cases.pool("no index of the space map", index, |damaged| {
        let repaired = ["read with what thin_repair made of a copy"];
        comes_out(damaged, changed, 5, &repaired);
    });

    // The tree that says which blocks a container's volume has.
    let mapping = |parts: &Parts| {
        let roots = mapping::roots(&superblock(parts), &mut |at| block(parts, at)).unwrap();
        let id: u64 = changed.inspect.pointer("/GraphDriver/Data/DeviceId").unwrap().as_str().unwrap().parse().unwrap();
        let root = roots.into_iter().find(|(volume, _)| *volume == id).unwrap().1;
        patch(&parts[1], root.get(), None, |node| node[32..].fill(0xff));
    };
    cases.pool("a damaged mapping", mapping, |damaged| {
        damaged.run(&["rescue", "export", &changed.id]).says(3, &["its thin device cannot be read", "thin_check /"]);
        comes_out(damaged, web, 0, &[]);
    });

    // The tree of what is known of each volume.
    let details = |parts: &Parts| {
        let root = superblock(parts).details_root;
        patch(&parts[1], root.get(), None, |node| node[32..].fill(0xff));
    };
    cases.pool("no details", details, |damaged| {
        // No thin_repair gives it back, and none is needed for a volume that Docker has a record of.
        let blocks = ["of it only what says which blocks this volume has is used"];
        comes_out(damaged, odd, 5, &blocks);
    });

    let none = |parts: &Parts| patch(&parts[1], 0, None, |superblock| superblock.fill(0x55));
    cases.pool("no superblock", none, |damaged| {
        damaged.run(&["rescue", "export", &odd.id]).says(3, &["its thin device cannot be read", "thin_check /"]);
        // Lists and volumes need none of it. A pool of another cannot be compared while it is down.
        let ps = damaged.run(&["rescue", "ps"]);
        assert_eq!(ps.code, Some(if shape == Shape::Named { 0 } else { 5 }), "{}", ps.text());
        let kept = made.volume(names::FORGOTTEN_VOLUME).unwrap().contents.as_ref().unwrap();
        let line = ["volumes", "save", names::FORGOTTEN_VOLUME, "-o", "-"];
        assert!(damaged.run(&line).whole().stdout.len() > kept.len() * 512);
    });
}

fn block(parts: &Parts, at: MetaBlock) -> Result<Vec<u8>, String> {
    let mut block = vec![0; METADATA_BLOCK];
    let file = File::open(&parts[1]).unwrap();
    file.read_exact_at(&mut block, at.get() * METADATA_BLOCK as u64).map_err(|e| e.to_string())?;
    Ok(block)
}

fn superblock(parts: &Parts) -> Superblock {
    Superblock::parse(&block(parts, MetaBlock::new(0)).unwrap()).unwrap()
}

/// Docker's pool, put together for a moment.
struct Pool {
    loops: Vec<String>,
    sectors: u64,
}

impl Pool {
    fn of(parts: &Parts) -> Self {
        let mut pool = Self { loops: Vec::new(), sectors: 0 };
        let [data, metadata] = parts.each_ref().map(|part| {
            if !part.metadata().unwrap().is_file() {
                return part.to_str().unwrap().to_owned();
            }
            let ran = Cmd::new("losetup").args(["--find", "--show"]).arg(part).run();
            let device = ran.checked().unwrap().stdout.trim().to_owned();
            pool.loops.push(device.clone());
            device
        });
        let size = Cmd::new("blockdev").args(["--getsz", &data]).run().checked().unwrap().stdout;
        pool.sectors = size.trim().parse().unwrap();
        let options = "2 skip_block_zeroing error_if_no_space";
        let table = format!("0 {} thin-pool {metadata} {data} {BLOCK} 0 {options}", pool.sectors);
        dmsetup(["create", POOL, "--table", &table]).run().checked().unwrap();
        pool
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = dmsetup(["remove", "--retry", POOL]).run();
        for device in &self.loops {
            let _ = Cmd::new("losetup").args(["-d", device]).run();
        }
    }
}
