//! What was prepared, as the plan of a migration finds it.

use std::path::{Path, PathBuf};

use super::blocks::Source;
use super::blocks::record::{self, Opened, Record, Unfit};
use super::preflight::Options as Docker;
use super::size::Old;
use super::{Ground, Options, To};
use crate::error::{Failure, Outcome};
use crate::ops::registry;
use crate::pool::{Entry, Place, PoolName};
use crate::process::quote;
use crate::units::{BlockSize, Bytes};

/// How often metadata is read that is written meanwhile.
const TIMES: usize = 5;

/// Returns the command on that root with what was asked for, as it can be pasted.
pub(super) fn command(ground: &Ground<'_>, option: &str) -> String {
    format!("{}{}{option}", on_root(ground), ground.asked)
}

fn on_root(ground: &Ground<'_>) -> String {
    let path = ground.root.path.to_string_lossy();
    let root = if ground.root.is_this_machines() { String::new() } else { format!(" {}", quote(&path)) };
    format!("dmpool migrate{root}")
}

/// Returns the options of a command line that say what the pool shall become; `--wipe` is not among them.
pub(super) fn target_of(to: &To) -> String {
    let mut asked = String::new();
    let mut say = |option: &str, value: Option<String>| {
        asked.extend(value.map(|value| format!(" {option} {}", quote(&value))));
    };
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    match to {
        To::LoopFiles { data, metadata, block } => {
            say("--data-size", data.map(Bytes::typed));
            say("--metadata-size", metadata.map(Bytes::typed));
            say("--block-size", block.map(|block| block.bytes().typed()));
        }
        To::Pool { spec, .. } => {
            say("--name", Some(spec.name.to_string()));
            let mut share = None;
            match &spec.on {
                Place::Files { directory, .. } => say("--dir", Some(path(directory))),
                Place::Devices { data, metadata, .. } => {
                    data.iter().for_each(|device| say("--data-device", Some(path(device))));
                    say("--metadata-device", metadata.as_ref().map(path));
                }
                Place::Volumes { group, share: of } => {
                    say("--vg", Some(group.clone()));
                    share = of.map(|share| share.to_string());
                }
            }
            say("--data-size", spec.data_size.map(Bytes::typed).or(share));
            say("--metadata-size", spec.metadata_size.map(Bytes::typed));
            say("--block-size", Some(spec.block_size.bytes().typed()));
        }
        To::Overlay2 { .. } => {}
    }
    asked
}

/// Returns the options of a command line that say what the pool shall become, and what was said of Docker.
pub(super) fn asked(options: &Options) -> String {
    let mut asked = target_of(&options.to);
    let mut say = |option: &str, value: Option<String>| {
        asked.extend(value.map(|value| format!(" {option} {}", quote(&value))));
    };
    let words = |words: &Vec<String>| words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    let Docker { socket, stop, start, without_rm, keep_rm, .. } = &options.docker;
    say("--docker-socket", socket.as_ref().map(|socket| socket.to_string_lossy().into_owned()));
    say("--stop-command", stop.as_ref().map(words));
    say("--start-command", start.as_ref().map(words));
    if *without_rm {
        asked.push_str(" --without-rm");
    }
    if *keep_rm {
        asked.push_str(" --keep-rm");
    }
    asked
}

/// Returns what gives up what was prepared.
pub(super) fn drop_command(ground: &Ground<'_>) -> String {
    format!("{} --drop-prepared", on_root(ground))
}

/// Returns what was prepared in the folder of Docker's driver.
///
/// # Errors
/// Refused when it cannot be read.
pub(super) fn found(ground: &Ground<'_>, home: &Path, refuse: &impl Fn(String) -> Failure) -> Outcome<Option<Record>> {
    let record = Record::read(home).map_err(|e| {
        refuse("what was prepared there cannot be read".to_owned())
            .because(e)
            .fact("state", "nothing was touched")
            .next(format!("{}    # takes it away", drop_command(ground)))
    })?;
    match record {
        Some(record) if record.own.is_some() => Ok(entry_of(ground, &record)?.map(|_| record)),
        record => Ok(record.filter(|_| record::folder(home).is_dir())),
    }
}

/// Returns the registry's entry of a pool of dmpool's own that was prepared; nothing when it is not prepared for that root any more.
///
/// # Errors
/// Refused when the entry cannot be used.
pub(super) fn entry_of(ground: &Ground<'_>, record: &Record) -> Outcome<Option<Entry>> {
    let Some(own) = &record.own else { return Ok(None) };
    let is_it = |entry: &Entry| entry.uuid == record.uuid && entry.prepared.as_ref() == Some(&ground.root.path);
    Ok(registry::read(&ground.kit.state, &own.name)?.filter(is_it))
}

/// Returns the entry of the pool of dmpool's own that is prepared for that root, whatever is written of it there.
///
/// # Errors
/// Refused when an entry cannot be used.
pub(super) fn entry(ground: &Ground<'_>) -> Outcome<Option<Entry>> {
    let all = registry::read_all(&ground.kit.state)?;
    Ok(all.into_iter().find(|entry| entry.prepared.as_ref() == Some(&ground.root.path)))
}

/// Whether a pool of dmpool's own is prepared for that root.
pub(super) fn is_of_own(ground: &Ground<'_>) -> bool {
    let home = ground.root.path.join("devicemapper");
    found(ground, &home, &Failure::refused).is_ok_and(|record| record.is_some_and(|record| record.own.is_some()))
}

/// Whether what was prepared is the pool of that name; without one, any of dmpool's own.
pub(super) fn is_it(record: &Record, name: Option<&PoolName>) -> bool {
    record.own.as_ref().is_some_and(|own| name.is_none_or(|name| *name == own.name))
}

/// Returns the refusal of a target that is another one than the one that was prepared.
pub(super) fn another(ground: &Ground<'_>, record: &Record, refuse: &impl Fn(String) -> Failure) -> Failure {
    let found = match &record.own {
        Some(own) => own.asked.trim().to_owned(),
        None => format!("new loop files, {} of data, blocks of {}", record.data.human(), record.block.bytes().human()),
    };
    refuse("another target was prepared".to_owned())
        .fact("found", found)
        .fact("needed", ground.target.trim())
        .fact("state", "nothing was touched")
        .next(format!("{}    # gives that up; or name no target: then it is what was prepared", drop_command(ground)))
}

/// Refuses a target that is another one than what was prepared.
pub(super) fn is_for(
    ground: &Ground<'_>,
    record: &Record,
    data: Bytes,
    metadata: Bytes,
    block: BlockSize,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    if (record.data, record.metadata, record.block) == (data, metadata, block) {
        return Ok(());
    }
    let said = |data: Bytes, metadata: Bytes, block: BlockSize| {
        format!("{} of data, {} of metadata, blocks of {}", data.human(), metadata.human(), block.bytes().human())
    };
    Err(refuse("another target was prepared".to_owned())
        .fact("found", said(record.data, record.metadata, record.block))
        .fact("needed", said(data, metadata, block))
        .fact("state", "nothing was touched")
        .next(format!("{}    # or name no sizes: then it is what was prepared", drop_command(ground))))
}

/// Says how much was prepared, and how much is left, which `old` has then too; with `prepares`, why it is begun anew.
///
/// # Errors
/// Refused when a migration cannot go on from it.
pub(super) fn judge(
    ground: &Ground<'_>,
    record: &Record,
    home: &Path,
    old: &mut Old,
    prepares: bool,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<String>> {
    let unread = |e: anyhow::Error| refuse("what was prepared there cannot be looked at".to_owned()).because(e);
    let unfit = record.unfit(&ground.kit.dm, home, &old.origin, &old.superblock).map_err(unread)?;
    match unfit {
        Some(Unfit::NotWhole) if prepares => {
            return Ok(vec!["what was prepared never came to its end: what is whole of it is gone on from".to_owned()]);
        }
        // One whose list is not what was written says nothing of what is whole.
        Some(Unfit::NotWhole) if !record.is_taken() && Opened::open(home, record.clone()).is_ok() => {
            return Ok(vec![half(ground, record, home, old)]);
        }
        Some(unfit) if prepares => return Ok(vec![format!("all is prepared anew: {}", unfit.why())]),
        Some(unfit) => {
            let again = match unfit {
                Unfit::NotWhole => format!(
                    "{}    # brings it to its end; or --drop-prepared gives it up",
                    command(ground, " --prepare")
                ),
                _ => format!("{}    # gives it up; then prepare it again, or migrate without", drop_command(ground)),
            };
            return Err(refuse(format!("what was prepared cannot be used: {}", unfit.why()))
                .fact("found", name_of(record, home))
                .fact("state", "nothing was touched")
                .next(again));
        }
        None => {}
    }
    let (volumes, bytes) = record.ready(&ground.kit.dm, home).map_err(unread)?;
    old.left = left(ground, record, home, old);
    let left = old.left.map_or_else(
        || "how much is left to copy cannot be told while Docker writes".to_owned(),
        |left| format!("{} are left to copy and to compare as it is now", left.human()),
    );
    Ok(vec![format!("{volumes} volumes were prepared, {} on the disk: {left}", bytes.human())])
}

/// Says what a migration does with what never came to its end.
fn half(ground: &Ground<'_>, record: &Record, home: &Path, old: &Old) -> String {
    let whole = record.begun(&ground.kit.dm, home);
    let all = record.volumes.len();
    let copied = match left(ground, &record.half(whole), home, old) {
        Some(left) => format!("{} are copied while Docker is down, and all is compared", left.human()),
        None => "the rest is copied while Docker is down, and all is compared".to_owned(),
    };
    let again = command(ground, " --prepare");
    format!(
        "what was prepared never came to its end, {whole} of {all} volumes are whole: {copied};  {again}  first makes that less"
    )
}

/// Returns how many bytes are left to copy; nothing when that cannot be told.
pub(super) fn left(ground: &Ground<'_>, record: &Record, home: &Path, old: &Old) -> Option<Bytes> {
    let opened = Opened::open(home, record.clone()).ok()?;
    (0..TIMES).find_map(|_| {
        let source = Source::open(&ground.kit.dm, &old.now).ok()?;
        record::left(&source, &ground.root.path, &opened).ok()
    })
}

/// Refuses volumes that are made anew where others were prepared.
pub(super) fn is_by_blocks(ground: &Ground<'_>, refuse: &impl Fn(String) -> Failure) -> Failure {
    refuse("a pool was prepared, with the volumes as they are, and these would be made anew".to_owned())
        .fact("state", "nothing was touched")
        .next(format!("{}    # then run this again", drop_command(ground)))
}

/// Returns what was prepared, as a reader finds it.
pub(super) fn name_of(record: &Record, home: &Path) -> String {
    match &record.own {
        Some(own) => format!("pool `{}`", own.name),
        None => record::folder(home).display().to_string(),
    }
}

/// Says of what was prepared that another way of migrating does not use it.
pub(super) fn is_not_used(ground: &Ground<'_>) -> Option<String> {
    let folder = record::folder(&ground.root.path.join("devicemapper"));
    let what = match entry(ground) {
        Ok(Some(entry)) => format!("pool `{}` was prepared, which this does not use", entry.name),
        _ if folder.is_dir() => {
            format!("new loop files were prepared, which this does not use, in {}", folder.display())
        }
        _ => return None,
    };
    Some(format!("{what}; when nobody needs that:  {}", drop_command(ground)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::daemon::words_of;
    use crate::pool::{Spec, sizing};

    #[test]
    fn the_next_command_has_what_was_asked_for() {
        let by_hand = "/root/stop 'by hand'";
        let docker = Docker {
            socket: Some("/run/my docker.sock".into()),
            stop: Some(words_of(by_hand).unwrap()),
            start: Some(words_of("/root/start").unwrap()),
            without_rm: true,
            ..Docker::default()
        };
        let to = To::LoopFiles { data: Some(Bytes::new(6 << 30)), metadata: None, block: Some(BlockSize::DEFAULT) };
        let asked = asked(&Options { root: None, to, base_size: None, inner: None, docker });
        let by_hand = quote(by_hand);
        let rest = format!("--stop-command {by_hand} --start-command /root/start --without-rm");
        assert_eq!(asked, format!(" --data-size 6G --block-size 64K --docker-socket '/run/my docker.sock' {rest}"));
        let spec = |on| Spec {
            name: PoolName::new("p0").unwrap(),
            data_size: Some(Bytes::new(6 << 30)),
            metadata_size: None,
            block_size: BlockSize::DEFAULT,
            low_water: sizing::DEFAULT_LOW_WATER,
            zero: false,
            error_when_full: false,
            discard: true,
            ephemeral: false,
            on,
        };
        let target = |on| target_of(&To::Pool { spec: Box::new(spec(on)), wipe: true });
        let devices = Place::Devices { data: vec!["/dev/sdb".into()], metadata: Some("/dev/sdc".into()), stripe: None };
        let rest = "--data-size 6G --block-size 64K";
        assert_eq!(target(devices), format!(" --name p0 --data-device /dev/sdb --metadata-device /dev/sdc {rest}"));
        let volumes = Place::Volumes { group: "vg0".to_owned(), share: None };
        assert_eq!(target(volumes), format!(" --name p0 --vg vg0 {rest}"));
        let files = Place::Files { directory: "/srv/my pools".into(), preallocate: false };
        assert_eq!(target(files), format!(" --name p0 --dir '/srv/my pools' {rest}"));
    }
}
