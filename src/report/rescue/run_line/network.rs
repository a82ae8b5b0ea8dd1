//! Networks, ports, names of other hosts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Of, Options, mode, quoted};
use crate::engine::docker_objects::Fields;

pub(super) fn options(of: &Of<'_>, options: &mut Options) {
    ports(of, options);
    for (name, alias) in of.container.links() {
        options.value("--link", format!("{name}:{alias}"));
    }
    let kept = of.host.text(&["NetworkMode"]).unwrap_or("default");
    // It may have been named by its id.
    let by_id = of.objects.networks.iter().find(|network| network.id == kept);
    let network = by_id.map_or(kept, |network| network.name.as_str());
    if !matches!(network, "default" | "bridge") {
        options.value("--network", mode(of.objects, network));
    }
    let endpoint = of.container.config.at(&["NetworkSettings", "Networks", network]);
    let is_own = !matches!(network, "default" | "bridge" | "host" | "none") && !network.starts_with("container:");
    if is_own {
        let networks = of.objects.path.join("network");
        for problem in of.objects.problems.iter().filter(|problem| problem.path.starts_with(&networks)) {
            options.remark(format!("the networks could not be read: {}: {}", problem.path.display(), problem.why));
        }
        options.remark(format!("its network must be there:  docker network create {}", made(of, network)));
        endpoint_of(of, endpoint, options);
    }
    options.values("--mac-address", of.config.text(&["MacAddress"]));
    options.values("--add-host", of.host.texts(&["ExtraHosts"]));
    options.values("--dns", of.host.texts(&["Dns"]));
    options.values("--dns-search", of.host.texts(&["DnsSearch"]));
    options.values("--dns-option", of.host.texts(&["DnsOptions"]));
    for (other, _) in of.container.config.entries(&["NetworkSettings", "Networks"]) {
        if other != network && !(other == "bridge" && network == "default") {
            let name = of.container.name().unwrap_or(&of.container.id);
            options.remark(format!("then also:  docker network connect {} {}", quoted(other), quoted(name)));
        }
    }
}

/// What makes a network again: its options, where they are known, and its name.
fn made(of: &Of<'_>, name: &str) -> String {
    let Some(network) = of.objects.networks.iter().find(|network| network.name == name) else { return quoted(name) };
    let mut words = Vec::new();
    let mut put = |option: &str, value: &str| words.extend([option.to_owned(), quoted(value)]);
    if network.driver != "bridge" {
        put("--driver", &network.driver);
    }
    for pool in &network.pools {
        for (option, value) in [("--subnet", &pool.subnet), ("--ip-range", &pool.range), ("--gateway", &pool.gateway)] {
            value.iter().for_each(|value| put(option, value));
        }
    }
    for (key, value) in &network.options {
        put("-o", &format!("{key}={value}"));
    }
    for (key, value) in &network.labels {
        put("--label", &format!("{key}={value}"));
    }
    let flags = [("--internal", network.internal), ("--attachable", network.attachable), ("--ipv6", network.ipv6)];
    words.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.to_owned()));
    words.push(quoted(name));
    words.join(" ")
}

fn endpoint_of(of: &Of<'_>, endpoint: &Value, options: &mut Options) {
    let short: String = of.container.id.chars().take(12).collect();
    let made_by_docker = [Some(short.as_str()), of.container.name()];
    let mut seen = BTreeSet::new();
    let aliases = endpoint.texts(&["Aliases"]).into_iter().filter(|alias| !made_by_docker.contains(&Some(*alias)));
    options.values("--network-alias", aliases.filter(|alias| seen.insert(*alias)));
    options.values("--ip", endpoint.text(&["IPAMConfig", "IPv4Address"]));
    options.values("--ip6", endpoint.text(&["IPAMConfig", "IPv6Address"]));
    options.values("--link-local-ip", endpoint.texts(&["IPAMConfig", "LinkLocalIPs"]));
}

fn ports(of: &Of<'_>, options: &mut Options) {
    let mut published = BTreeSet::new();
    for (port, bindings) in of.host.entries(&["PortBindings"]) {
        published.insert(port);
        let inside = port.strip_suffix("/tcp").unwrap_or(port);
        for binding in bindings.items(&[]) {
            let (ip, public) = (binding.text(&["HostIp"]), binding.text(&["HostPort"]));
            let ip = ip.map(|ip| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() });
            options.value(
                "-p",
                match (ip, public) {
                    (Some(ip), public) => format!("{ip}:{}:{inside}", public.unwrap_or_default()),
                    (None, Some(public)) => format!("{public}:{inside}"),
                    (None, None) => inside.to_owned(),
                },
            );
        }
    }
    let exposed = of.config.entries(&["ExposedPorts"]).map(|(port, _)| port);
    let is_images = |port: &&str| of.image.at(&["ExposedPorts"]).get(*port).is_some();
    options.values("--expose", exposed.filter(|port| !published.contains(port) && !is_images(port)));
    if of.host.flag(&["PublishAllPorts"]) {
        options.flag("-P");
    }
}
