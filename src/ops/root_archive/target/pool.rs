//! A root for devicemapper: a pool on two files in it, as Docker makes one by itself, and brings up when it starts.

use std::path::Path;

use anyhow::Context;

use super::{AskedPool, Next, Refuse, Steps};
use crate::engine::configure::docker::key_of;
use crate::engine::driver::Driver;
use crate::engine::options::StorageOptions;
use crate::engine::version::{Known, Version, installed};
use crate::error::{Failure, Outcome};
use crate::kernel::fs::FsFacts;
use crate::ops::contents::devicemapper::{self, BESIDE, Fits, Inner, LONGEST, Source, Tried, Unmade, Wanted};
use crate::ops::contents::overlay2;
use crate::ops::filesystem::in_kernel;
use crate::ops::root_archive::complete::{self, Complete, UNPACKED};
use crate::ops::root_archive::contents::{Contents, Item};
use crate::ops::root_archive::place::Staging;
use crate::ops::root_archive::weight::Weight;
use crate::ops::steps::Kit;
use crate::ops::{State, gate};
use crate::process;
use crate::units::{BlockSize, Bytes, MAX_META_BLOCKS};

/// What Docker makes by itself (`NewDeviceSet`, daemon/graphdriver/devmapper/deviceset.go; the base device of 1.8 and 1.9 was longer).
const DATA: Bytes = Bytes::new(100 << 30);
const METADATA: Bytes = Bytes::new(2 << 30);
const BASE: Bytes = Bytes::new(10 << 30);
/// The kernel takes no less for metadata.
const LEAST: Bytes = Bytes::new(2 << 20);
/// The first Docker that has no devicemapper.
const GONE: Version = Version::new(25, 0);
/// What a volume takes of its own at most, beside its files: what mounting writes, and blocks that are not full.
const EACH: u64 = 4 << 20;
/// What Docker keeps free before it makes a layer, in hundredths, when it is not told (`dm.min_free_space`).
const KEPT: u8 = 10;
/// What a proposed size is a multiple of.
const ROUND: u64 = 1 << 30;
/// Where options are told.
const FILE: &str = "/etc/docker/daemon.json";

/// The pool that is made.
#[derive(Debug)]
pub(in crate::ops::root_archive) struct Pool {
    kit: Kit,
    wanted: Wanted,
    /// A file system as the base device will have one; nothing while a load that was killed may have taken the room for it.
    tried: Option<Tried>,
    /// How many hundredths Docker keeps free.
    kept: u8,
    /// The files that Docker would make longer.
    grown: Vec<Grown>,
}

/// A file that Docker makes longer when it starts (`ensureImage`, daemon/graphdriver/devmapper/deviceset.go).
#[derive(Debug, PartialEq, Eq)]
struct Grown {
    what: &'static str,
    /// The option that keeps it as it is.
    option: String,
    size: Bytes,
    to: Bytes,
}

impl Pool {
    /// Takes what is asked for, what Docker is told, and what it does by itself, in that order; tries whether such a base device can be.
    pub(super) fn of(asked: &AskedPool, next: &Next, there: &Path, state: &State, refuse: Refuse<'_>) -> Outcome<Self> {
        may_start(next, refuse)?;
        let kit = gate::open(state.clone())?;
        gate::may_change(&kit)?;
        let given = next.configuration.given_options();
        let options = StorageOptions::parse(given.iter().copied());
        has_own_files(&options, refuse)?;
        let told = |key: &str| {
            let values = given.iter().filter(|option| key_of(option) == key);
            values
                .filter_map(|option| option.split_once('='))
                .map(|(_, value)| value.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let block = told("dm.blocksize").pop().map_or(Ok(BlockSize::DEFAULT), |text| {
            let size = Bytes::parse(&text).map_err(|e| e.to_string());
            size.and_then(|size| BlockSize::of_bytes(size).map_err(|e| e.to_string()))
        });
        let block = block.map_err(|why| unfit(refuse, "dm.blocksize", &why))?;
        let inner = told("dm.fs").pop().map(|name| {
            Inner::named(&name).ok_or_else(|| unfit(refuse, "dm.fs", &format!("`{name}` is neither xfs nor ext4")))
        });
        let inner =
            agreed(asked.inner, inner.transpose()?, ("--fs", "dm.fs"), &|inner| inner.name().to_owned(), refuse)?;
        let size = |asked, told, names| agreed(asked, told, names, &Bytes::typed, refuse);
        let wanted = Wanted {
            data: size(asked.data, options.loop_data_size, ("--data-size", "dm.loopdatasize"))?.unwrap_or(DATA),
            metadata: size(asked.metadata, options.loop_metadata_size, ("--metadata-size", "dm.loopmetadatasize"))?
                .unwrap_or(METADATA),
            block,
            base: size(asked.base, options.base_size, ("--base-size", "dm.basesize"))?.unwrap_or(BASE),
            inner: file_system(inner, refuse)?,
            arguments: told("dm.mkfsarg"),
        };
        can_be(&wanted, refuse)?;
        let grown = grown(&options, &wanted);
        if next.is_here {
            lasts(&grown, refuse)?;
        }
        let tried = if Staging::has_leavings_in(there) { None } else { Some(tried(&wanted, there, refuse)?) };
        let kept = options.min_free_space_percent.unwrap_or(KEPT);
        Ok(Self { kit, wanted, tried, kept, grown })
    }

    /// Tries the file system when it was not yet tried, now that nothing is left there.
    pub(super) fn begin(&mut self, there: &Path, refuse: Refuse<'_>) -> Outcome<()> {
        if self.tried.is_none() {
            self.tried = Some(tried(&self.wanted, there, refuse)?);
        }
        Ok(())
    }

    /// Returns what is to be known of it.
    pub(super) fn notes(&self, next: &Next) -> Vec<String> {
        let Wanted { data, metadata, base, inner, .. } = &self.wanted;
        let mut notes = vec![format!(
            "the pool is two sparse files, of {} for data and {} for metadata; images and containers have an {} of {}",
            data.human(),
            metadata.human(),
            inner.name(),
            base.human()
        )];
        if self.tried.is_none() {
            notes.push(
                "whether such a file system can be made is tried once what a killed load has left is removed"
                    .to_owned(),
            );
        }
        // Of a root that is not the next Docker's nobody knows what will be told.
        notes.extend(self.grown.iter().map(|Grown { what, option, size, to }| {
            format!(
                "a Docker that is not told {option} makes the {what} of {} {} long when it starts",
                size.human(),
                to.human()
            )
        }));
        if next.is_here && next.configuration.driver().is_none() {
            notes.push(format!(
                "Docker is told no storage driver, and takes devicemapper when that is there; from 23.0 on it must be told: \
                 \"storage-driver\": \"devicemapper\" in {FILE}"
            ));
        }
        notes
    }

    /// Refuses what does not fit into the file system.
    pub(super) fn has_room(&self, contents: &Contents, weight: &Weight, there: &Path, root: &Path) -> Outcome<()> {
        let layers = contents.count(|item| matches!(item, Item::Layer { .. }));
        let of_layers = u64::try_from(layers).unwrap_or(u64::MAX).saturating_mul(EACH);
        // The layers leave their directories one by one: the largest is there twice for a time.
        let largest = weight.largest_layer().get();
        let tried = self.tried.as_ref().map_or(0, |tried| tried.takes.get());
        let all = [of_layers, tried, weight.of_entries().get(), largest, largest / 16, BESIDE.get()];
        let all = Bytes::new(all.into_iter().fold(contents.bytes, u64::saturating_add));
        // What cannot be known is met when it is written.
        let Ok(facts) = FsFacts::of(there) else { return Ok(()) };
        if all <= facts.available {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "cannot load into the Docker root `{}`: the file system at {} is too small",
            root.display(),
            facts.mount_point.display()
        ))
        .fact("needed", format!("about {}, the largest layer twice", all.exact()))
        .fact("free", facts.available.exact())
        .fact("state", "nothing was touched")
        .next("make room there, or name a root on another file system with --root"))
    }

    /// Returns how many hundredths of the pool Docker fills.
    const fn usable(&self) -> u8 {
        100_u8.saturating_sub(self.kept)
    }

    fn is_full(&self, needed: Bytes) -> Failure {
        let proposed = (needed.get() / u64::from(self.usable().max(1))).saturating_mul(100);
        let proposed = Bytes::new(proposed.max(self.wanted.data.get()).saturating_add(ROUND) / ROUND * ROUND);
        Failure::refused("cannot load the archive: it does not fit into the pool".to_owned())
            .fact("needed", format!("about {}; Docker makes nothing more in the last {} %", needed.human(), self.kept))
            .fact("found", format!("a data file of {}", self.wanted.data.human()))
            .fact("state", "nothing was put in place; what was made is removed")
            .next(format!(
                "--data-size {0}, or dm.loopdatasize={0} where Docker is told one; the file is sparse",
                proposed.typed()
            ))
    }

    fn has_full_metadata(&self, used: Bytes) -> Failure {
        let proposed = self.wanted.metadata.get().max(LEAST.get()).saturating_mul(2).min(MAX_META_BLOCKS.bytes().get());
        Failure::refused("cannot load the archive: the pool's metadata has no room for it".to_owned())
            .fact(
                "needed",
                format!("more than {}; Docker makes nothing more in the last {} %", used.human(), self.kept),
            )
            .fact("found", format!("a metadata file of {}", self.wanted.metadata.human()))
            .fact("state", "nothing was put in place; what was made is removed")
            .next(format!(
                "--metadata-size {0}, or dm.loopmetadatasize={0} where Docker is told one; the file is sparse",
                Bytes::new(proposed).typed()
            ))
    }

    /// Makes the pool, and takes it down again.
    pub(super) fn make(
        &self,
        new: &Path,
        whole: &Complete,
        contents: &Contents,
        steps: &Steps<'_>,
    ) -> Outcome<Vec<String>> {
        let Complete { objects, parts, .. } = whole;
        devicemapper::may_be_named(parts).map_err(steps.bad)?;
        let tried = self.tried.as_ref().context("no file system was tried").map_err(steps.bad)?;
        let layers = new.join(overlay2::LAYERS);
        let source = Source { objects, parts, layers: &layers };
        let home = new.join(Driver::Devicemapper.name());
        let mut said = |number| steps.tell("making volumes", number, parts.len(), contents);
        let made = devicemapper::make(
            &self.kit.dm,
            &home,
            &self.wanted,
            &Fits {
                tried,
                most: Bytes::new(self.wanted.data.get() / 100 * u64::from(self.usable())),
                each: EACH,
                kept: self.kept,
            },
            &source,
            &|| steps.goes_on(),
            &mut said,
        );
        let differing = made.map_err(|why| self.unmade(why, steps))?;
        let (image, driver) = (UNPACKED.name(), Driver::Devicemapper);
        let read = complete::named(new, contents, image, driver).and_then(|()| complete::read(new, driver));
        let (now, found) = read.map_err(steps.bad)?;
        if found != *parts {
            return Err((steps.bad)(anyhow::anyhow!("what was made of it has other layers")));
        }
        self.has_no_namesake(now.device_prefix.as_deref())?;
        Ok(differing)
    }

    /// Refuses while a device has a name that Docker would give one of this root: it takes what is there, whatever that is. The names go by
    /// the directory's inode, which stays when it is renamed into its place, and may have been another's.
    fn has_no_namesake(&self, prefix: Option<&str>) -> Outcome<()> {
        let state = "nothing was put in place; what was made is removed";
        let failed = |why: &str| Failure::failed(format!("cannot load the archive: {why}")).fact("state", state);
        let prefix = prefix.ok_or_else(|| failed("how Docker will name its devices cannot be told"))?;
        let devices = self.kit.dm.list().map_err(|e| failed("the kernel's devices cannot be listed").because(e))?;
        let Some(name) = devices.iter().map(|device| device.name.as_str()).find(|name| is_named(name, prefix)) else {
            return Ok(());
        };
        Err(Failure::refused(format!(
            "cannot load the archive: a device `{name}` is there, and Docker would take it for one of this root"
        ))
        .fact("state", state)
        .next(format!("dmsetup remove {name}    # when nobody uses it; then run this again")))
    }

    fn unmade(&self, why: Unmade, steps: &Steps<'_>) -> Failure {
        let says = |why: String| {
            Failure::refused(format!("cannot load the archive: {why}"))
                .fact("state", "nothing was put in place; what was made is removed")
        };
        match why {
            Unmade::TooSmall { whose, size, holds } => {
                let proposed = holds.get().saturating_add(holds.get() / 8).max(size.get());
                let proposed = Bytes::new(proposed.saturating_add(ROUND) / ROUND * ROUND);
                says(format!("what is in {} does not fit into its volume", whose.escape_debug()))
                    .fact(
                        "found",
                        format!("a volume of {}; in it and those beneath are up to {}", size.human(), holds.human()),
                    )
                    .next(format!(
                        "--base-size {0}, or dm.basesize={0} where Docker is told one; no more is taken than is written",
                        proposed.typed()
                    ))
            }
            Unmade::TooLong { whose, size, longest } => {
                let failure = says(format!("{} wants a volume that is too long", whose.escape_debug()))
                    .fact("found", format!("a size of {}; it may have {}", size.exact(), longest.human()));
                let leave = "leave it out where the archive is made:  dmpool save --without NAME";
                if size > LONGEST {
                    return failure.next(leave);
                }
                let proposed = Bytes::new(size.get().saturating_add(ROUND) / ROUND * ROUND).typed();
                failure.next(format!(
                    "--data-size {proposed}, or dm.loopdatasize={proposed} where Docker is told one; the file is sparse. Or {leave}"
                ))
            }
            Unmade::NoSize { whose, told } => {
                says(format!("how large container {} is cannot be read", whose.escape_debug()))
                    .fact("found", format!("StorageOpt size={}", told.escape_debug()))
                    .next("leave it out where the archive is made:  dmpool save --without NAME")
            }
            Unmade::PoolFull { needed } => self.is_full(needed),
            Unmade::MetadataFull { used } => self.has_full_metadata(used),
            Unmade::DiskFull { free, needed } => {
                says("the file system that the root is on has no room left".to_owned())
                    .fact("needed", needed.exact())
                    .fact("free", free.exact())
                    .next("make room there, or name a root on another file system with --root")
            }
            Unmade::Other(why) if steps.held.came() => says("a signal came".to_owned()).because(why),
            Unmade::Other(why) => Failure::failed("cannot load the archive: its pool cannot be made")
                .because(why)
                .fact("state", "nothing was put in place; what was made is removed")
                .next("dmesg | tail    # may say more"),
        }
    }
}

/// Refuses where Docker would start with another storage driver, or has none such.
fn may_start(next: &Next, refuse: Refuse<'_>) -> Outcome<()> {
    let name = Driver::Devicemapper.name();
    let other = next.configuration.driver().filter(|driver| next.is_here && *driver != name);
    if let Some(driver) = other {
        return Err(refuse(format!("Docker is told the storage driver {driver}, and would not show what is loaded"))
            .next(format!("have \"storage-driver\": \"{name}\" in {FILE}, without storage-opts of another driver")));
    }
    has_driver(installed(Path::new("/")), refuse)
}

/// Refuses a Docker that has no such driver.
fn has_driver(docker: Option<Known>, refuse: Refuse<'_>) -> Outcome<()> {
    match docker.filter(|docker| docker.exact && docker.version >= GONE) {
        Some(docker) => Err(refuse(format!("Docker {} has no devicemapper any more", docker.version))
            .fact("found", docker.mark)
            .next("leave --driver out: overlay2 is what it has")),
        None => Ok(()),
    }
}

/// Refuses where Docker is told a pool, or devices for one.
fn has_own_files(options: &StorageOptions, refuse: Refuse<'_>) -> Outcome<()> {
    if let Some(option) = options.unreadable.iter().find(|option| option.starts_with("dm.")) {
        return Err(unfit(refuse, option, "it cannot be read, and Docker may read it otherwise"));
    }
    let found = options.named_pool().map(|pool| format!("the pool {pool}"));
    let found = found.or_else(|| options.data_device.clone()).or_else(|| options.metadata_device.clone());
    let Some(found) = found else { return Ok(()) };
    Err(refuse("Docker is told a pool or devices of its own, and load makes files in the root".to_owned())
        .fact("found", found)
        .next(format!(
            "take dm.thinpooldev, dm.directlvm_device, dm.datadev and dm.metadatadev out of {FILE}, run this again, start Docker, and  dmpool \
             migrate --name NAME --data-device DISK  carries it onto a disk"
        )))
}

/// Whether a device is one of the root whose devices begin with that.
fn is_named(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}

fn unfit(refuse: Refuse<'_>, option: &str, why: &str) -> Failure {
    refuse(format!("Docker's option {option} cannot be followed: {why}"))
        .next(format!("change it in {FILE}, then run this again"))
}

/// Returns what is asked for, or else told. Docker would make something else of it, or not start, were these two things.
fn agreed<T: Clone + PartialEq>(
    asked: Option<T>,
    told: Option<T>,
    (flag, option): (&str, &str),
    shown: &dyn Fn(T) -> String,
    refuse: Refuse<'_>,
) -> Outcome<Option<T>> {
    match (asked, told) {
        (Some(asked), Some(told)) if asked != told => {
            Err(refuse(format!("Docker is told another {option}, and goes by that when it starts"))
                .fact("found", format!("{option}={}; {flag} {}", shown(told), shown(asked)))
                .next(format!("leave {flag} out, or change {option} in {FILE}")))
        }
        (asked, told) => Ok(asked.or(told)),
    }
}

/// Returns the files that Docker would make longer: those shorter than what it takes where it is told nothing.
fn grown(options: &StorageOptions, wanted: &Wanted) -> Vec<Grown> {
    let of_data = ("data file", "dm.loopdatasize", options.loop_data_size, wanted.data, DATA);
    let of_metadata = ("metadata file", "dm.loopmetadatasize", options.loop_metadata_size, wanted.metadata, METADATA);
    let grown = [of_data, of_metadata].into_iter().filter(|(_, _, told, size, to)| told.is_none() && size < to);
    grown.map(|(what, key, _, size, to)| Grown { what, option: format!("{key}={}", size.typed()), size, to }).collect()
}

/// Refuses sizes that would not last.
fn lasts(grown: &[Grown], refuse: Refuse<'_>) -> Outcome<()> {
    let Some(first) = grown.first() else { return Ok(()) };
    let said: Vec<_> = grown.iter().map(|Grown { option, .. }| format!("\"{option}\"")).collect();
    let why = format!("Docker would make the pool's {} {} long when it starts", first.what, first.to.human());
    let found = |grown: &Grown| {
        format!(
            "a {} of {} is wanted; Docker makes it {} where it is told nothing",
            grown.what,
            grown.size.human(),
            grown.to.human()
        )
    };
    Err(grown.iter().fold(refuse(why), |failure, grown| failure.fact("found", found(grown))).next(format!(
        "put {} among the storage-opts in {FILE}, then run this again; or leave the size out: the files are sparse",
        said.join(" and ")
    )))
}

/// Returns the file system: XFS where it can be made and mounted, as Docker chooses (`determineDefaultFS`, deviceset.go).
fn file_system(wanted: Option<Inner>, refuse: Refuse<'_>) -> Outcome<Inner> {
    let missing = |inner: Inner| inner.programs().iter().find(|program| !process::is_there(program));
    let can = |inner: Inner| missing(inner).is_none() && in_kernel(inner.name()).is_ok();
    let inner = wanted.unwrap_or(if can(Inner::Xfs) { Inner::Xfs } else { Inner::Ext4 });
    if let Some(program) = missing(inner) {
        let package = if inner == Inner::Xfs { "xfsprogs" } else { "e2fsprogs" };
        return Err(refuse(format!("there is no {program}, which makes the file systems"))
            .next(format!("install {package}, then run this again")));
    }
    in_kernel(inner.name()).map_err(|why| {
        refuse(format!("the kernel has no {}", inner.name()))
            .fact("found", why)
            .next(format!("modprobe {}    # says why not", inner.name()))
    })?;
    Ok(inner)
}

/// Refuses sizes that nothing can have.
fn can_be(wanted: &Wanted, refuse: Refuse<'_>) -> Outcome<()> {
    let Wanted { data, metadata, block, .. } = wanted;
    for (what, flag, size, least) in
        [("data", "--data-size", *data, block.bytes()), ("metadata", "--metadata-size", *metadata, LEAST)]
    {
        if size < least || size.sectors().bytes() != size {
            return Err(refuse(format!("the pool cannot have {} of {what}", size.exact()))
                .fact("needed", format!("at least {}, in sectors of 512 bytes", least.human()))
                .next(format!("{flag} with more")));
        }
    }
    Ok(())
}

/// Makes a file system as the base device will have one, where the pool will be.
fn tried(wanted: &Wanted, there: &Path, refuse: Refuse<'_>) -> Outcome<Tried> {
    Tried::or_refused(there, wanted.inner, &wanted.arguments, wanted.base, refuse)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refuse(why: String) -> Failure {
        Failure::refused(why)
    }

    #[test]
    fn a_docker_that_has_no_devicemapper_is_refused() {
        let known = |major, exact| Some(Known { version: Version::new(major, 0), exact, mark: "a package".to_owned() });
        assert!(has_driver(known(25, true), &refuse).unwrap_err().what.contains("Docker 25.0 has no devicemapper"));
        for docker in [known(24, true), known(28, false), None] {
            has_driver(docker, &refuse).unwrap();
        }
    }

    #[test]
    fn what_docker_is_told_and_what_is_asked_are_one() {
        let agreed = |asked, told| agreed(asked, told, ("--fs", "dm.fs"), &|fs: &str| fs.to_owned(), &refuse);
        assert_eq!(agreed(None, None).unwrap(), None);
        for (asked, told) in [(Some("xfs"), None), (None, Some("xfs")), (Some("xfs"), Some("xfs"))] {
            assert_eq!(agreed(asked, told).unwrap(), Some("xfs"));
        }
        let other = agreed(Some("xfs"), Some("ext4")).unwrap_err();
        assert!(other.facts.iter().any(|fact| fact.value == "dm.fs=ext4; --fs xfs"), "{other:?}");
    }

    #[test]
    fn a_file_that_docker_would_make_longer_is_refused() {
        let wanted = |data: u64, metadata: u64| Wanted {
            data: Bytes::new(data << 30),
            metadata: Bytes::new(metadata << 30),
            block: BlockSize::DEFAULT,
            base: BASE,
            inner: Inner::Xfs,
            arguments: Vec::new(),
        };
        let said = |told: &[&str], data, metadata| {
            let grown = grown(&StorageOptions::parse(told.iter().copied()), &wanted(data, metadata));
            lasts(&grown, &refuse).err().map(|failure| (failure.what, failure.next.unwrap()))
        };
        let (what, next) = said(&[], 20, 1).unwrap();
        assert!(what.contains("make the pool's data file 100.0 GiB long"), "{what}");
        assert!(next.contains("\"dm.loopdatasize=20G\" and \"dm.loopmetadatasize=1G\""), "{next}");
        let told = ["dm.loopdatasize=20G", "dm.loopmetadatasize=1G"];
        for (told, data, metadata) in [(&told[..], 20, 1), (&[], 100, 2), (&[], 200, 4), (&told[..1], 20, 2)] {
            assert_eq!(said(told, data, metadata), None);
        }
        assert!(!said(&told[1..], 20, 1).unwrap().1.contains("metadata"));
    }

    #[test]
    fn a_device_of_another_root_is_no_namesake() {
        assert!(is_named("docker-8:1-12-pool", "docker-8:1-12") && is_named("docker-8:1-12-base", "docker-8:1-12"));
        assert!(!is_named("docker-8:1-123-pool", "docker-8:1-12") && !is_named("docker-8:1-12", "docker-8:1-12"));
    }

    #[test]
    fn a_pool_that_is_elsewhere_is_refused() {
        let of = |option: &str| has_own_files(&StorageOptions::parse([option]), &refuse);
        of("dm.basesize=20G").unwrap();
        for option in ["dm.thinpooldev=p0", "dm.directlvm_device=/dev/sdb", "dm.datadev=/dev/sdb", "dm.basesize=x"] {
            of(option).unwrap_err();
        }
    }
}
