//! `dmpool rescue cp`

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::archive::{Teller, write};
use super::reach::ReachArgs;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::contents::tree::Follow;
use crate::ops::rescue::copy::{Wanted, pick};
use crate::ops::{State, rescue};

/// Copy a file or a directory out of a container, by the rules of `docker cp`
///
/// A directory that DEST names is copied into, any other DEST is what the copy is called; NAME:/DIR/. copies what is in DIR.
/// Links in the path lead where they led in the container. Volumes are seen where the container saw them. Owners, modes,
/// times, attributes, ACLs, holes and hard links are kept. What cannot be is named, and the exit code is 5. DEST - writes
/// a tar archive to standard output.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container, by its name, id, or the beginning of its id, and the path in it
    #[arg(value_name = "NAME:PATH")]
    source: OsString,

    /// Where to; - for an archive on standard output
    dest: PathBuf,

    /// Follow the link that PATH ends in
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// As in docker cp; owners are kept anyhow
    #[arg(short, long)]
    archive: bool,

    #[command(flatten)]
    reach: ReachArgs,
}

impl Args {
    pub(super) fn run(self, state: &State) -> Outcome<()> {
        let (name, path) = split(&self.source)?;
        let objects = rescue::open(state)?;
        let container = rescue::container(&objects, &name)?;
        let follow = if self.follow_link { Follow::Last } else { Follow::Parents };
        let reach = self.reach.to(state);
        let picked = pick(&objects, container, &Wanted { path: &path, follow }, &reach)?;
        let mut teller = Teller::default();
        let label = rescue::label(container);
        if self.dest == Path::new("-") {
            write(None, &mut |writer| picked.to_archive(writer, &mut |remark| teller.tell(&remark)))?;
        } else {
            picked.to_directory(&objects, &self.dest, &mut |remark| teller.tell(&remark))?;
        }
        teller.outcome(&format!("the copy out of container `{label}`"))
    }
}

/// Takes `NAME:PATH` apart: no container's name has a colon.
fn split(source: &OsString) -> Outcome<(String, PathBuf)> {
    let mut parts = source.as_bytes().splitn(2, |byte| *byte == b':');
    let name = parts.next().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    match parts.next().filter(|path| !path.is_empty() && !name.is_empty()) {
        Some(path) => Ok((name, PathBuf::from(OsString::from_vec(path.to_vec())))),
        None => Err(Failure::new(Kind::Usage, "what is copied must be NAME:PATH, a path in a container")
            .next("dmpool rescue cp web:/etc/nginx /srv/rescued")),
    }
}
