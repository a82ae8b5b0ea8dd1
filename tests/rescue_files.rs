//! `dmpool rescue cp`, `export` and `diff` as they are typed, on a root of overlay2 that needs no kernel's help.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// A root with the container `web`.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// Nothing without root: device nodes are part of it.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            println!("lab-skip: device nodes and trusted attributes need root");
            return None;
        }
        let root = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(root.path("out")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rescue/make.sh");
        let made = Command::new("sh").arg(script).arg("overlay2").arg(root.path("root")).status();
        assert!(made.unwrap().success());
        Some(root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the container itself, in its layer.
    fn own(&self, name: &str) -> PathBuf {
        self.path("root/overlay2").join("b".repeat(64)).join("diff").join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmpool"));
        command.arg("--root").arg(self.path("root")).args(line.split(' '));
        command.current_dir(self.path("out")).stdin(Stdio::null());
        command
    }

    /// The exit code, standard output and standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn out(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Begins a command and interrupts it when something of its work is there: how it ended. One that was faster
    /// than the signal is run again.
    fn interrupt(&self, line: &str, is_there: impl Fn(&str) -> bool) -> (Option<i32>, String) {
        for _ in 0..50 {
            fs::write(self.path("out/web.tar"), "before").unwrap();
            drop(fs::remove_file(self.path("out/large")));
            let mut child = self.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            while child.try_wait().unwrap().is_none() && !self.out().iter().any(|name| is_there(name)) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if child.try_wait().unwrap().is_some() {
                continue;
            }
            kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.code() != Some(0) {
                return (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
            }
        }
        panic!("no signal came in time for `{line}`");
    }
}

#[test]
fn files_come_out_and_what_is_refused_touches_nothing() {
    let Some(root) = Root::new() else { return };
    assert_eq!(root.run("rescue cp web:/etc ."), (0, String::new(), String::new()));
    assert_eq!(root.run("rescue cp web:/etc/. etc"), (0, String::new(), String::new()));
    assert_eq!(root.run("rescue cp -a web:/etc/added name"), (0, String::new(), String::new()));
    assert_eq!(root.run("rescue export web -o web.tar"), (0, String::new(), String::new()));
    assert_eq!(root.out(), ["etc", "name", "web.tar"]);
    let there = |path: &str| fs::read_to_string(root.path("out").join(path)).unwrap();
    assert_eq!([there("etc/hosts"), there("name")], ["127.0.0.1 localhost\n", "etc/added of web\n"]);
    for (line, code, why) in [
        ("rescue cp web:/none .", 3, "there is no /none"),
        ("rescue cp web:/host/x .", 3, "/host is /srv/here of the host: copy it from there"),
        ("rescue cp web:/etc/added none/", 3, "next:   mkdir -p none/"),
        ("rescue cp web:/etc name", 3, "it is no directory, and a directory is copied"),
        ("rescue cp web:/etc ../root", 3, "it is in the Docker root itself"),
        ("rescue export web -o ../root/web.tar", 3, "it is in the Docker root itself"),
        ("rescue export web -o none/web.tar", 1, "next:   mkdir -p none"),
        ("rescue export nobody", 3, "no such container: `nobody`"),
        ("rescue cp web .", 2, "NAME:PATH"),
    ] {
        let (ended, stdout, stderr) = root.run(line);
        assert_eq!((ended, stdout.as_str()), (code, ""), "{line}: {stderr}");
        assert!(stderr.contains(why), "{line}: {stderr}");
    }
    assert_eq!(root.out(), ["etc", "name", "web.tar"]);
}

#[test]
fn what_is_missing_is_named_and_the_rest_is_there() {
    let Some(root) = Root::new() else { return };
    fs::remove_dir_all(root.path("root/overlay2").join("1".repeat(64))).unwrap();
    let (code, _, stderr) = root.run("rescue export web -o web.tar");
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.starts_with("dmpool: `/`: a layer is missing: ") && stderr.contains("is not whole"), "{stderr}");
    let listed = Command::new("tar").arg("-tf").arg(root.path("out/web.tar")).output().unwrap();
    assert!(listed.status.success() && listed.stdout.ends_with(b"log/\nlog/a\n"));
    let (code, stdout, _) = root.run("rescue diff web");
    assert_eq!((code, stdout.lines().last()), (5, Some("A /log/a")));
}

#[test]
fn a_name_in_the_container_cannot_steer_the_terminal() {
    let Some(root) = Root::new() else { return };
    fs::write(root.own("etc/\u{1b}[2Jx\ny"), "").unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.own("\u{1b}[1mz")).unwrap());
    let (_, stdout, _) = root.run("rescue diff web");
    assert!(stdout.contains("\nA /etc/\\u{1b}[2Jx\\ny\n"), "{stdout}");
    let (code, _, stderr) = root.run("rescue export web -o web.tar");
    assert_eq!((code, stderr.as_str()), (0, "note: `/\\u{1b}[1mz` is a socket and left out\n"));
}

#[test]
fn an_interrupt_leaves_nothing_half_made() {
    let Some(root) = Root::new() else { return };
    let large = File::create(root.own("log/large")).unwrap();
    fallocate(large.as_fd(), FallocateFlags::empty(), 0, 128 << 20).unwrap();
    let (code, stderr) = root.interrupt("rescue export web -o web.tar", |name| name.contains(".dmpool-"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("did not write `web.tar`: SIGINT came"), "{stderr}");
    assert_eq!(
        (root.out(), fs::read_to_string(root.path("out/web.tar")).unwrap()),
        (vec!["web.tar".into()], "before".into())
    );

    let (code, stderr) = root.interrupt("rescue cp web:/log/large large", |name| name.starts_with(".dmpool-rescue"));
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("SIGINT came") && stderr.contains("0 entries were copied and are whole"), "{stderr}");
    assert_eq!(root.out(), ["web.tar"]);

    // A reader that goes away is silence.
    let mut child = root.command("rescue export web").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
