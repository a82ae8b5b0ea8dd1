//! The examples, as somebody would run them one after the other.

use lab::guest::run::Cmd;

use crate::support::Bench;

#[test]
fn the_examples_make_show_and_grow_a_pool() {
    let bench = Bench::new();
    let pool = bench.pool();
    let run = |name: &str, args: &[&str]| {
        Cmd::new(format!("/usr/local/lib/dmpool-examples/{name}")).args(args).run().checked().unwrap().stdout
    };
    let made = run("create", &[&pool, bench.dir.to_str().unwrap()]);
    assert!(made.contains(&format!("/dev/mapper/{pool}")), "{made}");
    let shown = run("status", &[&pool]);
    assert!(shown.contains("made by Dmpool") && shown.contains("of 10.0 GiB used"), "{shown}");
    let grown = run("grow", &[&pool, "20G"]);
    assert!(grown.contains("20.0 GiB") && grown.ends_with("done\n"), "{grown}");
    assert!(run("status", &[&pool]).contains("of 20.0 GiB used"));
    Cmd::new("dmpool").args(["destroy", &pool, "--with-volumes", "--yes"]).run().checked().unwrap();
}
