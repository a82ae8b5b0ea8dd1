//! POSIX ACLs as the kernel keeps them in an attribute (`include/uapi/linux/posix_acl_xattr.h`), and as tar writes them.

use std::fmt;

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    who: &'static str,
    /// Of `user` and `group`: whose; nothing for the owner.
    id: Option<u32>,
    /// The lower three bits: read, write, execute.
    may: u16,
}

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;

impl Acl {
    /// Reads the value of `system.posix_acl_access` or `system.posix_acl_default`; nothing when it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, left) = rest.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !left.is_empty() {
            return None;
        }
        Some(Self { entries: entries.iter().map(entry).collect::<Option<_>>()? })
    }
}

fn entry(bytes: &[u8; 8]) -> Option<AclEntry> {
    let [t0, t1, m0, m1, id @ ..] = *bytes;
    let may = u16::from_le_bytes([m0, m1]);
    let id = u32::from_le_bytes(id);
    let (who, id) = match u16::from_le_bytes([t0, t1]) {
        0x01 => ("user", None),
        0x02 => ("user", Some(id)),
        0x04 => ("group", None),
        0x08 => ("group", Some(id)),
        0x10 => ("mask", None),
        0x20 => ("other", None),
        _ => return None,
    };
    (may <= 7).then_some(AclEntry { who, id, may })
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, entry) in self.entries.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let id = entry.id.map(|id| id.to_string()).unwrap_or_default();
            let bit = |bit: u16, letter: char| if entry.may & bit == 0 { '-' } else { letter };
            write!(f, "{comma}{}:{id}:{}{}{}", entry.who, bit(4, 'r'), bit(2, 'w'), bit(1, 'x'))?;
        }
        Ok(())
    }
}
