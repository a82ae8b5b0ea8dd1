//! What Docker keeps of a layer's tar beside the files: `layerdb/sha256/CHAIN/tar-split.json.gz` (layer/filestore.go).
//!
//! A line of JSON each, packed (tar/storage/entry.go of tar-split):
//!
//! ```text
//! {"type":2,"payload":"BASE64","position":0}                      bytes of the tar itself: headers, padding
//! {"type":1,"name":"etc/hosts","size":9,"payload":"BASE64"}       a file's content, and its CRC-64 (ISO 3309), big-endian
//! ```
//!
//! `name_raw` is the name in base64, where it is no text.

use std::io::{self, BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// The longest line. A segment is a few headers long; only what follows a tar's end can be more.
const LONGEST: u64 = 64 << 20;

/// The next piece of a layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What is in a file.
    File {
        /// Its name in the tar.
        name: Vec<u8>,
        /// How many bytes it has; more than 0.
        size: u64,
        /// The checksum of them; nothing when there is none.
        crc: Option<u64>,
    },
    /// Nothing: the name of what has no content.
    Nothing,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u64,
    name: Option<String>,
    name_raw: Option<String>,
    size: Option<i64>,
    payload: Option<String>,
}

impl Piece {
    /// Reads one line.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let bytes = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|e| format!("its base64 is damaged: {e}"))
        };
        match line.kind {
            2 => bytes(line.payload).map(Self::Bytes),
            1 => {
                let size = u64::try_from(line.size.unwrap_or(0)).map_err(|_| "a size is below 0".to_owned())?;
                if size == 0 {
                    return Ok(Self::Nothing);
                }
                let name = match line.name_raw {
                    Some(raw) => bytes(Some(raw))?,
                    None => line.name.unwrap_or_default().into_bytes(),
                };
                let crc = bytes(line.payload)?;
                let crc = <[u8; 8]>::try_from(crc.as_slice()).ok().map(u64::from_be_bytes);
                Ok(Self::File { name, size, crc })
            }
            kind => Err(format!("entries of type {kind} are not known")),
        }
    }

    /// Returns how many bytes of the tar it stands for.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
            Self::Nothing => 0,
        }
    }
}

/// The pieces of a tar, in order.
#[derive(Debug)]
pub struct Pieces<R: Read> {
    from: BufReader<MultiGzDecoder<R>>,
    line: Vec<u8>,
    number: u64,
}

impl<R: Read> Pieces<R> {
    /// Reads from a packed file.
    pub fn new(from: R) -> Self {
        Self { from: BufReader::new(MultiGzDecoder::new(from)), line: Vec::new(), number: 0 }
    }

    fn read(&mut self) -> io::Result<Option<Result<Piece, String>>> {
        self.line.clear();
        self.number += 1;
        self.from.by_ref().take(LONGEST).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.len() as u64 == LONGEST {
            return Ok(Some(Err(format!("longer than {} MiB", LONGEST >> 20))));
        }
        Ok(Some(Piece::parse(&self.line)))
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = Result<Piece, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.number + 1;
        match self.read() {
            Ok(found) => found.map(|piece| piece.map_err(|why| format!("line {number} of tar-split.json.gz: {why}"))),
            Err(e) => Some(Err(format!("tar-split.json.gz cannot be read: {e}"))),
        }
    }
}
