//! Pools on LVs: those that LVM makes for a pool, those of others, and LVM's own thin pools.

use std::fs;
use std::time::Duration;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::machine::Scope;
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;
use lab::guest::writer::{Plan, Writer};

use crate::picture::assert_picture;
use crate::support::linear::Disk;
use crate::support::lvm::{Group, all_but, by_hand, is_there, lvm, lvm_ok};
use crate::support::refusals::{REFUSED, Table, USAGE, row};
use crate::support::{Bench, exists, volume};

const M: u64 = 1 << 20;

/// A file system on a volume that is written to and synced all the while.
struct Busy {
    device: std::path::PathBuf,
    mounted: Mounted,
    plan: Plan,
    writer: Writer,
}

impl Busy {
    fn on(bench: &Bench, device: std::path::PathBuf) -> Self {
        let mounted = Mounted::format(Kind::Ext4, &device, &bench.sweep.path("busy")).unwrap();
        let plan = Plan { pause: Duration::from_millis(20), ..Plan::new(mounted.dir().join("written")) };
        let writer = Writer::start(plan.clone()).unwrap();
        writer.wait_for(3, Duration::from_secs(60)).unwrap();
        Self { device, mounted, plan, writer }
    }

    /// It saw no error, what it was promised is there, and the file system is clean.
    fn finish(self) {
        self.writer.wait_for(self.writer.tally().ops + 3, Duration::from_secs(60)).unwrap();
        let tally = self.writer.stop(Duration::from_secs(30)).unwrap();
        println!("  the writer: {}", tally.line());
        assert_eq!(tally.errors, 0, "{:?}", tally.error_texts);
        tally.verify(&self.plan).unwrap();
        self.mounted.unmount().unwrap();
        Cmd::new("fsck.ext4").args(["-f", "-n"]).arg(&self.device).run().checked().unwrap();
    }
}

#[test]
fn a_pool_in_a_volume_group_lives_and_leaves_all_else_as_it_was() {
    let bench = Bench::new();
    let mut group = Group::new(&bench, "vg", 160);
    group.extend(&bench, 160);
    let other = Group::new(&bench, "other", 64);
    group.volume("theirs", 16);
    other.volume("theirs", 16);
    let pool = bench.pool();
    let (data, meta) = (format!("{pool}_data"), format!("{pool}_meta"));
    let ours = [group.word(&data), group.word(&meta)];
    let ours = ours.each_ref().map(String::as_str);
    let (all, free) = (all_but(&ours), group.free());
    let create = ["create", &pool, "--vg", &group.name, "--data-size", "64M"];
    let described = bench.ok(&[&create[..], &["--dry-run"]].concat());
    for words in ["make the LV", "(lvcreate)", "68.0 MiB", "way back: removed by LVM", "write label 1"] {
        assert!(described.contains(words), "`{words}` is missing: {described}");
    }
    assert_eq!((all_but(&ours), group.free()), (all.clone(), free), "only described");
    bench.ok(&create);
    assert_eq!((bench.number("/pool/data/total"), bench.number("/pool/metadata/total")), (64 * M, 7 * M));
    assert_eq!((group.size(&data), group.size(&meta)), (68, 8));
    let tags = lvm_ok(&["lvs", "--noheadings", "-o", "lv_tags", &group.word(&data)]);
    assert!(tags.contains("dmpool,") && tags.contains(&format!("dmpool.pool.{pool}")), "{tags}");
    let again = bench.ok(&[&create[..], &["--ensure"]].concat());
    assert!(again.contains("unchanged"), "{again}");
    let elsewhere = bench.run(&["create", &pool, "--vg", &other.name, "--ensure"]);
    assert!(
        elsewhere.code() == Some(3)
            && elsewhere.stderr.contains("is not the same")
            && elsewhere.stderr.contains("LVs of "),
        "{elsewhere}"
    );
    let toml = bench.ok(&["show", "--toml", &pool]);
    assert!(toml.contains(&format!("[lvm]\nvg = \"{}\"", group.name)), "{toml}");
    let file = bench.sweep.path("pool.toml");
    std::fs::write(&file, &toml).unwrap();
    let again = bench.ok(&["create", "--file", file.to_str().unwrap(), "--ensure"]);
    assert!(again.contains("unchanged"), "{again}");
    assert_picture("all else", &all, &all_but(&ours));

    let name = bench.sweep.name("v");
    let busy = Busy::on(&bench, volume(&pool, 0, &name, 32 * M));
    lvm_ok(&["pvmove", "-i", "1", "-n", &data, group.disk(0), group.disk(1)]);
    let described = bench.ok(&["grow", &pool, "100M", "--dry-run"]);
    assert!(described.contains("(lvextend)") && described.contains("as long as superblock and pool"), "{described}");
    bench.ok(&["grow", &pool, "100M"]);
    assert_eq!((bench.number("/pool/data/total"), group.size(&data)), (100 * M, 104));
    let left = group.free();
    bench.ok(&["grow", &pool, "+25%FREE"]);
    assert_eq!(bench.number("/pool/data/total"), (100 + left / 4 / 4 * 4) * M);
    bench.ok(&["grow", &pool, "--metadata", "+5M"]);
    assert_eq!((bench.number("/pool/metadata/total"), group.size(&meta)), (12 * M, 16));
    // By hand, as anyone would.
    let before = bench.number("/pool/data/total");
    lvm_ok(&["lvextend", "-L", "+8M", &group.word(&data)]);
    bench.ok(&["grow", &pool, "+8M"]);
    assert_eq!(bench.number("/pool/data/total"), before + 8 * M);
    for args in [
        &["lvremove", "-f", "-y", ours[0]][..],
        &["lvremove", "-f", "-y", ours[1]],
        &["lvchange", "-an", ours[0]],
        &["vgchange", "-an", &group.name],
    ] {
        let refused = lvm(args);
        assert!(
            !refused.ok() && ["used by another device", "in use"].iter().any(|why| refused.stderr.contains(why)),
            "{args:?}: {refused}"
        );
    }
    // What it could it has taken down.
    lvm_ok(&["vgchange", "-ay", &group.name]);
    let max = bench.run(&["grow", &pool, "max"]).checked().unwrap();
    assert!(group.free() == 0 && group.size(&data) > 200, "{}", group.free());
    assert!(max.stderr.contains("has nothing left then"), "{max}");
    busy.finish();
    assert_picture("all else", &all, &all_but(&ours));

    dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    bench.ok(&["deactivate", &pool]);
    lvm_ok(&["lvchange", "-an", ours[0], ours[1]]);
    assert!(!is_there(&format!("/dev/{}", ours[0])));
    let absent = bench.run(&["destroy", &pool, "--yes"]);
    assert!(absent.code() == Some(3) && absent.stderr.contains("dmpool activate"), "{absent}");
    let described = bench.ok(&["activate", &pool, "--dry-run"]);
    assert!(described.contains("activate the LV") && described.contains("lvchange -ay"), "{described}");
    bench.ok(&["activate", &pool]);
    assert!(exists(&pool));
    bench.ok(&["destroy", &pool, "--keep-data", "--yes"]);
    let there = bench.run(&create);
    let says = ["is there already", "LVM made it for the pool", "--register"].map(|words| there.stderr.contains(words));
    assert!(there.code() == Some(3) && says == [true; 3], "{there}");
    bench.ok(&["activate", &pool, "--register"]);
    let described = bench.ok(&["destroy", &pool, "--with-volumes", "--dry-run"]);
    assert!(described.contains("(lvremove)"), "{described}");
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert_eq!(group.names(), ["theirs"]);
    assert_picture("all else", &all, &all_but(&ours));
}

#[test]
fn lvs_of_others_are_extended_and_never_removed() {
    let bench = Bench::new();
    let group = Group::new(&bench, "vg", 256);
    let (data, meta) = (group.volume("data", 64), group.volume("meta", 16));
    let ours = [group.word("data"), group.word("meta")];
    let all = all_but(&ours.each_ref().map(String::as_str));
    let pool = bench.pool();
    bench.ok(&["create", &pool, "--data-device", &data, "--metadata-device", &meta]);
    let (size, most) = (bench.number("/pool/data/total"), group.free());
    let max = bench.run(&["grow", &pool, "max"]);
    assert!(max.ok() && format!("{}{}", max.stdout, max.stderr).contains("unchanged"), "{max}");
    let choices = bench.ok(&["grow", &pool]);
    assert!(choices.contains("its volume group has") && choices.contains("+100%FREE"), "{choices}");
    bench.ok(&["grow", &pool, "100M"]);
    assert_eq!((size, bench.number("/pool/data/total"), group.size("data")), (63 * M, 100 * M, 104));
    bench.ok(&["grow", &pool, "--metadata", "20M"]);
    assert_eq!((bench.number("/pool/metadata/total"), group.size("meta")), (20 * M, 24));
    assert_eq!(group.free(), most - 48);
    assert!(bench.ok(&["show", "--toml", &pool]).contains("[devices]"));
    bench.ok(&["deactivate", &pool]);
    lvm_ok(&["vgchange", "-an", &group.name]);
    let refused = bench.run(&["activate", &pool]);
    assert!(refused.code() == Some(3) && refused.stderr.contains("lvchange -a y"), "{refused}");
    assert!(!is_there(&data), "another's LV can have that name");
    lvm_ok(&["vgchange", "-ay", &group.name]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert_eq!(group.names(), ["data", "meta"], "they stay");
    assert_picture("all else", &all, &all_but(&ours.each_ref().map(String::as_str)));
}

#[test]
fn a_copy_of_a_group_is_never_taken_for_it() {
    let bench = Bench::new();
    let group = Group::new(&bench, "vg", 96);
    let (pool, copy) = (bench.pool(), bench.sweep.name("copy"));
    let names = [format!("{pool}_data"), format!("{pool}_meta")];
    bench.ok(&["create", &pool, "--vg", &group.name, "--data-size", "32M"]);
    bench.ok(&["deactivate", &pool]);
    lvm_ok(&["vgchange", "-an", &group.name]);
    let file = bench.sweep.path("copy");
    fs::copy(group.file(0), &file).unwrap();
    let attached = Cmd::new("losetup").args(["--find", "--show"]).arg(&file).run().checked().unwrap();
    let attached = attached.stdout.trim().to_owned();
    lvm_ok(&["vgimportclone", "-n", &copy, &attached]);
    let of_copy = |fields: &str| lvm_ok(&["lvs", "--noheadings", "--units", "b", "-o", fields, &copy]);
    assert_eq!(
        of_copy("lv_uuid,tags"),
        lvm_ok(&["lvs", "--noheadings", "-o", "lv_uuid,tags", &group.name]),
        "LVM gives the copy's LVs no identity of their own"
    );
    // Else a udev rule activates either whenever one of its disks has an event.
    for name in [&group.name, &copy] {
        lvm_ok(&["vgchange", "--setautoactivation", "n", name]);
        lvm_ok(&["vgchange", "-an", name]);
    }
    let before = of_copy("lv_name,lv_size,lv_active");
    let refused = bench.run(&["activate", &pool]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    for word in [group.word(&names[1]), format!("{copy}/{}", names[1])] {
        assert!(refused.stderr.contains(&word), "{word}: {refused}");
    }
    lvm_ok(&["vgchange", "-ay", &group.name]);
    bench.ok(&["activate", &pool]);
    bench.ok(&["grow", &pool, "40M"]);
    assert_eq!((bench.number("/pool/data/total"), group.size(&names[0])), (40 * M, 44));
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    assert_eq!((group.names().len(), of_copy("lv_name,lv_size,lv_active")), (0, before));
    lvm_ok(&["vgremove", "-f", "-y", &copy]);
    Cmd::new("losetup").args(["-d", &attached]).run().checked().unwrap();
}

#[test]
fn a_group_whose_disk_comes_late_is_waited_for() {
    let bench = Bench::new();
    let mut group = Group::new(&bench, "late", 32);
    group.extend(&bench, 64);
    let (pool, late) = (bench.pool(), group.disk(1).to_owned());
    bench.ok(&["create", &pool, "--vg", &group.name, "--data-size", "48M"]);
    bench.ok(&["deactivate", &pool]);
    lvm_ok(&["vgchange", "-an", &group.name]);
    Cmd::new("losetup").args(["-d", &late]).run().checked().unwrap();
    let refused = bench.run(&["activate", &pool]);
    let word = group.word(&format!("{pool}_data"));
    assert!(refused.code() == Some(3) && refused.stderr.contains(&format!("{word} is not whole")), "{refused}");
    let mut waiting =
        bench.cmd(&["activate", "--all", "--wait", "1h"]).limit(Duration::from_secs(200)).start().unwrap();
    while !waiting.printed().1.contains("waiting") {
        assert!(waiting.alive(), "{:?}", waiting.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    Cmd::new("losetup").args([&late, group.file(1)]).run().checked().unwrap();
    let ran = waiting.wait().checked().unwrap();
    assert!(ran.stdout.contains("activated pool") && exists(&pool), "{ran}");
    // A disk that is added is all that is taken: what the group has left is not asked for.
    let disk = Disk::new(&bench.sweep.name("added"), &boot::scratch_disks().swap_remove(0), 0, 40);
    let (free, before) = (group.free(), bench.number("/pool/data/total"));
    bench.ok(&["grow", &pool, "--add-device", &disk.path()]);
    let after = bench.number("/pool/data/total");
    assert!(free > 0 && after >= before + 39 * M, "{free} {before} {after}");
    assert_eq!(group.free(), free);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}

fn total(bench: &Bench, pool: &str, part: &str) -> u64 {
    let json: serde_json::Value = serde_json::from_str(&bench.ok(&["status", pool, "--format", "json"])).unwrap();
    json.pointer(&format!("/pool/{part}/total")).unwrap().as_u64().unwrap()
}

#[test]
fn pools_made_by_hand_grow_by_what_is_beneath() {
    let bench = Bench::new();
    let group = Group::new(&bench, "vg", 256);
    let (data, meta, loops) = (group.volume("data", 64), group.volume("meta", 8), group.volume("loops", 32));
    let ours = ["data", "meta", "loops"].map(|name| group.word(name));
    let ours = ours.each_ref().map(String::as_str);
    let all = all_but(&ours);
    let (on_lv, name) = (bench.sweep.name("onlv"), bench.sweep.name("v"));
    by_hand(&on_lv, &data, &meta, 64);
    let busy = Busy::on(&bench, volume(&on_lv, 0, &name, 32 * M));
    bench.ok(&["grow", &on_lv, "80M"]);
    assert_eq!((total(&bench, &on_lv, "data"), group.size("data")), (80 * M, 80));
    bench.ok(&["grow", &on_lv, "--metadata", "+3M"]);
    assert_eq!((total(&bench, &on_lv, "metadata"), group.size("meta")), (12 * M, 12));
    lvm_ok(&["lvextend", "-L", "96M", ours[0]]);
    bench.ok(&["grow", &on_lv, "max"]);
    assert_eq!(total(&bench, &on_lv, "data"), 96 * M);
    busy.finish();
    for device in [&name, &on_lv] {
        dmsetup(["remove", "--retry", device]).run().checked().unwrap();
    }

    // An LV in a loop file's place.
    let attached = Cmd::new("losetup").args(["--find", "--show", &loops]).run().checked().unwrap();
    let (attached, on_loop) = (attached.stdout.trim().to_owned(), bench.sweep.name("onloop"));
    Cmd::new("dd")
        .args(["if=/dev/zero", &format!("of={meta}"), "bs=1M", "count=1", "conv=fsync"])
        .run()
        .checked()
        .unwrap();
    by_hand(&on_loop, &attached, &meta, 32);
    bench.ok(&["grow", &on_loop, "40M"]);
    assert_eq!((total(&bench, &on_loop, "data"), group.size("loops")), (40 * M, 40));
    dmsetup(["remove", "--retry", &on_loop]).run().checked().unwrap();
    Cmd::new("losetup").args(["-d", &attached]).run().checked().unwrap();
    assert_picture("all else", &all, &all_but(&ours));

    // A device that somebody has made, and a disk: who owns them makes them longer.
    let below = boot::scratch_disks().swap_remove(0);
    for (what, start) in [("linear", 0), ("disk", 64)] {
        let disk = Disk::new(&bench.sweep.name(what), &below, start, 32);
        let pool = bench.sweep.name("owned");
        for blank in [&meta, &disk.path()] {
            let of = format!("of={blank}");
            Cmd::new("dd").args(["if=/dev/zero", &of, "bs=1M", "count=1", "conv=fsync"]).run().checked().unwrap();
        }
        by_hand(&pool, &disk.path(), &meta, 32);
        let refused = bench.run(&["grow", &pool, "40M"]);
        assert!(refused.code() == Some(3) && refused.stderr.contains("max"), "{refused}");
        if what == "linear" {
            assert!(refused.stderr.contains("which dmpool did not make"), "{refused}");
            let next = refused.stderr.split_once("next:").unwrap().1.trim();
            let line = next.split_once("    #").unwrap().0;
            Cmd::new("sh").args(["-c", line]).run().checked().unwrap();
        } else {
            assert!(refused.stderr.contains("which is too small"), "{refused}");
            disk.resize(40);
        }
        bench.ok(&["grow", &pool, "max"]);
        assert_eq!(total(&bench, &pool, "data"), 40 * M);
        dmsetup(["remove", "--retry", &pool]).run().checked().unwrap();
    }
}

#[test]
fn thin_pools_of_lvm_grow_by_lvm() {
    let bench = Bench::new();
    let group = Group::new(&bench, "vg", 256);
    group.volume("theirs", 16);
    lvm_ok(&["lvcreate", "-y", "--type", "thin-pool", "-L", "64M", "-n", "pool", &group.name]);
    lvm_ok(&["lvcreate", "-y", "-V", "32M", "-n", "volume", "--thinpool", &group.word("pool")]);
    let name = format!("{}-pool-tpool", group.name.replace('-', "--"));
    let ours = ["pool", "pool_tdata", "pool_tmeta", "lvol0_pmspare", "volume"].map(|name| group.word(name));
    let ours = ours.each_ref().map(String::as_str);
    let (all, metadata) = (all_but(&ours), total(&bench, &name, "metadata"));
    let busy = Busy::on(&bench, format!("/dev/{}", group.word("volume")).into());
    let described = bench.ok(&["grow", &name, "+30M", "--dry-run"]);
    assert!(described.contains("(lvextend)") && described.contains("no way back"), "{described}");
    assert_eq!(total(&bench, &name, "data"), 64 * M, "only described");
    bench.ok(&["grow", &name, "+30M"]);
    assert_eq!((total(&bench, &name, "data"), group.size("pool")), (96 * M, 96));
    bench.ok(&["grow", &name, "--metadata", "+4M"]);
    assert_eq!(total(&bench, &name, "metadata"), metadata + 4 * M);
    bench.ok(&["grow", &name, "+40M"]);
    assert_eq!(total(&bench, &name, "data"), 136 * M);
    // LVM's spare becomes as large as the metadata, so that it can be repaired.
    let left = group.free();
    bench.ok(&["grow", &name, "--metadata", "max"]);
    let (metadata, spare) = (group.size("pool_tmeta"), group.size("lvol0_pmspare"));
    assert!(metadata == spare && total(&bench, &name, "metadata") == metadata * M, "{metadata} {spare}");
    assert!(metadata > 8 + left / 2 - 8 && group.free() < 8, "{left} {metadata} {}", group.free());
    bench.ok(&["grow", &name, "max"]);
    assert_eq!(group.free(), 0);
    busy.finish();
    // LVM and the pool agree about the transaction id: it makes the next volume.
    lvm_ok(&["lvcreate", "-y", "-V", "32M", "-n", "next", "--thinpool", &group.word("pool")]);
    lvm_ok(&["lvremove", "-y", &group.word("next")]);
    assert_picture("all else", &all, &all_but(&ours));
}

#[test]
fn what_lvm_could_not_do_is_refused() {
    let bench = Bench::new();
    let group = Group::new(&bench, "vg", 128);
    let mut striped = Group::new(&bench, "striped", 32);
    striped.extend(&bench, 32);
    let (exported, half) = (Group::new(&bench, "exported", 32), {
        let mut half = Group::new(&bench, "half", 32);
        half.extend(&bench, 32);
        half
    });
    lvm_ok(&["vgexport", &exported.name]);
    Cmd::new("losetup").args(["-d", half.disk(1)]).run().checked().unwrap();
    group.volume("taken_data", 4);
    lvm_ok(&["lvcreate", "-y", "-W", "y", "-i", "2", "-L", "32M", "-n", "both", &striped.name]);
    let (pool, on_stripes) = (bench.pool(), bench.sweep.name("stripes"));
    bench.ok(&["create", &pool, "--vg", &group.name, "--data-size", "32M"]);
    bench.ok(&["create", &on_stripes, "--data-device", &format!("/dev/{}", striped.word("both"))]);
    let files = bench.sweep.name("files");
    bench.ok(&["create", &files, "--dir", bench.dir.to_str().unwrap(), "--data-size", "64M", "--metadata-size", "2M"]);
    let elsewhere = bench.sweep.subdir("lvm").unwrap();
    let conf = fs::read_to_string("/etc/lvm/lvm.conf").unwrap();
    fs::write(elsewhere.join("lvm.conf"), conf + "\nactivation { volume_list = [ \"none\" ] }\n").unwrap();

    let create = |name: &str, args: &[&str]| bench.cmd(&[&["create", name][..], args].concat());
    let refuse = |what: &str, name: &str, vg: &str, says: &[&str]| {
        let says = std::iter::once("cannot create pool").chain(says.iter().copied());
        row(what, create(name, &["--vg", vg, "--data-size", "16M"]), REFUSED, says.collect::<Vec<_>>())
    };
    let hidden =
        create("dmpool-test-new", &["--vg", &group.name, "--data-size", "16M"]).env("LVM_SYSTEM_DIR", &elsewhere);
    let program = Cmd::new("sh").args(["-c", "command -v dmpool"]).run().checked().unwrap().stdout;
    let without = Cmd::new(program.trim()).arg("--state-dir").arg(&bench.state).env("PATH", "/nowhere");
    let without = without.args(["create", "dmpool-test-new", "--vg", &group.name, "--data-size", "16M"]);
    let grow = |pool: &str, args: &[&str], says: &[&str]| {
        row(&format!("grow {pool} {args:?}"), bench.cmd(&[&["grow", pool][..], args].concat()), REFUSED, says.to_vec())
    };
    // LVM keeps its own record there of what it sees for the first time.
    let mut table = Table::with(Scope::new().tree(bench.sweep.dir()).ignore(&elsewhere));
    table.refuse([
        refuse("no such group", "dmpool-test-new", "none-such", &["no volume group `none-such`", "vgs"]),
        refuse("exported", "dmpool-test-new", &exported.name, &["is exported", "vgimport"]),
        refuse("a disk of it is missing", "dmpool-test-new", &half.name, &["disks of it are missing"]),
        refuse("an LV of that name", "taken", &group.name, &["taken_data is there already", "lvs"]),
        refuse("a name of LVM's own", "snapshot1", &group.name, &["`snapshot`", "another name"]),
        refuse("a word of LVM's own", "a_mimage_b", &group.name, &["`_mimage`"]),
        refuse("a long name", &"n".repeat(115), &group.name, &["too long", "127 at most"]),
        row(
            "too little left",
            create("dmpool-test-new", &["--vg", &group.name, "--data-size", "1G"]),
            REFUSED,
            ["too little left", "needed:", "free:", "vgextend"],
        ),
        row("hidden from this machine", hidden, REFUSED, ["told not to activate", "volume_list", "@dmpool"]),
        row("LVM is not installed", without, REFUSED, ["not installed", "lvm2"]),
        row("a share of nothing", create("dmpool-test-new", &["--data-size", "50%FREE"]), USAGE, ["--vg"]),
        row("in two places", create("n", &["--vg", "a", "--data-device", "/dev/sda"]), USAGE, ["--data-device"]),
        grow(&pool, &["1G"], &["too little left", "vgextend", "free:"]),
        grow(&pool, &["--metadata", "1G"], &["too little left", "vgextend"]),
        grow(&pool, &["8M"], &["smaller"]),
        grow(&on_stripes, &["+8M"], &["not linear", "lvextend -L"]),
        grow(&files, &["+50%FREE"], &["it is on no LV"]),
    ]);
    table.end();
    for pool in [&pool, &on_stripes, &files] {
        bench.ok(&["destroy", pool, "--yes", "--with-volumes"]);
    }
    assert_eq!(striped.names(), ["both"]);
    Cmd::new("losetup").args([half.disk(1), half.file(1)]).run().checked().unwrap();
    lvm_ok(&["vgimport", &exported.name]);
}
