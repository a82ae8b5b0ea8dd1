//! What is written so that something runs at boot before Docker and containerd: a unit of systemd, or an init script.

/// How long boot waits for disks that come late.
pub const WAIT: &str = "60s";

/// What comes before: file systems of this machine, and whoever makes disks of what is elsewhere. A unit that a machine has not
/// counts for nothing.
const AFTER: &[&str] = &[
    "local-fs.target",
    "lvm2-activation.service",
    "lvm2-activation-net.service",
    "multipathd.service",
    "iscsi.service",
    "iscsid.service",
    "open-iscsi.service",
];
/// What uses pools. Not Docker's socket: it is there before any ordinary service, and whoever connects to it waits for Docker,
/// which waits.
const BEFORE: &[&str] = &[
    "docker.service",
    "docker-latest.service",
    "containerd.service",
    "firecracker-containerd.service",
    "k3s.service",
    "k3s-agent.service",
];
/// What pulls it in. The engines only want it: without their pool they start, and say what they miss.
pub const WANTED_BY: &[&str] = &["multi-user.target", "docker.service", "containerd.service"];

/// How long a start may take: the wait, then LVM's answers and changes (`ops::lvm`), each with a limit of its own.
const LIMIT: &str = "15min";

/// Returns the unit that runs a command line, which must be quoted for systemd.
///
/// Past its limit dmpool alone is ended: a program of LVM's in the middle of a change holds devices suspended.
pub fn unit(line: &str) -> String {
    let lines = [
        "[Unit]".to_owned(),
        "Description=Thin pools, before Docker and containerd".to_owned(),
        format!("After={}", AFTER.join(" ")),
        format!("Before={}", BEFORE.join(" ")),
        String::new(),
        "[Service]".to_owned(),
        "Type=oneshot".to_owned(),
        "RemainAfterExit=yes".to_owned(),
        format!("TimeoutStartSec={LIMIT}"),
        "KillMode=process".to_owned(),
        format!("ExecStart={line}"),
        String::new(),
        "[Install]".to_owned(),
        format!("WantedBy={}", WANTED_BY.join(" ")),
        String::new(),
    ];
    lines.join("\n")
}

/// Returns the init script of that name that runs a command line, which must be quoted for a shell. `list` shows the pools.
///
/// It stops nothing: engines end before it would, the kernel keeps what was synced, and a refusal would hold the shutdown up.
pub fn script(name: &str, line: &str, list: &str) -> String {
    format!(
        "#!/bin/sh
# chkconfig: 2345 26 74
# description: Thin pools, before Docker and containerd
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $local_fs
# Required-Stop:
# Should-Start:      udev lvm2 multipath-tools multipathd open-iscsi iscsi iscsid
# X-Start-Before:    docker containerd
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Thin pools, before Docker and containerd
### END INIT INFO

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

case \"$1\" in
start | restart | reload | force-reload)
    {line}
    ;;
stop)
    # Engines end before this, and what was synced stays.
    ;;
status)
    {list}
    ;;
*)
    echo \"usage: $0 start|stop|restart|status\" >&2
    exit 2
    ;;
esac
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_pulled_in_by_what_it_comes_before_and_waits_for_nothing_of_theirs() {
        let text = unit("/usr/sbin/dmpool activate --all --wait 60s");
        for engine in WANTED_BY.iter().filter(|unit| unit.ends_with(".service")) {
            assert!(BEFORE.contains(engine), "{engine} would not wait for it");
        }
        assert!(!text.contains(".socket"), "sockets come before what an ordinary unit comes after");
        assert!(text.contains("\nKillMode=process\n"), "a program of LVM's would be ended: {text}");
        assert!(text.contains("\nExecStart=/usr/sbin/dmpool activate --all --wait 60s\n"), "{text}");
    }
}
