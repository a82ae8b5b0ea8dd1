//! The logs that Docker keeps beside a container's configuration.
//!
//! ```text
//! ID-json.log          json-file (daemon/logger/jsonfilelog): a line each, {"log":"…\n","stream":"stdout","time":"…"}
//! local-logs/container.log, container-cached.log     local (daemon/logger/local): length u32, message, length u32; big-endian
//! ….1, ….2.gz          the same, older: a higher number is older
//! ```
//!
//! A message of `local` is protobuf (api/types/plugins/logdriver/entry.proto): source 1, nanoseconds since 1970 2, the bytes 3,
//! whether they are a part of a line 4, and of that 5 (whether it is the last: 1). `container-cached.log` is what Docker from
//! 20.10 on keeps for log drivers that it cannot read from (container/container.go, `StartLogger`).

use std::io::{self, BufRead, Read};

use super::fields::{self, Fields};
use super::time::Time;

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn named(name: &str) -> Option<Self> {
        match name {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// What a container has written: a line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where to.
    pub stream: Stream,
    /// When.
    pub time: Option<Time>,
    /// The bytes, with the line end that they had.
    pub bytes: Vec<u8>,
}

/// Docker cuts lines at 16 KiB; in JSON a byte takes up to six, and labels stand beside.
const LONGEST: u64 = 4 << 20;
/// Docker's own limit on a message of the local driver (`maxMsgLen`, daemon/logger/local/read.go).
const LONGEST_MESSAGE: u32 = 1_000_000;

/// In which of the two forms a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON object a line.
    Json,
    /// Messages with their lengths.
    Local,
}

/// The lines of a log; nothing for one that is damaged.
pub struct Lines<R> {
    from: R,
    form: Form,
    ended: bool,
}

impl<R> std::fmt::Debug for Lines<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("form", &self.form).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<R: BufRead> Lines<R> {
    /// Reads a log in that form.
    pub const fn new(from: R, form: Form) -> Self {
        Self { from, form, ended: false }
    }

    fn json_line(&mut self) -> io::Result<Option<Option<Line>>> {
        let mut line = Vec::new();
        if self.from.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let is_whole = line.last() == Some(&b'\n') || u64::try_from(line.len()).is_ok_and(|length| length < LONGEST);
        if !is_whole {
            // The rest of a line that is none.
            self.skip_line()?;
            return Ok(Some(None));
        }
        Ok(Some(parse_json(&line)))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.from.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            let end = available.iter().position(|b| *b == b'\n');
            let used = end.map_or(available.len(), |at| at + 1);
            self.from.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Behind a message that is damaged nobody knows where the next one begins.
    fn message(&mut self) -> io::Result<Option<Option<Line>>> {
        if self.from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let message = self.framed();
        match message {
            Ok(Some(bytes)) => Ok(Some(parse_local(&bytes))),
            Ok(None) => {
                self.ended = true;
                Ok(Some(None))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.ended = true;
                Ok(Some(None))
            }
            Err(error) => Err(error),
        }
    }

    fn framed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let before = self.length()?;
        if before > LONGEST_MESSAGE {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(u64::from(before)).read_to_end(&mut bytes)?;
        Ok((self.length()? == before).then_some(bytes))
    }

    fn length(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Option<Line>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match self.form {
            Form::Json => self.json_line(),
            Form::Local => self.message(),
        };
        self.ended |= next.is_err();
        next.transpose()
    }
}

/// Reads a line of `json-file`; NUL bytes before it are what a power cut has left.
fn parse_json(line: &[u8]) -> Option<Line> {
    let start = line.iter().position(|b| *b != 0)?;
    let value = fields::parse(line.get(start..)?).ok()?;
    let stream = value.text(&["stream"]).map_or(Some(Stream::Stdout), Stream::named)?;
    let bytes = value.at(&["log"]).as_str()?.as_bytes().to_vec();
    Some(Line { stream, time: value.text(&["time"]).and_then(Time::parse), bytes })
}

/// Reads a message of `local`.
fn parse_local(message: &[u8]) -> Option<Line> {
    let (mut stream, mut time, mut bytes, mut is_part, mut is_last) = (None, None, Vec::new(), false, false);
    for field in Protobuf(message) {
        match field? {
            (1, Field::Bytes(source)) => stream = Stream::named(std::str::from_utf8(source).ok()?),
            (2, Field::Number(nanoseconds)) => time = of_nanoseconds(nanoseconds.cast_signed()),
            (3, Field::Bytes(line)) => bytes = line.to_vec(),
            (4, Field::Number(part)) => is_part = part != 0,
            (5, Field::Bytes(about)) => {
                is_last = Protobuf(about).flatten().any(|field| matches!(field, (1, Field::Number(last)) if last != 0));
            }
            _ => {}
        }
    }
    if !is_part || is_last {
        bytes.push(b'\n');
    }
    Some(Line { stream: stream?, time, bytes })
}

fn of_nanoseconds(nanoseconds: i64) -> Option<Time> {
    let second = 1_000_000_000;
    Some(Time::new(nanoseconds.div_euclid(second), u32::try_from(nanoseconds.rem_euclid(second)).ok()?))
}

/// The fields of a protobuf message: number and value; nothing, at last, where it is damaged.
struct Protobuf<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Protobuf<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => self.bytes(8).map(|_| Field::Other)?,
            2 => {
                let length = self.number()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Field::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Protobuf<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], form: Form) -> Vec<Option<Line>> {
        Lines::new(bytes, form).map(Result::unwrap).collect()
    }

    fn line(stream: Stream, seconds: i64, text: &str) -> Option<Line> {
        Some(Line { stream, time: Some(Time::new(seconds, 5)), bytes: text.as_bytes().to_vec() })
    }

    #[test]
    fn lines_of_json_are_read_and_damaged_ones_are_seen() {
        let text = "\
{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:01.000000005Z\"}
{\"log\":\"half of tw
\0\0\0\0{\"log\":\"thr\\u0000ee\",\"stream\":\"stderr\",\"attrs\":{\"tag\":\"x\"},\"time\":\"1970-01-01T00:00:03.000000005Z\"}
{\"log\":7}
{\"log\":\"cut";
        let expected = [line(Stream::Stdout, 1, "one\n"), None, line(Stream::Stderr, 3, "thr\0ee"), None, None];
        assert_eq!(read(text.as_bytes(), Form::Json), expected);
    }

    #[test]
    fn a_line_without_end_is_passed_over() {
        let mut bytes = vec![b'x'; 5 << 20];
        bytes.extend(b"\n{\"log\":\"a\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:01.000000005Z\"}\n");
        assert_eq!(read(&bytes, Form::Json), [None, line(Stream::Stdout, 1, "a")]);
    }

    /// As the local driver writes it.
    fn message(source: &str, seconds: i64, text: &str, part: Option<bool>) -> Vec<u8> {
        let varint = |mut number: u64| {
            let mut bytes = Vec::new();
            while number > 0x7f {
                bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
                number >>= 7;
            }
            bytes.push(u8::try_from(number).unwrap());
            bytes
        };
        let bytes_of = |key: u8, bytes: &[u8]| [vec![key], varint(bytes.len() as u64), bytes.to_vec()].concat();
        let time = u64::try_from(seconds * 1_000_000_000 + 5).unwrap();
        let mut message =
            [bytes_of(10, source.as_bytes()), vec![16], varint(time), bytes_of(26, text.as_bytes())].concat();
        if let Some(last) = part {
            message.extend([32, 1]);
            message.extend(bytes_of(42, &[8, u8::from(last), 18, 1, b'x', 24, 1]));
        }
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [length.to_vec(), message, length.to_vec()].concat()
    }

    #[test]
    fn messages_of_local_are_read_up_to_the_first_that_is_damaged() {
        let mut bytes = [
            message("stdout", 1, "one", None),
            message("stderr", 2, "long ", Some(false)),
            message("stderr", 2, "line", Some(true)),
        ]
        .concat();
        let expected =
            [line(Stream::Stdout, 1, "one\n"), line(Stream::Stderr, 2, "long "), line(Stream::Stderr, 2, "line\n")];
        assert_eq!(read(&bytes, Form::Local), expected);
        let whole = bytes.len();
        bytes.extend(message("stdout", 3, "cut", None));
        assert_eq!(read(bytes.get(..whole + 20).unwrap(), Form::Local).len(), 4);
        assert_eq!(read(bytes.get(..whole + 20).unwrap(), Form::Local).last(), Some(&None));
        assert_eq!(read(&[0xff; 64], Form::Local), [None]);
    }

    proptest! {
        #[test]
        fn what_local_wrote_is_what_is_read(text in "[a-z \u{e4}]{0,300}", seconds in 0..4_000_000_000_i64, part in any::<Option<bool>>()) {
            let end = if part == Some(false) { "" } else { "\n" };
            let read = read(&message("stdout", seconds, &text, part), Form::Local);
            prop_assert_eq!(read, [line(Stream::Stdout, seconds, &format!("{text}{end}"))]);
        }
    }
}
