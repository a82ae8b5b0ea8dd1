//! Whether LVM looks after a pool that it made. Its programs are run by `health` only, each with a limit.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Facts;
use super::ways::{self, ONLINE};
use crate::pool::{Activity, Finding, Key, Maker, PoolReport, Severity};
use crate::process;
use crate::units::Bytes;

const LARGEST_ANSWER: usize = 64 << 10;
const LVM_CONF: &str = "/etc/lvm/lvm.conf";
/// The share at which LVM extends a pool when nobody set one: never (lvm.conf(5), `thin_pool_autoextend_threshold`).
const NEVER: u8 = 100;

/// What LVM says of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lvm {
    /// Whether dmeventd watches it; unknown when LVM does not say.
    monitored: Option<bool>,
    /// From which share in use on it is extended.
    threshold: Option<u8>,
    /// What its volume group has left.
    free: Option<Bytes>,
    /// Whether the program is there that LVM checks metadata with before it activates a pool.
    thin_check: Option<bool>,
    /// What LVM did not answer.
    unanswered: Vec<String>,
}

/// Asks LVM about a pool that it made; nothing for a pool of others. A suspended pool is not asked for: LVM reads every
/// device, and would wait for it. Each of its programs has that limit.
pub(super) fn look(pool: &PoolReport, limit: Duration) -> Option<Lvm> {
    let lv = ways::logical_volume(pool).filter(|_| pool.activity == Activity::Active)?;
    let group = lv.split('/').next()?.to_owned();
    let mut lvm = Lvm::default();
    let ask = |program: &str, args: &[&str]| process::run_within(program, args, limit, LARGEST_ANSWER);
    match ask("lvs", &["--noheadings", "--separator", "|", "-o", "seg_monitor,lv_profile", &lv]) {
        Ok(answer) => {
            let (monitored, profile) = parse_lvs(&String::from_utf8_lossy(&answer));
            lvm.monitored = monitored;
            lvm.threshold = Some(threshold(profile.as_deref()));
        }
        Err(e) => lvm.unanswered.push(e.to_string()),
    }
    match ask("vgs", &["--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", &group]) {
        Ok(answer) => lvm.free = String::from_utf8_lossy(&answer).trim().parse().ok().map(Bytes::new),
        Err(e) => lvm.unanswered.push(e.to_string()),
    }
    let conf = fs::read_to_string(LVM_CONF).unwrap_or_default();
    let program = setting(&conf, "thin_check_executable").unwrap_or_else(|| "/usr/sbin/thin_check".to_owned());
    // An empty name is how LVM is told not to check.
    lvm.thin_check = (!program.is_empty()).then(|| Path::new(&program).exists());
    Some(lvm)
}

/// Reads `seg_monitor|lv_profile`: `monitored|docker-thinpool`, `not monitored|`, `|`.
pub(crate) fn parse_lvs(answer: &str) -> (Option<bool>, Option<String>) {
    let line = answer.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let (monitor, profile) = line.split_once('|').unwrap_or((line, ""));
    let monitored = match monitor.trim() {
        "monitored" => Some(true),
        "not monitored" => Some(false),
        _ => None,
    };
    (monitored, Some(profile.trim().to_owned()).filter(|profile| !profile.is_empty()))
}

/// Returns the share from which on a pool is extended: its profile's, else that of lvm.conf.
fn threshold(profile: Option<&str>) -> u8 {
    const KEY: &str = "thin_pool_autoextend_threshold";
    let read = |path: &Path| setting(&fs::read_to_string(path).ok()?, KEY)?.parse().ok();
    // A profile is a file's name and nothing else.
    let profile = profile.filter(|name| !name.contains('/'));
    profile
        .and_then(|name| read(&Path::new("/etc/lvm/profile").join(format!("{name}.profile"))))
        .or_else(|| read(Path::new(LVM_CONF)))
        .unwrap_or(NEVER)
}

/// Returns what a text in LVM's own syntax sets a key to, unquoted; the last one counts.
pub(crate) fn setting(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        // `activation/thin_pool…=70` and `activation { thin_pool…=70` are the same.
        let (name, value) = line.split_once('=')?;
        let name = name.rsplit(['/', '{']).next().unwrap_or_default().trim();
        let value = value.trim().trim_end_matches('}').trim().trim_matches('"');
        (name == key).then(|| value.to_owned())
    };
    text.lines().filter_map(value).next_back()
}

/// Judges what LVM said.
pub(super) fn judge(facts: &Facts<'_>, lvm: &Lvm) -> Vec<Finding> {
    let pool = facts.pool;
    let Some(lv) = ways::logical_volume(pool).filter(|_| pool.maker == Maker::Lvm) else { return Vec::new() };
    let group = lv.split('/').next().unwrap_or_default();
    let warning = |key, sentence: String| Finding::new(key, Severity::Warning, &pool.name, sentence);
    let mut findings = Vec::new();
    if lvm.monitored == Some(false) {
        let sentence = "LVM does not watch it: it is not extended by itself".to_owned();
        findings.push(warning(Key::NotMonitored, sentence).way(format!("lvchange --monitor y {lv}"), ONLINE));
    }
    if let Some(threshold) = lvm.threshold.filter(|threshold| *threshold >= NEVER) {
        let sentence = format!("LVM extends it at {threshold}% in use, which is never");
        findings.push(
            warning(Key::AutoextendOff, sentence)
                .way(format!("thin_pool_autoextend_threshold = 80 in the section activation of {LVM_CONF}"), ONLINE),
        );
    }
    // A tenth of the pool is less than the 20 % that LVM takes at a time.
    let least = pool.data_space().map(|space| space.total.get() / 10);
    if let (Some(free), Some(least)) = (lvm.free, least)
        && free.get() < least
    {
        let sentence = format!("its volume group {group} has {} left to extend it with", free.human());
        let mut finding = warning(Key::VolumeGroupFull, sentence);
        finding.object = group.to_owned();
        findings.push(finding.way(format!("vgextend {group} /dev/disk/by-id/NEW_DISK"), ONLINE));
    }
    if lvm.thin_check == Some(false) {
        let sentence = "thin_check is not installed: LVM does not activate it after the next boot".to_owned();
        findings.push(
            warning(Key::ThinCheckMissing, sentence)
                .way("yum install device-mapper-persistent-data", ONLINE)
                .way("apt-get install thin-provisioning-tools", ONLINE),
        );
    }
    findings.extend(lvm.unanswered.iter().map(|why| {
        Finding::new(Key::NotSeen, Severity::Unknown, &lv, format!("not seen: what LVM says of it: {why}"))
    }));
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::samples::{docker_pool, lvm_pool};

    #[test]
    fn lvs_says_whether_it_watches() {
        assert_eq!(parse_lvs("  monitored|docker-thinpool\n"), (Some(true), Some("docker-thinpool".to_owned())));
        assert_eq!(parse_lvs("  not monitored|\n"), (Some(false), None));
        assert_eq!(parse_lvs("  |\n"), (None, None));
        assert_eq!(parse_lvs(""), (None, None));
    }

    #[test]
    fn settings_are_read_as_lvm_writes_them() {
        let key = "thin_pool_autoextend_threshold";
        let conf = "activation {\n\t# thin_pool_autoextend_threshold = 70\n\tthin_pool_autoextend_threshold = 100\n}\n";
        assert_eq!(setting(conf, key).as_deref(), Some("100"));
        let profile = "activation {\n  thin_pool_autoextend_threshold=80\n  thin_pool_autoextend_percent=20\n}\n";
        assert_eq!(setting(profile, key).as_deref(), Some("80"));
        assert_eq!(setting("activation/thin_pool_autoextend_threshold = 60 # low", key).as_deref(), Some("60"));
        assert_eq!(setting("activation { thin_pool_autoextend_threshold = 60 }", key).as_deref(), Some("60"));
        assert_eq!(setting("", key), None);
        assert_eq!(setting("global { thin_check_executable = \"\" }", "thin_check_executable").as_deref(), Some(""));
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
        let keys = |lvm: &Lvm| {
            let found = judge(&Facts { pool: &pool, docker: None }, lvm);
            found.iter().map(|f| f.key).collect::<Vec<_>>()
        };
        let well = Lvm {
            monitored: Some(true),
            threshold: Some(80),
            free: Some(Bytes::new(10 << 30)),
            thin_check: Some(true),
            unanswered: Vec::new(),
        };
        assert_eq!(keys(&well), []);
        assert_eq!(keys(&Lvm { monitored: Some(false), ..well.clone() }), [Key::NotMonitored]);
        assert_eq!(keys(&Lvm { threshold: Some(100), ..well.clone() }), [Key::AutoextendOff]);
        assert_eq!(keys(&Lvm { free: Some(Bytes::new(4 << 30)), ..well.clone() }), [Key::VolumeGroupFull]);
        assert_eq!(keys(&Lvm { thin_check: Some(false), ..well.clone() }), [Key::ThinCheckMissing]);
        assert_eq!(keys(&Lvm { unanswered: vec!["no".to_owned()], ..well }), [Key::NotSeen]);
        assert_eq!(keys(&Lvm::default()), []);
    }
}
