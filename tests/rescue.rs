//! `dmpool rescue` and `dmpool volumes` as they are typed, on roots that need no kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A root of `tests/fixtures/docker-roots`, laid out.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new(name: &str) -> Self {
        let root = Self { folder: tempfile::tempdir().unwrap() };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/docker-roots/{name}.txt"));
        for line in fs::read_to_string(fixture).unwrap().lines() {
            let mut words = line.splitn(3, ' ');
            let (path, kind) = (root.path().join(words.next().unwrap()), words.next().unwrap());
            let content = words.next().unwrap_or_default();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match kind {
                "=" => fs::write(&path, content).unwrap(),
                "+" => {
                    let before = fs::read_to_string(&path).unwrap_or_default();
                    fs::write(&path, format!("{before}{content}\n")).unwrap();
                }
                "/" => fs::create_dir_all(&path).unwrap(),
                _ => panic!("{line}"),
            }
        }
        root
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dmpool"));
        command.arg("--root").arg(self.path()).args(line.split(' ')).stdin(Stdio::null());
        command
    }

    /// The exit code, standard output and standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }
}

#[test]
fn a_whole_root_is_shown_and_ends_with_0() {
    let root = Root::new("20.10");
    for line in [
        "rescue ps -a",
        "rescue ps --no-trunc --format json",
        "rescue images",
        "rescue images --tree --no-trunc",
        "rescue inspect web busybox:latest",
        "rescue inspect --type image busybox",
        "rescue run-line web",
        "volumes list",
        "volumes ls --no-size --format json",
    ] {
        let (code, stdout, stderr) = root.run(line);
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}: {stdout}");
        assert!(stdout.contains("web") || stdout.contains("sha256") || stdout.contains("busybox"), "{line}: {stdout}");
    }
}

#[test]
fn a_damaged_root_is_shown_as_far_as_it_goes_and_ends_with_5() {
    let root = Root::new("broken");
    for line in ["rescue ps", "rescue images", "rescue images --tree", "volumes list", "rescue inspect db"] {
        let (code, stdout, stderr) = root.run(line);
        assert_eq!(code, 5, "{line}: {stderr}");
        assert!(stderr.contains("not whole") && stderr.contains("nothing was written"), "{line}: {stderr}");
        assert!(stdout.lines().count() > 4, "{line}: {stdout}");
    }
    let (code, stdout, stderr) = root.run("rescue run-line cbb1ca");
    assert_eq!((code, stdout.as_str()), (5, ""));
    assert!(stderr.contains("it is empty or holds NUL bytes only") && stderr.contains("next:"), "{stderr}");
}

#[test]
fn what_is_not_there_is_refused_with_what_to_type() {
    let root = Root::new("20.10");
    for (line, code, why) in [
        ("rescue inspect nobody", 3, "no such container and no such image: `nobody`"),
        ("rescue logs nobody", 3, "no such container: `nobody`"),
        ("rescue logs side", 3, "next:     journalctl -o cat CONTAINER_ID_FULL=472c91"),
        ("rescue logs db --since yesterday", 2, "is neither a time"),
        ("rescue logs db --tail many", 2, "neither a number of lines nor `all`"),
    ] {
        let (ended, stdout, stderr) = root.run(line);
        assert_eq!((ended, stdout.as_str()), (code, ""), "{line}");
        assert!(stderr.contains(why), "{line}: {stderr}");
    }
    let (code, stdout, stderr) = root.run("rescue inspect nobody web");
    assert_eq!(code, 5, "{stderr}");
    assert!(stdout.contains("\"Name\": \"/web\"") && stderr.contains("`nobody`"));
    for (path, why) in [("/", "is no Docker root"), ("/none", "cannot read the Docker root")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_dmpool")).args(["rescue", "ps", "--root", path]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(why) && stderr.contains(&format!("ls -ld {path}    # shows")), "{stderr}");
    }
}

#[test]
fn a_log_goes_where_the_container_wrote_it() {
    let root = Root::new("1.13");
    let id = fs::read_dir(root.path().join("containers")).unwrap().next().unwrap().unwrap().file_name();
    let id = id.to_str().unwrap();
    let log = "\
{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2017-01-01T00:00:01.5Z\"}
no line of Docker's
{\"log\":\"two\\n\",\"stream\":\"stderr\",\"time\":\"2017-01-01T00:00:02Z\"}
";
    fs::write(root.path().join(format!("containers/{id}/{id}-json.log")), log).unwrap();
    let (code, stdout, stderr) = root.run("rescue logs old");
    assert_eq!((code, stdout.as_str()), (5, "one\n"));
    assert!(stderr.starts_with("two\ndmpool: the log of container `old ("), "{stderr}");
    assert!(stderr.contains("1 line was damaged and passed over"), "{stderr}");
    let (_, stdout, _) = root.run("rescue logs -t old");
    assert_eq!(stdout, "2017-01-01T00:00:01.500000000Z one\n");
    let (_, stdout, stderr) = root.run("rescue logs --since 2017-01-01T00:00:02 old");
    assert_eq!((stdout.as_str(), stderr.split('\n').next()), ("", Some("two")));

    // A reader that goes away is silence.
    fs::write(root.path().join(format!("containers/{id}/{id}-json.log")), log.repeat(20_000)).unwrap();
    let mut child = root.command("rescue logs old").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
