//! One answer over HTTP/1.1, as it comes in: when it is whole, and what it says.

use std::io;

/// More headers than Docker ever sends.
const HEADERS: usize = 64;
/// A head that is longer is none.
const LONGEST_HEAD: usize = 64 << 10;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `200`.
    pub status: u16,
    /// Its bytes, taken out of chunks.
    pub body: Vec<u8>,
}

/// How far an answer has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it is there.
    Whole(Answer),
    /// More must come.
    More,
}

/// Reads what has come in of an answer so far; `ended` when no more will come.
///
/// # Errors
/// `InvalidData` for what is no such answer, `UnexpectedEof` for one that ends too early.
pub fn read(mut bytes: &[u8], ended: bool) -> io::Result<Progress> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() > LONGEST_HEAD => return Err(bad("its head has no end")),
            Ok(httparse::Status::Partial) => return more_or(ended),
            Err(error) => return Err(bad(&error.to_string())),
        };
        let status = head.code.ok_or_else(|| bad("it has no status"))?;
        let rest = bytes.get(length..).unwrap_or_default();
        // Interim answers stand before the one that counts.
        if matches!(status, 100 | 102..=199) {
            bytes = rest;
            continue;
        }
        let value = |name: &str| head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        return body(status, rest, value("transfer-encoding"), value("content-length"), ended);
    }
}

fn body(status: u16, rest: &[u8], encoding: Option<&[u8]>, length: Option<&[u8]>, ended: bool) -> io::Result<Progress> {
    let whole = |body: &[u8]| Ok(Progress::Whole(Answer { status, body: body.to_vec() }));
    if matches!(status, 101 | 204 | 304) {
        return whole(&[]);
    }
    if encoding.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        return match unchunked(rest)? {
            Some(body) => Ok(Progress::Whole(Answer { status, body })),
            None => more_or(ended),
        };
    }
    match length {
        Some(value) => {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<usize>().ok());
            let length = length.ok_or_else(|| bad("its length is no number"))?;
            rest.get(..length).map_or_else(|| more_or(ended), whole)
        }
        None if ended => whole(rest),
        None => Ok(Progress::More),
    }
}

/// Returns the bytes that chunks hold; nothing when the last one has not come in.
fn unchunked(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(bad("a chunk has no size")),
        };
        let size = usize::try_from(size).map_err(|_| bad("a chunk is too large"))?;
        // Docker sends no trailers; what stands behind the last chunk says nothing of it.
        if size == 0 {
            return Ok(Some(body));
        }
        let end = start.checked_add(size).ok_or_else(|| bad("a chunk is too large"))?;
        let Some(chunk) = rest.get(start..end) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match rest.get(end..end + 2) {
            Some(b"\r\n") => rest = rest.get(end + 2..).unwrap_or_default(),
            Some(_) => return Err(bad("a chunk does not end where it says")),
            None => return Ok(None),
        }
    }
}

fn more_or(ended: bool) -> io::Result<Progress> {
    if ended { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too early")) } else { Ok(Progress::More) }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Answer {
        match read(bytes, true).unwrap() {
            Progress::Whole(answer) => answer,
            Progress::More => unreachable!("it has ended"),
        }
    }

    #[test]
    fn each_way_to_say_where_a_body_ends_is_read() {
        for (text, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOKx", 200, "OK"),
            ("HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", 500, "abcd"),
            ("HTTP/1.0 200 OK\r\n\r\nto the end", 200, "to the end"),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", 304, ""),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ] {
            assert_eq!(whole(text.as_bytes()), Answer { status, body: body.into() }, "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_and_what_is_torn_is_told() {
        for bad in [
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert_eq!(read(bad.as_bytes(), false).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad}");
        }
        let torn = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        assert_eq!(read(torn.as_bytes(), false).unwrap(), Progress::More);
        assert_eq!(read(torn.as_bytes(), true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"", true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), ended: bool) {
            let _ = read(&bytes, ended);
        }

        #[test]
        fn a_body_in_chunks_is_put_together_and_never_before_it_is_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6)
        ) {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
            }
            for end in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..end], false).unwrap(), Progress::More);
            }
            bytes.extend(*b"0\r\n\r\n");
            prop_assert_eq!(whole(&bytes), Answer { status: 200, body: chunks.concat() });
        }
    }
}
