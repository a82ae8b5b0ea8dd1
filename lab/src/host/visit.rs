//! One guest for a person: a shell, the demo, the bench.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::cli::GuestOptions;
use super::kernels::Kernel;
use super::lab::Lab;
use super::machine::Lane;
use super::programs;
use super::session::Session;
use super::show;
use super::suites::USUAL_KERNEL;
use super::trouble::{OrTrouble, Result, Trouble};
use crate::protocol::{Exit, Job, PAYLOAD};

/// Starts dockerd as its users have it: on its default loop-file pool, its root on a file system of its own.
const DOCKER_UP: &str = r#"
set -e
disk=${LAB_SCRATCH##*:}
# Discarding 400 GB in the small pieces that user mode Linux takes would last for ever.
mkfs.xfs -q -K -f "$disk"
mkdir -p /var/lib/docker /etc/docker
mount "$disk" /var/lib/docker
echo '{"storage-driver":"devicemapper","iptables":false,"bridge":"none"}' >/etc/docker/daemon.json
setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
for _ in $(seq 240); do
    docker info >/dev/null 2>&1 && exit 0
    sleep 0.5
done
tail -20 /var/log/dockerd.log
exit 1
"#;

/// The payload's file with the commands of a shell that is no terminal.
const SCRIPT: &str = "script";

/// The payload's file that starts dockerd.
const DOCKER_SCRIPT: &str = "docker-up";

/// Runs one of the lab's guest programs (`lab-demo`, `lab-bench`) and shows what it writes, as it writes it.
///
/// # Errors
/// When the guest cannot be made, does not come up, or goes down.
pub fn program(name: &str, arguments: &[String], options: GuestOptions) -> Result<ExitCode> {
    let lab = Lab::open(options.keep)?;
    let mut session = open(&lab, options, false, &[])?;
    let exit = session.program(&job(&format!("/usr/local/bin/{name}"), arguments), &mut show::result)?;
    Ok(code_of(&exit))
}

/// Opens a shell on this terminal; without a terminal, runs standard input as a script and exits with its status.
///
/// # Errors
/// When the guest cannot be made, does not come up, or goes down.
pub fn shell(docker: bool, systemd: bool, options: GuestOptions) -> Result<ExitCode> {
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut script = String::new();
    if !interactive {
        io::stdin().read_to_string(&mut script).or_trouble(|| "cannot read the commands on standard input".into())?;
    }
    if systemd && options.lane.is_some_and(|lane| lane != Lane::Qemu) {
        return Err(Trouble::new("cannot boot systemd in this lane: only QEMU's guests run it")
            .next("cargo lab shell --systemd"));
    }
    let lab = Lab::open(options.keep)?;
    let mut session = open(&lab, options, systemd, &[(SCRIPT, &script), (DOCKER_SCRIPT, DOCKER_UP)])?;
    if docker {
        let start = job("/bin/bash", &[format!("{PAYLOAD}/{DOCKER_SCRIPT}")]);
        let mut said = Vec::new();
        let exit = show::step("starting dockerd on its devicemapper driver", || {
            session.program(&start, &mut |line| said.push(line.to_string()))
        })?;
        if exit != Exit::Code(0) {
            return Err(Trouble::new("cannot start dockerd in the guest").fact("said", said.join("\n")));
        }
    }
    let exit = if interactive {
        on_terminal(&mut session)?
    } else {
        session.program(&job("/bin/bash", &[format!("{PAYLOAD}/{SCRIPT}")]), &mut show::result)?
    };
    Ok(code_of(&exit))
}

/// A guest with what users get of dmpool.
fn open(lab: &Lab, options: GuestOptions, systemd: bool, extra: &[(&str, &str)]) -> Result<Session> {
    let kernel = options.kernel.unwrap_or(USUAL_KERNEL);
    // The quicker lane, where it can be.
    let usual = if systemd || kernel == Kernel::V5_10 { Lane::Qemu } else { Lane::Uml };
    let lane = options.lane.unwrap_or(usual);
    lab.prepare(lane, kernel)?;
    let programs = programs::build(&lab.places, &[])?;
    let payload = programs.pack(lab.run.path(), extra)?;
    let machine = lab.machine(lane, kernel, systemd, &programs, payload)?;
    let mut session = Session::new(machine, options.keep);
    let release = show::step("booting the guest", || session.kernel())?;
    show::line(&format!("it runs kernel {release} ({})", lane.name()));
    Ok(session)
}

/// A job without a time limit, after which nothing is swept.
#[must_use]
pub fn job(program: &str, args: &[String]) -> Job {
    Job {
        program: program.to_string(),
        args: args.to_vec(),
        env: BTreeMap::new(),
        limit_s: None,
        phase: 0,
        notes: BTreeMap::new(),
        on_console: false,
        sweep: false,
    }
}

/// The status that tells how a program in the guest ended, as shells do.
fn code_of(exit: &Exit) -> ExitCode {
    match exit {
        Exit::Code(code) => u8::try_from(*code).map_or(ExitCode::FAILURE, ExitCode::from),
        Exit::Signal(signal) => u8::try_from(128 + *signal).map_or(ExitCode::FAILURE, ExitCode::from),
        Exit::NotStarted(_) | Exit::Hung | Exit::Reboot => ExitCode::FAILURE,
    }
}

/// A login shell on the guest's console, which is this terminal until the shell ends.
fn on_terminal(session: &mut Session) -> Result<Exit> {
    let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let size = size.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default();
    // A terminal that does not know its size says 0 0.
    let (rows, columns) = size.split_once(' ').filter(|(rows, _)| *rows != "0").unwrap_or(("24", "80"));
    let start = format!("stty rows {rows} cols {columns}; exec bash --login");
    let mut login = job("/bin/bash", &["-c".to_string(), start]);
    login.on_console = true;
    if let Ok(terminal) = std::env::var("TERM") {
        login.env.insert("TERM".to_string(), terminal);
    }
    let mut console = session.console()?;
    show::line("this is the guest's shell; leave it with `exit`");
    let raw = Raw::make()?;
    thread::spawn(move || {
        let mut keys = [0; 1024];
        while let Ok(n) = io::stdin().read(&mut keys) {
            let typed = keys.get(..n).unwrap_or_default();
            if typed.is_empty() || console.write_all(typed).is_err() {
                return;
            }
        }
    });
    let exit = session.program(&login, &mut |_| ());
    drop(raw);
    exit
}

/// This terminal without its own line editing; as it was when dropped.
struct Raw(Termios);

impl Raw {
    fn make() -> Result<Raw> {
        let before = tcgetattr(io::stdin()).or_trouble(|| "cannot use this terminal".into())?;
        let mut modes = before.clone();
        cfmakeraw(&mut modes);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &modes).or_trouble(|| "cannot use this terminal".into())?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
