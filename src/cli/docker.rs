//! What is said of a Docker that is stopped, and started again.

use std::path::PathBuf;

use crate::error::{Failure, Kind, Outcome};
use crate::ops::daemon;
use crate::ops::preflight::{Options, Purpose};

#[derive(Debug, clap::Args)]
pub(super) struct DockerArgs {
    /// Where Docker listens, when its configuration does not say
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,

    /// What stops Docker, when no unit or init script does: a program and its arguments
    #[arg(long, value_name = "COMMAND", requires = "start_command")]
    stop_command: Option<String>,

    /// What starts it
    #[arg(long, value_name = "COMMAND", requires = "stop_command")]
    start_command: Option<String>,

    /// Also when containers were made with --rm: they are gone when Docker stops, and their anonymous volumes with them
    #[arg(long)]
    without_rm: bool,

    /// Save containers that were made with --rm before anything stops: each as an image and a container `saved-NAME`, which is not
    /// started, and has its volumes
    #[arg(long, conflicts_with = "without_rm")]
    keep_rm: bool,
}

impl DockerArgs {
    /// Returns them as what Docker is stopped for takes them.
    ///
    /// # Errors
    /// A usage error for a command that is empty.
    pub(super) fn options(&self, purpose: Purpose) -> Outcome<Options> {
        let words = |command: &Option<String>| -> Outcome<Option<Vec<String>>> {
            let words = command.as_deref().map(daemon::words_of).transpose();
            words.map_err(|e| Failure::new(Kind::Usage, format!("cannot {}: {e:#}", purpose.word())))
        };
        Ok(Options {
            purpose,
            socket: self.docker_socket.clone(),
            stop: words(&self.stop_command)?,
            start: words(&self.start_command)?,
            without_rm: self.without_rm,
            keep_rm: self.keep_rm,
            saved: None,
            agreed: None,
            begun: None,
        })
    }
}
