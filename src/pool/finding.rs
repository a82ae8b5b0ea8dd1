//! What is wrong with a pool, or worth knowing, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a finding is. The order is the order of "worst": a critical finding is not hidden by what could not be seen,
/// but what could not be seen may hide one, so it comes before a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// It will need somebody.
    Warning,
    /// It could not be seen.
    Unknown,
    /// It needs somebody now.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Unknown, Self::Critical];

    /// Returns the word that people read: `WARNING`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Critical => "CRITICAL",
        }
    }

    /// Returns the exit code that says so to monitoring: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Info => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// Returns the word that programs read: `warning`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Critical => "critical",
        }
    }
}

/// Makes the enum of keys, its list and its words from one table, so that none is forgotten anywhere.
macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Which finding it is: a word that stays the same, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Key {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl Key {
            /// All of them, in the order in which findings of one severity are shown: what stops I/O comes first.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the word: `metadata_use`.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

keys! {
    /// An operation of dmpool was interrupted, and neither finished nor taken back.
    Interrupted = "interrupted",
    /// The pool is suspended: all I/O waits.
    Suspended = "suspended",
    /// The pool has failed: all I/O ends with errors.
    Failed = "failed",
    /// The kernel cannot read the pool's metadata.
    MetadataUnreadable = "metadata_unreadable",
    /// The metadata must be checked before it can be written again.
    NeedsCheck = "needs_check",
    /// The pool gave up queueing: acknowledged writes were lost.
    LostWrites = "lost_writes",
    /// The pool has no free data blocks.
    Full = "full",
    /// The pool is read-only.
    ReadOnly = "read_only",
    /// Devices that dmpool has formatted are not here: the pool stays down without them.
    MissingDevice = "missing_device",
    /// The kernel does not have the pool.
    Inactive = "inactive",
    /// Something needed for the verdict could not be seen.
    NotSeen = "not_seen",
    /// Docker is not running, and its log says why it does not start.
    DockerDown = "docker_down",
    /// Docker's daemon runs and does nothing: somebody has stopped it, or it waits in the kernel.
    DockerHung = "docker_hung",
    /// A Docker that starts on this pool deletes a device.
    TransactionAhead = "transaction_ahead",
    /// Two of Docker's records name one device.
    DuplicateDevice = "duplicate_device",
    /// One of Docker's records cannot be used.
    DamagedRecord = "damaged_record",
    /// The data file is shorter than the pool.
    ShortFile = "short_file",
    /// Data and metadata are not of the same pool, or not of the same time.
    Mismatch = "mismatch",
    /// A loop file of the pool has been deleted while it is attached.
    DeletedFile = "deleted_file",
    /// A loop device over a symbolic link to a disk: the disk's name may be another disk's after a reboot.
    SymlinkedDevice = "symlinked_device",
    /// An option of Docker's names a disk by a name that another disk may have after a reboot.
    UnstableName = "unstable_name",
    /// Docker's and containerd's configuration both name the pool.
    TwoUsers = "two_users",
    /// How much of the data is used.
    DataUse = "data_use",
    /// How much of the metadata is used.
    MetadataUse = "metadata_use",
    /// The metadata is as large as the kernel can use.
    MetadataLimit = "metadata_limit",
    /// The file system under the loop files fills up before the pool does.
    HostFileSystem = "host_file_system",
    /// Docker makes no more layers: less is free than it keeps free.
    MinimumFree = "minimum_free",
    /// A container's volume is at or near its own size.
    VolumeUse = "volume_use",
    /// The sizes of a volume that the kernel, Docker and its file system know do not agree.
    SizesDisagree = "sizes_disagree",
    /// XFS on a volume retries for ever when the pool is full.
    RetriesForever = "retries_forever",
    /// A metadata snapshot is held.
    MetadataSnapshot = "metadata_snapshot",
    /// Docker would use old loop files if it were started without its option.
    OldLoopFiles = "old_loop_files",
    /// A loop device keeps a deleted file that no pool uses.
    StrayLoop = "stray_loop",
    /// LVM does not watch the pool.
    NotMonitored = "not_monitored",
    /// LVM watches the pool and never extends it.
    AutoextendOff = "autoextend_off",
    /// LVM has nothing to extend the pool with.
    VolumeGroupFull = "volume_group_full",
    /// LVM needs `thin_check` to activate the pool, and it is not there.
    ThinCheckMissing = "thin_check_missing",
    /// A pool that dmpool made, and does not know any more.
    Unregistered = "unregistered",
    /// A pool and the record of its volumes do not agree.
    VolumeRecord = "volume_record",
    /// Nothing activates the pool when the machine boots.
    NoBootActivation = "no_boot_activation",
    /// A storage option is given twice: Docker refuses to start.
    OptionTwice = "option_twice",
    /// More has been promised than there is.
    Overcommit = "overcommit",
    /// A volume is larger than the base device: what is made of it does not fit an image.
    AboveBaseSize = "above_base_size",
    /// The pool is on loop files.
    LoopFiles = "loop_files",
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One thing that can be done about a finding: by hand, with a command, or first by hand and then with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// What somebody must do first, in words that can be told: `enlarge /dev/sdb`; all there is to do when no command
    /// follows. It holds nothing to be pasted.
    pub first: Option<String>,
    /// What to paste into root's shell as it stands; nothing where no command does it.
    pub command: Option<String>,
    /// What it costs: `online`, `~40 s with Docker stopped`.
    pub cost: String,
}

impl Way {
    /// A command, and its cost.
    pub fn run(command: impl Into<String>, cost: impl Into<String>) -> Self {
        Self { first: None, command: Some(command.into()), cost: cost.into() }
    }

    /// What only people can do, and its cost.
    pub fn act(what: impl Into<String>, cost: impl Into<String>) -> Self {
        Self { first: Some(what.into()), command: None, cost: cost.into() }
    }

    /// A command that is right once somebody has done something, and the cost of both.
    pub fn after(first: impl Into<String>, command: impl Into<String>, cost: impl Into<String>) -> Self {
        Self { first: Some(first.into()), command: Some(command.into()), cost: cost.into() }
    }
}

/// One thing that is wrong with a pool, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which one it is.
    pub key: Key,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: the pool's name, a file, a container.
    pub object: String,
    /// What is the matter, in one clause. `it` is the pool; any other object is named.
    pub sentence: String,
    /// What to do, the best first.
    pub ways: Vec<Way>,
}

impl Finding {
    /// Makes one with no way out yet.
    pub fn new(key: Key, severity: Severity, object: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { key, severity, object: object.into(), sentence: sentence.into(), ways: Vec::new() }
    }

    /// Adds a way out; the best is added first.
    #[must_use]
    pub fn with(mut self, way: Way) -> Self {
        self.ways.push(way);
        self
    }

    /// Adds a command as a way out.
    #[must_use]
    pub fn run(self, command: impl Into<String>, cost: impl Into<String>) -> Self {
        self.with(Way::run(command, cost))
    }

    /// Adds what only people can do.
    #[must_use]
    pub fn act(self, what: impl Into<String>, cost: impl Into<String>) -> Self {
        self.with(Way::act(what, cost))
    }
}

/// Puts findings in the order in which they are shown: the worst first, then by key, then by object.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then_with(|| a.key.cmp(&b.key)).then_with(|| a.object.cmp(&b.object))
    });
}

/// Returns the finding that decides: the first of the worst, when it is more than worth knowing.
pub fn verdict(findings: &[Finding]) -> Option<&Finding> {
    let worst = findings.iter().map(|f| f.severity).max().filter(|severity| *severity > Severity::Info)?;
    findings.iter().find(|f| f.severity == worst)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_and_the_order_is_fixed() {
        let mut findings = vec![
            Finding::new(Key::LoopFiles, Severity::Info, "p", "a"),
            Finding::new(Key::DataUse, Severity::Critical, "p", "b"),
            Finding::new(Key::VolumeUse, Severity::Warning, "web", "c"),
            Finding::new(Key::VolumeUse, Severity::Warning, "db", "d"),
            Finding::new(Key::NotSeen, Severity::Unknown, "p", "e"),
            Finding::new(Key::Full, Severity::Critical, "p", "f"),
        ];
        assert_eq!(verdict(&findings).unwrap().sentence, "b");
        sort(&mut findings);
        let order: String = findings.iter().map(|f| f.sentence.as_str()).collect();
        assert_eq!(order, "fbedca");
        assert_eq!(verdict(&findings).unwrap().key, Key::Full);
        assert_eq!(verdict(&findings[5..]), None, "what is worth knowing is no trouble");
        assert_eq!(verdict(&[]), None);
    }

    #[test]
    fn keys_are_words_of_their_own_and_survive_json() {
        let mut words: Vec<_> = Key::ALL.iter().map(|key| key.word()).collect();
        assert!(words.iter().all(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{words:?}");
        for key in Key::ALL {
            let json = serde_json::to_string(key).unwrap();
            assert_eq!(json, format!("\"{key}\""));
            assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), *key);
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Key::ALL.len());
    }
}
