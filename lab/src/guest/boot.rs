//! The life of the guest a test runs in: reboots, power cuts, what is remembered across them, its disks.
//!
//! A test that goes down with its guest is started again from its beginning in the next boot; [`phase`] tells it where
//! it is:
//!
//! ```no_run
//! use lab::guest::boot;
//! match boot::phase() {
//!     0 => { boot::remember("size", "100"); boot::power_cut() }
//!     _ => assert_eq!(boot::recall("size").as_deref(), Some("100")),
//! }
//! ```
//!
//! Everything here speaks to the lab's agent and panics when there is none: these calls are for guest tests only.
#![allow(clippy::panic, clippy::print_stdout, reason = "a test's helpers fail by panicking and report by printing")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

pub use crate::protocol::Disks;
use crate::protocol::{self, Ask, Plug, Request, SKIP_MARK};

/// How often the guest has gone down in this test: 0 in its first run, then 1, 2, …
#[must_use]
pub fn phase() -> u32 {
    lab_variable("LAB_PHASE").parse().unwrap_or_else(|e| panic!("LAB_PHASE is no number: {e}"))
}

/// Reboots the guest cleanly (programs ended, file systems unmounted) and runs this test again with the next [`phase`].
pub fn reboot() -> ! {
    ask(&Request::Reboot);
    wait_for_the_end()
}

/// As [`reboot`], and the guest finds other scratch disks, or finds them in another order, until the test ends or says
/// otherwise: `Disks::in_order(&[1, 0, 2])`, `Disks::in_order(&[0, 2])` without the second one.
pub fn reboot_with(disks: Disks) -> ! {
    plug(disks);
    reboot()
}

/// As [`power_cut`], with other scratch disks afterwards.
pub fn power_cut_with(disks: Disks) -> ! {
    plug(disks);
    power_cut()
}

/// From the next boot on, however it comes about, the guest has these scratch disks.
pub fn plug(disks: Disks) {
    ask(&Request::Host(Ask::Plug { disks }));
}

/// Cuts the guest's power now: what was not synced is lost, what was synced stays. This test runs again with the next
/// [`phase`].
pub fn power_cut() -> ! {
    power_cut_after(Duration::ZERO);
    wait_for_the_end()
}

/// Returns at once; the guest's power is cut when `delay` has passed, whatever the test does by then. A test that ends
/// before the cut fails.
pub fn power_cut_after(delay: Duration) {
    let after_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    ask(&Request::Host(Ask::PowerCut { after_ms }));
}

/// Keeps a note with the host. When this has returned, the note survives any power cut.
pub fn remember(key: &str, value: &str) {
    let (key, value) = (key.to_string(), value.to_string());
    ask(&Request::Host(Ask::Remember { key, value }));
}

/// The note under `key` that an **earlier phase** of this test made; nothing if none did.
#[must_use]
pub fn recall(key: &str) -> Option<String> {
    let notes: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&lab_variable("LAB_NOTES")).unwrap_or_else(|e| panic!("LAB_NOTES: {e}"));
    notes.get(key).cloned()
}

/// Extra disks of this guest, blank when the test starts, kept across its reboots: two of 8 GiB, then one of 400 GB
/// (all sparse on the host). Their order is the same in every boot, whatever they are called there.
///
/// In the native lane they are what the machine's owner named in `LAB_SCRATCH`, as they are; a test is skipped where
/// that is nothing.
#[must_use]
pub fn scratch_disks() -> Vec<PathBuf> {
    let disks: Vec<PathBuf> = places().into_iter().flatten().collect();
    if disks.is_empty() {
        skip("this machine has no disks for tests: LAB_SCRATCH names none");
    }
    disks
}

/// The scratch disk of that number, wherever it is found in this boot; nothing while it is not plugged in.
#[must_use]
pub fn scratch_disk(number: usize) -> Option<PathBuf> {
    places().into_iter().nth(number).flatten()
}

/// The name below `/dev/disk/by-id` that a scratch disk has in every boot; its partitions' end in `-part1`, ….
#[must_use]
pub fn by_id(number: usize) -> PathBuf {
    id_of(Plug::Disk(number))
}

/// That of the copy of a scratch disk.
#[must_use]
pub fn copy_by_id(number: usize) -> PathBuf {
    id_of(Plug::CopyOf(number))
}

fn id_of(plug: Plug) -> PathBuf {
    Path::new("/dev/disk/by-id").join(format!("virtio-lab-{}", plug.name()))
}

/// The scratch disks by their numbers.
fn places() -> Vec<Option<PathBuf>> {
    let device = |text: &str| Some(PathBuf::from(text)).filter(|_| !text.is_empty());
    lab_variable("LAB_SCRATCH").split(':').map(device).collect()
}

/// Whether udevd runs and answers on its control socket.
#[must_use]
pub fn have_udev() -> bool {
    // udevd's control socket is of this type; a stale file refuses the connection.
    accepts_seqpacket(Path::new("/run/udev/control"))
}

/// Stops udevd for the rest of this test; the agent starts it again afterwards.
pub fn stop_udev() {
    ask(&Request::Udev { run: false });
}

/// Starts udevd again within the same test.
pub fn start_udev() {
    ask(&Request::Udev { run: true });
}

/// This test may run so long in all (the agent's own limit is five minutes).
pub fn time_limit(total: Duration) {
    ask(&Request::TimeLimit { seconds: total.as_secs() });
}

/// The lane this guest runs in: `uml`, `qemu` or `native`.
#[must_use]
pub fn lane() -> String {
    lab_variable("LAB_LANE")
}

/// Whether this run is to do all it can (`cargo lab test --full`), instead of what CI has time for.
#[must_use]
pub fn full() -> bool {
    lab_variable("LAB_FULL") == "true"
}

/// The kernel release this guest runs, as `uname -r` prints it.
#[must_use]
pub fn kernel() -> String {
    lab_variable("LAB_KERNEL")
}

/// Reports this test as skipped, with a reason, and ends it. For what this guest cannot do, never for what fails.
pub fn skip(reason: &str) -> ! {
    println!("{SKIP_MARK}{reason}");
    process::exit(0)
}

/// A variable that the agent sets for every job.
fn lab_variable(name: &str) -> String {
    env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: this test runs inside a guest of `cargo lab test` only"))
}

/// Sends one request to the agent and waits for its answer.
fn ask(request: &Request) {
    let mut stream = UnixStream::connect(protocol::SOCKET)
        .unwrap_or_else(|e| panic!("the lab's agent does not answer on {}: {e}", protocol::SOCKET));
    // The tests' own output must be out before the guest goes down.
    let _ = std::io::stdout().flush();
    protocol::send(&mut stream, request).unwrap_or_else(|e| panic!("asking the lab's agent for {request:?}: {e}"));
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .unwrap_or_else(|e| panic!("waiting for the lab's agent to grant {request:?}: {e}"));
    match answer.trim() {
        "ok" => {}
        other => skip(other.strip_prefix("no: ").unwrap_or("the lab's agent went away")),
    }
}

/// Sleeps until the guest is gone.
fn wait_for_the_end() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Whether somebody accepts a seqpacket connection at `path`.
fn accepts_seqpacket(path: &Path) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let Ok(address) = UnixAddr::new(path) else {
        return false;
    };
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .is_ok_and(|fd| connect(fd.as_raw_fd(), &address).is_ok())
}
