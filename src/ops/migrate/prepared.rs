//! What was prepared, as the plan of a migration finds it.

use std::path::Path;

use super::blocks::Source;
use super::blocks::record::{self, Opened, Record, Unfit};
use super::preflight::Options as Docker;
use super::size::Old;
use super::{Ground, Options, To};
use crate::error::{Failure, Outcome};
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

/// Returns the options of a command line that say which new loop files, and what was said of Docker.
pub(super) fn asked(options: &Options) -> String {
    let mut asked = String::new();
    let mut say = |option: &str, value: Option<String>| {
        asked.extend(value.map(|value| format!(" {option} {}", quote(&value))));
    };
    if let To::LoopFiles { data, metadata, block } = &options.to {
        say("--data-size", data.map(Bytes::typed));
        say("--metadata-size", metadata.map(Bytes::typed));
        say("--block-size", block.map(|block| block.bytes().typed()));
    }
    let words = |words: &Vec<String>| words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    let Docker { socket, stop, start, without_rm, .. } = &options.docker;
    say("--docker-socket", socket.as_ref().map(|socket| socket.to_string_lossy().into_owned()));
    say("--stop-command", stop.as_ref().map(words));
    say("--start-command", start.as_ref().map(words));
    if *without_rm {
        asked.push_str(" --without-rm");
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
    Ok(record.filter(|_| record::folder(home).is_dir()))
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

/// Says how much was prepared, and how much is left; with `prepares`, why it is begun anew.
///
/// # Errors
/// Refused when a migration cannot go on from it.
pub(super) fn judge(
    ground: &Ground<'_>,
    record: &Record,
    home: &Path,
    old: &Old,
    prepares: bool,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<String>> {
    let unread = |e: anyhow::Error| refuse("what was prepared there cannot be looked at".to_owned()).because(e);
    let unfit = record.unfit(&ground.kit.dm, home, &old.origin, &old.superblock).map_err(unread)?;
    match unfit {
        Some(Unfit::NotWhole) if prepares => {
            return Ok(vec!["what was prepared never came to its end: what is whole of it is gone on from".to_owned()]);
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
                .fact("found", record::folder(home).display().to_string())
                .fact("state", "nothing was touched")
                .next(again));
        }
        None => {}
    }
    let (volumes, bytes) = record.ready(home).map_err(unread)?;
    let left = left(ground, record, home, old).map_or_else(
        || "how much is left to copy cannot be told while Docker writes".to_owned(),
        |left| format!("{} are left to copy and to compare as it is now", left.human()),
    );
    Ok(vec![format!("{volumes} volumes were prepared, {} on the disk: {left}", bytes.human())])
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
    refuse("new loop files were prepared, with the volumes as they are, and these would be made anew".to_owned())
        .fact("state", "nothing was touched")
        .next(format!("{}    # then run this again", drop_command(ground)))
}

/// Says of what was prepared that another way of migrating does not use it.
pub(super) fn is_not_used(ground: &Ground<'_>) -> Option<String> {
    let folder = record::folder(&ground.root.path.join("devicemapper"));
    folder.is_dir().then(|| {
        let folder = folder.display();
        format!(
            "new loop files were prepared, which this does not use, in {folder}; when nobody needs them:  {}",
            drop_command(ground)
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::daemon::words_of;

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
    }
}
