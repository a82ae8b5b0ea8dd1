//! Which libdevmapper a running Docker daemon uses, read from the library that it has mapped.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::small_file;

/// Well above any libdevmapper (450 KB in Debian 12).
const LARGEST_LIBRARY: u64 = 8 << 20;
/// Well above the mappings of any dockerd (some hundred lines).
const LARGEST_MAPS: u64 = 4 << 20;

/// The first libdevmapper that knows deferred removal (moby#12190).
pub const DEFERRED_REMOVAL: (u32, u32, u32) = (1, 2, 89);

/// Returns the version of the libdevmapper that a process has mapped, as `dm_get_library_version` gives it:
/// `1.02.185 (2022-05-18)`. Nothing when the process is gone, has none mapped, or its file has been replaced since.
pub fn version_in_process(pid: u32) -> Option<String> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let maps = small_file::read_at(&process.join("maps"), LARGEST_MAPS).ok()?;
    let library = mapped_library(&maps)?;
    let relative = library.strip_prefix(b"/")?;
    let bytes = small_file::read_at(&process.join("root").join(OsStr::from_bytes(relative)), LARGEST_LIBRARY).ok()?;
    version_in_library(&bytes)
}

/// Returns the path of libdevmapper in the text of `/proc/PID/maps`. A deleted one (an upgrade since the start) is none:
/// the file now at that path is another.
pub(crate) fn mapped_library(maps: &[u8]) -> Option<&[u8]> {
    maps.split(|b| *b == b'\n').find_map(|line| {
        let path = line.get(line.iter().position(|b| *b == b'/')?..)?;
        let name = path.rsplit(|b| *b == b'/').next()?;
        (name.starts_with(b"libdevmapper.so") && !name.ends_with(b" (deleted)")).then_some(path)
    })
}

/// Returns the one string of a libdevmapper that has the shape of its version (`VERSION_DM` of the LVM2 sources):
/// `1.02.185 (2022-05-18)`, `1.02.170-RHEL7 (2020-03-24)`. Nothing when there is none, or several that differ.
pub fn version_in_library(library: &[u8]) -> Option<String> {
    let mut versions = library
        .split(|b| *b == 0)
        .filter(|text| text.first().is_some_and(u8::is_ascii_digit))
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| version_numbers(text).is_some());
    let first = versions.next()?;
    versions.all(|other| other == first).then(|| first.to_owned())
}

/// Returns the three numbers of a library version, or nothing when the text is none.
pub fn version_numbers(version: &str) -> Option<(u32, u32, u32)> {
    let (numbers, date) = version.split_once(" (")?;
    let date = date.strip_suffix(')')?;
    if date.len() != 10 || !date.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return None;
    }
    let mut parts = numbers.split('-').next()?.split('.');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let numbers = (number()?, number()?, number()?);
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_string_of_its_shape() {
        let library = b"\x7fELF\0/dev/mapper\x001.02.185 (2022-05-18)\x00Unknown\0 (2022)\0";
        assert_eq!(version_in_library(library).as_deref(), Some("1.02.185 (2022-05-18)"));
        assert_eq!(version_in_library(b"1.02.107-RHEL7 (2015-10-14)").as_deref(), Some("1.02.107-RHEL7 (2015-10-14)"));
        assert_eq!(version_in_library(b"1.02.1 (2022-05-18)\x001.02.2 (2022-05-18)"), None);
        assert_eq!(version_in_library(b"\xff\0\0"), None);
    }

    #[test]
    fn numbers_of_versions() {
        assert_eq!(version_numbers("1.02.77 (2012-10-15)"), Some((1, 2, 77)));
        assert!(version_numbers("1.02.77 (2012-10-15)") < Some(DEFERRED_REMOVAL));
        assert!(version_numbers("1.02.107-RHEL7 (2015-10-14)") > Some(DEFERRED_REMOVAL));
        for other in ["1.02.77", "1.02 (2012-10-15)", "1.02.77.1 (2012-10-15)", "a.b.c (2012-10-15)", "1.02.77 (today)"]
        {
            assert_eq!(version_numbers(other), None, "{other}");
        }
    }

    #[test]
    fn the_mapped_library_is_found_unless_it_was_replaced() {
        let maps = b"7f00-7f01 r--p 00000000 08:01 42   /usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1\n7f02-7f03 rw-p 0 00:00 0\n";
        assert_eq!(mapped_library(maps), Some(&b"/usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1"[..]));
        assert_eq!(mapped_library(b"7f00-7f01 r--p 0 08:01 42   /lib/libdevmapper.so.1.02 (deleted)\n"), None);
        assert_eq!(mapped_library(b"7f00-7f01 r--p 0 08:01 42   /lib/libc.so.6\n"), None);
    }
}
