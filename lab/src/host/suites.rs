//! Which test binary runs in which guests.

use super::kernels::Kernel;
use super::machine::Lane;

/// A test target that runs in guests, one test at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// The name of cargo's test target, which is also the suite's.
    pub name: &'static str,
    /// The package it belongs to.
    pub package: &'static str,
    /// Whether systemd must be process 1 of its guest.
    pub systemd: bool,
    /// Where it runs in CI's measure.
    pub lanes: &'static [Lane],
}

/// All of them, in the order in which they run.
pub const SUITES: &[Suite] = &[
    Suite { name: "selfcheck", package: "lab", systemd: false, lanes: &[Lane::Uml, Lane::Qemu] },
    Suite { name: "guestlib", package: "lab", systemd: false, lanes: &[Lane::Uml] },
    Suite { name: "kernel", package: "dmpool", systemd: false, lanes: &[Lane::Uml] },
    Suite { name: "engines", package: "dmpool", systemd: false, lanes: &[Lane::Uml] },
    Suite { name: "systemd", package: "dmpool", systemd: true, lanes: &[Lane::Qemu] },
];

/// The kernel that tests run on unless another is asked for.
pub const USUAL_KERNEL: Kernel = Kernel::V6_1;

/// Suites that share guests of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How the guest runs.
    pub lane: Lane,
    /// Its kernel; without meaning in the native lane.
    pub kernel: Kernel,
    /// Whether systemd is process 1.
    pub systemd: bool,
    /// What runs in it.
    pub suites: Vec<Suite>,
}

/// The groups to run for what the person asked: CI's measure, or every suite on every kernel and lane that can run it.
#[must_use]
pub fn groups(lane: Option<Lane>, kernel: Option<Kernel>, full: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for suite in SUITES {
        for (lane, kernel) in guests(suite, lane, kernel, full) {
            let fits = |g: &&mut Group| g.lane == lane && g.kernel == kernel && g.systemd == suite.systemd;
            match groups.iter_mut().find(fits) {
                Some(group) => group.suites.push(*suite),
                None => groups.push(Group { lane, kernel, systemd: suite.systemd, suites: vec![*suite] }),
            }
        }
    }
    groups
}

/// The guests one suite runs in.
fn guests(suite: &Suite, lane: Option<Lane>, kernel: Option<Kernel>, full: bool) -> Vec<(Lane, Kernel)> {
    let lanes: Vec<Lane> = match lane {
        Some(asked) => vec![asked],
        None if full => vec![Lane::Uml, Lane::Qemu],
        // Bullseye's user mode Linux is not in the lab: its kernel runs in QEMU.
        None if kernel == Some(Kernel::V5_10) => vec![Lane::Qemu],
        None => suite.lanes.to_vec(),
    };
    let kernels: Vec<Kernel> = match kernel {
        Some(asked) => vec![asked],
        None if full => Kernel::ALL.to_vec(),
        None => vec![USUAL_KERNEL],
    };
    let can = |(lane, kernel): &(Lane, Kernel)| match lane {
        Lane::Uml => !suite.systemd && *kernel != Kernel::V5_10,
        Lane::Qemu => true,
        // One machine has one kernel, and whether it runs systemd the tests find out.
        Lane::Native => *kernel == kernels.first().copied().unwrap_or(USUAL_KERNEL),
    };
    lanes.iter().flat_map(|l| kernels.iter().map(|k| (*l, *k))).filter(can).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_measure_boots_one_kind_of_guest_for_all_plain_suites() {
        let groups = groups(None, None, false);
        let names = |g: &Group| g.suites.iter().map(|s| s.name).collect::<Vec<_>>();
        let kinds: Vec<_> = groups.iter().map(|g| (g.lane, g.kernel, g.systemd, names(g))).collect();
        assert_eq!(
            kinds,
            [
                (Lane::Uml, Kernel::V6_1, false, vec!["selfcheck", "guestlib", "kernel", "engines"]),
                (Lane::Qemu, Kernel::V6_1, false, vec!["selfcheck"]),
                (Lane::Qemu, Kernel::V6_1, true, vec!["systemd"]),
            ]
        );
    }

    #[test]
    fn full_covers_every_kernel_in_every_lane_that_has_it() {
        let groups = groups(None, None, true);
        let has =
            |lane, kernel, systemd| groups.iter().any(|g| (g.lane, g.kernel, g.systemd) == (lane, kernel, systemd));
        for kernel in Kernel::ALL {
            assert!(has(Lane::Qemu, kernel, false) && has(Lane::Qemu, kernel, true));
            assert_eq!(has(Lane::Uml, kernel, false), kernel != Kernel::V5_10);
            assert!(!has(Lane::Uml, kernel, true));
        }
    }

    #[test]
    fn the_oldest_kernel_alone_runs_in_qemu() {
        assert!(groups(None, Some(Kernel::V5_10), false).iter().all(|g| g.lane == Lane::Qemu));
    }
}
