//! Whether KVM can be used: `/dev/kvm` is no proof, guests under a nested one may hang after their firmware.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::keeper;
use super::machine::{Accelerator, accelerator_words};
use super::place::Places;
use super::show;

/// How long a kernel may take to say its first words under KVM.
const PROBE: Duration = Duration::from_secs(5);

/// KVM if a probe boot of `kernel` speaks within seconds, else TCG. The answer holds until the machine boots again.
#[must_use]
pub fn choose(places: &Places, kernel: &Path) -> Accelerator {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Accelerator::Tcg;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = places.lab().join("kvm");
    let answer = fs::read_to_string(&note).ok().and_then(|text| {
        let (noted_boot, works) = text.split_once(' ')?;
        (noted_boot == boot.trim()).then_some(works == "works")
    });
    let works = answer.unwrap_or_else(|| {
        let works = speaks(kernel);
        show::line(if works { "KVM works here" } else { "KVM does not work here: QEMU will translate" });
        let _ = fs::write(&note, format!("{} {}", boot.trim(), if works { "works" } else { "hangs" }));
        works
    });
    if works { Accelerator::Kvm } else { Accelerator::Tcg }
}

/// Whether the kernel prints its version in time.
fn speaks(kernel: &Path) -> bool {
    let Ok(me) = std::env::current_exe() else {
        return false;
    };
    let mut command = Command::new(me);
    command.args([keeper::ARGUMENT, "qemu-system-x86_64"]).args(accelerator_words(Accelerator::Kvm));
    command.args(["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).args(["-append", "console=ttyS0 panic=-1"]);
    let Ok(mut probe) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        return false;
    };
    let (sender, receiver) = channel();
    let output = probe.stdout.take();
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        let Some(mut output) = output else { return };
        while let Ok(n) = output.read(&mut buffer) {
            text.extend_from_slice(buffer.get(..n).unwrap_or_default());
            if n == 0 || String::from_utf8_lossy(&text).contains("Linux version") {
                break;
            }
        }
        let _ = sender.send(String::from_utf8_lossy(&text).contains("Linux version"));
    });
    let works = receiver.recv_timeout(PROBE).unwrap_or(false);
    // Its standard input closes, which ends the keeper and the probe.
    drop(probe.stdin.take());
    let _ = probe.wait();
    works
}
