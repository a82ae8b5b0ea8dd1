//! One broken file hides no other pool: `list` and `status` show the rest, name what is broken, and end with 5.

use std::fs;
use std::path::PathBuf;

use lab::guest::run::Ran;

use crate::support::Bench;

/// The exit code of what was shown, but not wholly.
const DAMAGED: i32 = 5;

/// What was shown ended with 5, and named these on standard error.
#[track_caller]
fn assert_lost(ran: &Ran, shown: &[&str], named: &[&str]) {
    assert_eq!(ran.code(), Some(DAMAGED), "{ran}");
    for words in shown {
        assert!(ran.stdout.contains(words), "`{words}` is not shown: {ran}");
    }
    assert!(ran.stderr.starts_with("dmpool: ") && ran.stderr.contains("\n  next:"), "{ran}");
    for words in named {
        assert!(ran.stderr.contains(words), "`{words}` is not named: {ran}");
    }
}

#[test]
fn a_broken_registry_entry_hides_nothing() {
    let bench = Bench::new();
    let pool = bench.create();
    let registry = bench.state.join("registry");
    let entry = registry.join(format!("{pool}.toml"));
    let good = fs::read_to_string(&entry).unwrap();
    let strange = registry.join("dmpool-test-strange.toml");
    let named = |path: &PathBuf| [path.display().to_string(), format!("{0} {0}.broken", path.display())];
    let names = |path: &PathBuf, why: &str| [named(path).to_vec(), vec![why.to_owned()]].concat();

    for (text, why) in [("[[[", "not TOML"), ("format = 99\n", "a newer dmpool"), ("answer = 42\n", "did not write it")]
    {
        fs::write(&strange, text).unwrap();
        let said = names(&strange, why);
        let said: Vec<_> = said.iter().map(String::as_str).collect();
        assert_lost(&bench.run(&["list"]), &[&pool, "dmpool-test-strange"], &said);
        assert_lost(&bench.run(&["status", "dmpool-test-strange"]), &["Not Read", why], &said);
        let json = bench.run(&["list", "--format", "json"]);
        assert_lost(&json, &[], &said);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json.pointer("/pools").and_then(serde_json::Value::as_array).map(Vec::len), Some(2), "{json:#}");
        bench.ok(&["status", &pool]);
    }
    fs::remove_file(&strange).unwrap();

    // The pool's own entry: the kernel has it all the same.
    fs::write(&entry, &good[..good.len() / 2]).unwrap();
    let said = named(&entry);
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    for args in [&["status"][..], &["status", &pool], &["list"]] {
        assert_lost(&bench.run(args), &[&pool, "dmpool", "rw"], &said);
    }
    fs::write(&entry, good).unwrap();

    // No entry can be read at all.
    let away = bench.state.join("away");
    fs::rename(&registry, &away).unwrap();
    fs::write(&registry, "").unwrap();
    assert_lost(&bench.run(&["list"]), &[&pool, "rw"], &["registry", "ENOTDIR"]);
    fs::remove_file(&registry).unwrap();
    fs::rename(&away, &registry).unwrap();
    assert_eq!(bench.run(&["list"]).code(), Some(0));
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

#[test]
fn a_docker_root_that_cannot_be_read_hides_nothing() {
    let bench = Bench::new();
    let root = bench.sweep.subdir("root").unwrap();
    fs::write(root.join("devicemapper"), "").unwrap();
    fs::create_dir_all("/etc/docker").unwrap();
    fs::write("/etc/docker/daemon.json", format!("{{\"data-root\": \"{}\"}}", root.display())).unwrap();
    let root = root.to_str().unwrap();

    // Nothing else is there: what could be the only pool cannot be read.
    let none = bench.run(&["status"]);
    assert_eq!(none.code(), Some(3), "{none}");
    assert!(none.stderr.contains(root), "{none}");

    let pool = bench.create();
    for args in [&["status"][..], &["list"]] {
        assert_lost(&bench.run(args), &[&pool, "rw"], &["Docker root", root, "devicemapper"]);
    }
    bench.ok(&["status", &pool]);
    for args in [&["grow", "2G"][..], &["status", "docker"]] {
        let refused = bench.run(args);
        assert_eq!(refused.code(), Some(3), "{refused}");
        assert!(refused.stderr.contains(root), "{refused}");
    }
    fs::remove_file("/etc/docker/daemon.json").unwrap();
    bench.ok(&["list"]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
