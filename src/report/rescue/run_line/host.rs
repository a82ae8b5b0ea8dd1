//! What a container has of the host besides networks and places: limits, rights, devices, namespaces, its log.

use serde_json::Value;

use super::{Of, Options, mode};
use crate::engine::docker_objects::Fields;

/// What Docker gives `/dev/shm` when nobody says it (`DefaultShmSize`, daemon/config/config.go).
const SHM: i64 = 64 << 20;

pub(super) fn options(of: &Of<'_>, options: &mut Options) {
    lifetime(of.host, options);
    rights(of.host, options);
    devices(of.host, options);
    limits(of.host, options);
    for (key, option) in [("PidMode", "--pid"), ("UTSMode", "--uts"), ("UsernsMode", "--userns")] {
        options.values(option, of.host.text(&[key]).map(|value| mode(of.objects, value)).as_deref());
    }
    // `private` is the default from Docker 20.10 on; before, `shareable` was, and is the same to who does not share.
    let ipc = of.host.text(&["IpcMode"]).filter(|ipc| *ipc != "private");
    options.values("--ipc", ipc.map(|value| mode(of.objects, value)).as_deref());
    options.values("--cgroupns", of.host.text(&["CgroupnsMode"]).filter(|cgroupns| *cgroupns == "host"));
    options.values("--isolation", of.host.text(&["Isolation"]).filter(|isolation| *isolation != "default"));
    pairs(of.host, &["Sysctls"], "--sysctl", options);
    pairs(of.host, &["StorageOpt"], "--storage-opt", options);
    pairs(of.host, &["Annotations"], "--annotation", options);
    log(of.host, options);
}

fn pairs(host: &Value, path: &[&str], option: &str, options: &mut Options) {
    for (key, value) in host.entries(path) {
        options.value(option, format!("{key}={}", value.as_str().unwrap_or_default()));
    }
}

fn lifetime(host: &Value, options: &mut Options) {
    let retries = host.number(&["RestartPolicy", "MaximumRetryCount"]);
    match host.text(&["RestartPolicy", "Name"]) {
        None | Some("no") => {}
        Some(policy) => match retries {
            Some(count) => options.value("--restart", format!("{policy}:{count}")),
            None => options.value("--restart", policy),
        },
    }
    if host.flag(&["AutoRemove"]) {
        options.flag("--rm");
    }
    match host.at(&["Init"]).as_bool() {
        Some(true) => options.flag("--init"),
        Some(false) => options.flag("--init=false"),
        None => {}
    }
    options.values("--runtime", host.text(&["Runtime"]).filter(|runtime| *runtime != "runc"));
}

fn rights(host: &Value, options: &mut Options) {
    let is_privileged = host.flag(&["Privileged"]);
    if is_privileged {
        options.flag("--privileged");
    }
    if host.flag(&["ReadonlyRootfs"]) {
        options.flag("--read-only");
    }
    for (key, option) in [("CapAdd", "--cap-add"), ("CapDrop", "--cap-drop"), ("GroupAdd", "--group-add")] {
        options.values(option, host.texts(&[key]));
    }
    // A privileged container has it anyhow.
    let without = |security: &&str| !(is_privileged && *security == "label=disable");
    options.values("--security-opt", host.texts(&["SecurityOpt"]).into_iter().filter(without));
    let is_empty = |key: &str| host.at(&[key]).as_array().is_some_and(Vec::is_empty);
    if !is_privileged && is_empty("MaskedPaths") && is_empty("ReadonlyPaths") {
        options.value("--security-opt", "systempaths=unconfined");
    }
}

fn devices(host: &Value, options: &mut Options) {
    for device in host.items(&["Devices"]) {
        let text = |key: &str| device.text(&[key]).unwrap_or_default();
        let (outside, inside, rights) = (text("PathOnHost"), text("PathInContainer"), text("CgroupPermissions"));
        let inside = if inside.is_empty() { outside } else { inside };
        options.value(
            "--device",
            match (outside == inside, rights == "rwm" || rights.is_empty()) {
                (true, true) => outside.to_owned(),
                (false, true) => format!("{outside}:{inside}"),
                (_, false) => format!("{outside}:{inside}:{rights}"),
            },
        );
    }
    options.values("--device-cgroup-rule", host.texts(&["DeviceCgroupRules"]));
    for request in host.items(&["DeviceRequests"]) {
        let is_plain =
            request.text(&["Driver"]).is_none() && request.at(&["Capabilities"]) == &serde_json::json!([["gpu"]]);
        let ids = request.texts(&["DeviceIDs"]);
        match request.number(&["Count"]) {
            Some(-1) if is_plain => options.value("--gpus", "all"),
            Some(count) if is_plain => options.value("--gpus", count.to_string()),
            None if is_plain && !ids.is_empty() => options.value("--gpus", format!("\"device={}\"", ids.join(","))),
            _ => options.remark(format!("devices were asked for that --gpus may name: {request}")),
        }
    }
}

fn limits(host: &Value, options: &mut Options) {
    for limit in host.items(&["Ulimits"]) {
        let (soft, hard) = (limit.at(&["Soft"]).as_i64().unwrap_or(0), limit.at(&["Hard"]).as_i64().unwrap_or(0));
        let range = if soft == hard { soft.to_string() } else { format!("{soft}:{hard}") };
        options.value("--ulimit", format!("{}={range}", limit.text(&["Name"]).unwrap_or_default()));
    }
    let mut number = |key: &str, option: &str, usual: &dyn Fn(i64) -> bool| {
        let set = host.number(&[key]).filter(|value| !usual(*value));
        options.values(option, set.map(|value| value.to_string()).as_deref());
    };
    let memory = host.number(&["Memory"]).unwrap_or(0);
    let none = |_: i64| false;
    number("Memory", "--memory", &none);
    // Twice the memory is what Docker sets by itself (`adaptContainerSettings`, daemon/daemon_unix.go).
    number("MemorySwap", "--memory-swap", &|swap| memory > 0 && swap == memory.saturating_mul(2));
    number("MemoryReservation", "--memory-reservation", &none);
    number("KernelMemory", "--kernel-memory", &none);
    number("ShmSize", "--shm-size", &|size| size == SHM);
    number("CpuShares", "--cpu-shares", &none);
    number("CpuPeriod", "--cpu-period", &none);
    number("CpuQuota", "--cpu-quota", &none);
    number("CpuRealtimePeriod", "--cpu-rt-period", &none);
    number("CpuRealtimeRuntime", "--cpu-rt-runtime", &none);
    number("BlkioWeight", "--blkio-weight", &none);
    number("OomScoreAdj", "--oom-score-adj", &none);
    number("PidsLimit", "--pids-limit", &none);
    number("MemorySwappiness", "--memory-swappiness", &|value| value < 0);
    options.values("--cpus", host.number(&["NanoCpus"]).map(cpus).as_deref());
    for (key, option) in
        [("CpusetCpus", "--cpuset-cpus"), ("CpusetMems", "--cpuset-mems"), ("CgroupParent", "--cgroup-parent")]
    {
        options.values(option, host.text(&[key]));
    }
    if host.flag(&["OomKillDisable"]) {
        options.flag("--oom-kill-disable");
    }
    for (key, value, option) in [
        ("BlkioWeightDevice", "Weight", "--blkio-weight-device"),
        ("BlkioDeviceReadBps", "Rate", "--device-read-bps"),
        ("BlkioDeviceWriteBps", "Rate", "--device-write-bps"),
        ("BlkioDeviceReadIOps", "Rate", "--device-read-iops"),
        ("BlkioDeviceWriteIOps", "Rate", "--device-write-iops"),
    ] {
        for device in host.items(&[key]) {
            let path = device.text(&["Path"]).unwrap_or_default();
            options.value(option, format!("{path}:{}", device.number(&[value]).unwrap_or(0)));
        }
    }
}

/// Billionths of a processor as they are typed: `1.5`.
fn cpus(billionths: i64) -> String {
    let (whole, rest) = (billionths / 1_000_000_000, billionths % 1_000_000_000);
    let text = format!("{whole}.{:09}", rest.abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn log(host: &Value, options: &mut Options) {
    let driver = host.text(&["LogConfig", "Type"]);
    let has_options = host.entries(&["LogConfig", "Config"]).next().is_some();
    options.values("--log-driver", driver.filter(|driver| *driver != "json-file" || has_options));
    pairs(host, &["LogConfig", "Config"], "--log-opt", options);
}
