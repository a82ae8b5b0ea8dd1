//! How a container's root file system is reached with Docker up and without asking it: through its own mount while the
//! container runs, and through a read-only one made here otherwise.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{ask, text};
use crate::guest::docker::Docker;
use crate::guest::inventory::Inventory;
use crate::guest::run::Cmd;
use crate::guest::sys::{self, PREFIX};

/// The containers' root file systems of one Docker.
#[derive(Debug)]
pub struct Roots<'a> {
    docker: &'a Docker,
    /// The driver of what it shows: a test may have given its root another one.
    driver: String,
    pool: String,
    /// File system of the devices.
    kind: String,
}

impl<'a> Roots<'a> {
    /// Asks Docker for its pool, where it has one.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn new(docker: &'a Docker) -> Result<Self> {
        let info = ask("/info")?;
        let pairs = info.get("DriverStatus").and_then(Value::as_array).into_iter().flatten();
        let pairs: Vec<_> = pairs.filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?))).collect();
        let value = |key: &str| pairs.iter().find(|(k, _)| *k == key).map_or(String::new(), |(_, v)| (*v).to_owned());
        let driver = text(&info, "/Driver")?.to_owned();
        Ok(Self { docker, driver, pool: value("Pool Name"), kind: value("Backing Filesystem") })
    }

    /// What Docker says is its storage driver.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What is in a container's root file system; `inspect` is what Docker says of it.
    ///
    /// # Errors
    /// When it cannot be mounted or read.
    pub fn inventory(&self, inspect: &Value) -> Result<Inventory> {
        let (root, driver) = (self.docker.root(), self.driver());
        let layer = root.join(format!("image/{driver}/layerdb/mounts")).join(text(inspect, "/Id")?);
        let layer = fs::read_to_string(layer.join("mount-id")).context("cannot read the mount-id")?;
        let mounts = sys::mounts()?;
        let mounted = |point: &Path| mounts.iter().any(|mount| mount.point == point);
        match driver {
            "devicemapper" => {
                let point = root.join("devicemapper/mnt").join(layer.trim());
                if mounted(&point) {
                    return Inventory::of(&point.join("rootfs"));
                }
                let device = Thin::open(&self.pool, inspect)?;
                let options = if self.kind == "xfs" { "ro,norecovery,nouuid" } else { "ro,noload" };
                let mount = ReadOnly::mount(&["-t", &self.kind, "-o", options, &device.path()])?;
                Inventory::of(&mount.point.join("rootfs"))
            }
            "overlay2" => {
                let data = |key: &str| text(inspect, &format!("/GraphDriver/Data/{key}"));
                let point = Path::new(data("MergedDir")?);
                if mounted(point) {
                    return Inventory::of(point);
                }
                let options = format!("ro,lowerdir={}:{}", data("UpperDir")?, data("LowerDir")?);
                let mount = ReadOnly::mount(&["-t", "overlay", "-o", &options, "overlay"])?;
                Inventory::of(&mount.point)
            }
            "vfs" => Inventory::of(&root.join("vfs/dir").join(layer.trim())),
            other => bail!("no way is known to the containers of the driver {other}"),
        }
    }
}

/// A thin volume of Docker's pool beside Docker's own device of it, read-only.
struct Thin;

impl Thin {
    fn name() -> String {
        format!("{PREFIX}truth")
    }

    fn path(&self) -> String {
        format!("/dev/mapper/{}", Self::name())
    }

    fn open(pool: &str, inspect: &Value) -> Result<Self> {
        let data = |key: &str| text(inspect, &format!("/GraphDriver/Data/{key}"));
        let sectors = data("DeviceSize")?.parse::<u64>()? / 512;
        let table = format!("0 {sectors} thin /dev/mapper/{pool} {}", data("DeviceId")?);
        sys::dmsetup(["create", &Self::name(), "--readonly", "--table", &table]).run().checked()?;
        Ok(Self)
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        let _ = sys::dmsetup(["remove", "--retry", &Self::name()]).run();
    }
}

struct ReadOnly {
    point: PathBuf,
}

impl ReadOnly {
    fn mount(args: &[&str]) -> Result<Self> {
        let point = Path::new("/var/tmp").join(format!("{PREFIX}truth"));
        fs::create_dir_all(&point)?;
        Cmd::new("mount").args(args).arg(&point).run().checked()?;
        Ok(Self { point })
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Cmd::new("umount").arg(&self.point).run();
    }
}
