//! The questions of `migrate` on a terminal: each answer is a flag, and what comes back are the words of a command line.

use std::io::BufRead;

use crate::cli::parse;
use crate::error::{Failure, Outcome};
use crate::ops::daemon;
use crate::ops::disks::Disk;
use crate::ops::lvm::Group;
use crate::ops::migrate::grow_instead::Grow;
use crate::ops::migrate::now::{Now, Size};
use crate::units::{Bytes, NewSize};

/// What the new pool is called when nobody says otherwise.
const NAME: &str = "docker-pool";

/// A disk or a volume group that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// As a flag takes it.
    pub name: String,
    /// How much room it has.
    pub room: Bytes,
    /// What else somebody knows it by; may be empty.
    pub more: String,
}

impl Choice {
    /// Returns a disk as one.
    pub fn of_disk(disk: &Disk) -> Self {
        let device = &disk.device;
        let more = device.model.as_deref().map_or_else(String::new, |model| format!(", {}", model.trim()));
        let name = device.path().to_string_lossy().into_owned();
        Self { name, room: device.size, more: format!(" ({}{more})", device.name) }
    }

    /// Returns a volume group as one.
    pub fn of_group(group: &Group) -> Self {
        let room = Bytes::new(group.free.saturating_mul(group.extent.get()));
        Self { name: group.name.clone(), room, more: " free".to_owned() }
    }
}

/// What is asked about.
pub(super) struct Machine<'m> {
    /// The Docker root.
    pub now: &'m Now,
    /// Where pools are made when no directory is named.
    pub pools: &'m str,
    /// The names that pools have already.
    pub taken: &'m [String],
    /// Looks for the disks that can carry a pool.
    pub disks: &'m dyn Fn() -> Outcome<Vec<Choice>>,
    /// Looks for the volume groups.
    pub groups: &'m dyn Fn() -> Outcome<Vec<Choice>>,
}

/// Who is asked.
pub(super) struct Talk<'t> {
    /// What is typed.
    pub input: &'t mut dyn BufRead,
    /// What is shown.
    pub show: &'t mut dyn FnMut(&str),
}

impl Talk<'_> {
    fn say(&mut self, line: &str) {
        (self.show)(&format!("{line}\n"));
    }

    /// Asks until the answer is one; nothing typed is the default.
    fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        take: impl Fn(&str) -> Result<T, String>,
    ) -> Outcome<T> {
        loop {
            let shown = default.map_or_else(String::new, |default| format!(" [{default}]"));
            (self.show)(&format!("{question}{shown}: "));
            let mut line = String::new();
            if !matches!(self.input.read_line(&mut line), Ok(read) if read > 0) {
                (self.show)("\n");
                return Err(Failure::refused("did not migrate: the input ended before the last question")
                    .fact("state", "nothing was touched")
                    .next("dmpool migrate --help    # every answer is a flag as well"));
            }
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match take(answer) {
                Ok(taken) => return Ok(taken),
                Err(why) => self.say(&format!("  {why}")),
            }
        }
    }

    /// Asks for one of several, by its number; the first is the default. Returns where it stands.
    fn choose(&mut self, question: &str, lines: &[String]) -> Outcome<usize> {
        self.say(question);
        for (number, line) in (1..).zip(lines) {
            self.say(&format!("  {number}. {line}"));
        }
        let count = lines.len();
        let range = if count == 1 { "1".to_owned() } else { format!("1 to {count}") };
        self.ask(&range, Some("1"), |answer| match answer.parse::<usize>() {
            Ok(number) if (1..=count).contains(&number) => Ok(number - 1),
            _ => Err(format!("`{answer}` is not {range}")),
        })
    }

    fn agrees(&mut self, question: &str) -> Outcome<bool> {
        self.ask(&format!("{question} [y/N]"), None, |answer| match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "" | "n" | "no" => Ok(false),
            _ => Err("y or n".to_owned()),
        })
    }
}

/// What it can become.
#[derive(Clone, Copy)]
enum Target {
    LoopFiles,
    Disk,
    Group,
    Files,
    Overlay2,
}

impl Target {
    const fn line(self) -> &'static str {
        match self {
            Self::LoopFiles => "new loop files in Docker's own place: another size, other blocks",
            Self::Disk => "a pool of dmpool's on a disk",
            Self::Group => "a pool of dmpool's in a volume group of LVM's",
            Self::Files => "a pool of dmpool's in loop files elsewhere",
            Self::Overlay2 => "no pool: a directory for each layer (overlay2), as Docker 25 and later need it",
        }
    }
}

/// Asks what the pool shall become. Returns the words that say so.
///
/// # Errors
/// Refused when the input ends, or an answer means that nothing shall be done; when the machine cannot be looked at.
pub(super) fn words(machine: &Machine<'_>, talk: &mut Talk<'_>) -> Outcome<Vec<String>> {
    let now = machine.now;
    let root = now.root.display();
    let targets: Vec<Target> = match &now.size {
        Ok(size) => {
            talk.say(&format!(
                "the pool of the Docker root `{root}`: {} of {} in use, in blocks of {}",
                size.used.human(),
                size.data.human(),
                size.block.bytes().human()
            ));
            let name = &now.name;
            talk.say(&match now.grow {
                Grow::Now => format!(
                    "when it shall only be larger, nothing is copied and nothing stops:  dmpool grow {name} SIZE"
                ),
                Grow::OnceUp => format!(
                    "when it shall only be larger, nothing is copied once Docker is up:  dmpool grow {name} SIZE"
                ),
                Grow::Not => format!(
                    "grow, which copies nothing, refuses the pool as it is now:  dmpool health {name}    # says why"
                ),
            });
            vec![Target::LoopFiles, Target::Disk, Target::Group, Target::Files, Target::Overlay2]
        }
        Err(why) => {
            talk.say(&format!("the Docker root `{root}`: {why}"));
            talk.say("what rescue can read of its pool can be carried to overlay2");
            vec![Target::Overlay2]
        }
    };
    let lines: Vec<_> = targets.iter().map(|target| target.line().to_owned()).collect();
    let mut words = loop {
        let target = talk.choose("What shall it become?", &lines)?;
        let target = targets.get(target).copied().unwrap_or(Target::Overlay2);
        let asked = match &now.size {
            Ok(size) => of_pool(machine, target, *size, talk)?,
            Err(_) => Some(Vec::new()),
        };
        match (target, asked) {
            (Target::Overlay2, _) => break words_of(&["--to-driver", "overlay2"]),
            (_, Some(words)) => break words,
            (_, None) => {}
        }
    };
    words.extend(of_docker(now, talk)?);
    // What is made anew, and what is made longer, is copied with Docker down; so is what lies there while Docker is down.
    let is_prepared = !words.iter().any(|word| word == "--to-driver" || word == "--base-size");
    if is_prepared && now.grow != Grow::OnceUp {
        talk.say("most of it can be copied while containers run; Docker is then down for the rest only:");
        if talk.agrees("Copy now what can be copied, and switch with another command later?")? {
            words.push("--prepare".to_owned());
        }
    }
    Ok(words)
}

fn words_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Asks for the new pool; nothing when there is no place of that kind.
fn of_pool(machine: &Machine<'_>, target: Target, now: Size, talk: &mut Talk<'_>) -> Outcome<Option<Vec<String>>> {
    let (place, data) = match target {
        Target::Overlay2 => return Ok(Some(Vec::new())),
        Target::LoopFiles => (Vec::new(), Some(now.data.typed())),
        Target::Disk => {
            let none = "no disk here can carry a pool as it is:  dmpool disks    # says why; --wipe takes one that is not blank";
            let Some(disk) = one_of((machine.disks)()?, "On which disk?", none, talk)? else { return Ok(None) };
            (words_of(&["--data-device", &disk.name]), None)
        }
        Target::Group => {
            let none = "no volume group here has free room:  vgs    # shows them; vgcreate VG DEV makes one";
            let Some(group) = one_of((machine.groups)()?, "In which volume group?", none, talk)? else {
                return Ok(None);
            };
            // The metadata lies in the group too.
            let fits = group.room > now.data && group.room.saturating_sub(now.data).get() > now.data.get() / 50;
            (words_of(&["--vg", &group.name]), Some(if fits { now.data.typed() } else { "90%FREE".to_owned() }))
        }
        Target::Files => {
            let directory = talk.ask("In which directory are its files made?", Some(machine.pools), |answer| {
                if answer.starts_with('/') {
                    Ok(answer.to_owned())
                } else {
                    Err("a path that begins with /".to_owned())
                }
            })?;
            (words_of(&["--dir", &directory]), Some(now.data.typed()))
        }
    };
    let mut words = Vec::new();
    if !matches!(target, Target::LoopFiles) {
        let free = |name: &String| !machine.taken.contains(name);
        let numbered = (2..).map(|number: u32| format!("{NAME}{number}"));
        let default = std::iter::once(NAME.to_owned()).chain(numbered).find(free);
        let name = talk.ask("What shall the pool be called?", default.as_deref(), |answer| {
            let name = parse::pool_name(answer)?.to_string();
            if free(&name) { Ok(name) } else { Err(format!("there is a device `{name}` already")) }
        })?;
        words.extend([words_of(&["--name", &name]), place].concat());
    }
    if let Some(default) = data {
        let is_share = matches!(target, Target::Group);
        let size =
            talk.ask("How large shall its data be?", Some(&default), |answer| match parse::new_size(answer)? {
                NewSize::Bytes(size) if size < now.used => Err(format!("{} are in use", now.used.human())),
                NewSize::Share(_) if !is_share => Err("a size such as 100G".to_owned()),
                NewSize::Bytes(_) | NewSize::Share(_) => Ok(answer.to_owned()),
            })?;
        words.extend(words_of(&["--data-size", &size]));
    }
    let block = now.block.bytes().typed();
    let question = "How long shall its blocks be? (64K to 1G, a multiple of 64K)";
    let block = talk.ask(question, Some(&block), |answer| parse::block_size(answer).map(|_| answer.to_owned()))?;
    words.extend(words_of(&["--block-size", &block]));
    if let Some(base) = now.base {
        words.extend(base_size(base, talk)?);
    }
    Ok(Some(words))
}

/// Asks how large the base device shall be; no words where it stays as it is.
fn base_size(now: Bytes, talk: &mut Talk<'_>) -> Outcome<Vec<String>> {
    let question = "How large shall the base device be, the most that an image or a container holds? (when smaller, every file is copied)";
    let size = talk.ask(question, Some(&now.typed()), parse::size)?;
    Ok(if size == now { Vec::new() } else { words_of(&["--base-size", &size.typed()]) })
}

fn one_of(mut choices: Vec<Choice>, question: &str, none: &str, talk: &mut Talk<'_>) -> Outcome<Option<Choice>> {
    if choices.is_empty() {
        talk.say(&format!("  {none}"));
        return Ok(None);
    }
    let line = |choice: &Choice| format!("{}, {}{}", choice.name, choice.room.human(), choice.more);
    let at = talk.choose(question, &choices.iter().map(line).collect::<Vec<_>>())?;
    Ok((at < choices.len()).then(|| choices.swap_remove(at)))
}

/// Asks what must be known of Docker, where nothing else says it.
fn of_docker(now: &Now, talk: &mut Talk<'_>) -> Outcome<Vec<String>> {
    let mut words = Vec::new();
    if let Some(pid) = now.by_hand {
        talk.say(&format!(
            "Docker (process {pid}) was started by hand. A program and its arguments each, a script of yours:"
        ));
        let command = |answer: &str| daemon::words_of(answer).map(|_| answer.to_owned()).map_err(|e| format!("{e:#}"));
        let stop = talk.ask("What stops it?", None, command)?;
        let start = talk.ask("What starts it?", None, command)?;
        words.extend(words_of(&["--stop-command", &stop, "--start-command", &start]));
    }
    if !now.vanish.is_empty() {
        talk.say("these were made with --rm, and are gone when Docker stops:");
        for container in &now.vanish {
            talk.say(&format!("  {container}"));
        }
        let ways = words_of(&[
            "save them first: each as an image and a container `saved-NAME`, with its volumes, to be started when it is wanted",
            "go on without them: they and their volumes without a name are gone",
            "stop here",
        ]);
        match talk.choose("What shall become of them?", &ways)? {
            0 => words.push("--keep-rm".to_owned()),
            1 => words.push("--without-rm".to_owned()),
            _ => {
                return Err(Failure::refused("did not migrate: containers run that would be gone")
                    .fact("state", "nothing was touched")
                    .next("dmpool migrate    # again, when they have ended"));
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
#[path = "guide_tests.rs"]
mod tests;
