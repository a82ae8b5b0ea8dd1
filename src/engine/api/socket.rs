//! Where Docker listens.

use std::path::PathBuf;

/// Where it does when it is told nothing, and where systemd's `docker.socket` does.
pub const DEFAULT: &str = "/var/run/docker.sock";

/// Returns the socket of a daemon that listens at these hosts (`-H`, `hosts`); nothing when it listens on the network alone.
pub fn of_hosts<'h>(hosts: impl IntoIterator<Item = &'h str>) -> Option<PathBuf> {
    let mut any = false;
    for host in hosts {
        any = true;
        match host.trim().split_once("://") {
            Some(("unix", "")) | Some(("fd", _)) => return Some(DEFAULT.into()),
            Some(("unix", path)) => return Some(path.into()),
            _ if host.trim() == "unix" => return Some(DEFAULT.into()),
            _ => {}
        }
    }
    (!any).then(|| DEFAULT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_where_there_is_one() {
        for (hosts, socket) in [
            (&[][..], Some(DEFAULT)),
            (&["fd://"], Some(DEFAULT)),
            (&["tcp://0.0.0.0:2375", "unix:///srv/d.sock"], Some("/srv/d.sock")),
            (&["unix://"], Some(DEFAULT)),
            (&["tcp://0.0.0.0:2375"], None),
            (&[":2375"], None),
        ] {
            assert_eq!(of_hosts(hosts.iter().copied()), socket.map(PathBuf::from), "{hosts:?}");
        }
    }
}
