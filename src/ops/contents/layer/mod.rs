//! A layer as the tar that it once came as, byte for byte.

mod tar_split;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crc::{CRC_64_GO_ISO, Crc, Table};
use sha2::{Digest, Sha256};

use crate::engine::docker_objects::{Layer, Objects, Store, digits};
use crate::engine::small_file::Directory;
use crate::error::Failure;
use crate::kernel::folder::Content;
use crate::ops::contents::archive::filled;
use crate::ops::contents::source::{self, Below, Reach};
use crate::ops::contents::tree::{Follow, Merged, Tree, shown};
pub use tar_split::{Piece, Pieces};

const CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);
const ZEROS: [u8; 4096] = [0; 4096];

/// Why a layer was not written.
#[derive(Debug)]
pub enum Stop {
    /// What it is written to takes no more.
    Output(io::Error),
    /// It does not come out as it was: why.
    Source(String),
    /// Its files are not reached.
    Unreached(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Opens a layer's list of pieces.
fn pieces(objects: &Objects, store: &Store, layer: &Layer) -> Result<Pieces<File>, String> {
    let names = ["image", &store.driver, "layerdb", "sha256", digits(&layer.chain)];
    let folder =
        names.iter().try_fold(Directory::open(&objects.path).map_err(|e| e.to_string())?, |folder, name| {
            folder.enter(name).map_err(|e| format!("{}: {e}", folder.path().join(name).display()))
        })?;
    let file = folder.open_file("tar-split.json.gz").map_err(|e| format!("tar-split.json.gz cannot be read: {e}"))?;
    Ok(Pieces::new(file))
}

/// Returns how many bytes a layer's tar has, from its list of pieces, which is read whole.
pub(in crate::ops) fn length(objects: &Objects, store: &Store, layer: &Layer) -> Result<u64, String> {
    pieces(objects, store, layer)?.try_fold(0_u64, |sum, piece| {
        sum.checked_add(piece?.length()).ok_or_else(|| "tar-split.json.gz has impossible sizes".to_owned())
    })
}

/// Writes a layer's tar of that length, and compares its digest with the one that Docker has of it.
pub(in crate::ops) fn write(
    objects: &Objects,
    store: &Store,
    layer: &Layer,
    length: u64,
    reach: &Reach,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let cache_id = layer.cache_id.as_deref().unwrap_or_default();
    let opened = source::open(&objects.path, &store.driver, cache_id, &Below::layer(store, layer), reach)
        .map_err(Stop::Unreached)?;
    write_from(objects, store, layer, length, opened.tree, out)
}

/// Puts a layer's tar together of these files, and keeps nothing of it.
///
/// # Errors
/// Why it is not what Docker's digest of it says.
pub(in crate::ops) fn comes_out(objects: &Objects, store: &Store, layer: &Layer, files: Tree) -> Result<(), String> {
    let length = length(objects, store, layer)?;
    write_from(objects, store, layer, length, files, &mut io::sink()).map_err(|stop| match stop {
        Stop::Source(why) => why,
        Stop::Output(e) => e.to_string(),
        Stop::Unreached(failure) => failure.to_string(),
    })
}

/// As [`write`], of the files in a tree.
pub(in crate::ops) fn write_from(
    objects: &Objects,
    store: &Store,
    layer: &Layer,
    length: u64,
    tree: Tree,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let pieces = pieces(objects, store, layer).map_err(Stop::Source)?;
    let mut files = Files { tree, parent: None };
    let mut out = Summed { out, sum: Sha256::new(), left: length };
    for piece in pieces {
        match piece.map_err(Stop::Source)? {
            Piece::Bytes(bytes) => out.take(&bytes)?,
            Piece::File { name, size, crc } => {
                let path = path(&name);
                let wrong = |why: String| Stop::Source(format!("`/{}`: {why}", shown(&path)));
                let content = files.content(&path).map_err(wrong)?;
                if content.size() != size {
                    return Err(wrong(format!("it has {} bytes, and had {size}", content.size())));
                }
                let found = copy(&content, &mut out).map_err(|stop| match stop {
                    Stop::Source(why) => wrong(why),
                    stop => stop,
                })?;
                if crc.is_some_and(|crc| crc != found) {
                    return Err(wrong("its content is not what it was: the checksum differs".to_owned()));
                }
            }
            Piece::Nothing => {}
        }
    }
    let digest = format!("sha256:{:x}", out.sum.finalize());
    let wanted = layer.diff.as_deref().unwrap_or_default();
    if out.left > 0 || digest != wanted {
        return Err(Stop::Source(format!("its digest would be {digest}: tar-split.json.gz is damaged")));
    }
    Ok(())
}

/// Returns how many entries a layer's tar has.
pub(in crate::ops) fn entries(objects: &Objects, store: &Store, layer: &Layer) -> Result<u64, String> {
    let is_entry = |piece: &Piece| !matches!(piece, Piece::Bytes(_));
    pieces(objects, store, layer)?.try_fold(0, |count, piece| Ok(count + u64::from(is_entry(&piece?))))
}

/// Returns where the files of a layer are that have any content.
pub(in crate::ops) fn files(objects: &Objects, store: &Store, layer: &Layer) -> Result<BTreeSet<PathBuf>, String> {
    let pieces = pieces(objects, store, layer)?;
    let of = |piece: Result<Piece, String>| match piece {
        Ok(Piece::File { name, .. }) => Some(Ok(path(&name))),
        Ok(Piece::Bytes(_) | Piece::Nothing) => None,
        Err(why) => Some(Err(why)),
    };
    pieces.filter_map(of).collect()
}

/// Whether a tree has every file of a layer, as long as it was there: what its digest then proves, or not.
pub(in crate::ops) fn is_in(objects: &Objects, store: &Store, layer: &Layer, tree: Tree) -> bool {
    let Ok(mut pieces) = pieces(objects, store, layer) else { return false };
    let mut files = Files { tree, parent: None };
    pieces.all(|piece| match piece {
        Ok(Piece::File { name, size, .. }) => files.content(&path(&name)).is_ok_and(|content| content.size() == size),
        Ok(Piece::Bytes(_) | Piece::Nothing) => true,
        Err(_) => false,
    })
}

/// Sums what is written, and keeps it from becoming longer than the archive says.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: Sha256,
    left: u64,
}

impl Summed<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(Stop::Source("it has become longer while it was read".to_owned()));
        };
        self.left = left;
        self.sum.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }
}

/// Writes a file with its holes as zeros; returns its checksum.
fn copy(content: &Content, out: &mut Summed<'_>) -> Result<u64, Stop> {
    let mut crc = CRC.digest();
    let mut at = 0;
    let mut stop = None;
    let mut both = |bytes: &[u8]| {
        crc.update(bytes);
        out.take(bytes).map_err(|e| {
            stop = Some(e);
            io::Error::other("stopped")
        })
    };
    let read = content.read(&mut |from, bytes| {
        zeros(from - at, &mut both)?;
        at = from + bytes.len() as u64;
        both(bytes)
    });
    let read = read.and_then(|missing| zeros(content.size() - at, &mut both).map(|()| missing));
    match (stop, read) {
        (Some(stop), _) => Err(stop),
        (None, Err(e)) => Err(Stop::Output(e)),
        (None, Ok(missing)) => filled(&missing).map_or_else(|| Ok(crc.finalize()), |why| Err(Stop::Source(why))),
    }
}

fn zeros(mut count: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while count > 0 {
        let length = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
        take(ZEROS.get(..length).unwrap_or_default())?;
        count -= length as u64;
    }
    Ok(())
}

/// Returns where a name of a tar is, below a root that it does not leave.
fn path(name: &[u8]) -> PathBuf {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => drop(path.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// The files of a layer. Those of one directory follow each other.
struct Files {
    tree: Tree,
    parent: Option<(PathBuf, Merged)>,
}

impl Files {
    fn content(&mut self, path: &Path) -> Result<Content, String> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err("it is no file".to_owned());
        };
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            self.parent = self.tree.reach(parent).ok().map(|merged| (parent.to_owned(), merged));
        }
        let found = self.parent.as_ref().map(|(_, merged)| self.tree.look(merged, name));
        let node = match found {
            Some(Ok(Some(node))) => node,
            // A directory on the way may be a link: extracted files are behind it.
            _ => self.tree.resolve(path, Follow::Parents).map_err(|why| why.to_string())?.node,
        };
        node.content().map_err(|e| format!("it cannot be read: {e}"))
    }
}
