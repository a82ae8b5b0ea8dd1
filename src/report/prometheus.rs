//! Metrics in Prometheus' text format, version 0.0.4, for node_exporter's textfile collector.
//!
//! Every name stands in `docs/guide.md`. What is not known has no sample; a family without samples is left out. The
//! labels of a pool are its [`Identity`]: they stay when Docker's root moves, and with it the pool's name.

use crate::engine::minimum_free;
use crate::ops::metrics::Metrics;
use crate::ops::status::Status;
use crate::pool::{
    Activity, BytesPerDay, Full, Identity, Key, LoopFile, Maker, Mode, PoolReport, PoolStatus, Severity, Space, finding,
};
use crate::units::Bytes;

/// A sample without its family's name: the labels after those of the pool, and the value.
type Sample = (Vec<(&'static str, String)>, String);

/// What one family says, and its samples for one pool.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: fn(&Status) -> Vec<Sample>,
}

/// Every family that has samples for pools, in the order in which they are printed.
const FAMILIES: &[Family] = &[
    Family {
        name: "dmpool_pool_health",
        help: "The verdict on the pool: 1 for the severity that it has, 0 for the others; ok, warning, unknown, critical.",
        samples: health,
    },
    Family {
        name: "dmpool_pool_findings",
        help: "How many findings there are of each kind and severity.",
        samples: findings,
    },
    Family { name: "dmpool_pool_info", help: "Who made the pool.", samples: info },
    Family { name: "dmpool_pool_active", help: "Whether the kernel has the pool.", samples: active },
    Family { name: "dmpool_pool_suspended", help: "Whether all I/O waits for a resume.", samples: suspended },
    Family {
        name: "dmpool_pool_mode",
        help: "The mode of the pool, in the kernel's words: 1 for the one that it is in.",
        samples: mode,
    },
    Family {
        name: "dmpool_pool_needs_check",
        help: "Whether the metadata must be checked before it can be written again.",
        samples: |s| number(needs_check(&s.report).map(u64::from)),
    },
    Family {
        name: "dmpool_pool_data_used_bytes",
        help: "Data in use.",
        samples: |s| bytes(s.report.data_space().map(|space| space.used)),
    },
    Family {
        name: "dmpool_pool_data_size_bytes",
        help: "Data in all.",
        samples: |s| bytes(s.report.data_space().map(|space| space.total)),
    },
    Family {
        name: "dmpool_pool_metadata_used_bytes",
        help: "Metadata in use, the kernel's reserve included.",
        samples: |s| bytes(s.report.metadata_space().map(|space| space.used)),
    },
    Family {
        name: "dmpool_pool_metadata_size_bytes",
        help: "Metadata in all.",
        samples: |s| bytes(s.report.metadata_space().map(|space| space.total)),
    },
    Family {
        name: "dmpool_pool_available_bytes",
        help: "What can still be written before the first limit is met: the pool's, or its file system's.",
        samples: |s| bytes(s.report.binding_limit().map(|(_, left)| left)),
    },
    Family {
        name: "dmpool_pool_data_allocated_bytes",
        help: "What the data's sparse file really takes of its file system.",
        samples: |s| bytes(s.report.data.loop_file().and_then(|file| file.allocated)),
    },
    Family {
        name: "dmpool_pool_metadata_allocated_bytes",
        help: "What the metadata's sparse file really takes of its file system.",
        samples: |s| bytes(s.report.metadata.loop_file().and_then(|file| file.allocated)),
    },
    Family {
        name: "dmpool_pool_host_free_bytes",
        help: "Free on the file system under the data's loop file, root's reserve included.",
        samples: |s| bytes(host(&s.report).map(Space::free)),
    },
    Family {
        name: "dmpool_pool_host_size_bytes",
        help: "The size of the file system under the data's loop file.",
        samples: |s| bytes(host(&s.report).map(|space| space.total)),
    },
    Family {
        name: "dmpool_pool_overcommitted_bytes",
        help: "How much more the sparse files promise than their file system has.",
        samples: |s| bytes(overcommitted(&s.report)),
    },
    Family {
        name: "dmpool_pool_docker_minimum_free_bytes",
        help: "What Docker keeps free of the data: with less it makes no more layers.",
        samples: |s| bytes(kept_free(s)),
    },
    Family {
        name: "dmpool_pool_data_growth_bytes_per_second",
        help: "How fast the data grows, from the history; less than zero when it shrinks.",
        samples: |s| per_second(s.forecast.data),
    },
    Family {
        name: "dmpool_pool_metadata_growth_bytes_per_second",
        help: "How fast the metadata grows, from the history; less than zero when it shrinks.",
        samples: |s| per_second(s.forecast.metadata),
    },
    Family {
        name: "dmpool_pool_time_to_full_seconds",
        help: "When the first limit is met at that rate; +Inf when nothing grows.",
        samples: time_to_full,
    },
    Family {
        name: "dmpool_pool_not_read",
        help: "How many things about the pool could not be read.",
        samples: |s| number(u64::try_from(s.report.unread.len()).ok()),
    },
];

/// Returns the whole text.
pub fn text(metrics: &Metrics) -> String {
    let mut text = String::new();
    let mut alone = |name: &str, help: &str, labels: &[(&str, String)], value: String| {
        head(&mut text, name, help);
        text.push_str(&format!("{name}{} {value}\n", braces(labels)));
    };
    let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
    alone("dmpool_build_info", "The dmpool that wrote this.", &[version], "1".to_owned());
    let help = "When this was written, in seconds since 1970.";
    alone("dmpool_run_timestamp_seconds", help, &[], metrics.at.0.to_string());
    let help = "Whether every pool could be looked at.";
    alone("dmpool_run_success", help, &[], flag(metrics.skipped.is_empty()));
    let help = "Whether the history could be read and written.";
    alone("dmpool_history_success", help, &[], flag(metrics.history.is_none()));
    if let Some(pools) = &metrics.pools {
        alone("dmpool_pools", "How many thin pools this machine has.", &[], pools.len().to_string());
    }
    let name = "dmpool_machine_findings";
    head(&mut text, name, "How many findings there are of each severity that belong to no pool.");
    for severity in [Severity::Warning, Severity::Unknown, Severity::Critical] {
        let count = metrics.machine.iter().filter(|f| f.severity == severity).count();
        text.push_str(&format!("{name}{} {count}\n", braces(&[("severity", severity.key().to_owned())])));
    }
    for family in FAMILIES {
        let mut samples = String::new();
        for status in metrics.pools.iter().flatten() {
            for (more, value) in (family.samples)(status) {
                let labels: Vec<_> = of_pool(&status.identity).into_iter().chain(more).collect();
                samples.push_str(&format!("{}{} {value}\n", family.name, braces(&labels)));
            }
        }
        if !samples.is_empty() {
            head(&mut text, family.name, family.help);
            text.push_str(&samples);
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
}

/// Every pool has all three: a label that one of a family's samples has, all must have.
fn of_pool(identity: &Identity) -> Vec<(&'static str, String)> {
    vec![
        ("pool", identity.pool.clone().unwrap_or_default()),
        ("root", identity.root.clone().unwrap_or_default()),
        ("user", identity.user.clone()),
    ]
}

fn braces(labels: &[(&str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let inside: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    format!("{{{}}}", inside.join(","))
}

fn flag(is: bool) -> String {
    u8::from(is).to_string()
}

fn number(value: Option<u64>) -> Vec<Sample> {
    value.map(|value| (Vec::new(), value.to_string())).into_iter().collect()
}

fn bytes(value: Option<Bytes>) -> Vec<Sample> {
    number(value.map(Bytes::get))
}

/// One sample for each value that a label may have, 1 for the one that is so: series do not come and go.
fn one_of(label: &'static str, all: &[&str], is: Option<&str>) -> Vec<Sample> {
    let Some(is) = is else { return Vec::new() };
    all.iter().map(|word| (vec![(label, (*word).to_owned())], flag(*word == is))).collect()
}

fn health(status: &Status) -> Vec<Sample> {
    let verdict = finding::verdict(&status.findings).map_or("ok", |worst| worst.severity.key());
    one_of("severity", &["ok", "warning", "unknown", "critical"], Some(verdict))
}

fn findings(status: &Status) -> Vec<Sample> {
    let mut samples = Vec::new();
    for key in Key::ALL {
        for severity in Severity::ALL {
            let count = status.findings.iter().filter(|f| (f.key, f.severity) == (*key, severity)).count();
            if count > 0 {
                let labels = vec![("key", key.word().to_owned()), ("severity", severity.key().to_owned())];
                samples.push((labels, count.to_string()));
            }
        }
    }
    samples
}

fn info(status: &Status) -> Vec<Sample> {
    let maker = match status.report.maker {
        Maker::Dmpool => "dmpool",
        Maker::Docker => "docker",
        Maker::Lvm => "lvm",
        Maker::Unknown => "unknown",
    };
    vec![(vec![("maker", maker.to_owned())], "1".to_owned())]
}

fn active(status: &Status) -> Vec<Sample> {
    number(Some(u64::from(status.report.activity != Activity::Inactive)))
}

fn suspended(status: &Status) -> Vec<Sample> {
    number(Some(u64::from(status.report.activity == Activity::Suspended)))
}

fn mode(status: &Status) -> Vec<Sample> {
    let word = match &status.report.status {
        Some(PoolStatus::Working(working)) => working.mode.map(Mode::word),
        Some(PoolStatus::Fail) => Some("Fail"),
        Some(PoolStatus::Error) => Some("Error"),
        Some(PoolStatus::Unreadable(_)) | None => None,
    };
    one_of("mode", &["rw", "ro", "out_of_data_space", "Fail", "Error"], word)
}

fn needs_check(pool: &PoolReport) -> Option<bool> {
    match pool.status.as_ref().and_then(PoolStatus::working) {
        Some(working) => working.needs_check,
        None => pool.recorded.map(|recorded| recorded.needs_check),
    }
}

fn host(pool: &PoolReport) -> Option<Space> {
    let host = pool.data.loop_file()?.host.as_ref()?;
    Some(Space { used: host.total.saturating_sub(host.free), total: host.total })
}

/// Zero is a number here: the files were looked at, and promise no more than there is.
fn overcommitted(pool: &PoolReport) -> Option<Bytes> {
    let file = pool.data.loop_file()?;
    let looked_at = LoopFile::promised(file).is_some() && file.host.is_some();
    pool.overcommitted_by().or_else(|| looked_at.then(|| Bytes::new(0)))
}

fn kept_free(status: &Status) -> Option<Bytes> {
    let percent = status.docker.as_ref()?.options.minimum_free_percent()?;
    let (block, total) = (status.report.block_bytes()?.get(), status.report.data_space()?.total.get());
    let blocks = minimum_free::kept_free(total.checked_div(block)?, percent);
    Some(Bytes::new(blocks.saturating_mul(block)))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus keeps every value as such a number")]
fn per_second(rate: Option<BytesPerDay>) -> Vec<Sample> {
    let value = rate.map(|rate| format!("{:.3}", rate.get() as f64 / 86_400.0));
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn time_to_full(status: &Status) -> Vec<Sample> {
    match status.forecast.full {
        Full::Unknown => Vec::new(),
        Full::NotFilling => vec![(Vec::new(), "+Inf".to_owned())],
        Full::In { seconds, .. } => number(Some(seconds)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::{Finding, Forecast, Moment, identities};
    use crate::report::samples::{docker_pool, docker_root, growing, lvm_pool, mute_pool};

    /// Findings of three severities, whatever is judged elsewhere.
    fn found(pool: &PoolReport) -> Vec<Finding> {
        let of = |key, severity| Finding::new(key, severity, &pool.name, "so it is");
        match pool.maker {
            Maker::Docker => vec![of(Key::LostWrites, Severity::Critical), of(Key::LoopFiles, Severity::Info)],
            Maker::Lvm => Vec::new(),
            Maker::Dmpool | Maker::Unknown => vec![of(Key::Inactive, Severity::Unknown)],
        }
    }

    fn metrics(pools: Vec<PoolReport>) -> Metrics {
        let identities = identities(&pools.iter().collect::<Vec<_>>());
        let status = |(report, identity): (PoolReport, Identity)| Status {
            findings: found(&report),
            docker: (report.maker == Maker::Docker).then(docker_root),
            forecast: if report.maker == Maker::Docker { growing() } else { Forecast::default() },
            devices: None,
            driver: None,
            identity,
            report,
        };
        let pools = Some(pools.into_iter().zip(identities).map(status).collect());
        Metrics { at: Moment(1_800_000_000), pools, machine: Vec::new(), skipped: Vec::new(), history: None }
    }

    #[test]
    fn three_pools_whole() {
        let full = "180 6211/524288 1638400/1638400 - out_of_data_space discard_passdown error_if_no_space - 1024";
        let pools = vec![docker_pool(full, 13_740_000_000), lvm_pool(), mute_pool()];
        let text = text(&metrics(pools));
        let expected = include_str!("../../tests/fixtures/metrics/three-pools.prom");
        assert_eq!(text, expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    }

    /// Families once each, with their words; no sample twice, which would make the collector drop the whole file.
    #[test]
    fn the_format_holds_also_for_pools_of_one_identity_and_names_that_need_quoting() {
        let moved = PoolReport { name: "docker-8:1-7-pool".to_owned(), ..docker_pool("0 1/2 3/4", 0) };
        let odd = PoolReport { name: "a\"b\\c\nd".to_owned(), ..lvm_pool() };
        let text = text(&metrics(vec![docker_pool("Fail", 5), moved, odd]));
        assert!(text.contains(r#"pool="a\"b\\c\nd",root="",user="unknown""#), "{text}");
        assert!(text.contains(r#"pool="docker-8:1-7-pool",root="/var/lib/docker",user="docker""#), "{text}");
        let mut series: Vec<&str> =
            text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all);
        let mut types: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let all = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), all);
    }

    #[test]
    fn a_run_that_saw_nothing_says_so() {
        let skipped = vec![crate::error::Failure::failed("cannot read the Docker root")];
        let text = text(&Metrics { pools: None, skipped, history: Some("full".to_owned()), ..metrics(Vec::new()) });
        assert!(text.contains("\ndmpool_run_success 0\n") && text.contains("\ndmpool_history_success 0\n"), "{text}");
        assert!(text.contains("\ndmpool_run_timestamp_seconds ") && !text.contains("dmpool_pool"), "{text}");
    }
}
