//! The binary that users get: built, looked at, and run on every kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::kernels::Kernel;
use super::lab::Lab;
use super::machine::Lane;
use super::programs::{self, Programs};
use super::session::Session;
use super::show;
use super::suites::SUITES;
use super::tally::Tally;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};
use super::visit;
use crate::protocol::{Exit, PAYLOAD};

/// A pool's short life, in a guest.
const SHORT_LIFE: &str = r#"
set -e
dir=$(mktemp -d /var/tmp/dmpool-test-dist.XXXXXX)
dmpool --version
dmpool create dmpool-test-dist --data-size 1G --metadata-size 16M --dir "$dir"
dmpool status dmpool-test-dist
dmpool grow dmpool-test-dist 2G
test "$(blockdev --getsize64 /dev/mapper/dmpool-test-dist)" = 2147483648
dmpool destroy dmpool-test-dist --yes
! dmsetup info dmpool-test-dist 2>/dev/null
"#;

/// Builds everything into `target/dist` and runs the binary on every kernel.
///
/// # Errors
/// When it cannot be built, is not static, or a guest does not come up.
pub fn run() -> Result<ExitCode> {
    let lab = Lab::open(false)?;
    let place = lab.places.target.join("dist");
    // The tests first: the build of what users get comes last and is what is run below.
    let tests = programs::build(&lab.places, SUITES)?;
    let ready = tests.stage(&lab.run.path().join("dist"))?;
    let users = programs::build(&lab.places, &[])?;
    if place.exists() {
        fs::remove_dir_all(&place).or_trouble(|| format!("cannot remove `{}`", place.display()))?;
    }
    fill(&place, &users, &ready)?;
    must_be_static(&place.join("dmpool"))?;
    show::result(&format!("{}: static", place.join("dmpool").display()));
    let payload = users.pack(lab.run.path(), &[("short-life", SHORT_LIFE)])?;
    let mut tally = Tally::default();
    for kernel in Kernel::ALL {
        let machine = lab.machine(Lane::Qemu, kernel, false, &users, payload.clone())?;
        let mut session = Session::new(machine, false);
        let release = session.kernel()?;
        let mut said = Vec::new();
        let job = visit::job("/bin/bash", &[format!("{PAYLOAD}/short-life")]);
        let exit = session.program(&job, &mut |line| said.push(line.to_string()))?;
        if exit == Exit::Code(0) {
            tally.pass(&release);
            show::result(&format!("kernel {release}: created, shown, grown, destroyed"));
        } else {
            tally.fail(&format!("kernel {release}"), &format!("{exit:?}"));
            show::result(&format!("kernel {release}: FAILED\n  {}", said.join("\n  ")));
        }
    }
    tally.finish();
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The binary, its pages and completions, and beside them what `lab test --lane native --prebuilt` needs.
fn fill(place: &Path, users: &Programs, tests: &Path) -> Result<()> {
    let cannot = || format!("cannot write in `{}`", place.display());
    fs::create_dir_all(place.join("completions")).or_trouble(cannot)?;
    fs::create_dir_all(place.join("man")).or_trouble(cannot)?;
    for name in ["dmpool", "lab", "lab-agent"] {
        let from = users.binaries.get(name).ok_or_else(|| Trouble::new(format!("cannot find the program `{name}`")))?;
        fs::copy(from, place.join(name)).or_trouble(|| format!("cannot copy `{}`", from.display()))?;
    }
    let dmpool = place.join("dmpool");
    for shell in ["bash", "zsh", "fish"] {
        let text = tool::run(Command::new(&dmpool).args(["completions", shell]))?;
        fs::write(place.join("completions").join(format!("dmpool.{shell}")), text).or_trouble(cannot)?;
    }
    tool::run(Command::new(&dmpool).args(["man", "--dir"]).arg(place.join("man")))?;
    tool::run(Command::new("cp").arg("--recursive").arg(tests).arg(place.join("payload"))).map(|_| ())
}

/// Refuses a program that wants libraries of the machine it runs on.
fn must_be_static(program: &Path) -> Result<()> {
    // ldd fails on some static programs and says so of others: what it says counts.
    let output = Command::new("ldd").arg(program).output().or_trouble(|| "cannot run `ldd`".into())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if said.contains("statically linked") || said.contains("not a dynamic executable") {
        return Ok(());
    }
    Err(Trouble::new(format!("cannot hand out `{}`: it is not static", program.display())).fact("found", said))
}
