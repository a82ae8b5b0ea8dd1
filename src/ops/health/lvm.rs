//! Whether LVM looks after a pool that it made. Its programs are run by `health` only, each with a limit.

use std::path::Path;
use std::time::Duration;

use super::Facts;
use super::ways;
use crate::ops::cost::ONLINE;
use crate::pool::{Activity, Finding, Key, Maker, PoolReport, Severity, VolumeGroup, Way};
use crate::process::{self, quote};
use crate::units::Bytes;

const LARGEST_ANSWER: usize = 64 << 10;
/// The share in use at which LVM never extends a pool (lvm.conf(5), `thin_pool_autoextend_threshold`).
const NEVER: u64 = 100;
/// What of LVM's configuration is asked: by LVM itself, which alone knows which of its files, tags and profiles count.
const SETTINGS: [&str; 3] = [THRESHOLD, PERCENT, THIN_CHECK];
const THRESHOLD: &str = "activation/thin_pool_autoextend_threshold";
const PERCENT: &str = "activation/thin_pool_autoextend_percent";
const THIN_CHECK: &str = "global/thin_check_executable";
/// The name of the profile that the way out makes.
const PROFILE: &str = "thin-autoextend-80";

/// What LVM says of a pool; nothing for what it did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lvm {
    /// Whether dmeventd watches it.
    monitored: Option<bool>,
    /// From which share in use on it is extended.
    threshold: Option<u64>,
    /// By which share of its size.
    percent: Option<u64>,
    /// What its volume group has left.
    free: Option<Bytes>,
    /// In what steps a volume of that group grows.
    extent: Option<Bytes>,
    /// The program that checks the metadata before LVM activates a pool; empty when LVM is told not to check.
    checker: Option<String>,
    /// Whether it is there.
    checker_is_there: bool,
    /// Whether the machine installs packages with apt.
    has_apt: bool,
    /// What LVM did not answer.
    unanswered: Vec<String>,
}

/// Asks LVM about a pool that it made; nothing for a pool of others. A suspended pool is not asked for: LVM reads every
/// device, and would wait for it. Each of its programs has that limit.
pub(super) fn look(pool: &PoolReport, limit: Duration) -> Option<Lvm> {
    let lv = ways::logical_volume(pool).filter(|_| pool.activity == Activity::Active)?;
    let group = lv.split('/').next()?.to_owned();
    let mut lvm = Lvm { has_apt: Path::new("/usr/bin/apt-get").exists(), ..Lvm::default() };
    let mut ask = |program: &str, args: &[&str]| {
        let answer = process::run_within(program, args, limit, LARGEST_ANSWER);
        answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|e| lvm.unanswered.push(e.to_string()))
    };
    let of_pool = ask("lvs", &["--noheadings", "--separator", "|", "-o", "seg_monitor,lv_profile", &lv]);
    let units = ["--noheadings", "--units", "b", "--nosuffix", "--separator", "|", "-o", "vg_free,vg_extent_size"];
    let of_group = ask("vgs", &[&units[..], &[&group]].concat());
    let (monitored, profile) = of_pool.as_deref().map(parse_lvs).unwrap_or_default();
    // Without its profile the answer would be another pool's.
    let settings = of_pool.is_ok().then(|| {
        let profile = profile.iter().flat_map(|profile| ["--metadataprofile", profile]);
        let args: Vec<&str> = ["--typeconfig", "full"].into_iter().chain(profile).chain(SETTINGS).collect();
        ask("lvmconfig", &args).ok()
    });
    let settings = settings.flatten().unwrap_or_default();
    lvm.monitored = monitored;
    lvm.threshold = setting(&settings, THRESHOLD).and_then(|value| value.parse().ok());
    lvm.percent = setting(&settings, PERCENT).and_then(|value| value.parse().ok());
    lvm.checker = setting(&settings, THIN_CHECK);
    lvm.checker_is_there = lvm.checker.as_ref().is_some_and(|program| Path::new(program).exists());
    (lvm.free, lvm.extent) = of_group.as_deref().map(parse_vgs).unwrap_or_default();
    Some(lvm)
}

/// Reads `seg_monitor|lv_profile`: `monitored|docker-thinpool`, `not monitored|`, `|`.
pub(crate) fn parse_lvs(answer: &str) -> (Option<bool>, Option<String>) {
    let (monitor, profile) = two(answer);
    let monitored = match monitor {
        "monitored" => Some(true),
        "not monitored" => Some(false),
        _ => None,
    };
    (monitored, Some(profile.to_owned()).filter(|profile| !profile.is_empty()))
}

/// Reads `vg_free|vg_extent_size` in bytes.
fn parse_vgs(answer: &str) -> (Option<Bytes>, Option<Bytes>) {
    let (free, extent) = two(answer);
    let bytes = |text: &str| text.parse().ok().map(Bytes::new);
    (bytes(free), bytes(extent))
}

/// The two fields of the first line that has something in it.
fn two(answer: &str) -> (&str, &str) {
    let line = answer.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let (first, second) = line.split_once('|').unwrap_or((line, ""));
    (first.trim(), second.trim())
}

/// Returns what `lvmconfig` says a setting is, unquoted: it prints `thin_check_executable="/usr/sbin/thin_check"`.
pub(crate) fn setting(answer: &str, path: &str) -> Option<String> {
    let key = path.rsplit('/').next().unwrap_or(path);
    let value = |line: &str| Some(line.trim().strip_prefix(key)?.strip_prefix('=')?.trim_matches('"').to_owned());
    answer.lines().find_map(value)
}

impl Lvm {
    /// Returns what LVM adds to the pool by itself; nothing when it did not say all that decides.
    pub(super) fn volume_group(&self, pool: &PoolReport) -> Option<VolumeGroup> {
        let lv = ways::logical_volume(pool)?;
        let (free, extent, total) = (self.free?, self.extent?, pool.data_space()?.total);
        let steps = self.monitored? && self.threshold? < NEVER;
        let percent = if steps { self.percent? } else { 0 };
        let name = lv.split('/').next().unwrap_or_default().to_owned();
        Some(VolumeGroup { name, free, adds: VolumeGroup::added_in_steps(total, percent, free, extent) })
    }
}

/// Judges what LVM said.
pub(super) fn judge(facts: &Facts<'_>, lvm: &Lvm) -> Vec<Finding> {
    let pool = facts.pool;
    let Some(lv) = ways::logical_volume(pool).filter(|_| pool.maker == Maker::Lvm) else { return Vec::new() };
    let warning = |key, sentence: String| Finding::new(key, Severity::Warning, &pool.name, sentence);
    let mut findings = Vec::new();
    if lvm.monitored == Some(false) {
        let sentence = "LVM does not watch it: it is not extended by itself".to_owned();
        findings.push(warning(Key::NotMonitored, sentence).run(format!("lvchange --monitor y {lv}"), ONLINE));
    }
    if let Some(threshold) = lvm.threshold.filter(|threshold| *threshold >= NEVER) {
        let sentence = format!("LVM extends it at {threshold}% in use, which is never");
        findings.push(warning(Key::AutoextendOff, sentence).with(autoextend(&lv)));
    }
    findings.extend(group_full(pool, lvm, &lv));
    if let Some(program) = lvm.checker.as_ref().filter(|program| !program.is_empty() && !lvm.checker_is_there) {
        let sentence = format!("LVM cannot check its metadata when it activates it: {program} is not there");
        let package = if lvm.has_apt {
            "apt-get install -y thin-provisioning-tools"
        } else {
            "yum install -y device-mapper-persistent-data"
        };
        findings.push(warning(Key::ThinCheckMissing, sentence).run(package, ONLINE));
    }
    findings.extend(lvm.unanswered.iter().map(|why| {
        Finding::new(Key::NotSeen, Severity::Unknown, &lv, format!("not seen: what LVM says of it: {why}"))
    }));
    findings
}

/// A profile of the pool's own, as Docker's documentation has one; lvm.conf stays as it is, with all other pools.
fn autoextend(lv: &str) -> Way {
    let settings = "activation {\\n\\tthin_pool_autoextend_threshold=80\\n\\tthin_pool_autoextend_percent=20\\n}\\n";
    let file = format!("/etc/lvm/profile/{PROFILE}.profile");
    let command = format!("printf '{settings}' >{file} && lvchange --metadataprofile {PROFILE} {lv}");
    Way::run(command, "online; in place of the profile that it has, when it has one")
}

/// LVM extends by a whole step or not at all.
fn group_full(pool: &PoolReport, lvm: &Lvm, lv: &str) -> Option<Finding> {
    let (free, total) = (lvm.free?, pool.data_space()?.total);
    let percent = lvm.percent.filter(|percent| *percent > 0)?;
    let step = Bytes::new(total.get() / 100 * percent);
    if free >= step {
        return None;
    }
    let group = lv.split('/').next().unwrap_or_default();
    let sentence = format!(
        "its volume group {group} has {} left, less than the {} by which LVM extends it",
        free.human(),
        step.human()
    );
    let finding = Finding::new(Key::VolumeGroupFull, Severity::Warning, group, sentence);
    let finding = finding.act(format!("give the group another disk, with vgextend {group} and its name"), ONLINE);
    // By hand it is given to the pool all the same; one extent is what a volume can have at least.
    let some_left = lvm.extent.is_some_and(|extent| free >= extent);
    Some(if some_left { finding.run(format!("lvextend -l +100%FREE {}", quote(lv)), ONLINE) } else { finding })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::samples::{docker_pool, lvm_pool};

    const MIB: u64 = 1 << 20;

    /// 47.5 GiB of data, 512 KiB blocks.
    fn well() -> Lvm {
        Lvm {
            monitored: Some(true),
            threshold: Some(80),
            percent: Some(20),
            free: Some(Bytes::new(10 << 30)),
            extent: Some(Bytes::new(4 * MIB)),
            checker: Some("/usr/sbin/thin_check".to_owned()),
            checker_is_there: true,
            has_apt: false,
            unanswered: Vec::new(),
        }
    }

    #[test]
    fn what_lvm_prints_is_read() {
        assert_eq!(parse_lvs("  monitored|docker-thinpool\n"), (Some(true), Some("docker-thinpool".to_owned())));
        assert_eq!(parse_lvs("  not monitored|\n"), (Some(false), None));
        assert_eq!(parse_lvs("  |\n"), (None, None));
        assert_eq!(parse_lvs(""), (None, None));
        assert_eq!(parse_vgs("  20971520|4194304\n"), (Some(Bytes::new(20 * MIB)), Some(Bytes::new(4 * MIB))));
        assert_eq!(parse_vgs("  \n"), (None, None));
        let said = "thin_pool_autoextend_threshold=77\nthin_pool_autoextend_percent=20\nthin_check_executable=\"\"\n";
        let values = SETTINGS.map(|path| setting(said, path).unwrap());
        assert_eq!(values, ["77", "20", ""]);
        assert_eq!(setting("thin_check_executable_x=1\n", THIN_CHECK), None);
    }

    #[test]
    fn a_volume_group_and_its_pool_are_found_in_the_dm_name() {
        let named = |name: &str| {
            let pool = PoolReport { name: name.to_owned(), ..lvm_pool() };
            ways::logical_volume(&pool)
        };
        assert_eq!(named("docker-thinpool").as_deref(), Some("docker/thinpool"));
        assert_eq!(named("vg--docker-data--pool-tpool").as_deref(), Some("vg-docker/data-pool"));
        assert_eq!(named("nodash"), None);
        assert_eq!(ways::logical_volume(&docker_pool("0 1/2 3/4", 0)), None);
    }

    #[test]
    fn what_lvm_does_not_look_after_is_told() {
        let pool = lvm_pool();
        let found = |lvm: &Lvm| judge(&Facts::of(&pool), lvm);
        let keys = |lvm: &Lvm| found(lvm).iter().map(|f| f.key).collect::<Vec<_>>();
        let well = well();
        assert_eq!(keys(&well), []);
        assert_eq!(keys(&Lvm { monitored: Some(false), ..well.clone() }), [Key::NotMonitored]);
        assert_eq!(keys(&Lvm { threshold: Some(100), ..well.clone() }), [Key::AutoextendOff]);
        let full = Lvm { free: Some(Bytes::new(9 << 30)), ..well.clone() };
        assert_eq!(
            found(&full)[0].sentence,
            "its volume group docker has 9.0 GiB left, less than the 9.5 GiB by which LVM extends it"
        );
        assert_eq!(found(&full)[0].ways[1].command.as_deref(), Some("lvextend -l +100%FREE docker/thinpool"));
        assert_eq!(found(&Lvm { free: Some(Bytes::new(0)), ..well.clone() })[0].ways.len(), 1);
        assert_eq!(keys(&Lvm { checker_is_there: false, ..well.clone() }), [Key::ThinCheckMissing]);
        let told_not_to = Lvm { checker: Some(String::new()), checker_is_there: false, ..well.clone() };
        assert_eq!(keys(&told_not_to), []);
        assert_eq!(keys(&Lvm { unanswered: vec!["no".to_owned()], ..well }), [Key::NotSeen]);
        assert_eq!(keys(&Lvm::default()), []);
    }

    #[test]
    fn what_lvm_adds_is_told_only_when_it_said_all_that_decides() {
        let pool = lvm_pool();
        let adds = |lvm: &Lvm| lvm.volume_group(&pool).map(|group| group.adds.get());
        // One step of a fifth fits into 10 GiB.
        let step = (50_997_493_760_u64 / 5).next_multiple_of(4 * MIB);
        assert_eq!(adds(&well()), Some(step));
        assert_eq!(adds(&Lvm { monitored: Some(false), ..well() }), Some(0));
        assert_eq!(adds(&Lvm { threshold: Some(100), ..well() }), Some(0));
        for silent in [
            Lvm { monitored: None, ..well() },
            Lvm { threshold: None, ..well() },
            Lvm { percent: None, ..well() },
            Lvm { free: None, ..well() },
        ] {
            assert_eq!(adds(&silent), None);
        }
    }
}
