//! What `grow` can be asked for, as it prints when it is asked for nothing.

use crate::ops::grow::Room;
use crate::ops::health;
use crate::pool::{Carrier, PoolReport};
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
                Some(disk) => format!("on a disk of {} behind a loop device", disk.human()),
                None => "not on a loop file".to_owned(),
            },
            |free| format!("{} free under it, {} of that promised already", free.human(), room.promised.human()),
        );
        text.push_str(&format!("  {what}: {} now; {host}\n", room.size.human()));
        let doubled = Bytes::new(room.size.get().saturating_mul(2));
        let doubled = room.most.map_or(doubled, |most| doubled.min(most));
        if doubled > room.size && room.disk.is_none_or(|disk| disk >= doubled) {
            text.push_str(&format!("    dmpool grow {argument} {option}{}    doubled\n", typed(doubled)));
        }
        if room.max() > room.size {
            text.push_str(&format!(
                "    dmpool grow {argument} {option}max    {}: the most that what lies beneath can carry\n",
                room.max().human()
            ));
        }
    }
    text
}

/// Whether the pool lies on devices that dmpool has formatted.
fn is_on_devices(report: &PoolReport) -> bool {
    matches!(report.data.carrier, Carrier::Device { .. } | Carrier::Devices { .. })
}

/// Returns a size as it is typed: in GiB when it is a whole number of them, else in bytes.
fn typed(size: Bytes) -> String {
    if size.get().is_multiple_of(Bytes::GIB.get()) {
        format!("{}G", size.get() / Bytes::GIB.get())
    } else {
        size.get().to_string()
    }
}
