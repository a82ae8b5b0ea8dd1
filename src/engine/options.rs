//! The storage options (`dm.*`) of a Docker daemon.

use crate::units::Bytes;

/// The storage options that bear on what status and grow say. A field is empty when the option was not given; what
/// Docker then does depends on its version and is not put here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// `dm.min_free_space`: how many hundredths of the pool Docker keeps free before it makes a layer.
    pub min_free_space_percent: Option<u8>,
    /// `dm.thinpooldev` without its `/dev/mapper/`: the pool somebody else made for Docker.
    pub thin_pool: Option<String>,
    /// `dm.directlvm_device`: Docker made an LVM pool named `docker-thinpool` on that device.
    pub direct_lvm: Option<String>,
    /// `dm.datadev`: a device instead of the data file.
    pub data_device: Option<String>,
    /// `dm.metadatadev`: a device instead of the metadata file.
    pub metadata_device: Option<String>,
    /// `dm.use_deferred_removal`.
    pub deferred_removal: Option<bool>,
    /// `dm.use_deferred_deletion`.
    pub deferred_deletion: Option<bool>,
    /// `dm.override_udev_sync_check`.
    pub override_udev_sync_check: Option<bool>,
    /// `dm.loopdatasize`: the size to which Docker extends the data file when it starts.
    pub loop_data_size: Option<Bytes>,
    /// `dm.loopmetadatasize`: the same for the metadata file.
    pub loop_metadata_size: Option<Bytes>,
    /// `dm.basesize`: the size of the base device, from which all others are made.
    pub base_size: Option<Bytes>,
    /// Options whose value could not be read, as given. Docker refuses to start with most of these.
    pub unreadable: Vec<String>,
}

/// The pool that `dm.directlvm_device` makes (`initDevmapper`, daemon/graphdriver/devmapper/deviceset.go).
pub const DIRECT_LVM_POOL: &str = "docker-thinpool";

impl StorageOptions {
    /// Reads options as given (`dm.basesize=20G`), in order; a later one wins, as in Docker.
    ///
    /// Options of no concern here, also those nobody here knows, are passed over.
    pub fn parse<'a>(given: impl IntoIterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        for option in given {
            if !options.take(option) {
                options.unreadable.push(option.to_owned());
            }
        }
        options
    }

    /// Takes one option over; says whether its value could be read.
    fn take(&mut self, option: &str) -> bool {
        let Some((key, value)) = option.split_once('=') else {
            return false;
        };
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "dm.min_free_space" => set(&mut self.min_free_space_percent, value.strip_suffix('%').and_then(percent)),
            "dm.thinpooldev" => {
                set(&mut self.thin_pool, Some(value.strip_prefix("/dev/mapper/").unwrap_or(value).to_owned()))
            }
            "dm.directlvm_device" => set(&mut self.direct_lvm, Some(value.to_owned())),
            "dm.datadev" => set(&mut self.data_device, Some(value.to_owned())),
            "dm.metadatadev" => set(&mut self.metadata_device, Some(value.to_owned())),
            "dm.use_deferred_removal" => set(&mut self.deferred_removal, go_bool(value)),
            "dm.use_deferred_deletion" => set(&mut self.deferred_deletion, go_bool(value)),
            "dm.override_udev_sync_check" => set(&mut self.override_udev_sync_check, go_bool(value)),
            "dm.loopdatasize" => set(&mut self.loop_data_size, length(value)),
            "dm.loopmetadatasize" => set(&mut self.loop_metadata_size, length(value)),
            "dm.basesize" => set(&mut self.base_size, length(value)),
            _ => true,
        }
    }

    /// Returns the pool these options name, when they name one; otherwise Docker makes its own.
    pub fn named_pool(&self) -> Option<&str> {
        self.thin_pool.as_deref().or(self.direct_lvm.as_ref().map(|_| DIRECT_LVM_POOL))
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    let read = value.is_some();
    *field = value.or(field.take());
    read
}

/// Reads a size as Docker does (`RAMInBytes`, docker/go-units): a number, which may have a fraction, with an optional unit of `b k m g t p` in
/// either case, with or without `i` and `B`; 1024 each time. What is less than a byte falls away. Nothing when it is none, or 2^63 bytes or more.
pub fn ram_in_bytes(text: &str) -> Option<Bytes> {
    /// More digits behind the point change no byte of what Docker can count.
    const DIGITS: usize = 18;
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')?.checked_add(1)?;
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let shift = match unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let fraction = fraction.get(..DIGITS).unwrap_or(fraction);
    let parts = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole = u128::from(whole.parse::<u64>().ok()?) << shift;
    let all = whole.checked_add((fraction.parse::<u128>().ok()? << shift) / parts)?;
    u64::try_from(all).ok().filter(|all| *all < 1 << 63).map(Bytes::new)
}

/// Reads how long a file or a device shall be.
fn length(text: &str) -> Option<Bytes> {
    ram_in_bytes(text).filter(|length| length.get() > 0)
}

/// Reads a share that Docker takes: 0 to 99 (`dm.min_free_space`, `NewDeviceSet`,
/// daemon/graphdriver/devmapper/deviceset.go).
fn percent(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|percent| digits && *percent < 100)
}

/// Reads what Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_docker_reads_them() {
        let options = StorageOptions::parse([
            "dm.min_free_space=5%",
            "DM.ThinPoolDev=/dev/mapper/docker-thinpool",
            "dm.use_deferred_removal=true",
            "dm.loopdatasize=200GB",
            "dm.basesize = 20G",
            "dm.mountopt=nodiscard",
        ]);
        assert_eq!(options.min_free_space_percent, Some(5));
        assert_eq!(options.named_pool(), Some("docker-thinpool"));
        assert_eq!(options.deferred_removal, Some(true));
        assert_eq!(options.deferred_deletion, None);
        assert_eq!(options.loop_data_size, Some(Bytes::new(200 << 30)));
        assert_eq!(options.base_size, Some(Bytes::new(20 << 30)));
        assert!(options.unreadable.is_empty());
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let mib = |text: &str| ram_in_bytes(text).map(|size| size.get() >> 20);
        for (text, wanted) in
            [("25.5G", 26112), ("2gb", 2048), ("1 GiB", 1024), ("0.5t", 524_288), ("1.25P", 1_342_177_280)]
        {
            assert_eq!(mib(text), Some(wanted), "{text}");
        }
        assert_eq!(ram_in_bytes("1.1G").unwrap().get(), 1_181_116_006);
        assert_eq!((ram_in_bytes("0"), ram_in_bytes("7.9")), (Some(Bytes::new(0)), Some(Bytes::new(7))));
        for bad in ["", "G", "-1G", "1.5.2G", ".5G", "5.G", "1  G", "1x", "1GiBs", "9000P", "\u{e9}1\u{e9}", "1e3G"] {
            assert_eq!(ram_in_bytes(bad), None, "{bad}");
        }
        let options = StorageOptions::parse(["dm.basesize=25.5G", "dm.loopdatasize=0"]);
        assert_eq!((options.base_size, options.loop_data_size), (ram_in_bytes("25.5G"), None));
        assert_eq!(options.unreadable, ["dm.loopdatasize=0"]);
    }

    #[test]
    fn a_later_option_wins_and_a_broken_one_is_kept_for_the_eye() {
        let options =
            StorageOptions::parse(["dm.min_free_space=5%", "dm.min_free_space=20%", "dm.min_free_space=300%", "x"]);
        assert_eq!(options.min_free_space_percent, Some(20));
        assert_eq!(options.unreadable, ["dm.min_free_space=300%", "x"]);
    }

    #[test]
    fn a_share_that_docker_refuses_is_none() {
        for bad in ["100%", "200%", "+5%", "-1%", "5", "%"] {
            let options = StorageOptions::parse([format!("dm.min_free_space={bad}").as_str()]);
            assert_eq!((options.min_free_space_percent, options.unreadable.len()), (None, 1), "{bad}");
        }
        assert_eq!(StorageOptions::parse(["dm.min_free_space=99%"]).min_free_space_percent, Some(99));
    }

    #[test]
    fn direct_lvm_has_a_pool_of_a_fixed_name() {
        assert_eq!(StorageOptions::parse(["dm.directlvm_device=/dev/sdb"]).named_pool(), Some("docker-thinpool"));
        assert_eq!(StorageOptions::default().named_pool(), None);
    }
}
