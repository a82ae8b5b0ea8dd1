//! `dmpool rescue export` against `docker export` of the same container.

use anyhow::{Context, Result};
use lab::guest::docker::{Docker, IMAGE, find};

use crate::ratios::Ratio;
use crate::report::{Line, Report, Verdict};
use crate::status::run;

/// Each fills its container and ends: one has a file of 256 MiB, the other 5000 small ones.
const CONTAINERS: [(&str, &str); 2] = [
    ("a large file", "yes 0123456789abcdef | dd of=/large bs=1M count=256 iflag=fullblock"),
    ("5000 small files", "lab-inmate tree /small 1 5000"),
];
/// Pairs at most: each reads hundreds of megabytes.
const ROUNDS: u32 = 15;

pub(crate) fn measure(report: &mut Report, docker: &Docker, rounds: u32) -> Result<()> {
    docker.busybox(&[&find("lab-inmate")?])?;
    for (number, (what, command)) in CONTAINERS.into_iter().enumerate() {
        let name = format!("dmpool-test-bench-{number}");
        report.progress(&format!("export of {what}"));
        // busybox has more commands than the image has links for.
        let script = command.replace("yes ", "busybox yes ");
        let args = ["run", "--network", "none", "--name", &name, IMAGE, "sh", "-c", &script];
        docker.cmd(args).run().checked()?;
        let (ours, theirs) = (["dmpool", "rescue", "export", &name], ["docker", "export", &name]);
        let (mut our, mut their) = (Vec::new(), Vec::new());
        for program in [&ours[..], &theirs] {
            run(program)?;
        }
        for round in 0..rounds.min(ROUNDS) {
            // Turn about, so that neither is always the one that comes second.
            if round % 2 == 0 {
                our.push(run(&ours)?.seconds);
                their.push(run(&theirs)?.seconds);
            } else {
                their.push(run(&theirs)?.seconds);
                our.push(run(&ours)?.seconds);
            }
        }
        let ratio = Ratio::of(&our, &their).context("no rounds")?;
        let met = Verdict::at_most(ratio.median, 1.0);
        let line = Line::ratio(format!("{what}: rescue export / docker export"), ratio);
        report.add(line.goal(met, "no slower: at most 1"));
    }
    Ok(())
}
