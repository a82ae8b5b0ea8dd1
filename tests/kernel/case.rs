//! One run of an operation that does not end well, and what there must be after it.

use lab::guest::run::{Cmd, End, Ran};
use nix::libc::SIGKILL;

use crate::operation::{Operation, Subject};
use crate::picture::assert_picture;

/// One run of the operation, from a pool that is ready for it.
pub struct Case<'s> {
    pub subject: &'s Subject,
    pub name: String,
    pub args: Vec<String>,
    pub before: String,
    pub from: u64,
    pub to: u64,
}

impl<'s> Case<'s> {
    pub fn begin(subject: &'s Subject, name: String) -> Self {
        println!("  {:?}: {name}", subject.operation);
        subject.prepare();
        let from = subject.size();
        let (args, to) = subject.next(from);
        let before = subject.picture();
        Self { subject, name, args, before, from, to }
    }

    /// The operation is whole: what there is is what an undisturbed run leaves.
    #[track_caller]
    pub fn is_at_the_end(&self, end: &str) {
        if self.subject.operation.is_thin() {
            self.subject.assert_volumes_agree(&self.name);
            // Each run takes the pool to the next number, which may be longer.
            let shape = |picture: &str| {
                let lines = picture.lines().filter(|line| !line.contains("transaction = "));
                let record = |line: &str| line.starts_with("file ") && line.contains("/volumes/");
                let length = |line: &str| line.rsplit_once(' ').map_or("", |(before, _)| before).to_owned();
                lines.map(|l| if record(l) { length(l) } else { l.to_owned() }).collect::<Vec<_>>().join("\n")
            };
            return assert_picture(&self.name, &shape(end), &shape(&self.subject.picture()));
        }
        if !self.subject.operation.grows() {
            return assert_picture(&self.name, end, &self.subject.picture());
        }
        self.subject.assert_size(&self.name, self.to);
        let shape = |picture: &str| picture.replace(|c: char| c.is_ascii_digit(), "");
        let now = self.subject.picture();
        assert_picture(&self.name, &shape(&self.before_but_swept(&now)), &shape(&now));
    }

    /// What there was before, without the temporary files of rounds before that are not here now: each operation sweeps.
    fn before_but_swept(&self, now: &str) -> String {
        let stays = |line: &&str| !line.contains(".new ") || now.lines().any(|there| there == *line);
        self.before.lines().filter(stays).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    pub fn is_at_the_beginning(&self) {
        let now = self.subject.picture();
        assert_picture(&self.name, &self.before_but_swept(&now), &now);
        assert_eq!(self.subject.size(), self.from, "{}", self.name);
        if self.subject.operation.is_thin() {
            self.subject.assert_volumes_agree(&self.name);
        }
    }

    /// It was ended without a journal: nothing was begun, or everything is done. A temporary file may be left, which the
    /// next operation sweeps.
    #[track_caller]
    pub fn is_at_either_end(&self, end: &str, ran: &Ran) {
        let swept = |picture: &str| {
            let lines = picture.lines().filter(|line| !line.contains(".new "));
            lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        let found = swept(&self.subject.picture());
        if found == swept(&self.before) {
            assert_eq!(self.subject.size(), self.from, "{}", self.name);
        } else if self.subject.operation.grows() {
            self.is_at_the_end(end);
        } else {
            assert_picture(&format!("{}: {ran}", self.name), &swept(end), &found);
        }
    }

    /// What `continue` or `undo` said is what there is.
    #[track_caller]
    pub fn ended_as_said(&self, ran: &Ran, end: &str) {
        assert!(ran.ok(), "{}: {ran}", self.name);
        if ran.stdout.starts_with("finished:") {
            self.is_at_the_end(end);
        } else if ran.stdout.starts_with("taken back:") {
            self.is_at_the_beginning();
        } else {
            assert!(ran.stdout.starts_with("could not be taken back"), "{}: {ran}", self.name);
            self.stands(ran, end);
        }
    }

    /// What could not be taken back is named, and is so.
    #[track_caller]
    fn stands(&self, ran: &Ran, end: &str) {
        assert!(self.subject.journals().is_empty(), "{}: the journal is closed", self.name);
        if self.subject.operation.grows() {
            assert!(ran.stdout.contains("has its new"), "{}: {ran}", self.name);
            return self.is_at_the_end(end);
        }
        if self.subject.operation.is_thin() {
            let stands = ["is deleted", " now"].iter().any(|words| ran.stdout.contains(words));
            assert!(stands, "{}: only deleting and a file system have no way back: {ran}", self.name);
            return self.is_at_the_end(end);
        }
        assert_eq!(self.subject.operation, Operation::Destroy, "{}: only deleting has no way back: {ran}", self.name);
        assert!(ran.stdout.contains("is deleted"), "{}: {ran}", self.name);
        self.leftovers_are_named(ran);
        assert!(!self.subject.is_registered() && !self.subject.is_active(), "{}", self.name);
        assert!(!self.subject.picture().contains("loop "), "{}: {}", self.name, self.subject.picture());
    }

    /// What a destroy that was given up has left is named, and what is to be done with it does it.
    #[track_caller]
    fn leftovers_are_named(&self, ran: &Ran) {
        let folder = self.subject.bench.dir.join(&self.subject.pool);
        let left = [self.subject.bench.file("metadata"), folder.clone()];
        for path in left.iter().filter(|path| path.exists()) {
            assert!(ran.stdout.contains(&format!(" {}\n", path.display())), "{}: {ran}", self.name);
        }
        let next = ran.stdout.lines().find_map(|line| line.trim().strip_prefix("next:"));
        assert_eq!(next.is_some(), folder.exists(), "{}: {ran}", self.name);
        if let Some((command, _)) = next.and_then(|next| next.trim().split_once("    ")) {
            Cmd::new("sh").args(["-c", command]).run().checked().unwrap();
        }
        assert!(!folder.exists(), "{}: {ran}", self.name);
    }

    /// It was interrupted: whoever asks is told so, and nobody changes the pool meanwhile.
    #[track_caller]
    pub fn says_it_was_interrupted(&self) {
        let journals = self.subject.journals();
        let [id] = journals.as_slice() else { panic!("{}: {journals:?}", self.name) };
        for args in [vec!["list"], vec!["status", &self.subject.pool]] {
            let ran = self.subject.bench.run(&args);
            assert!(ran.ok() && ran.stdout.contains("interrupted") && ran.stdout.contains(id), "{}: {ran}", self.name);
        }
        let halfway = self.subject.picture();
        let ran = self.subject.run(&self.subject.another(), None);
        assert!(ran.code() == Some(3) && ran.stderr.contains(id), "{}: {ran}", self.name);
        assert_picture(&self.name, &halfway, &self.subject.picture());
    }

    pub fn resume(&self, verb: &str, fault: Option<&str>) -> Ran {
        let mut args = vec![verb.to_owned()];
        if verb == "continue" && matches!(self.subject.operation, Operation::Destroy | Operation::ThinRemove) {
            args.push("--yes".to_owned());
        }
        self.subject.run(&args, fault)
    }
}

/// It was killed, as the fault was told to.
pub fn died(ran: &Ran) -> bool {
    ran.end == End::Signal(SIGKILL)
}
