//! Help, man pages, completions and guide say the same: all come from one definition, or are compared with it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dmpool");

fn dmpool(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = dmpool(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What roff and line breaks do to a text, undone.
fn plain(text: &str) -> String {
    let unescaped =
        text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "").replace("\\&", "");
    let unescaped = unescaped.replace(".PP", "").replace("\\*(Aq", "'");
    unescaped.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every command with its words: `grow`, `thin`, `thin create`.
fn subcommands() -> Vec<(String, clap::Command)> {
    fn below(words: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands() {
            let words = format!("{words} {}", sub.get_name()).trim().to_owned();
            below(&words, sub, found);
            found.push((words, sub.clone()));
        }
    }
    let mut found = Vec::new();
    below("", &dmpool::cli::command(), &mut found);
    found
}

fn help(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').chain(["--help"]).collect();
    printed(&words)
}

fn long_options(command: &clap::Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(clap::Arg::get_long);
    longs.filter(|long| !["help", "version"].contains(long)).map(|long| format!("--{long}")).collect()
}

#[test]
fn the_guide_has_every_command_and_every_option() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide.md")).unwrap();
    let mut missing = Vec::new();
    for (name, command) in subcommands() {
        if !guide.contains(&format!("dmpool {name}")) {
            missing.push(format!("`dmpool {name}`"));
        }
        missing
            .extend(long_options(&command).into_iter().filter(|o| !guide.contains(o)).map(|o| format!("{name} {o}")));
    }
    for option in long_options(&dmpool::cli::command()) {
        if !guide.contains(&option) {
            missing.push(option);
        }
    }
    assert!(missing.is_empty(), "docs/guide.md does not have: {}", missing.join(", "));
}

#[test]
fn help_and_man_page_of_each_command_are_one_text() {
    let dir = tempfile::tempdir().unwrap();
    printed(&["man", "--dir", dir.path().to_str().unwrap()]);
    for (name, command) in subcommands() {
        let page = format!("dmpool-{}.8", name.replace(' ', "-"));
        let page = plain(&fs::read_to_string(dir.path().join(page)).unwrap());
        let help = plain(&help(&name));
        let about = command.get_long_about().or(command.get_about()).unwrap().to_string();
        for text in [plain(&about)].into_iter().chain(long_options(&command)) {
            assert!(help.contains(&text), "{name} --help has no {text:?} in {help}");
            assert!(page.contains(&text), "dmpool-{name}.8 has no {text:?} in {page}");
        }
    }
    let whole = fs::read_to_string(dir.path().join("dmpool.8")).unwrap();
    let commands = dmpool::cli::command();
    assert!(commands.get_subcommands().all(|c| whole.contains(c.get_name())), "{whole}");
}

#[test]
fn output_that_cannot_be_written_is_said_and_a_reader_that_went_away_is_not() {
    let list = std::env::temp_dir().join(format!("dmpool-no-pools-{}", std::process::id()));
    let origin = dmpool::ops::status::origin().unwrap();
    fs::write(&list, dmpool::report::json::list(&[], &origin)).unwrap();
    let told: [&[&str]; 5] = [
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["--version"],
        &["list", "--from", list.to_str().unwrap(), "--format", "json"],
    ];
    for (args, code) in told.into_iter().map(|args| (args, 1)).chain([(["health", "--help"].as_slice(), 3)]) {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(PROGRAM).args(args).stdout(full).output().unwrap();
        let cause = "  cause:  ENOSPC (No space left on device) from write on standard output\n";
        let said = format!("dmpool: cannot write the output\n{cause}");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(code), &*said));

        let (_, gone) = std::io::pipe().unwrap();
        let output = Command::new(PROGRAM).args(args).stdout(gone).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{args:?}");
    }
    fs::remove_file(list).unwrap();
}

#[test]
fn every_shell_gets_completions_for_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for (_, command) in subcommands() {
            assert!(script.contains(command.get_name()), "{shell} does not complete {}", command.get_name());
        }
    }
}

#[test]
fn help_fits_a_terminal_of_100_columns() {
    for (name, _) in subcommands() {
        let help = help(&name);
        let widest = help.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 100, "{name} --help has a line of {widest} columns:\n{help}");
    }
}

/// A bad command line is exit 2, says what is wrong, and is found before anything else: also who is not root sees it.
#[test]
fn a_wrong_command_line_is_exit_2_and_says_what_is_wrong() {
    for (args, why) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["create"], "<POOL>"),
        (&["create", "../x"], "not a pool name"),
        (&["create", "p", "--data-size", "0"], "it is zero"),
        (&["create", "p", "--data-size", "-5G"], "it is negative"),
        (&["create", "p", "--data-size", "1.5G"], "a whole number is wanted"),
        (&["create", "p", "--data-size", "99999999999999999999"], "larger than any file"),
        (&["create", "p", "--block-size", "65K"], "not a block size"),
        (&["create", "p", "--block-size", "1000"], "the nearest is 64K"),
        (&["create", "p", "--low-water", "many"], "not a number of blocks"),
        (&["create", "p", "--when-full", "explode"], "invalid value"),
        (&["grow", "p", "10Q"], "is not a size"),
        (&["grow", "p", "20%"], "a percentage needs a +"),
        (&["grow", "-5G"], "unexpected argument"),
        (&["grow", "a", "1G", "b"], "unexpected"),
        (&["grow", "p", "--metadata", "0"], "it is zero"),
        (&["activate", "p", "--all"], "cannot be used with"),
        (&["thin"], "Usage: dmpool thin"),
        (&["thin", "create", "p", "v"], "--size"),
        (&["thin", "create", "p", "a/b", "--size", "1G"], "not a volume name"),
        (&["thin", "create", "p", "v", "--size", "0"], "it is zero"),
        (&["thin", "grow", "p", "v", "-5G"], "is negative"),
        (&["destroy"], "<POOL>"),
        (&["status", "--format", "xml"], "invalid value"),
        (&["completions", "tcsh"], "invalid value"),
        (&["disks", "--format", "xml"], "invalid value"),
        (&["disks", "--timeout", "0"], "0 is not in 1..=3600"),
        (&["disks", "/dev/sda"], "unexpected argument"),
    ] {
        let output = dmpool(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?} prints to standard output");
    }
}

/// Monitoring reads 2 as CRITICAL: a wrong command line of `health` is 3, which is UNKNOWN.
#[test]
fn a_wrong_command_line_of_health_is_exit_3() {
    for (args, why) in [
        (&["health", "--frobnicate"][..], "unexpected argument"),
        (&["health", "-w", "0"], "no share from 1 to 100"),
        (&["health", "-c", "101%"], "no share from 1 to 100"),
        (&["health", "-w", "96"], "--warning is more than --critical"),
        (&["health", "--metadata-warning", "9", "--metadata-critical", "8"], "--metadata-warning is more than"),
        (&["health", "--format", "xml"], "invalid value"),
        (&["health", "--timeout", "0"], "0 is not in 1..=3600"),
        (&["--state-dir", "/tmp", "health", "a", "b"], "unexpected argument"),
    ] {
        let output = dmpool(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?} prints to standard output");
    }
}

/// Monitoring shows what is on standard output only.
#[test]
fn a_wrong_command_line_of_a_nagios_check_is_said_where_nagios_reads_it() {
    for (args, line) in [
        (
            &["health", "--format", "nagios", "-w", "96"][..],
            "DMPOOL UNKNOWN - wrong command line: --warning is more than --critical\n",
        ),
        (
            &["health", "--format=nagios", "--frobnicate"],
            "DMPOOL UNKNOWN - wrong command line: unexpected argument '--frobnicate' found\n",
        ),
    ] {
        let output = dmpool(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), line, "{args:?}");
    }
}
