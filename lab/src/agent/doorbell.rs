//! Where a test reaches the agent: a Unix socket, one request per connection.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result};

use crate::protocol::{self, Request};

/// A request and the way to answer it.
pub(super) struct Ring {
    /// What the test wants.
    pub(super) request: Request,
    stream: UnixStream,
}

impl Ring {
    /// Lets the test go on.
    pub(super) fn grant(mut self) {
        let _ = writeln!(self.stream, "ok");
    }

    /// Says why not; the test counts as skipped with that reason.
    pub(super) fn refuse(mut self, reason: &str) {
        let _ = writeln!(self.stream, "no: {reason}");
    }
}

/// Listens from now on; every request arrives at the receiver.
pub(super) fn listen() -> Result<Receiver<Ring>> {
    fs::create_dir_all("/run/lab").context("creating /run/lab")?;
    let _ = fs::remove_file(protocol::SOCKET);
    let listener = UnixListener::bind(protocol::SOCKET).context("listening for tests")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            take(stream, &sender);
        }
    });
    Ok(receiver)
}

fn take(stream: UnixStream, sender: &Sender<Ring>) {
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    if let Ok(Some(request)) = protocol::receive(&mut BufReader::new(reading), |_| ()) {
        let _ = sender.send(Ring { request, stream });
    }
}
