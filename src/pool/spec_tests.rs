#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::units::Sectors;

fn on_files() -> Spec {
    Spec {
        name: PoolName::new("p0").unwrap(),
        data_size: Some(Bytes::new(100 << 30)),
        metadata_size: None,
        block_size: BlockSize::DEFAULT,
        low_water: sizing::DEFAULT_LOW_WATER,
        zero: true,
        error_when_full: false,
        discard: true,
        ephemeral: false,
        on: Place::Files { directory: "/srv".into(), preallocate: false },
    }
}

#[test]
fn what_is_left_out_is_what_the_command_line_would_take() {
    let spec = Spec::parse("name = \"p0\"", Path::new("/var/lib/dmpool/pools")).unwrap();
    let on = Place::Files { directory: "/var/lib/dmpool/pools".into(), preallocate: false };
    assert_eq!(spec, Spec { data_size: None, on, ..on_files() });
    assert_eq!(spec.sizes_in_files(), (Bytes::new(100 << 30), Bytes::new(2 << 30)));
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    for (text, why) in [
        ("", "missing field `name`"),
        ("name = \"a/b\"", "is not a pool name"),
        ("name = \"p0\"\ndata_size = \"1.5G\"", "is not a size"),
        ("name = \"p0\"\nblock_size = \"100K\"", "the nearest is 64K or 128K"),
        ("name = \"20G\"", "as a size"),
        ("name = \"p0\"\nsurprise = 1", "unknown field `surprise`"),
        ("name = \"p0\"\n[devices]\ndata = []", "`devices` has no `data`"),
        ("name = \"p0\"\n[files]\n[devices]\ndata = [\"/dev/sdb\"]", "both `files` and `devices`"),
        ("name = \"p0\"\nephemeral = true", "`ephemeral` is for `devices`"),
        ("name = \"p0\"\n[files]\n[lvm]\nvg = \"vg0\"", "both `files` and `lvm`"),
        ("name = \"p0\"\ndata_size = \"50%FREE\"", "there is no `lvm` that it could be a share of"),
        ("name = \"p0\"\ndata_size = \"50%ALL\"\n[lvm]\nvg = \"vg0\"", "of FREE or of VG"),
        ("name = \"p0\"\nwhen_full = \"wait\"", "unknown variant `wait`"),
    ] {
        let error = Spec::parse(text, Path::new("/srv")).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

fn place() -> impl Strategy<Value = Place> {
    let path = "/[a-z0-9 ./\"\\\\-]{1,20}".prop_map(PathBuf::from);
    let devices =
        (prop::collection::vec(path.clone(), 1..4), prop::option::of(path.clone()), prop::option::of(1_u64..64));
    prop_oneof![
        (path, any::<bool>()).prop_map(|(directory, preallocate)| Place::Files { directory, preallocate }),
        devices.prop_map(|(data, metadata, stripe)| Place::Devices {
            data,
            metadata,
            stripe: stripe.map(|n| Bytes::new(n << 16)),
        }),
        "[a-z0-9+_.-]{1,20}".prop_map(|group| Place::Volumes { group, share: None }),
    ]
}

#[test]
fn a_share_of_a_volume_group_stands_in_the_place_of_the_size() {
    let share = Share { percent: 50, of: crate::units::ShareOf::Free };
    let on = Place::Volumes { group: "vg0".to_owned(), share: Some(share) };
    let spec = Spec { data_size: None, on, ..on_files() };
    let text = spec.to_toml().unwrap();
    assert!(text.contains("data_size = \"50%FREE\"") && text.ends_with("[lvm]\nvg = \"vg0\"\n"), "{text}");
    assert_eq!(Spec::parse(&text, Path::new("/elsewhere")), Ok(spec));
}

proptest! {
    #[test]
    fn a_spec_comes_back_from_its_toml(
        on in place(),
        data in prop::option::of(1_u64..1 << 50),
        metadata in prop::option::of(1_u64..1 << 40),
        blocks in 1_u64..100,
        low_water in 0_u64..1 << 40,
        (zero, error_when_full, discard, ephemeral) in any::<(bool, bool, bool, bool)>(),
    ) {
        let spec = Spec {
            name: PoolName::new("p0").unwrap(),
            data_size: data.map(Bytes::new),
            metadata_size: metadata.map(Bytes::new),
            block_size: BlockSize::new(Sectors::new(blocks * 128)).unwrap(),
            low_water: DataBlocks::new(low_water),
            zero,
            error_when_full,
            discard,
            ephemeral: ephemeral && matches!(on, Place::Devices { .. }),
            on,
        };
        let text = spec.to_toml().unwrap();
        prop_assert_eq!(Spec::parse(&text, Path::new("/elsewhere")), Ok(spec), "{}", text);
    }
}
