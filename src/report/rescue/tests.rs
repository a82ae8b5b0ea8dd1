use super::*;
use crate::engine::docker_objects::{Objects, read};
use crate::fuzzing::objects::{NOW, root};
use crate::ops::rescue;

fn objects(seed: &str) -> Objects {
    read(&root(seed).root()).unwrap()
}

#[test]
fn containers_are_listed_as_docker_does() {
    let text = ps::text(&objects("20.10"), NOW, false);
    let upto = text.find("PORTS").unwrap();
    // The quoted commands have a character of three bytes.
    let cut = |line: &str| line.chars().take(upto).collect::<String>().trim_end().to_owned();
    assert_eq!(
        text.lines().map(cut).collect::<Vec<_>>(),
        [
            "CONTAINER ID   IMAGE                              COMMAND                  CREATED        STATUS",
            "472c91e17339   busybox                            \"sh -c 'while true; …\"   24 hours ago   was paused, started 24 hours ago",
            "cbb1ca061892   registry.lan:5000/web/nginx:1.19   \"/docker-entrypoint.…\"   24 hours ago   was running, started 24 hours ago",
            "d1d727729814   f8d03fe6688b                       \"sh\"                     4 days ago     Created",
            "75d7651ba4dd   busybox:1.32                       \"/entry --safe postg…\"   4 days ago     Exited (137) 47 hours ago",
        ]
    );
    assert!(text.contains(
        "53/udp, 127.0.0.1:80->80/tcp, 0.0.0.0:49153->80/tcp, 0.0.0.0:8443->443/tcp, [::]:8443->443/tcp   web\n"
    ));
    let names = ps::text(&objects("20.10"), NOW, true);
    assert!(names.contains("   db/www,web\n"), "with the name that a link has given it: {names}");
}

#[test]
fn what_is_broken_stands_below_by_its_id() {
    let objects = objects("broken");
    let text = ps::text(&objects, NOW, false);
    let (table, below) = text.split_once("\nnot whole:\n").unwrap();
    assert_eq!(table.lines().count(), 5);
    assert_eq!(table.matches("unknown").count(), 3 * 4);
    assert!(below.contains("cbb1ca061892: ") && below.contains("it is empty or holds NUL bytes only"));
    assert_eq!(ps::problems(&objects), below.lines().filter(|line| line.starts_with("  ")).count());
    let json: serde_json::Value = serde_json::from_str(&ps::json(&objects)).unwrap();
    let states = json["containers"].as_array().unwrap().iter().map(|container| container["state"].as_str().unwrap());
    assert_eq!(states.collect::<Vec<_>>(), ["exited", "unknown", "unknown", "unknown"]);
}

#[test]
fn images_and_their_tree_are_drawn_as_docker_did() {
    let objects = objects("20.10");
    assert_eq!(
        images::text(&objects, NOW, false, false),
        "\
REPOSITORY                    TAG       IMAGE ID       CREATED       SIZE
registry.lan:5000/web/nginx   1.19      2faa99c18fc8   5 days ago    5.96MB
busybox                       1.32      f8d03fe6688b   5 days ago    1.86MB
busybox                       latest    f8d03fe6688b   5 days ago    1.86MB
<none>                        <none>    558323aaa8ac   4 weeks ago   2.48MB
"
    );
    assert_eq!(images::text(&objects, NOW, true, false).lines().count(), 6);
    assert_eq!(
        tree::text(&objects, false),
        "\
├─49052a7d8c81 Virtual Size: 2.481 MB Images: 558323aaa8ac
└─f8661861872a Virtual Size: 1.864 MB Tags: busybox:1.32, busybox:latest
  └─6bebb00aab0a Virtual Size: 3.605 MB Images: 91671fbc2104
    └─71280252f996 Virtual Size: 5.963 MB Tags: registry.lan:5000/web/nginx:1.19
"
    );
}

#[test]
fn two_drivers_are_told_apart_and_the_layers_nobody_names_are_listed() {
    let text = tree::text(&objects("two-drivers"), false);
    assert!(!text.contains("devicemapper:"), "only one has images: {text}");
    let text = tree::text(&objects("broken"), false);
    let (_, below) = text.split_once("\ndevicemapper has layers without a name:\n").unwrap();
    let listed: Vec<_> = below.lines().take_while(|line| line.starts_with("  ")).collect();
    assert_eq!(listed, ["  0ed3e1370382", "  766d63f03321", "  9bfc9330db9f", "  9bfc9330db9f-init"]);
}

fn run_line_of(objects: &Objects, name: &str) -> String {
    run_line::text(objects, rescue::container(objects, name).unwrap())
}

#[test]
fn a_line_has_what_the_image_and_docker_would_not_give() {
    let objects = objects("20.10");
    assert_eq!(
        run_line_of(&objects, "side"),
        "\
docker run -i \\
  -t \\
  --name side \\
  --network container:web \\
  --volumes-from web:ro \\
  --privileged \\
  --pid container:web \\
  --log-driver journald \\
  --log-opt tag=side \\
  busybox sh -c 'while true; do date; sleep 1; done'
"
    );
    assert_eq!(
        run_line_of(&objects, "db"),
        "\
docker run -d \\
  --name db \\
  --link web:www \\
  -v /var/lib/db \\
  --restart unless-stopped \\
  --log-driver local \\
  --entrypoint /entry \\
  busybox:1.32 --safe postgres
"
    );
    let web = run_line_of(&objects, "web");
    let options: Vec<_> = web.lines().map(|line| line.trim_start().trim_end_matches(" \\")).collect();
    for option in [
        "-h www",
        "-u www-data",
        "-e 'A=b c'",
        r#"-e 'QUOTE=it'\''s "x"'"#,
        "--label tier=front",
        "--stop-timeout 30",
        "-p 8443:443",
        "-p 127.0.0.1:80:80",
        "-p 80",
        "--expose 53/udp",
        "--network frontnet",
        "--network-alias www",
        "--ip 172.28.0.9",
        "-v named:/data",
        "-v /etc/localtime:/etc/localtime:ro",
        "--mount type=volume,src=far,dst=/far,readonly=true,volume-nocopy=true",
        "--tmpfs /run:size=1m",
        "--tmpfs /tmp",
        "--restart on-failure:5",
        "--init",
        "--ulimit nofile=1024:2048",
        "--memory 536870912",
        "--cpus 1.5",
        "--log-driver json-file",
        "--log-opt max-size=10m",
        "--health-cmd 'curl -f localhost'",
        "--health-interval 90s",
        "--health-retries 3",
        "registry.lan:5000/web/nginx:1.19",
        "# then also:  docker network connect othernet web",
    ] {
        assert!(options.contains(&option), "{option} is not in\n{web}");
    }
    for absent in ["NGINX_VERSION", "--memory-swap", "-w ", "--stop-signal", "maintainer", "daemon off", "--runtime"] {
        assert!(!web.contains(absent), "{absent} is in\n{web}");
    }
    let cache = options.iter().filter(|option| option.ends_with(":/cache")).count();
    assert_eq!(cache, 1, "the volume that nobody named");
}

#[test]
fn a_line_of_a_hostile_container_is_quoted_whole() {
    let objects = objects("hostile");
    let container = objects.containers.iter().find(|container| container.config.is_object()).unwrap();
    let text = run_line::text(&objects, container);
    assert!(text.starts_with("# $'…' is for bash and zsh"), "{text}");
    assert!(text.contains(r"-e $'A=\033[31m\015\n'"), "{text}");
    assert!(text.ends_with("../../x ''\\''; reboot #' '$(reboot)'\n"), "{text}");
}

#[test]
fn what_docker_makes_of_nothing_and_of_links_is_shown() {
    let objects = objects("20.10");
    let all = ["db", "web"].map(|name| rescue::object(&objects, name, None).unwrap());
    let json: serde_json::Value = serde_json::from_str(&inspect::text(&objects, &all)).unwrap();
    assert_eq!(json[0]["HostConfig"]["Links"], serde_json::json!(["/web:/db/www"]));
    assert!(json[1]["HostConfig"]["Links"].is_null());
    assert!(json[0]["NetworkSettings"]["Ports"].is_object());
}

#[test]
fn overlay2_tells_its_folders() {
    let objects = objects("overlay2");
    let all = ["web", "busybox"].map(|name| rescue::object(&objects, name, None).unwrap());
    let json: serde_json::Value = serde_json::from_str(&inspect::text(&objects, &all)).unwrap();
    let lower = json[0]["GraphDriver"]["Data"]["LowerDir"].as_str().unwrap();
    let lower: Vec<_> = lower.split(':').collect();
    assert_eq!(lower.len(), 4, "{lower:?}");
    assert!(lower[0].ends_with("-init/diff") && lower.iter().all(|path| path.contains("/overlay2/")));
    let of_image = json[1]["GraphDriver"]["Data"].as_object().unwrap();
    assert_eq!(of_image.keys().collect::<Vec<_>>(), ["MergedDir", "UpperDir", "WorkDir"]);
    assert_eq!(of_image["UpperDir"].as_str(), lower.last().copied());
}

#[test]
fn what_is_inspected_has_dockers_keys_in_dockers_order() {
    let objects = objects("20.10");
    let web = rescue::object(&objects, "web", None).unwrap();
    let nginx = rescue::object(&objects, "registry.lan:5000/web/nginx:1.19", None).unwrap();
    let text = inspect::text(&objects, &[web, nginx]);
    assert!(text.starts_with("[\n    {\n        \"Id\": \"cbb1ca"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&json[0]),
        [
            "Id",
            "Created",
            "Path",
            "Args",
            "State",
            "Image",
            "ResolvConfPath",
            "HostnamePath",
            "HostsPath",
            "LogPath",
            "Name",
            "RestartCount",
            "Driver",
            "Platform",
            "MountLabel",
            "ProcessLabel",
            "AppArmorProfile",
            "ExecIDs",
            "HostConfig",
            "GraphDriver",
            "Mounts",
            "Config",
            "NetworkSettings"
        ]
    );
    assert_eq!(json[0]["State"]["Status"], "running");
    let data = &json[0]["GraphDriver"]["Data"];
    assert_eq!(keys(data), ["DeviceId", "DeviceName", "DeviceSize"]);
    assert!(data["DeviceName"].as_str().unwrap().starts_with("docker-") && data["DeviceSize"] == "10737418240");
    assert_eq!(json[0]["State"]["Health"]["Status"], "healthy");
    assert_eq!(json[0]["HostConfig"]["ExtraHosts"][0], "db:10.0.0.2");
    let mount = json[0]["Mounts"].as_array().unwrap().iter().find(|mount| mount["Destination"] == "/data").unwrap();
    assert_eq!(keys(mount), ["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"]);
    assert!(mount["Source"].as_str().unwrap().ends_with("/volumes/named/_data"));
    assert_eq!(
        (&mount["Mode"], &json[0]["NetworkSettings"]["Networks"]["frontnet"]["IPAMOperational"]),
        (&"z".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        keys(&json[1]),
        [
            "Id",
            "RepoTags",
            "RepoDigests",
            "Parent",
            "Comment",
            "Created",
            "Container",
            "ContainerConfig",
            "DockerVersion",
            "Author",
            "Config",
            "Architecture",
            "Os",
            "Size",
            "VirtualSize",
            "GraphDriver",
            "RootFS",
            "Metadata"
        ]
    );
    assert_eq!((json[1]["Size"].as_u64(), json[1]["RootFS"]["Layers"].as_array().unwrap().len()), (Some(5_962_944), 3));
}
