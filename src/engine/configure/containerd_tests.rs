//! Tests of the editor of containerd's configuration: what it changes, and that it changes nothing else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use proptest::prelude::*;

use super::*;

const WANTED: Wanted<'static> = Wanted { pool: "p", discard: true };

fn told(text: &str) -> Told {
    let told = tell(Some(text), &WANTED).unwrap();
    assert_eq!(tell(Some(&told.text), &WANTED).unwrap().text, told.text, "told again nothing changes");
    told
}

#[test]
fn a_new_file_says_what_is_needed() {
    let expected = "version = 2\n\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = \"p\"\n\
                    base_image_size = \"10GB\"\ndiscard_blocks = true\n\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"devmapper\"\n";
    for nothing in [None, Some(""), Some("\n")] {
        let told = tell(nothing, &WANTED).unwrap();
        assert_eq!((told.text.as_str(), told.cri), (expected, Cri::Instead("overlayfs".to_owned())));
    }
}

#[test]
fn comments_order_and_foreign_keys_are_kept() {
    // As the package of containerd.io installs it: of version 1, though nothing says so.
    let docker =
        "#   Copyright\n\ndisabled_plugins = [\"cri\"]\n\n#root = \"/var/lib/containerd\"\n#[grpc]\n#  uid = 0\n";
    let expected = format!(
        "{}\n[plugins.devmapper]\npool_name = \"p\"\nbase_image_size = \"10GB\"\ndiscard_blocks = true\n{}",
        "#   Copyright\n\ndisabled_plugins = [\"cri\"]\n", "\n#root = \"/var/lib/containerd\"\n#[grpc]\n#  uid = 0\n"
    );
    assert_eq!(told(docker), Told { text: expected, cri: Cri::Off });

    let full = "version = 2 # two\nroot = '/data'\ndisabled_plugins = [ \"a\", \"io.containerd.snapshotter.v1.devmapper\" ]\n\n\
                [plugins]\n\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"pause\" # mine\n\n    \
                [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      snapshotter = \"overlayfs\" # the default\n      \
                default_runtime_name = 'runc'\n\n  [plugins.\"io.containerd.snapshotter.v1.devmapper\"]\n    \
                # where\n    root_path = \"/srv\"\n    base_image_size = '64MB'\n    pool_name = \"\"\n\n[timeouts]\n  x = \"1s\"\n";
    let after = told(full);
    assert_eq!(after.cri, Cri::Instead("overlayfs".to_owned()));
    let expected = full
        .replace(", \"io.containerd.snapshotter.v1.devmapper\" ]", "]")
        .replace("\"overlayfs\" # the", "\"devmapper\" # the")
        .replace("pool_name = \"\"\n", "pool_name = \"p\"\n    discard_blocks = true\n");
    assert_eq!(after.text, expected);
}

#[test]
fn cri_of_version_3_and_runtimes_with_their_own_choice() {
    let three = told("version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'erofs'\n");
    assert_eq!(three.cri, Cri::Instead("erofs".to_owned()));
    assert!(
        three.text.contains("snapshotter = \"devmapper\"\n") && three.text.contains("v1.devmapper\"]"),
        "{}",
        three.text
    );

    let kata = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n\
                [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\nsnapshotter = \"devmapper\"\n";
    let after = told(kata);
    assert!(after.cri == Cri::Already && after.text.starts_with(kata), "{}", after.text);

    let inline = told("version = 2\nplugins = { \"x\" = { y = 1 } }\n");
    assert!(inline.text.contains("pool_name"), "{}", inline.text);
}

#[test]
fn what_cannot_be_told_is_refused_with_the_reason() {
    for (text, why) in [
        ("{", "not what containerd reads"),
        ("version = 'two'", "not what containerd reads"),
        ("version = 9", "version 9"),
        ("plugins = 1", "not what containerd reads"),
        ("disabled_plugins = 1", "not what containerd reads"),
        ("version = 2\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\npool_name = 'other'", "`other`"),
    ] {
        let obstacle = tell(Some(text), &WANTED).unwrap_err();
        assert!(obstacle.why.contains(why), "{text}: {obstacle:?}");
    }
}

#[test]
fn the_machines_containerd_is_told_in_the_file_that_it_reads() {
    let temp = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let tell = || tell_machine(temp.path(), &WANTED);
    let telling = tell().unwrap();
    assert_eq!(telling.edit.unwrap().path, temp.path().join("etc/containerd/config.toml"));
    assert!(telling.root_path.ends_with("var/lib/containerd/io.containerd.snapshotter.v1.devmapper"));

    write(
        "etc/systemd/system/containerd.service",
        "[Service]\nExecStart=/usr/bin/containerd -c /srv/c.toml --root /data\n",
    );
    let main = "version = 2\nimports = ['/srv/conf.d/*.toml']\n";
    write("srv/c.toml", main);
    write("srv/conf.d/a.toml", "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n");
    let telling = tell().unwrap();
    let edit = telling.edit.unwrap();
    assert_eq!((edit.path.as_path(), edit.before.as_deref()), (temp.path().join("srv/c.toml").as_path(), Some(main)));
    assert_eq!(telling.root_path, temp.path().join("data/io.containerd.snapshotter.v1.devmapper"));
    assert_eq!((telling.daemon.unit, telling.daemon.runs), (Some("containerd.service"), false));
    write("srv/c.toml", &edit.after);
    assert_eq!(tell().unwrap().edit, None);

    write("srv/conf.d/a.toml", "version = 2\n[plugins.'io.containerd.snapshotter.v1.devmapper']\npool_name = 'p'\n");
    assert!(tell().unwrap_err().why.contains("imports"));
    write("srv/conf.d/a.toml", "{");
    assert!(tell().unwrap_err().why.contains("not what containerd reads"));
}

#[test]
fn what_k3s_writes_anew_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = |config: &str, runs: bool| Daemon { config: config.into(), root: None, unit: None, runs };
    let refused = |daemon: &Daemon| is_not_written_anew(temp.path(), daemon).map_err(|obstacle| obstacle.next);
    let usual = "/etc/containerd/config.toml";
    assert_eq!(refused(&daemon(usual, false)), Ok(()));
    let next = refused(&daemon("/data/k3s/agent/etc/containerd/config.toml", true)).unwrap_err();
    assert!(next.contains("/data/k3s/agent/etc/containerd/config.toml.tmpl "), "{next}");
    // Down, and nothing else says that there is a containerd.
    let place = temp.path().join("var/lib/rancher/k3s/agent/etc/containerd");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("config.toml"), "").unwrap();
    assert!(
        refused(&daemon(usual, false))
            .unwrap_err()
            .contains("/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl")
    );
    assert_eq!(refused(&daemon(usual, true)), Ok(()));
}

/// A configuration with what containerd reads and what only its user understands.
fn configuration() -> impl Strategy<Value = String> {
    let plugin = ("[a-c]{1,2}", "# [a-z ]{0,9}", any::<i64>());
    let plugins = proptest::collection::btree_map("[d-z]{1,4}", plugin, 0..4);
    (2..=3, "[a-z]{0,5}", plugins, any::<bool>()).prop_map(|(version, comment, plugins, cri)| {
        let mut text = format!("# {comment}\nversion = {version}\nroot = '/srv' # {comment}\n");
        if !cri {
            text.push_str("disabled_plugins = [\n  'io.containerd.grpc.v1.cri', # off\n]\n");
        }
        for (name, (key, comment, number)) in plugins {
            text.push_str(&format!("\n[plugins.'{name}'] {comment}\n  {key} = {number} {comment}\n{comment}\n"));
        }
        text
    })
}

proptest! {
    #[test]
    fn every_line_is_kept_and_nothing_else_is_said(text in configuration()) {
        let after = told(&text).text;
        let mut lines = after.lines();
        for line in text.lines() {
            prop_assert!(lines.any(|other| other == line), "`{}` is gone or moved: {}", line, after);
        }
        let parse = |text: &str| text.parse::<toml::Table>().unwrap();
        let (before, mut now) = (parse(&text), parse(&after));
        let plugins = now["plugins"].as_table_mut().unwrap();
        plugins.retain(|name, _| !name.contains("devmapper") && !name.contains("cri"));
        if plugins.is_empty() {
            now.remove("plugins");
        }
        prop_assert_eq!(before, now);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\PC\n\\[\\]=\"'.]{0,80}") {
        let _ = tell(Some(&text), &WANTED);
    }
}
