//! Signals that ask dmpool to end, at random moments: the operation is done, or it is taken back; never half.

use lab::guest::disk::Kind;
use lab::guest::run::End;
use nix::sys::signal::Signal;

use crate::case::Case;
use crate::chance::Chance;
use crate::death::{command, undisturbed};
use crate::operation::{Busy, Operation, Subject};
use crate::support::Bench;

const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGQUIT];

#[test]
fn create_is_whole_or_taken_back_after_any_signal() {
    signalled(Operation::Create, None);
}

#[test]
fn grow_is_whole_or_taken_back_after_any_signal() {
    signalled(Operation::GrowData, Some(Kind::Ext4));
}

#[test]
fn destroy_is_whole_or_taken_back_after_any_signal() {
    signalled(Operation::Destroy, None);
}

/// Who is told to end again and again, also while it takes back and until it has ended, still says how things are.
#[test]
fn the_last_word_is_said_whatever_signals_come() {
    let subject = Subject::new(Operation::Create, Bench::new());
    let (end, _) = undisturbed(&subject);
    for _ in 0..3 {
        let case = Case::begin(&subject, "signals without end".to_owned());
        let mut running = command(&case).start().unwrap();
        while running.alive() && subject.journals().is_empty() {
            std::thread::yield_now();
        }
        while running.alive() {
            for signal in SIGNALS {
                running.signal(signal);
            }
        }
        let ran = running.wait();
        match ran.end {
            End::Exit(0) if ran.stdout.starts_with("made pool") => case.is_at_the_end(&end),
            End::Exit(1) if ran.stderr.contains("interrupted by SIG") && ran.stderr.contains("state:") => {
                case.is_at_the_beginning();
            }
            _ => panic!("{ran}"),
        }
    }
}

fn signalled(operation: Operation, io: Option<Kind>) {
    let subject = Subject::new(operation, Bench::new());
    let busy = io.map(|kind| Busy::on(&subject, kind));
    let mut chance = Chance::new();
    let (end, took) = undisturbed(&subject);
    for signal in SIGNALS.into_iter().chain(SIGNALS) {
        let delay = chance.within(took);
        let case = Case::begin(&subject, format!("{signal} after {} us", delay.as_micros()));
        let running = command(&case).start().unwrap();
        std::thread::sleep(delay);
        running.signal(signal);
        let ran = running.wait();
        assert!(subject.journals().is_empty(), "{}: nothing is left half done: {ran}", case.name);
        match ran.end {
            End::Exit(0) => case.is_at_the_end(&end),
            End::Exit(1) => {
                let says = [format!("interrupted by {signal}"), " was not begun, ".to_owned()];
                assert!(says.iter().all(|words| ran.stderr.contains(words)), "{}: {ran}", case.name);
                case.is_at_the_beginning();
            }
            // Before dmpool holds signals back nothing was begun.
            End::Signal(number) if number == signal as i32 => case.is_at_either_end(&end, &ran),
            _ => panic!("{}: {ran}", case.name),
        }
    }
    if let Some(busy) = busy {
        busy.finish();
    }
}
