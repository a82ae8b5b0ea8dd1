//! Volume groups of LVM's on loop devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::guest::disk::LoopDisk;
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::dmsetup;

use super::Bench;

/// Runs one of LVM's programs.
pub fn lvm(args: &[&str]) -> Ran {
    Cmd::new("lvm").args(args).limit(Duration::from_secs(120)).run()
}

/// Runs one that must end well.
#[track_caller]
pub fn lvm_ok(args: &[&str]) -> String {
    lvm(args).checked().unwrap().stdout
}

/// A volume group, taken apart again at the end with all that is in it.
pub struct Group {
    pub name: String,
    disks: Vec<LoopDisk>,
    whole: Option<PathBuf>,
}

impl Group {
    /// One on a disk of that many MiB.
    pub fn new(bench: &Bench, what: &str, mib: u64) -> Self {
        let name = bench.sweep.name(what);
        let disk = disk(bench, &format!("{what}-0"), mib);
        lvm_ok(&["vgcreate", "-y", &name, disk.device().to_str().unwrap()]);
        Self { name, disks: vec![disk], whole: None }
    }

    /// One on a disk of the machine's.
    pub fn on(bench: &Bench, what: &str, disk: &Path) -> Self {
        let name = bench.sweep.name(what);
        // What another test has left there.
        Cmd::new("wipefs").args(["-a", "-q"]).arg(disk).run().checked().unwrap();
        lvm_ok(&["vgcreate", "-y", &name, disk.to_str().unwrap()]);
        Self { name, disks: Vec::new(), whole: Some(disk.to_owned()) }
    }

    /// Gives it another disk.
    pub fn extend(&mut self, bench: &Bench, mib: u64) {
        let disk = disk(bench, &format!("{}-{}", self.name, self.disks.len()), mib);
        lvm_ok(&["vgextend", "-y", &self.name, disk.device().to_str().unwrap()]);
        self.disks.push(disk);
    }

    /// The device of one of its disks.
    pub fn disk(&self, number: usize) -> &str {
        self.disks[number].device().to_str().unwrap()
    }

    /// The file of one of its disks.
    pub fn file(&self, number: usize) -> &str {
        self.disks[number].file().to_str().unwrap()
    }

    /// Makes an LV of that many MiB.
    pub fn volume(&self, name: &str, mib: u64) -> String {
        lvm_ok(&["lvcreate", "-y", "-W", "y", "-L", &format!("{mib}M"), "-n", name, &self.name]);
        format!("/dev/{}/{name}", self.name)
    }

    /// `GROUP/LV`.
    pub fn word(&self, volume: &str) -> String {
        format!("{}/{volume}", self.name)
    }

    /// What it has left, in MiB.
    pub fn free(&self) -> u64 {
        self.number(&["vgs", "-o", "vg_free", &self.name])
    }

    /// How long an LV is, in MiB.
    pub fn size(&self, volume: &str) -> u64 {
        self.number(&["lvs", "-o", "lv_size", &self.word(volume)])
    }

    fn number(&self, args: &[&str]) -> u64 {
        let [program, rest @ ..] = args else { panic!("{args:?}") };
        let said = lvm_ok(&[&[*program, "--noheadings", "--nosuffix", "--units", "b"], rest].concat());
        said.trim().parse::<u64>().unwrap() >> 20
    }

    /// The names of its LVs, LVM's inner ones too.
    pub fn names(&self) -> Vec<String> {
        let said = lvm_ok(&["lvs", "-a", "--noheadings", "-o", "lv_name", &self.name]);
        said.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = lvm(&["vgremove", "-f", "-y", &self.name]);
        for disk in self.disks.iter().map(LoopDisk::device).chain(self.whole.as_deref()) {
            let _ = lvm(&["pvremove", "-ff", "-y", disk.to_str().unwrap()]);
        }
    }
}

fn disk(bench: &Bench, name: &str, mib: u64) -> LoopDisk {
    LoopDisk::create(&bench.sweep.path(name), mib << 20).unwrap()
}

/// All that LVM says of the machine but of these LVs; of their groups what an LV that comes, grows or goes does not change.
pub fn all_but(volumes: &[&str]) -> String {
    let report = |program: &str, more: &[&str]| {
        let args = [&[program, "--reportformat", "json", "--units", "b", "--nosuffix"], more].concat();
        let said: serde_json::Value = serde_json::from_str(&lvm_ok(&args)).unwrap();
        let of = &said["report"][0][program.trim_end_matches('s')];
        of.as_array().unwrap_or_else(|| panic!("{said:#}")).clone()
    };
    let is_theirs = |row: &serde_json::Value| {
        let name = row["lv_full_name"].as_str().unwrap_or_default();
        volumes.contains(&name)
    };
    let groups: Vec<&str> = volumes.iter().map(|name| name.split('/').next().unwrap()).collect();
    let mut lines: Vec<String> = report("lvs", &["-a", "-o", "lv_all,seg_all"])
        .iter()
        .filter(|row| !is_theirs(row))
        .map(ToString::to_string)
        .collect();
    for mut group in report("vgs", &["-o", "vg_all"]) {
        if groups.contains(&group["vg_name"].as_str().unwrap()) {
            let keep = ["vg_name", "vg_uuid", "vg_attr", "vg_extent_size", "vg_tags", "vg_profile", "vg_permissions"];
            group.as_object_mut().unwrap().retain(|key, _| keep.contains(&key.as_str()));
        }
        lines.push(group.to_string());
    }
    lines.push(lvm_ok(&["pvs", "-o", "pv_name,pv_uuid,vg_name,pv_attr,pv_size,pv_tags"]));
    lines.join("\n")
}

/// Makes a pool by hand, as Docker makes one on `dm.datadev`.
pub fn by_hand(name: &str, data: &str, metadata: &str, mib: u64) {
    let table = format!("0 {} thin-pool {metadata} {data} 128 0 1 skip_block_zeroing", mib * 2048);
    dmsetup(["create", name, "--table", &table]).run().checked().unwrap();
}

/// Whether a device is there.
pub fn is_there(path: &str) -> bool {
    Path::new(path).exists()
}
