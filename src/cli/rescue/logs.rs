//! `dmpool rescue logs`

use std::io::{self, BufWriter, Write, stderr, stdout};
use std::time::{Duration, SystemTime};

use crate::cli::show;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::rescue::logs::{self, Stream, Time, Told, Wanted};
use crate::ops::{State, rescue};
use crate::report::rescue::logs as report;

/// Print what a container has written, as `docker logs` would
///
/// From the files of the log drivers json-file and local, those that were rotated and packed too, and from what Docker 20.10 and
/// later caches for other drivers; where neither is, it says where the log is. What went to standard error goes there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container: its name, id, or the beginning of its id
    name: String,

    /// Only so many lines from the end
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, default_value = "all")]
    tail: Tail,

    /// Before each line, when it was written
    #[arg(short, long)]
    timestamps: bool,

    /// Only what was written since then: 2026-11-21T04:00:00Z, seconds since 1970, or how long ago (42m, 3h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Tail(Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    text.parse().map(|count| Tail(Some(count))).map_err(|_| format!("`{text}` is neither a number of lines nor `all`"))
}

/// Reads a time as `docker logs --since` does.
fn since(text: &str) -> Result<Time, String> {
    if let Some(time) = Time::parse(text).or_else(|| Time::parse(&format!("{text}Z"))) {
        return Ok(time);
    }
    if let Some(time) = Time::parse(&format!("{text}T00:00:00Z")) {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Time::new(seconds, 0));
    }
    let ago: Duration = humantime::parse_duration(text).map_err(|_| {
        format!("`{text}` is neither a time (2026-11-21T04:00:00Z), nor seconds since 1970, nor how long ago (42m, 3h)")
    })?;
    let then = SystemTime::now().checked_sub(ago).and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
    let then = then.unwrap_or(Duration::ZERO);
    Ok(Time::new(i64::try_from(then.as_secs()).unwrap_or(i64::MAX), then.subsec_nanos()))
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let objects = rescue::open(state)?;
        let container = rescue::container(&objects, &self.name)?;
        let wanted = Wanted { tail: self.tail.0, since: self.since };
        let mut out = BufWriter::new(stdout().lock());
        let mut ended: io::Result<()> = Ok(());
        let told = logs::read(&objects, container, wanted, &mut |line| {
            let bytes = report::line(line, self.timestamps);
            ended = match line.stream {
                Stream::Stdout => out.write_all(&bytes),
                // In the order in which they were written, where both are one terminal.
                Stream::Stderr => out.flush().and_then(|()| stderr().write_all(&bytes)),
            };
            ended.is_ok()
        })?;
        let ended = ended.and_then(|()| out.flush());
        let is_gone = ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        show::written(ended)?;
        if is_gone {
            return Ok(());
        }
        show::lost(broken(&rescue::label(container), &told))
    }
}

fn broken(container: &str, told: &Told) -> Vec<Failure> {
    let state = "the rest is shown; nothing was written";
    let damaged = (told.damaged > 0).then(|| {
        let places = if told.damaged == 1 { "1 line was".to_owned() } else { format!("{} lines were", told.damaged) };
        let what = format!("the log of container `{container}` is not whole: {places} damaged and passed over");
        Failure::new(Kind::Damaged, what).fact("state", state)
    });
    let unread = told.unread.iter().map(|(file, why)| {
        let what = format!("the log of container `{container}` is not whole: {file} could not be read to its end");
        Failure::new(Kind::Damaged, what).fact("cause", why.as_str()).fact("state", state)
    });
    unread.chain(damaged).collect()
}
