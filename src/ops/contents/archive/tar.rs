//! One entry after the other as a POSIX (pax) tar archive.
//!
//! Headers and pax records are made by the crate `tar`. Its `Builder` is not given the output: it would end an archive that
//! was broken off as if it were whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::Acl;
use crate::kernel::DevNo;
use crate::kernel::folder::{Attribute, Content, FileKind, Filled, Status, Time};

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: BufWriter<W>,
    longest: Option<usize>,
}

/// What stands in an archive beside the content.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name there.
    pub path: &'a Path,
    /// What it is.
    pub status: &'a Status,
    /// Its extended attributes.
    pub attributes: &'a [Attribute],
}

/// What is in an archive and was no file before.
pub const fn made(kind: FileKind, mode: u32, modified: Time) -> Status {
    Status {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        allocated: 0,
        modified,
        changed: modified,
        file_system: 0,
        inode: 0,
        links: 1,
        device: DevNo::new(0, 0),
    }
}

/// One block of an archive.
const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;
/// The longest name, of an entry and of what a link leads to, in a header.
const NAME: usize = 100;
/// The largest number of eleven octal digits; larger sizes and times are written as pax records.
const OCTAL_11: u64 = (1 << 33) - 1;
/// The largest number of seven octal digits.
const OCTAL_7: u32 = (1 << 21) - 1;

type Records = BTreeMap<String, Vec<u8>>;

impl<W: Write> Writer<W> {
    /// Writes to that.
    pub fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, out), longest: None }
    }

    /// As [`Self::new`], and writes no entry whose path is longer than so many bytes: `InvalidInput`, with its beginning.
    pub fn within(out: W, longest: usize) -> Self {
        Self { longest: Some(longest), ..Self::new(out) }
    }

    /// Writes a regular file. What cannot be read of it is zeros, and is told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&mut self, member: Member<'_>, content: &Content) -> io::Result<Filled> {
        let data: u64 = content.extents().iter().map(|extent| extent.end - extent.start).sum();
        let mut records = records(&member);
        let length = if content.is_sparse() {
            let map = map(content);
            records.insert("GNU.sparse.major".to_owned(), b"1".to_vec());
            records.insert("GNU.sparse.minor".to_owned(), b"0".to_vec());
            records.insert("GNU.sparse.name".to_owned(), member.path.as_os_str().as_bytes().to_vec());
            records.insert("GNU.sparse.realsize".to_owned(), content.size().to_string().into_bytes());
            let length = data + map.len() as u64;
            self.header(&sparse_name(member.path), EntryType::Regular, &member, length, None, records)?;
            self.out.write_all(&map)?;
            length
        } else {
            self.header(member.path.as_os_str().as_bytes(), EntryType::Regular, &member, data, None, records)?;
            data
        };
        let filled = content.read(&mut |_, bytes| self.out.write_all(bytes))?;
        self.pad(length)?;
        Ok(filled)
    }

    /// Writes what has no content: a directory, a symbolic link with what is written in it, a device, a FIFO.
    ///
    /// # Errors
    /// When it cannot be written; `InvalidInput` for a socket, which an archive cannot hold.
    pub fn other(&mut self, member: Member<'_>, target: Option<&Path>) -> io::Result<()> {
        let mut name = member.path.as_os_str().as_bytes().to_vec();
        let kind = match member.status.kind {
            FileKind::File => EntryType::Regular,
            FileKind::Directory => {
                name.push(b'/');
                EntryType::Directory
            }
            FileKind::Link => EntryType::Symlink,
            FileKind::Fifo => EntryType::Fifo,
            FileKind::Block => EntryType::Block,
            FileKind::Character => EntryType::Char,
            FileKind::Socket => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket")),
        };
        self.header(&name, kind, &member, 0, target, records(&member))
    }

    /// Writes a further name of a file that is in the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn hard_link(&mut self, member: Member<'_>, original: &Path) -> io::Result<()> {
        let name = member.path.as_os_str().as_bytes();
        self.header(name, EntryType::Link, &member, 0, Some(original), records(&member))
    }

    /// Writes a file whose content comes piece by piece, and has that length.
    ///
    /// # Errors
    /// What `fill` returned, or that it cannot be written.
    pub fn stream<E: From<io::Error>>(
        &mut self,
        member: Member<'_>,
        length: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        self.header(member.path.as_os_str().as_bytes(), EntryType::Regular, &member, length, None, records(&member))?;
        fill(&mut self.out)?;
        Ok(self.pad(length)?)
    }

    /// Writes a file of those bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn bytes(&mut self, member: Member<'_>, bytes: &[u8]) -> io::Result<()> {
        self.stream(member, bytes.len() as u64, |out| out.write_all(bytes))
    }

    /// Returns what is written to, which has all that was written so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn inner(&mut self) -> io::Result<&mut W> {
        self.out.flush()?;
        Ok(self.out.get_mut())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let missing = usize::try_from(length.next_multiple_of(block) - length).unwrap_or(0);
        self.out.write_all([0; BLOCK].get(..missing).unwrap_or_default())
    }

    fn header(
        &mut self,
        name: &[u8],
        kind: EntryType,
        member: &Member<'_>,
        size: u64,
        target: Option<&Path>,
        mut records: Records,
    ) -> io::Result<()> {
        let path = member.path.as_os_str().as_bytes();
        if let Some(longest) = self.longest.filter(|longest| path.len() > *longest) {
            let start = path.get(..NAME).unwrap_or_default().escape_ascii();
            let why = format!("a path in it is longer than {longest} bytes: it begins with `{start}`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let status = member.status;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(status.mode);
        // What does not fit is 0 in the header: readers that know no pax records then see what they cannot have.
        header.set_uid(u64::from(small(status.uid)));
        header.set_gid(u64::from(small(status.gid)));
        header.set_size(size.min(OCTAL_11));
        let seconds = u64::try_from(status.modified.seconds).unwrap_or(0);
        header.set_mtime(seconds.min(OCTAL_11));
        if matches!(kind, EntryType::Block | EntryType::Char) {
            header.set_device_major(status.device.major)?;
            header.set_device_minor(status.device.minor)?;
        }
        put(&mut header.as_old_mut().name, name);
        if name.len() > NAME && !records.contains_key("GNU.sparse.name") {
            records.insert("path".to_owned(), name.to_vec());
        }
        if let Some(target) = target {
            let target = target.as_os_str().as_bytes();
            put(&mut header.as_old_mut().linkname, target);
            if target.len() > NAME {
                records.insert("linkpath".to_owned(), target.to_vec());
            }
        }
        if size > OCTAL_11 {
            records.insert("size".to_owned(), size.to_string().into_bytes());
        }
        header.set_cksum();
        let mut block = Builder::new(Vec::new());
        block.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        self.out.write_all(block.get_ref())?;
        self.out.write_all(header.as_bytes())
    }
}

fn put(field: &mut [u8; NAME], value: &[u8]) {
    field.iter_mut().zip(value).for_each(|(slot, byte)| *slot = *byte);
}

const fn small(id: u32) -> u32 {
    if id > OCTAL_7 { 0 } else { id }
}

/// What the header has no room for.
fn records(member: &Member<'_>) -> Records {
    let mut records = Records::new();
    let status = member.status;
    let Time { seconds, nanoseconds } = status.modified;
    if nanoseconds > 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > OCTAL_11) {
        records.insert("mtime".to_owned(), decimal(status.modified).into_bytes());
    }
    for (key, id) in [("uid", status.uid), ("gid", status.gid)] {
        if id > OCTAL_7 {
            records.insert(key.to_owned(), id.to_string().into_bytes());
        }
    }
    for (name, value) in member.attributes {
        let acl = match name.to_str() {
            Some("system.posix_acl_access") => Some("SCHILY.acl.access"),
            Some("system.posix_acl_default") => Some("SCHILY.acl.default"),
            _ => None,
        };
        // GNU tar, star and libarchive read the one, Docker and containerd the other.
        if let Some((key, acl)) = acl.zip(Acl::parse(value)) {
            records.insert(key.to_owned(), acl.to_string().into_bytes());
        }
        if let Some(name) = name.to_str() {
            let name = name.replace('%', "%25").replace('=', "%3D");
            records.insert(format!("SCHILY.xattr.{name}"), value.clone());
        }
    }
    records
}

/// Returns a time in decimal seconds, as pax(1) has it: -0.5 is half a second before 1970.
fn decimal(time: Time) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    let (sign, seconds, nanoseconds) = match time.seconds {
        0.. => ("", time.seconds, time.nanoseconds),
        _ => ("-", -(time.seconds + 1), 1_000_000_000 - time.nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// The map of a sparse file, as GNU tar's format 1.0 has it before the data.
fn map(content: &Content) -> Vec<u8> {
    let mut text = String::new();
    let ends_in_hole = content.extents().last().is_none_or(|last| last.end < content.size());
    let count = content.extents().len() + usize::from(ends_in_hole);
    let _ = writeln!(text, "{count}");
    for extent in content.extents() {
        let _ = write!(text, "{}\n{}\n", extent.start, extent.end - extent.start);
    }
    if ends_in_hole {
        let _ = write!(text, "{}\n0\n", content.size());
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// What readers that do not know sparse files call it.
fn sparse_name(path: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default();
    path.with_file_name("GNUSparseFile.0").join(name).as_os_str().as_bytes().to_vec()
}
