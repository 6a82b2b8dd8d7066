//! Numbers: `stats`, and Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};

use harness::{Engine, EngineOptions};

/// One sample: its family's name, its labels, its value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads text format 0.0.4 as strictly as its grammar is: heads before samples, each family once and in one piece, labels quoted.
fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line ends");
    let (mut samples, mut seen, mut current, mut keys) = (Vec::new(), BTreeSet::new(), None, BTreeSet::new());
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# ") {
            let mut words = head.splitn(3, ' ');
            let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match kind {
                "HELP" => assert!(seen.insert(name.to_owned()), "{name} comes twice"),
                "TYPE" => assert!(["counter", "gauge"].contains(&rest), "{line}"),
                other => panic!("{other}"),
            }
            current = Some(name.to_owned());
            continue;
        }
        let sample = parse_sample(line);
        assert_eq!(Some(&sample.name), current.as_ref(), "a sample belongs to the family before it");
        assert!(keys.insert((sample.name.clone(), sample.labels.clone())), "{line} comes twice");
        samples.push(sample);
    }
    samples
}

fn parse_sample(line: &str) -> Sample {
    let end = line.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            let (value, after) = unquote(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => break rest = after,
                other => panic!("{other:?} in {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
    Sample { name: name.to_owned(), labels, value }
}

/// What is before the closing quote, and what is behind it.
fn unquote(text: &str) -> (String, &str) {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    loop {
        match letters.next().unwrap() {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                other => other,
            }),
            (_, other) => value.push(other),
        }
    }
}

/// The values of one family for one container.
fn values(samples: &[Sample], name: &str, container: &str) -> Vec<f64> {
    let wanted = |sample: &&Sample| sample.name == name && sample.labels.get("name").is_none_or(|it| it == container);
    samples.iter().filter(wanted).map(|sample| sample.value).collect()
}

#[test]
fn prometheus_reads_everything_about_containers() {
    let address = "127.0.0.1:9323";
    let engine = Engine::start_with(EngineOptions { arguments: vec!["--metrics-addr".into(), address.into()] });
    engine.import_busybox();
    engine
        .docker(["run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50"])
        .args(["busybox", "sleep", "1000"])
        .ok();
    let eat = "x=$(head -c 100000000 /dev/zero | tr '\\0' x)";
    engine.docker(["run", "--name", "eater", "-m", "16m", "busybox", "sh", "-c", eat]).run();
    engine.docker(["run", "--name", "failed", "busybox", "false"]).run();
    let text = engine.get("/metrics").ok() + "\n";
    let samples = parse(&text);
    let one = |name: &str, container: &str| {
        let found = values(&samples, name, container);
        assert_eq!(found.len(), 1, "{name} of {container}: {found:?}\n{text}");
        found[0]
    };
    assert!(one("container_memory_usage_bytes", "busy") > 0.0);
    assert_eq!(one("container_spec_memory_limit_bytes", "busy"), f64::from(64 << 20));
    assert_eq!(one("container_threads_max", "busy"), 50.0);
    assert!(one("container_cpu_usage_seconds_total", "busy") > 0.0);
    assert!(one("container_start_time_seconds", "busy") > 1.6e9);
    assert_eq!(one("conex_container_restarts_total", "busy"), 0.0);
    assert_eq!(values(&samples, "container_network_receive_bytes_total", "busy").len(), 1);
    assert_eq!(one("conex_container_last_exit_code", "failed"), 1.0);
    assert!(one("container_oom_events_total", "eater") >= 1.0);
    assert_eq!(one("conex_container_last_oom_limit_bytes", "eater"), f64::from(16 << 20));
    let reason = |container: &str| {
        let is =
            |sample: &&Sample| sample.name == "conex_container_last_exit_info" && sample.labels["name"] == container;
        samples.iter().find(is).unwrap().labels["reason"].clone()
    };
    assert_eq!((reason("eater").as_str(), reason("failed").as_str()), ("oom_limit", "error"));
    let running = samples.iter().find(|sample| sample.labels.get("state").is_some_and(|state| state == "running"));
    assert_eq!(running.unwrap().value, 1.0);
    // Pressure is there where the kernel counts it.
    let counted = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert!(!counted || !values(&samples, "container_pressure_cpu_waiting_seconds_total", "busy").is_empty());
    // The same on an address of its own, and nothing else there.
    let curl = |path: &str| engine.host().program("curl").args(["-si", &format!("http://{address}{path}")]).ok();
    let alone = curl("/metrics");
    assert!(alone.contains("text/plain; version=0.0.4") && alone.contains("engine_daemon_engine_info{"), "{alone}");
    assert!(curl("/containers/json").starts_with("HTTP/1.1 404"));
    engine.finish();
}

#[test]
fn numbers_of_every_network_and_of_one_moment() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "second"]).ok();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    engine.docker(["network", "connect", "second", "one"]).ok();
    let ask = |query: &str| engine.get(&format!("/v1.41/containers/one/stats?{query}")).run().json();
    let once = ask("stream=false&one-shot=true");
    assert_eq!(once["preread"], "0001-01-01T00:00:00Z");
    let names: Vec<&String> = once["networks"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["eth0", "eth1"], "{once}");
    let twice = ask("stream=false");
    assert_eq!(twice["preread"].as_str().map(|text| text.starts_with("20")), Some(true), "{twice}");
    let used = |value: &serde_json::Value| value["cpu_usage"]["total_usage"].as_u64().unwrap();
    assert!(used(&twice["cpu_stats"]) >= used(&twice["precpu_stats"]));
    engine.finish();
}
