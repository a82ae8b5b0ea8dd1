//! `dmpool save`

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::cli::docker::DockerArgs;
use crate::cli::rescue::archive::{self, Teller};
use crate::cli::rescue::reach::ReachArgs;
use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::preflight::Purpose;
use crate::ops::root_archive::running::{self, Saved, Wanted};
use crate::ops::root_archive::{Options, Unsaved, save};
use crate::ops::{State, gate, rescue};
use crate::report;
use crate::report::root_archive as archived;

/// Save a whole Docker root in one archive, which dmpool load makes a root of again, also on another machine
///
/// Images with their names, containers with what they changed and their logs, volumes and networks, all as Docker has them, with ids
/// and every attribute. Nothing in the root is written. A Docker that runs on it is stopped meanwhile, and what runs in it, as with
/// migrate: it says the plan first, asks, and what ran runs again at the end. Each part has a checksum, and the file has its name when
/// it is whole. What of the host containers have mounted is listed, and what of the root is left out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Replace this file, whole or not at all; - is standard output
    #[arg(value_name = "FILE", required_unless_present = "output")]
    file: Option<PathBuf>,

    /// The same
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    output: Option<PathBuf>,

    /// Also directories and files of the host that containers have mounted; those that cannot be are named
    #[arg(long)]
    include_binds: bool,

    /// Leave a container or an image out, such as one that is damaged; once for each
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,

    /// Go on when something cannot be read whole: it is left out or filled with zeros, each named, and the exit code is 5
    #[arg(long)]
    damaged: bool,

    /// The storage driver, when several have images in the root
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,

    #[command(flatten)]
    docker: DockerArgs,

    /// Do not ask before Docker is stopped
    #[arg(long, short = 'y')]
    yes: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let objects = rescue::open(&state)?;
        if running::is_running(&objects) {
            return self.run_around(state);
        }
        let named = self.file.or(self.output);
        let file = archive::file(named.as_deref());
        let options = Options {
            driver: self.driver,
            without: self.without,
            damaged: self.damaged,
            include_binds: self.include_binds,
            file: file.map(ToOwned::to_owned),
        };
        let reach = self.reach.to(&state);
        let save = save(objects, &reach, &options)?;
        if self.dry_run {
            return show::value(&archived::would_save(save.contents(), file));
        }
        let (mut teller, watcher) = (Teller::default(), show::progress());
        let mut broken = None;
        let written = archive::write(file, &mut |writer| {
            save.write(writer, &watcher, &mut |remark| teller.tell(&remark)).map_err(|unsaved| match unsaved {
                Unsaved::Output(e) => e,
                Unsaved::Source(failure) => {
                    broken = Some(failure);
                    io::Error::other("the source is not whole")
                }
            })
        });
        broken.map_or(written, Err)?;
        match file {
            Some(file) => show::told(&archived::saved(save.contents(), file)),
            None => show::error(&archived::remarks(save.contents())),
        }
        teller.outcome("the archive")
    }

    /// Saves a root whose Docker runs.
    fn run_around(self, state: State) -> Outcome<()> {
        if self.reach.is_told() {
            let what = "cannot save the root of a Docker that runs from elsewhere";
            return Err(Failure::new(Kind::Usage, what).next(
                "leave --data, --metadata, --userspace and --work-dir out; they are for a root whose Docker is down",
            ));
        }
        let docker = self.docker.options(Purpose::Save)?;
        let named = self.file.or(self.output);
        let options = Options {
            driver: self.driver,
            without: self.without,
            damaged: self.damaged,
            include_binds: self.include_binds,
            file: archive::file(named.as_deref()).map(ToOwned::to_owned),
        };
        let mut wanted = Wanted { options, docker };
        wanted.docker.begun = Some(SystemTime::now());
        let mut kit = gate::open(state)?;
        // Before anything is asked, what containers have changed is measured, which takes long.
        kit.watcher = show::progress();
        let planned = running::describe(&kit, &wanted)?;
        if self.dry_run {
            let text = report::plan::text(&planned.plan);
            return show::value(&format!("{}{text}", archived::remarks(&planned.contents)));
        }
        if !self.yes {
            show::error(&report::plan::steps(&planned.plan));
            show::error(&archived::remarks(&planned.contents));
            show::confirm(&report::migrate::question(&planned.plan, wanted.docker.keep_rm), &planned.plan.what, false)?;
            wanted.docker.agreed = Some(planned.plan.stops().into_iter().map(|ran| ran.id.clone()).collect());
        }
        told(&running::save(&kit, &wanted)?)
    }
}

/// Says what was saved while Docker was stopped, and whether all is as before.
///
/// # Errors
/// Damaged when something was lost, or Docker does not say all that it said before.
pub(super) fn told(saved: &Saved) -> Outcome<()> {
    let mut lost = 0;
    if let Some(written) = &saved.written {
        show::told(&archived::saved(&written.contents, &saved.file));
        written.notes.iter().for_each(|note| show::error(&archived::note(note)));
        written.lost.iter().for_each(|lost| show::error(&archived::lost(lost)));
        lost = written.lost.len();
    }
    saved.notes.iter().for_each(|note| show::error(&archived::note(note)));
    saved.kept.iter().for_each(|kept| show::told(&report::migrate::saved(kept)));
    let whole = archive::outcome(lost, "the archive");
    if saved.differences.is_empty() {
        return whole;
    }
    let failure = Failure::new(Kind::Damaged, "saved, and Docker does not say all that it said before");
    let failure = saved.differences.iter().fold(failure, |failure, difference| failure.fact("found", difference));
    let state = if lost == 0 { "the archive is there" } else { "the archive is there, and not whole" };
    Err(failure.fact("state", state).next("docker ps -a    # shows what runs now"))
}
