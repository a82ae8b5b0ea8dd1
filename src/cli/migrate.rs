//! `dmpool migrate`

mod guide;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Parser;

use crate::cli::docker::DockerArgs;
use crate::cli::{Cli, Command, parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::contents::devicemapper::Inner;
use crate::ops::daemon::saved::Saved;
use crate::ops::migrate::back::End;
use crate::ops::migrate::delete_old::delete_old;
use crate::ops::migrate::{self, To, prepare};
use crate::ops::steps::Kit;
use crate::ops::{Change, State, disks, gate, lvm, preflight};
use crate::pool::{Place, PoolName, Spec, sizing};
use crate::report;
use crate::units::{BlockSize, Bytes, NewSize};

/// Carry the pool of a Docker root over into another one, with all that is in it
///
/// For what grow cannot do: other blocks, a smaller pool, another place, another base device. Docker and its containers are stopped, every volume is
/// copied and compared, and Docker is started on the copy, with the same images, containers and contents; what ran runs again. Without
/// --name the new pool is two loop files in Docker's own place; with it one of dmpool's own, as create makes it, that Docker is told
/// of. The old pool is never written, and stays. Until Docker starts on the new pool dmpool undo leads back. On a terminal it asks
/// what is not said.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Docker root: `docker`, or its path [default: docker]
    #[arg(id = "docker-root", value_name = "ROOT")]
    root: Option<String>,

    /// How large the new pool's data shall be; it may be smaller than now [default: as now, or as with create]
    #[arg(long, value_name = "SIZE", value_parser = parse::new_size, allow_hyphen_values = true)]
    data_size: Option<NewSize>,

    /// How large its metadata shall be [default: as with create]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    metadata_size: Option<Bytes>,

    /// The length of its blocks: 64K to 1G, a multiple of 64K [default: as now; with --name 64K]
    #[arg(long, value_name = "SIZE", value_parser = parse::block_size, allow_hyphen_values = true)]
    block_size: Option<BlockSize>,

    /// How large the base device shall be, as Docker's dm.basesize; every image and container becomes as large, with its file
    /// system [default: as now]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    base_size: Option<Bytes>,

    /// Which file system every image and container shall have, as Docker's dm.fs: xfs or ext4 [default: as now]
    #[arg(long, value_name = "FS", value_parser = ["xfs", "ext4"])]
    fs: Option<String>,

    /// Make a pool of dmpool's own, with this name
    #[arg(long, value_name = "NAME", value_parser = parse::pool_name)]
    name: Option<PoolName>,

    /// The directory in which its own is made [default: /var/lib/dmpool/pools]
    #[arg(long, value_name = "DIR", requires = "name")]
    dir: Option<PathBuf>,

    /// A disk for its data; several one after the other. The first carries the metadata too, without --metadata-device
    #[arg(long, value_name = "DEV", requires = "name", conflicts_with = "dir")]
    data_device: Vec<PathBuf>,

    /// A disk for its metadata
    #[arg(long, value_name = "DEV", requires = "data_device")]
    metadata_device: Option<PathBuf>,

    /// The volume group in which LVM makes its LVs
    #[arg(long, value_name = "VG", requires = "name", conflicts_with_all = ["dir", "data_device", "wipe"])]
    vg: Option<String>,

    /// Take disks that are not blank: what is on them is lost
    #[arg(long, requires = "data_device")]
    wipe: bool,

    /// Carry it to this storage driver, without any pool; each layer becomes a directory in the Docker root
    #[arg(long, value_name = "DRIVER", value_parser = ["overlay2"],
          conflicts_with_all = ["name", "data_size", "metadata_size", "block_size", "base_size", "fs"])]
    to_driver: Option<String>,

    /// There is no Docker to be asked, stopped or started: it is dead, or not installed any more
    #[arg(long, requires = "to_driver", conflicts_with_all = ["docker_socket", "stop_command", "start_command", "without_rm", "keep_rm"])]
    offline: bool,

    #[command(flatten)]
    docker: DockerArgs,

    #[command(flatten)]
    before: Before,

    /// Delete what finished migrations have set aside, once Docker has run without it; pools on devices stay
    #[arg(long, conflicts_with_all = ["data_size", "metadata_size", "block_size", "base_size", "fs", "prepare", "drop_prepared", "name", "to_driver", "docker_socket", "stop_command", "start_command", "without_rm", "keep_rm"])]
    delete_old: bool,

    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is done before Docker is stopped, by another command.
#[derive(Debug, clap::Args)]
struct Before {
    /// Copy all that cannot change any more while Docker runs, and end; the migration itself, to the same target, copies the rest only.
    /// Again it brings up to date what was prepared. A pool of --name is made, and is for nothing else until then
    #[arg(long, conflicts_with_all = ["to_driver", "base_size", "fs", "drop_prepared"])]
    prepare: bool,

    /// Give up what was prepared: it is deleted, a pool with its files, its LVs, or what is on its disks
    #[arg(long, conflicts_with_all = ["name", "to_driver", "data_size", "metadata_size", "block_size"])]
    drop_prepared: bool,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        if self.delete_old {
            return self.delete_old(state);
        }
        if self.is_told() || self.is_prepared(&state) {
            return self.go(state);
        }
        if self.yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::new(Kind::Usage, "cannot migrate: nothing says what the pool shall become")
                .fact("needed", "--data-size or --block-size for new loop files; --name with --dir, --data-device or --vg for a pool of dmpool's; or --to-driver overlay2")
                .fact("state", "nothing was touched")
                .next("dmpool migrate    # on a terminal it asks"));
        }
        let words = self.asked(&gate::open(state.clone())?)?;
        let all = std::env::args_os().chain(words.iter().map(Into::into));
        match Cli::try_parse_from(all).map(|cli| cli.command) {
            Ok(Command::Migrate(args)) => args.go(state),
            Ok(_) => Err(Failure::failed("cannot migrate: the answers make another command line")),
            Err(e) => Err(Failure::new(Kind::Usage, "cannot migrate: the answers do not go with what was typed")
                .fact("cause", e.to_string().lines().next().unwrap_or_default())),
        }
    }

    /// Returns whether it is said what the pool shall become.
    fn is_told(&self) -> bool {
        let sizes = self.data_size.is_some() || self.metadata_size.is_some() || self.block_size.is_some();
        let prepares = self.before.prepare || self.before.drop_prepared;
        sizes
            || prepares
            || self.base_size.is_some()
            || self.fs.is_some()
            || self.name.is_some()
            || self.to_driver.is_some()
    }

    /// Returns whether what was prepared says it.
    fn is_prepared(&self, state: &State) -> bool {
        let docker = preflight::Options::default();
        let to = To::LoopFiles { data: None, metadata: None, block: None };
        let options = migrate::Options { root: self.root.clone(), to, base_size: None, inner: None, docker };
        gate::open(state.clone()).is_ok_and(|kit| prepare::is_prepared(&kit, &options))
    }

    /// Asks what the pool shall become, and shows the command line that says so.
    fn asked(&self, kit: &Kit) -> Outcome<Vec<String>> {
        let now = migrate::now::now(kit, self.root.as_deref(), &self.docker()?)?;
        let taken = kit.dm.list().map_err(|e| Failure::failed("cannot list the devices").because(e))?;
        let taken: Vec<String> = taken.into_iter().map(|device| device.name).collect();
        let disks = || {
            let found = disks::disks(disks::LIMIT)?;
            let usable = found.all.iter().filter(|disk| disk.usable() == Some(true) && disk.is_everyday());
            Ok(usable.map(guide::Choice::of_disk).collect())
        };
        let groups = || {
            let refuse = |why: String| Failure::refused(format!("cannot migrate: {why}"));
            let all = lvm::all_groups().map_err(|e| lvm::silent(e, &refuse))?;
            Ok(all.iter().filter(|group| group.free > 0).map(guide::Choice::of_group).collect())
        };
        let pools = kit.state.pools.to_string_lossy();
        let machine = guide::Machine { now: &now, pools: &pools, taken: &taken, disks: &disks, groups: &groups };
        let (mut input, mut show) = (io::stdin().lock(), |text: &str| show::error(text));
        let words = guide::words(&machine, &mut guide::Talk { input: &mut input, show: &mut show })?;
        let before: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        show(&format!("the same without questions:\n  {}\n\n", report::migrate::command_line(&before, &words)));
        Ok(words)
    }

    fn go(self, state: State) -> Outcome<()> {
        let mut kit = gate::open(state)?;
        let (change, yes) = (parse::change(self.dry_run), self.yes);
        let Before { prepare, drop_prepared } = self.before;
        let mut options = self.options(&kit.state)?;
        if prepare {
            kit.watcher = show::progress();
            return prepared(&prepare::prepare(&kit, &options, change)?, change);
        }
        if drop_prepared {
            return dropped(prepare::drop_prepared(&kit, &options, change)?.as_deref(), change);
        }
        options.docker.begun = Some(SystemTime::now());
        let described = migrate::migrate(&kit, &options, Change::Describe)?;
        if change == Change::Describe {
            return show::done(&described, change, "");
        }
        if !yes {
            show::error(&report::plan::steps(&described.plan));
            show::confirm(
                &report::migrate::question(&described.plan, options.docker.keep_rm),
                &described.plan.what,
                yes,
            )?;
            options.docker.agreed = Some(described.plan.stops().into_iter().map(|ran| ran.id.clone()).collect());
        } else if !described.plan.is_empty() {
            described.plan.notes.iter().for_each(|note| show::error(&format!("note: {note}\n")));
        }
        kit.watcher = show::progress();
        let mut done = migrate::migrate(&kit, &options, change)?;
        let differences = std::mem::take(&mut done.left);
        show::done(&done, change, &format!("done: {}", done.plan.what))?;
        has_ended(migrate::back::end(&kit, &done.plan).as_ref());
        differs(&differences, done.plan.report().as_deref())
    }

    fn delete_old(&self, state: State) -> Outcome<()> {
        let mut kit = gate::open(state)?;
        let (root, change) = (self.root.as_deref(), parse::change(self.dry_run));
        let described = delete_old(&kit, root, Change::Describe)?;
        kit.watcher = show::progress();
        if change == Change::Describe {
            return show::done(&described, change, "");
        }
        if described.plan.is_empty() {
            return show::value("nothing is there that a migration has set aside: there is nothing to do\n");
        }
        if !self.yes {
            show::error(&report::plan::steps(&described.plan));
            show::confirm(&report::migrate::deletes(&described.plan), &described.plan.what, self.yes)?;
        }
        let done = delete_old(&kit, root, change)?;
        show::done(&done, change, &format!("done: {}, {}", done.plan.what, report::migrate::given_back(&done.plan)))
    }

    /// Returns what was said of Docker.
    fn docker(&self) -> Outcome<preflight::Options> {
        self.docker.options(preflight::Purpose::Migrate)
    }

    fn options(self, state: &State) -> Outcome<migrate::Options> {
        let docker = self.docker()?;
        let inner = self.fs.as_deref().and_then(Inner::named);
        if self.to_driver.is_some() {
            let to = To::Overlay2 { offline: self.offline };
            return Ok(migrate::Options { root: self.root, to, base_size: self.base_size, inner, docker });
        }
        let (data, share) = match self.data_size {
            Some(NewSize::Bytes(bytes)) => (Some(bytes), None),
            Some(NewSize::Share(share)) => (None, Some(share)),
            None => (None, None),
        };
        if let Some(share) = share.filter(|_| self.vg.is_none()) {
            let why = format!("cannot migrate: {share} is a share of a volume group");
            return Err(Failure::new(Kind::Usage, why).next("name the group with --vg, or a size such as 100G"));
        }
        let Some(name) = self.name else {
            let to = To::LoopFiles { data, metadata: self.metadata_size, block: self.block_size };
            return Ok(migrate::Options { root: self.root, to, base_size: self.base_size, inner, docker });
        };
        let on = if let Some(group) = self.vg {
            Place::Volumes { group, share }
        } else if self.data_device.is_empty() {
            let directory = self.dir.unwrap_or_else(|| state.pools.clone());
            Place::Files { directory, preallocate: false }
        } else {
            Place::Devices { data: self.data_device, metadata: self.metadata_device, stripe: None }
        };
        let block_size = match self.block_size {
            Some(block) => block,
            None => parse::block_size("64K").map_err(|e| Failure::new(Kind::Usage, e))?,
        };
        let spec = Spec {
            name,
            data_size: data,
            metadata_size: self.metadata_size,
            block_size,
            low_water: sizing::DEFAULT_LOW_WATER,
            zero: false,
            error_when_full: false,
            discard: true,
            ephemeral: false,
            on,
        };
        let to = To::Pool { spec: Box::new(spec), wipe: self.wipe };
        Ok(migrate::Options { root: self.root, to, base_size: self.base_size, inner, docker })
    }
}

fn prepared(ready: &prepare::Ready, change: Change) -> Outcome<()> {
    let mut text = match change {
        Change::Describe => format!("dmpool would {}\n", ready.what),
        Change::Make => format!("done: {}\n", ready.what),
    };
    for note in &ready.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    match change {
        Change::Describe => text.push_str("nothing was changed\n"),
        Change::Make => text.push_str(&format!("next: {}    # when Docker may be down\n", ready.next)),
    }
    show::value(&text)
}

fn dropped(gone: Option<&str>, change: Change) -> Outcome<()> {
    show::value(&match (gone, change) {
        (None, _) => "nothing was prepared: there is nothing to do\n".to_owned(),
        (Some(gone), Change::Describe) => {
            format!("dmpool would delete {gone}, with what was prepared\nnothing was changed\n")
        }
        (Some(gone), Change::Make) => format!("done: {gone} is deleted, with what was prepared\n"),
    })
}

/// Says what is to be known once a migration has ended.
pub(super) fn has_ended(end: Option<&End>) {
    let sentences = end.map(report::resume::ended).unwrap_or_default();
    sentences.iter().for_each(|sentence| show::error(&format!("note: {sentence}\n")));
    saved(end.map(|end| end.saved.as_slice()).unwrap_or_default());
}

/// Says what containers of `--rm` were saved as.
pub(super) fn saved(all: &[Saved]) {
    all.iter().for_each(|saved| show::told(&report::migrate::saved(saved)));
}

/// Says what Docker says otherwise than before.
///
/// # Errors
/// [`Kind::Damaged`] when there is any.
pub(super) fn differs(differences: &[String], report: Option<&Path>) -> Outcome<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Kind::Damaged, "migrated, and Docker does not say all that it said before");
    let failure = differences.iter().fold(failure, |failure, difference| failure.fact("found", difference));
    let report = report.map(|report| report.display().to_string());
    Err(report
        .into_iter()
        .fold(failure, |failure, report| failure.fact("report", report))
        .fact("state", "it has ended, and undo leads back no more; the old pool stays as it was")
        .next("docker ps -a    # shows what runs now"))
}
