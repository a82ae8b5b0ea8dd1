//! Handing a pool to Docker. Docker itself is neither stopped nor started here.

use std::ffi::OsStr;
use std::path::Path;

use super::Handover;
use crate::engine::configuration::Configuration;
use crate::engine::configure::Obstacle;
use crate::engine::configure::docker::{self as configure, Telling, Wanted};
use crate::engine::dockerd;
use crate::engine::driver::{self, Driver};
use crate::engine::version::{self, Known, Version};
use crate::error::{Failure, Outcome};
use crate::ops::steps::Step;
use crate::ops::steps::configure::Reader;
use crate::ops::target::{Target, refusal};
use crate::process::quote;

/// The first Docker without the driver (moby's release notes of 25.0).
const WITHOUT_THE_DRIVER: Version = Version::new(25, 0);

#[derive(Clone, Debug)]
pub(super) struct Facts {
    telling: Result<Telling, Obstacle>,
    targets: Vec<Target>,
    /// The drivers that have layers in the root of the next daemon.
    drivers: Vec<Driver>,
    /// Whether devicemapper may be one of them; why that cannot be told.
    holds_thins: Result<bool, String>,
    /// The daemons that run, each with its storage driver by name, when it was told one.
    running: Vec<(u32, Option<String>)>,
    installed: Option<Known>,
}

pub(super) fn look(pool: &str, discard: bool) -> Facts {
    let base = Path::new("/");
    let running = dockerd::running();
    let telling = configure::tell(base, &Wanted { pool, discard }, &running);
    let edits = telling.as_ref().map(|telling| telling.edits.clone()).unwrap_or_default();
    let drivers = telling.as_ref().ok().and_then(|telling| driver::at(&telling.root).ok()).unwrap_or_default();
    let holds_thins = telling.as_ref().map_or(Ok(false), |telling| {
        driver::may_have_run(Driver::Devicemapper, &telling.root).map_err(|error| error.to_string())
    });
    let of = |daemon: dockerd::Dockerd| {
        let driver = Configuration::of_running(&daemon).driver().map(str::to_owned);
        (daemon.pid, driver)
    };
    Facts {
        telling,
        targets: edits.into_iter().map(Target::look).collect(),
        drivers,
        holds_thins,
        running: running.into_iter().map(of).collect(),
        installed: version::installed(base),
    }
}

pub(super) fn plan(facts: &Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<Handover> {
    let telling = facts.telling.as_ref().map_err(|obstacle| refusal(obstacle, refuse))?;
    if telling.edits.is_empty() {
        return Ok(Handover::default());
    }
    if let Some(known) = facts.installed.as_ref().filter(|known| known.exact && known.version >= WITHOUT_THE_DRIVER) {
        return Err(refuse(format!("Docker {} has no devicemapper driver any more", known.version))
            .fact("found", known.mark.clone())
            .next("--for containerd, or a Docker before 25"));
    }
    let root = telling.root.display();
    let holds_thins = facts.holds_thins.as_ref().map_err(|why| {
        refuse(format!("whether the Docker root `{root}` holds images of devicemapper cannot be read"))
            .fact("cause", why)
            .next(format!("ls -la {}    # says more", quote(&telling.root.to_string_lossy())))
    })?;
    if *holds_thins {
        let place = quote(&telling.root.to_string_lossy());
        return Err(refuse(format!("the Docker root `{root}` holds images or containers of devicemapper already"))
            .fact("state", "on an empty pool Docker would find none of them, and take its records for broken")
            .next(format!("dmpool status {place}    # shows the pool that they are on: grow that one instead")));
    }
    let is_units = |target: &Target| {
        let extension = target.path.extension().and_then(OsStr::to_str);
        matches!(extension, Some("conf" | "service"))
    };
    let reader = |target: &Target| if is_units(target) { Reader::Systemd } else { Reader::Later };
    let steps = facts
        .targets
        .iter()
        .map(|target| target.write(reader(target), refuse).map(Step::from))
        .collect::<Outcome<_>>()?;
    let mut notes: Vec<String> = facts.targets.iter().map(Target::note).collect();
    let others: Vec<_> = facts.drivers.iter().map(|driver| driver.name()).collect();
    if !others.is_empty() {
        notes.push(format!(
            "what Docker has in {root} with {} stays there, and Docker does not show it while it uses the pool",
            others.join(", ")
        ));
    }
    notes.extend(overlap(facts, telling));
    Ok(Handover { steps, notes })
}

/// Says what a daemon that runs does until it is started again, and how that is done.
fn overlap(facts: &Facts, telling: &Telling) -> Vec<String> {
    let by_hand = || "start Docker again as it was started".to_owned();
    let start = telling.starter.as_ref().map_or_else(by_hand, |starter| starter.command("restart"));
    let mut notes = Vec::new();
    for (pid, driver) in &facts.running {
        let driver = driver.as_ref().or(telling.driver_before.as_ref());
        let with = driver.map_or_else(|| "its storage".to_owned(), |driver| format!("its storage ({driver})"));
        notes.push(format!("Docker runs (process {pid}), and keeps {with} until it is started again:  {start}"));
    }
    match facts.running.is_empty() {
        true => notes.push("Docker uses the pool when it starts".to_owned()),
        false if telling.live_restore => notes.push(
            "live-restore is on: stop all containers before Docker is started again, or they go on where it does not see them"
                .to_owned(),
        ),
        false => {}
    }
    notes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::configure::Edit;
    use crate::engine::start::Starter;

    fn facts(name: &str) -> Facts {
        let edit = Edit { path: Path::new("/none").join(name), before: None, after: "{}".to_owned() };
        let telling = Telling {
            edits: vec![edit.clone()],
            root: "/var/lib/docker".into(),
            driver_before: Some("overlay2".to_owned()),
            starter: Some(Starter::Unit("docker".to_owned())),
            live_restore: true,
        };
        Facts {
            telling: Ok(telling),
            targets: vec![Target::look(edit)],
            drivers: vec![],
            holds_thins: Ok(false),
            running: vec![],
            installed: None,
        }
    }

    fn planned(facts: &Facts) -> Result<Handover, String> {
        plan(facts, &|why| Failure::refused(why)).map_err(|failure| failure.what)
    }

    #[test]
    fn a_root_with_images_and_a_docker_without_the_driver_are_refused() {
        let mut of_25 = facts("daemon.json");
        of_25.installed = Some(Known { version: Version::new(25, 0), exact: true, mark: "docker-ce".to_owned() });
        assert_eq!(planned(&of_25).unwrap_err(), "Docker 25.0 has no devicemapper driver any more");
        let mut used = facts("daemon.json");
        used.holds_thins = Ok(true);
        assert!(planned(&used).unwrap_err().contains("`/var/lib/docker` holds images"));
        used.holds_thins = Err("EIO".to_owned());
        assert!(planned(&used).unwrap_err().contains("cannot be read"));
        // Told already: that is the pool that they are on.
        if let Ok(telling) = &mut used.telling {
            telling.edits.clear();
        }
        assert_eq!(planned(&used).unwrap(), Handover::default());
    }

    #[test]
    fn a_daemon_that_runs_keeps_what_it_has_until_it_is_restarted() {
        let stopped = planned(&facts("daemon.json")).unwrap();
        assert_eq!(stopped.notes, ["/none/daemon.json is new", "Docker uses the pool when it starts"]);
        let mut running = facts("daemon.json");
        running.running = vec![(7, None)];
        running.drivers = vec![Driver::Overlay2];
        let notes = planned(&running).unwrap().notes.join("\n");
        for said in [
            "with overlay2 stays there",
            "process 7",
            "its storage (overlay2)",
            "systemctl restart docker\n",
            "live-restore",
        ] {
            assert!(notes.contains(said), "{said}: {notes}");
        }
    }

    #[test]
    fn systemd_reads_what_is_a_units() {
        let reader = |name: &str| match planned(&facts(name)).unwrap().steps.pop() {
            Some(Step::WriteConfig(write)) => write.reader,
            other => unreachable!("{other:?}"),
        };
        assert_eq!([reader("daemon.json"), reader("docker-storage")], [Reader::Later, Reader::Later]);
        assert_eq!([reader("dmpool.conf"), reader("docker.service")], [Reader::Systemd, Reader::Systemd]);
    }
}
