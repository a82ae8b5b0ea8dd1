//! What `grow` can be asked for, as it prints when it is asked for nothing.

use crate::ops::grow::Room;
use crate::ops::health;
use crate::pool::{Carrier, Maker, PoolReport};
use crate::units::Bytes;

/// Returns the choices, each line ended: what the pool has, what its file system can carry, and commands to paste.
pub fn text(report: &PoolReport, data: Option<Room>, metadata: Option<Room>) -> String {
    let argument = health::argument(report);
    let mut text = format!("{}: nothing was changed; what can be chosen:\n", report.name);
    for (what, option, room) in [("data", "", data), ("metadata", "--metadata ", metadata)] {
        let Some(room) = room else {
            text.push_str(&format!("  {what}: unknown\n"));
            continue;
        };
        let host = room.host_free.map_or_else(
            || match room.disk {
                Some(disk) if is_on_devices(report) => format!("its devices have {} for it", disk.human()),
                Some(_) if report.maker == Maker::Lvm => "LVM's own pool".to_owned(),
                Some(disk) => format!("on a disk of {} behind a loop device", disk.human()),
                None => "not on a loop file".to_owned(),
            },
            |free| format!("{} free under it, {} of that promised already", free.human(), room.promised.human()),
        );
        let group = room.group.map(|group| format!("; its volume group has {} left", group.free.human()));
        let most = room.most.filter(|most| room.size >= *most).map_or("", |_| "; the kernel uses no more");
        text.push_str(&format!("  {what}: {} now; {host}{}{most}\n", room.size.human(), group.unwrap_or_default()));
        let doubled = Bytes::new(room.size.get().saturating_mul(2));
        let doubled = room.most.map_or(doubled, |most| doubled.min(most));
        let can_have = |disk: Bytes| disk.get().saturating_add(room.group.map_or(0, |group| group.free.get()));
        if doubled > room.size && room.disk.is_none_or(|disk| can_have(disk) >= doubled.get()) {
            text.push_str(&format!("    dmpool grow {argument} {option}{}    # doubled\n", doubled.typed()));
        }
        if room.group.is_some_and(|group| !group.is_its && group.free.get() > 0) {
            let all = format!("dmpool grow {argument} {option}+100%FREE");
            text.push_str(&format!("    {all}    # the LV beneath first, with all that its group has left\n"));
        }
        if room.max() > room.size {
            text.push_str(&format!(
                "    dmpool grow {argument} {option}max    # {}: the most that what lies beneath can carry\n",
                room.max().human()
            ));
        }
    }
    text
}

/// Whether the pool lies on devices that dmpool has formatted.
fn is_on_devices(report: &PoolReport) -> bool {
    report.maker != Maker::Lvm && matches!(report.data.carrier, Carrier::Device { .. } | Carrier::Devices { .. })
}
