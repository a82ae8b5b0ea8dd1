//! Docker's Engine API over its Unix socket: JSON in and out, as Docker has it, one connection a call.
//!
//! Every call has a limit of time and its answer one of length: a daemon that hangs is told from one that says no.

pub mod http;
pub mod socket;

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect};
use serde_json::Value;

use http::{Answer, Progress};

/// What a call may take that only tells something.
pub const SOON: Duration = Duration::from_secs(60);

/// No answer that is asked for comes near this: `docker inspect` of one object, lists of a thousand.
const LONGEST: usize = 64 << 20;
/// How long a socket whose queue is full is tried again.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Docker, as it is asked by one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    socket: PathBuf,
    version: Option<String>,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub enum ApiError {
    /// Nobody listens there.
    Nobody(PathBuf, io::Error),
    /// A signal has stopped that process, and it answers nobody.
    Stopped(u32),
    /// It did not answer in time: what was asked, and how long.
    Silent(String, Duration),
    /// It answered with an error: what was asked, the status, Docker's own words.
    Refused(String, u16, String),
    /// What came is no answer: what was asked, and why.
    Garbled(String, io::Error),
}

impl ApiError {
    /// Returns the HTTP status, when Docker answered.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(_, status, _) => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(socket, why) => write!(f, "nobody answers at {}: {why}", socket.display()),
            Self::Stopped(pid) => {
                write!(
                    f,
                    "Docker (process {pid}) was stopped by a signal, and does nothing until it is let go on:  kill -CONT {pid}"
                )
            }
            Self::Silent(call, limit) => {
                write!(f, "Docker did not answer `{call}` within {} s: it hangs", limit.as_secs())
            }
            Self::Refused(call, status, said) => write!(f, "Docker answered `{call}` with {status}: {said}"),
            Self::Garbled(call, why) => write!(f, "what came as answer to `{call}` is none: {why}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl Api {
    /// Returns the API behind a socket, in whatever version the daemon takes for its own.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), version: None }
    }

    /// Returns the same in the daemon's own version: the one in which it leaves nothing out. Any from 1.24 on will do.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn negotiated(self) -> Result<Self, ApiError> {
        let answer = self.get("/version", SOON)?;
        let version = answer.get("ApiVersion").and_then(Value::as_str).filter(|version| is_version(version));
        Ok(Self { version: version.map(str::to_owned), ..self })
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When nobody listens, Docker hangs, or answers with an error; also with what is no JSON.
    pub fn get(&self, path: &str, limit: Duration) -> Result<Value, ApiError> {
        self.call("GET", path, None, limit)
    }

    /// Has something done. The answer is null where Docker has nothing to say.
    ///
    /// # Errors
    /// As [`Self::get`]. What is so already (304) is none.
    pub fn post(&self, path: &str, limit: Duration) -> Result<Value, ApiError> {
        self.call("POST", path, None, limit)
    }

    /// Has something made that is described by `what`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn make(&self, path: &str, what: &Value, limit: Duration) -> Result<Value, ApiError> {
        self.call("POST", path, Some(what), limit)
    }

    /// Has something removed.
    ///
    /// # Errors
    /// As [`Self::get`]; also when it is not there.
    pub fn delete(&self, path: &str, limit: Duration) -> Result<Value, ApiError> {
        self.call("DELETE", path, None, limit)
    }

    fn call(&self, method: &str, path: &str, sent: Option<&Value>, limit: Duration) -> Result<Value, ApiError> {
        let version = self.version.as_ref().map(|version| format!("/v{version}")).unwrap_or_default();
        let call = format!("{method} {version}{path}");
        let Answer { status, body } =
            self.ask(&call, sent, Instant::now() + limit).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ApiError::Silent(call.clone(), limit),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    ApiError::Nobody(self.socket.clone(), error)
                }
                _ => ApiError::Garbled(call.clone(), error),
            })?;
        match status {
            200..=299 | 304 if body.is_empty() => Ok(Value::Null),
            200..=299 => serde_json::from_slice(&body).map_err(|error| ApiError::Garbled(call, error.into())),
            304 => Ok(Value::Null),
            _ => Err(ApiError::Refused(call, status, message_of(&body))),
        }
    }

    fn ask(&self, call: &str, sent: Option<&Value>, until: Instant) -> io::Result<Answer> {
        let mut stream = connected(&self.socket, until)?;
        stream.set_write_timeout(Some(left(until)?))?;
        let body = sent.map(Value::to_string).unwrap_or_default();
        let kind = if sent.is_some() { "Content-Type: application/json\r\n" } else { "" };
        // An empty body has a length too: old daemons wait for one.
        let request = format!(
            "{call} HTTP/1.1\r\nHost: docker\r\nUser-Agent: dmpool\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut came = Vec::new();
        let mut chunk = [0_u8; 16 << 10];
        loop {
            stream.set_read_timeout(Some(left(until)?))?;
            let read = match stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            came.extend(chunk.iter().take(read));
            if let Progress::Whole(answer) = http::read(&came, read == 0)? {
                return Ok(answer);
            }
            if came.len() > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {LONGEST} bytes")));
            }
        }
    }
}

/// Returns what is left of the time; an error when nothing is.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Connects without waiting for ever where the daemon takes nobody any more.
fn connected(socket: &Path, until: Instant) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let address = UnixAddr::new(socket)?;
    loop {
        let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => {
                let stream = UnixStream::from(fd);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            // Its queue is full (unix(7)).
            Err(Errno::EAGAIN) => std::thread::sleep(left(until)?.min(BETWEEN_TRIES)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns Docker's own words for an error: `{"message": …}`, or text before 1.24.
fn message_of(body: &[u8]) -> String {
    /// As much as a line on a terminal can bear.
    const MOST: usize = 600;
    let json = serde_json::from_slice::<Value>(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str).map(str::to_owned);
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

fn is_version(text: &str) -> bool {
    text.split_once('.').is_some_and(|(major, minor)| [major, minor].iter().all(|part| part.parse::<u16>().is_ok()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    /// Answers each call with the next of these texts, and what it was asked.
    pub(crate) fn answering(texts: &'static [&'static str]) -> (tempfile::TempDir, Api, JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let answer = |text: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0_u8];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                    request.extend(byte);
                }
                let head = String::from_utf8(request.clone()).unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
                String::from_utf8(request).unwrap().lines().next().unwrap_or_default().to_owned()
            };
            texts.iter().map(answer).collect()
        });
        (dir, Api::at(&path), server)
    }

    #[test]
    fn the_daemons_own_version_is_used_and_its_words_are_shown() {
        let (_dir, api, server) = answering(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"ApiVersion\":\"1.24\"}",
            "HTTP/1.1 500 x\r\nContent-Length: 27\r\n\r\n{\"message\":\"no such\\nluck\"}",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        ]);
        let api = api.negotiated().unwrap();
        let refused = api.get("/containers/json", SOON).unwrap_err();
        assert_eq!(refused.to_string(), "Docker answered `GET /v1.24/containers/json` with 500: no such luck");
        assert_eq!(refused.status(), Some(500));
        assert_eq!(api.post("/containers/x/start", SOON).unwrap(), Value::Null);
        assert!(matches!(api.get("/info", SOON), Err(ApiError::Garbled(..))));
        let asked = server.join().unwrap();
        assert_eq!(asked.first().unwrap(), "GET /version HTTP/1.1");
        assert_eq!(asked.get(2).unwrap(), "POST /v1.24/containers/x/start HTTP/1.1");
    }

    #[test]
    fn one_that_hangs_and_one_that_is_not_there_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let silent = Api::at(&path).get("/info", Duration::from_millis(100)).unwrap_err();
        assert!(matches!(silent, ApiError::Silent(..)), "{silent}");
        drop(listener);
        let nobody = Api::at(&path).get("/info", SOON).unwrap_err();
        assert!(nobody.to_string().starts_with("nobody answers at "), "{nobody}");
        assert!(matches!(Api::at(&dir.path().join("none")).get("/x", SOON), Err(ApiError::Nobody(..))));
    }
}
