//! The agent: first program of every guest, and the lab's hand in it afterwards.

fn main() {
    lab::agent::main();
}
