//! The signatures on a device, as libblkid finds them.
//!
//! Asked of `wipefs -p`, which lists every one with its place. `blkid -p` names one, and says nothing at all when there are
//! two (its exit code 8); reading them here would be a second libblkid that is always behind. wipefs opens read-only.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::pool::disk::Signature;
use crate::process::{self, ProgramError};
use crate::units::Bytes;

/// The program, of util-linux.
const PROGRAM: &str = "wipefs";

/// More than any device has signatures.
const LONGEST: usize = 64 << 10;

/// Returns the signatures on a device, in the order of their places.
///
/// # Errors
/// When the program is missing, fails, or does not answer in time: nobody knows then what is on it.
pub fn on(device: &Path, limit: Duration) -> Result<Vec<Signature>, ProgramError> {
    let args = [OsStr::new("-p"), device.as_os_str()];
    let answer = process::run_within(PROGRAM, &args, limit, LONGEST)?;
    let mut found = parse(&String::from_utf8_lossy(&answer));
    found.sort();
    Ok(found)
}

/// Reads `0x438,UUID,LABEL,ext4`, the same in every version (since 2.17); labels have `\x20` for a blank, and may have
/// commas.
pub(crate) fn parse(answer: &str) -> Vec<Signature> {
    let line = |line: &str| {
        let (offset, rest) = line.split_once(',')?;
        let (uuid, rest) = rest.split_once(',')?;
        let (label, kind) = rest.rsplit_once(',')?;
        let offset = u64::from_str_radix(offset.trim().strip_prefix("0x")?, 16).ok()?;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Some(Signature {
            offset: Bytes::new(offset),
            kind: kind.to_owned(),
            uuid: some(uuid.to_owned()),
            label: some(plain(label)),
        })
    };
    answer.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

/// Takes the escapes back: `\x20` (`blkid_encode_string`). What is no text then has marks instead.
fn plain(escaped: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(1..3).and_then(|hex| std::str::from_utf8(hex).ok()).map(|hex| u8::from_str_radix(hex, 16));
        match (first, tail.first(), code) {
            (b'\\', Some(b'x'), Some(Ok(byte))) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_signature_is_read() {
        let answer = "# offset,uuid,label,type\n0x438,fa1a3e04-90a1,a,b\\x20\"c\\x5c,ext4\n0x1fe,,,dos\nnonsense\n";
        let found = parse(answer);
        let ext4 = Signature {
            offset: Bytes::new(0x438),
            kind: "ext4".to_owned(),
            uuid: Some("fa1a3e04-90a1".to_owned()),
            label: Some("a,b \"c\\".to_owned()),
        };
        let dos = Signature { offset: Bytes::new(510), kind: "dos".to_owned(), uuid: None, label: None };
        assert_eq!(found, [ext4, dos]);
        assert_eq!(parse(""), []);
    }

    /// On a file with two formats, of which one is a swap space and the other a partition table.
    #[test]
    fn the_program_here_says_what_it_is_read_as() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut bytes = vec![0; 1 << 20];
        let mut put = |at: usize, what: &[u8]| bytes.get_mut(at..at + what.len()).unwrap().copy_from_slice(what);
        put(510, &[0x55, 0xaa]);
        put(446, &[0, 0, 0, 0, 0x83, 0, 0, 0, 0x20, 0, 0, 0, 0x20, 0, 0, 0]);
        put(1024, &[1, 0, 0, 0, 255, 0, 0, 0]);
        put(4086, b"SWAPSPACE2");
        std::fs::write(&path, &bytes).unwrap();
        let kinds: Vec<_> = on(&path, Duration::from_secs(60)).unwrap().into_iter().map(|s| s.kind).collect();
        assert_eq!(kinds, ["dos", "swap"]);
        let error = on(&dir.path().join("none"), Duration::from_secs(60)).unwrap_err();
        assert!(!error.missing, "{error}");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(answer in "[0-9a-fx,\\\\#\n ]{0,80}") {
            let _ = parse(&answer);
        }
    }
}
