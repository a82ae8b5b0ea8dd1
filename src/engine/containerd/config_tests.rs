#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use proptest::prelude::*;

use super::*;

#[test]
fn configurations_of_all_versions_are_read() {
    for (text, pool, root_path) in [
        ("[plugins.devmapper]\npool_name = 'p'\nroot_path = '/srv/dm'", Some("p"), Some("/srv/dm")),
        ("version = 1\n[plugins.devmapper]\npool_name = 'p'", Some("p"), None),
        ("version = 2\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'p'", Some("p"), None),
        ("version = 3\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'p'", Some("p"), None),
        ("version = 2\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = ''", None, None),
        // Only version 1 has short names.
        ("version = 2\n[plugins.devmapper]\npool_name = 'p'", None, None),
        ("version = 2", None, None),
        ("", None, None),
    ] {
        let section = parse(text).unwrap().section.unwrap_or_default();
        let expected = Section { pool: pool.map(str::to_owned), root_path: root_path.map(PathBuf::from) };
        assert_eq!(section, expected, "{text}");
    }
    let disabled = parse("version = 2\ndisabled_plugins = ['io.containerd.snapshotter.v1.devmapper']").unwrap();
    assert!(disabled.disabled);
    for broken in [
        "{",
        "plugins = 7",
        "[plugins.devmapper]\npool_name = 7",
        "[plugins]\ndevmapper = 1",
        "imports = 'a'",
        "root = 1",
    ] {
        assert!(parse(broken).is_err(), "{broken}");
    }
}

/// The configuration of a machine with these files, below its directory.
fn load(files: &[(&str, &str)]) -> Config {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    for (path, text) in files {
        let path = base.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Config::load(&base, Path::new("/etc/containerd/config.toml"))
}

const MAIN: &str = "etc/containerd/config.toml";

fn section(text: &str) -> String {
    format!("[plugins.'io.containerd.snapshotter.v1.devmapper']\n{text}\n")
}

#[test]
fn imports_are_read_one_after_the_other_and_later_ones_count() {
    let main = format!(
        "version = 2\nroot = '/data'\nimports = ['/etc/containerd/conf.d/*.toml', '../../srv/last.toml']\n{}",
        section("pool_name='a'")
    );
    let config = load(&[
        (MAIN, &main),
        ("etc/containerd/conf.d/2.toml", &section("pool_name = 'two'\nroot_path = '/two'")),
        ("etc/containerd/conf.d/1.toml", &format!("imports = ['/srv/inner.toml']\n{}", section("pool_name = 'one'"))),
        ("etc/containerd/conf.d/no.txt", "{"),
        ("srv/last.toml", "root = '/last'"),
        ("srv/inner.toml", &section("root_path = '/inner'")),
    ]);
    assert_eq!(config.problems, []);
    assert_eq!(config.root.as_deref(), Some(Path::new("/last")));
    // Those of an import come after all that the file before has imported.
    assert_eq!(config.last, Section { pool: None, root_path: Some("/inner".into()) });
    assert_eq!(config.merged, Section { pool: Some("two".to_owned()), root_path: Some("/inner".into()) });
}

#[test]
fn a_relative_pattern_is_another_one_to_each_containerd() {
    let config = load(&[
        (MAIN, &format!("imports = ['conf.d/*.toml']\n{}", section("pool_name = 'main'"))),
        ("etc/containerd/conf.d/a.toml", &format!("imports = ['b.toml']\n{}", section("pool_name = 'since'"))),
        ("etc/containerd/conf.d/b.toml", &section("root_path = '/since'")),
        ("conf.d/a.toml", &section("pool_name = 'before'")),
    ]);
    assert_eq!(config.problems, []);
    assert_eq!(config.last, Section { pool: Some("before".to_owned()), root_path: None });
    assert_eq!(config.merged, Section { pool: Some("since".to_owned()), root_path: Some("/since".into()) });
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_counts() {
    let pool = section("pool_name = 'p'");
    let config = load(&[(MAIN, &format!("imports = ['bad.toml']\n{pool}")), ("etc/containerd/bad.toml", "[")]);
    assert_eq!(config.last.pool.as_deref(), Some("p"));
    assert_eq!(config.problems.len(), 1);
    let said = |config: &Config| {
        config.problems.iter().map(|p| format!("{}: {}", p.path.display(), p.why)).collect::<String>()
    };
    assert!(said(&config).starts_with("/etc/containerd/bad.toml: it is not what containerd reads: "), "{config:?}");
    let config = load(&[(MAIN, "imports = ['/none.toml']")]);
    assert!(said(&config).starts_with("/none.toml: it is imported, and is not there"), "{config:?}");
    assert_eq!(load(&[]), Config::default(), "containerd needs none");
}

#[test]
fn imports_that_go_round_or_have_no_end_come_to_one() {
    let config = load(&[
        (MAIN, "imports = ['b.toml']"),
        (
            "etc/containerd/b.toml",
            &format!("imports = ['config.toml', '../containerd/b.toml', './*.toml']\n{}", section("pool_name = 'p'")),
        ),
    ]);
    assert_eq!((config.last.pool.as_deref(), config.problems.as_slice()), (Some("p"), &[][..]));
    let many: Vec<_> = (0..100).map(|n| (format!("etc/containerd/d/{n}.toml"), format!("root = '/{n}'"))).collect();
    let files = many.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    let config = load(&files.chain([(MAIN, "imports = ['d/*']")]).collect::<Vec<_>>());
    assert!(config.problems.iter().any(|p| p.why.contains("more than 64 files")), "{:?}", config.problems);
}

proptest! {
    #[test]
    fn no_configuration_makes_it_panic(text in "[\\PC\n\\[\\]=\"']{0,80}") {
        let _ = parse(&text);
    }
}
