//! An operation that is told to fail, or to die, at one of its steps; then it is finished in one case and taken back in
//! another, and what there is is what was said.

use lab::guest::run::Ran;

use crate::case::died;
use crate::picture::assert_picture;
use crate::support::Bench;

/// How a step ends, and which command is run after a death; without one the failure itself takes back.
pub const CASES: [(&str, &str); 4] =
    [("after:fail", ""), ("after:die", "undo"), ("before:die", "continue"), ("before:die", "undo")];
/// The others, for which CI has no time.
pub const MORE: [(&str, &str); 2] = [("before:fail", ""), ("after:die", "continue")];

/// Something that dmpool does, and what must be there for it.
pub trait Doing {
    fn bench(&self) -> &Bench;

    fn name(&self) -> String;

    /// The command line.
    fn args(&self) -> Vec<String>;

    /// Makes everything as it must be for it to begin.
    fn prepare(&self);

    /// All that must be the same again when it is taken back.
    fn picture(&self) -> String;

    /// How large data and metadata are, where they are known before.
    fn sizes(&self) -> (u64, u64);

    /// What an undisturbed run leaves, from those sizes.
    fn is_at_the_end(&self, case: &str, sizes: (u64, u64));

    /// Whether a failure at that step may leave what has no way back.
    fn may_stand(&self, step: usize, steps: usize) -> bool;

    /// Looks at what `undo` said when it could take back no more than a part, and clears that away.
    fn is_given_up(&self, case: &str, ended: &Ran, sizes: (u64, u64)) {
        assert!(ended.stdout.contains("has its new"), "{case}: {ended}");
        self.is_at_the_end(case, sizes);
    }

    fn run(&self, args: &[String], fault: Option<&str>) -> Ran {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let cmd = self.bench().cmd(&args);
        match fault {
            Some(fault) => cmd.env("DMPOOL_FAULT", fault).run(),
            None => cmd.run(),
        }
    }

    /// How many steps it has.
    fn steps(&self) -> usize {
        let mut args = self.args();
        args.push("--dry-run".to_owned());
        let is_step =
            |line: &&str| line.trim_start().split_once(". ").is_some_and(|(number, _)| number.parse::<usize>().is_ok());
        self.run(&args, None).checked().unwrap().stdout.lines().filter(is_step).count()
    }

    /// One run that does not end well.
    fn case(&self, (step, steps): (usize, usize), (fault, verb): (&str, &str)) {
        let fault = format!("{step}:{fault}");
        let name = format!("{}: {fault} {verb}", self.name());
        println!("  {name}");
        self.prepare();
        let (before, sizes) = (self.picture(), self.sizes());
        let ran = self.run(&self.args(), Some(&fault));
        if verb.is_empty() {
            if ran.code() == Some(4) {
                let ran = self.bench().run(&["continue"]);
                assert!(ran.ok() && self.may_stand(step, steps), "{name}: {ran}");
                return self.is_at_the_end(&name, sizes);
            }
            assert!(
                ran.code() == Some(1) && ran.stderr.contains("everything that had been done was taken back"),
                "{name}: {ran}"
            );
            assert!(ran.stderr.contains("next:"), "{name}: {ran}");
            return assert_picture(&name, &before, &self.picture());
        }
        assert!(died(&ran), "{name}: {ran}");
        let ended = self.bench().run(if verb == "continue" { &["continue", "--yes"] } else { &["undo"] });
        assert!(ended.ok(), "{name}: {ended}");
        if ended.stdout.starts_with("taken back:") {
            assert_eq!(verb, "undo", "{name}: {ended}");
            assert_picture(&name, &before, &self.picture());
        } else if verb == "continue" {
            self.is_at_the_end(&name, sizes);
        } else {
            self.is_given_up(&name, &ended, sizes);
        }
    }
}
