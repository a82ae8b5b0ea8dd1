//! What LVM's programs print: one line for each object, fields apart by `|`, which no name or tag has in it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};
use crate::process::quote;
use crate::units::{Bytes, Sectors};

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its identity, as LVM prints it.
    pub uuid: String,
    /// The length of an extent.
    pub extent: Bytes,
    /// How many extents it has.
    pub extents: u64,
    /// How many of them are free.
    pub free: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its `vg_attr`: permission, resizable, exported, partial, allocation, clustered or shared.
    attributes: String,
}

/// Which logical volume: by name for the programs, by identity to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalVolume {
    /// Its volume group.
    pub group: String,
    /// The group's identity, as LVM prints it: a copy of a group (`vgimportclone`) gets another one, and its LVs keep theirs.
    pub group_uuid: String,
    /// Its name in it.
    pub name: String,
    /// Its identity in the group, as LVM prints it.
    pub uuid: String,
}

/// A logical volume as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Which.
    pub of: LogicalVolume,
    /// Its group.
    pub group: Group,
    /// How long it is.
    pub size: Bytes,
    /// Its tags.
    pub tags: Vec<String>,
    /// The types of its segments, each once: `linear`.
    pub types: Vec<String>,
    /// Whether a disk that it lies on is missing.
    pub is_partial: bool,
}

impl LogicalVolume {
    /// Returns it as LVM's programs take it.
    pub fn word(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Returns whether it is the same one, whatever the two are called.
    pub fn is(&self, other: &Self) -> bool {
        self.uuid == other.uuid && self.group_uuid == other.group_uuid
    }
}

impl Volume {
    /// Returns whether it has that tag.
    pub fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// Returns whether it is in plain pieces of its physical volumes, however many.
    pub fn is_linear(&self) -> bool {
        self.types == ["linear"]
    }

    /// Returns the name that its device has in device-mapper: group and name with a dash between them, dashes in either
    /// doubled.
    pub fn dm_name(&self) -> String {
        dm_name(&self.of.group, &self.of.name)
    }

    /// Returns the uuid that its device has in device-mapper: `LVM-`, the group's identity and its own, without dashes.
    pub fn dm_uuid(&self) -> String {
        format!("LVM-{}{}", self.group.uuid, self.of.uuid).replace('-', "").replacen("LVM", "LVM-", 1)
    }
}

impl Group {
    /// Returns how much of it is free.
    pub const fn free_bytes(&self) -> Bytes {
        Bytes::new(self.free.saturating_mul(self.extent.get()))
    }

    /// Returns how many of its extents so many bytes need.
    pub const fn extents_for(&self, bytes: Bytes) -> u64 {
        bytes.get().div_ceil(if self.extent.get() == 0 { 1 } else { self.extent.get() })
    }

    /// Returns the length of so many extents.
    pub const fn bytes_of(&self, extents: u64) -> Bytes {
        Bytes::new(extents.saturating_mul(self.extent.get()))
    }

    /// Returns itself when it is this machine's, whole, and to be changed.
    ///
    /// # Errors
    /// Refused with the reason.
    pub fn usable(&self, refuse: &impl Fn(String) -> Failure) -> Outcome<&Self> {
        let at = |place: usize| self.attributes.chars().nth(place).unwrap_or('-');
        let name = quote(&self.name);
        let found = |why: &str| {
            refuse(format!("the volume group `{}` {why}", self.name)).fact("found", format!("vgs: {}", self.attributes))
        };
        // vgs(8), VG Attr.
        if at(2) == 'x' {
            return Err(found("is exported").next(format!("vgimport {name}    # if this machine shall have it")));
        }
        if at(3) == 'p' {
            return Err(found("is not whole: disks of it are missing").next(format!(
                "connect them (vgs -o +vg_missing_pv_count {name}); dmpool disks says how to look again"
            )));
        }
        if matches!(at(5), 'c' | 's') {
            return Err(found("is shared with other machines, and theirs too")
                .next("name a group that is this machine's alone; vgs shows them"));
        }
        if at(0) == 'r' {
            return Err(found("is read-only").next("name a group that can be changed; vgs shows them"));
        }
        Ok(self)
    }
}

/// Returns the name that an LV's device has in device-mapper.
pub fn dm_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

fn fields(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

fn group(fields: &[&str]) -> Option<Group> {
    let [name, uuid, attributes, extent, extents, free, tagged] = fields else { return None };
    let (extents, free): (u64, u64) = (extents.parse().ok()?, free.parse().ok()?);
    let extent = extent.parse().ok().filter(|extent| *extent > 0).map(Bytes::new)?;
    let [name, uuid, attributes] = [name, uuid, attributes].map(|word| (*word).to_owned());
    (free <= extents).then(|| Group { name, uuid, extent, extents, free, tags: tags(tagged), attributes })
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// Reads `vg_name|vg_uuid|vg_attr|vg_extent_size|vg_extent_count|vg_free_count|vg_tags`; other lines are left out.
pub fn groups(answer: &str) -> Vec<Group> {
    answer.lines().filter_map(|line| group(&fields(line))).collect()
}

/// Reads the fields of [`groups`] and `lv_name|lv_uuid|lv_attr|lv_size|segtype|lv_tags` behind them, a line for each segment; inner
/// LVs stand in brackets.
pub fn volumes(answer: &str) -> Vec<Volume> {
    let mut found: Vec<Volume> = Vec::new();
    for line in answer.lines() {
        let fields = fields(line);
        let Some((of_group, [name, uuid, attributes, size, kind, tagged])) = fields.split_at_checked(GROUP_FIELDS)
        else {
            continue;
        };
        let (Some(group), Ok(size)) = (group(of_group), size.parse().map(Bytes::new)) else { continue };
        match found.iter_mut().find(|volume| volume.of.uuid == *uuid && volume.group.uuid == group.uuid) {
            Some(volume) if volume.types.iter().any(|known| known == kind) => {}
            Some(volume) => volume.types.push((*kind).to_owned()),
            None => {
                let name = name.trim_matches(['[', ']']).to_owned();
                let (in_group, group_uuid) = (group.name.clone(), group.uuid.clone());
                let of = LogicalVolume { group: in_group, group_uuid, name, uuid: (*uuid).to_owned() };
                // lvs(8), LV Attr.
                let is_partial = attributes.chars().nth(8) == Some('p');
                found.push(Volume { of, group, size, tags: tags(tagged), types: vec![(*kind).to_owned()], is_partial });
            }
        }
    }
    found
}

/// A piece of an LV, on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The disk.
    pub disk: PathBuf,
    /// Where it begins in the LV.
    pub start: Sectors,
    /// How long it is.
    pub length: Sectors,
    /// Where it begins on the disk.
    pub from: Sectors,
}

/// Reads `lv_name|segtype|seg_start|seg_size|vg_extent_size|seg_pe_ranges` and `pv_name|pe_start`, all in sectors, and returns the pieces
/// of an LV, in their order; nothing when one of them is not plain, or its disk is not among these.
pub fn pieces(segments: &str, disks: &str, volume: &str) -> Option<Vec<Piece>> {
    let begins = |disk: &str| {
        let mut lines = disks.lines().map(fields);
        lines.find_map(
            |line| if let [name, start] = line[..] { (name == disk).then(|| start.parse().ok())? } else { None },
        )
    };
    let mut found = Vec::new();
    let mut end = 0_u64;
    for line in
        segments.lines().map(fields).filter(|line| line.first().is_some_and(|n| n.trim_matches(['[', ']']) == volume))
    {
        let [_, "linear", start, length, extent, range] = line[..] else { return None };
        let (disk, range) = range.rsplit_once(':')?;
        let (start, length, extent): (u64, u64, u64) =
            (start.parse().ok()?, length.parse().ok()?, extent.parse().ok()?);
        let first: u64 = range.split('-').next()?.parse().ok()?;
        let at: u64 = begins(disk)?;
        if start != end || length == 0 {
            return None;
        }
        end = start.checked_add(length)?;
        let from = Sectors::new(at.checked_add(first.checked_mul(extent)?)?);
        found.push(Piece { disk: disk.into(), start: Sectors::new(start), length: Sectors::new(length), from });
    }
    (!found.is_empty()).then_some(found)
}

/// Reads the setting `activation/volume_list` in what `lvmconfig` prints of all that its files set.
pub fn volume_list_in(answer: &str) -> Option<String> {
    answer.lines().map(str::trim).find(|line| line.starts_with("volume_list=")).map(str::to_owned)
}

/// How many fields a group has.
const GROUP_FIELDS: usize = 7;

/// Returns whether `volume_list=["vg1","vg2/lv","@tag"]` (lvm.conf(5)) lets an LV be activated; nothing when that cannot be
/// told: `@*` stands for the machine's own tags.
pub fn may_activate(list: &str, group: &Group, volume: &str, tags: &[String]) -> Option<bool> {
    let words: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    let whole = format!("{}/{volume}", group.name);
    let tagged = |tag: &str| group.tags.iter().chain(tags).any(|own| own == tag);
    let allows = |word: &&str| **word == group.name || **word == whole || word.strip_prefix('@').is_some_and(tagged);
    match (words.iter().any(allows), words.contains(&"@*")) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const GROUPS: &str = include_str!("../../../fuzz/seeds/lvm_report/vgs");
    const VOLUMES: &str = include_str!("../../../fuzz/seeds/lvm_report/lvs");

    #[test]
    fn pieces_are_on_disks_from_where_their_extents_begin() {
        let text = include_str!("../../../fuzz/seeds/lvm_report/pieces");
        let (segments, disks) = text.split_once("\n\n").unwrap();
        let found = pieces(segments, disks, "pool_tdata").unwrap();
        let told: Vec<_> =
            found.iter().map(|p| (p.disk.to_str().unwrap(), p.start.get(), p.length.get(), p.from.get())).collect();
        assert_eq!(told, [("/dev/sdb", 0, 409_600, 2048), ("/dev/sdc", 409_600, 8192, 2048 + 7 * 8192)]);
        assert_eq!(pieces(segments, disks, "pool_tmeta").unwrap().len(), 1);
        assert_eq!(pieces(segments, disks, "pool"), None);
        for (from, to) in
            [("linear|0|409", "striped|0|409"), ("|409600|8192|8192", "|409601|8192|8192"), ("/dev/sdc:", "[unknown]:")]
        {
            assert_eq!(pieces(&segments.replace(from, to), disks, "pool_tdata"), None, "{to}");
        }
    }

    #[test]
    fn groups_and_volumes_are_read() {
        let groups = groups(GROUPS);
        let group = &groups[0];
        assert_eq!((group.name.as_str(), group.free_bytes(), group.tags.len()), ("vg0", Bytes::new(127 << 22), 0));
        assert_eq!((group.extents_for(Bytes::new((4 << 20) + 1)), group.bytes_of(2)), (2, Bytes::new(8 << 20)));
        assert_eq!(groups[1].tags, ["a", "b"]);
        let volumes = volumes(&format!("{VOLUMES}{}", VOLUMES.lines().next().unwrap().replace("linear", "striped")));
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].of.word(), "vg0/p0_data");
        assert!(volumes[0].has("dmpool.pool.p0") && !volumes[0].is_linear() && volumes[1].is_linear());
        assert_eq!(volumes[1].of.name, "lvol0_pmspare");
        assert!(volumes[0].is_partial && !volumes[1].is_partial);
        assert_eq!(volumes[0].dm_uuid(), "LVM-5o8RmlBJm2AmF81A0cY3dVlH1hsVMVehb4CRmlBJm2AmF81A0cY3dVlH1hsVMVei");
    }

    #[test]
    fn a_group_that_is_not_ours_to_change_is_refused() {
        let group = |attributes: &str| Group { attributes: attributes.to_owned(), ..groups(GROUPS)[0].clone() };
        let said = |attributes: &str| group(attributes).usable(&Failure::refused).map(|_| ()).map_err(|f| f.what);
        assert_eq!(said("wz--n-"), Ok(()));
        for (attributes, why) in [
            ("wzx-n-", "exported"),
            ("wz-pn-", "missing"),
            ("wz--nc", "shared"),
            ("wz--ns", "shared"),
            ("rz--n-", "read-only"),
        ] {
            assert!(said(attributes).unwrap_err().contains(why), "{attributes}");
        }
    }

    #[test]
    fn a_list_of_what_may_be_activated_is_understood() {
        let group = &groups(GROUPS)[1];
        let may = |list: &str| may_activate(list, group, "p0_data", &["dmpool".to_owned()]);
        for yes in [
            "volume_list=[\"old\"]",
            "volume_list=[\"x\",\"old/p0_data\"]",
            "volume_list=\"@dmpool\"",
            "volume_list=[\"@b\"]",
        ] {
            assert_eq!(may(yes), Some(true), "{yes}");
        }
        assert_eq!(may("volume_list=[\"vg1\", \"old/other\"]"), Some(false));
        assert_eq!(may("volume_list=[]"), Some(false));
        assert_eq!(may("volume_list=[\"@*\"]"), None);
        let set = "activation {\n\tauto_activation_volume_list=[]\n\tvolume_list=\"old\"\n}\n";
        assert_eq!(volume_list_in(set).as_deref(), Some("volume_list=\"old\""));
        assert_eq!(volume_list_in("config {\n\tchecks=1\n}\n"), None);
    }
}
