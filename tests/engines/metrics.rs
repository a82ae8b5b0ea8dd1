//! Metrics of Docker's own pool, and the examples for Prometheus and Grafana held against them.

use std::fs;

use lab::guest::run::Cmd;
use serde_json::json;

use crate::examples;
use crate::host::{Disk, Host};
use crate::support::Bench;

#[test]
fn rules_and_dashboard_work_on_what_dockers_pool_really_prints() {
    let host = Host::new(Bench::new(), Disk::Small, &["dm.basesize=1G"]);
    let own = host.bench.create();
    host.bench.ok(&["metrics"]);
    // A history of two days, so that everything that can be told is told.
    let file = host.bench.state.join("history.json");
    let mut history: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for pool in history["pools"].as_array_mut().unwrap() {
        let last = pool["points"][0].clone();
        let earlier = (1..9).rev().map(|n: u64| {
            let mut point = last.clone();
            point[0] = json!(last[0].as_u64().unwrap() - n * 21_600);
            point
        });
        pool["points"] = earlier.chain([last.clone()]).collect();
    }
    fs::write(&file, history.to_string()).unwrap();

    let printed = host.bench.ok(&["metrics"]);
    let promtool = |args: &[&str]| Cmd::new("promtool").args(args);
    promtool(&["check", "metrics"]).stdin(printed.clone()).run().checked().unwrap();
    assert_eq!(examples::missing(&printed), Vec::<String>::new(), "{printed}");
    let root = host.docker.root().display().to_string();
    assert!(printed.contains(&format!("{{pool=\"\",root=\"{root}\",user=\"docker\"}}")), "{printed}");
    assert!(!printed.contains(&host.pool()), "the name with the inode in it is in no label");
    assert!(printed.contains(&format!("{{pool=\"{own}\",root=\"\",user=\"unknown\"}}")), "{printed}");

    let dir = &host.bench.dir;
    let write = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let rules = write("dmpool.rules.yml", examples::RULES);
    promtool(&["check", "rules", &rules]).run().checked().unwrap();
    let tests = write("dmpool.rules.test.yml", examples::RULES_TEST);
    promtool(&["test", "rules", &tests]).dir(dir).run().checked().unwrap();
    // What the dashboard asks for, as rules: promtool reads their expressions.
    let asked = examples::expressions().into_iter().enumerate();
    let asked = asked.map(|(number, expr)| json!({"record": format!("panel_{number}"), "expr": expr}));
    let groups = json!({"groups": [{"name": "dashboard", "rules": asked.collect::<Vec<_>>()}]});
    let dashboard = write("dashboard.rules.yml", &groups.to_string());
    promtool(&["check", "rules", &dashboard]).run().checked().unwrap();
    host.bench.ok(&["destroy", &own, "--yes", "--with-volumes"]);
}
