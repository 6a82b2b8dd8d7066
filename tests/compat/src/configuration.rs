//! The daemon's configuration file, and what it makes of containers.

use std::path::PathBuf;

use harness::{Engine, EngineOptions, Host};

use crate::waits::wait_until;

/// A host with a configuration file, and the file.
fn host_with(text: &str) -> (Host, PathBuf) {
    let host = Host::new();
    let file = host.files().join("daemon.json");
    std::fs::write(&file, text).unwrap();
    (host, file)
}

fn engine_with(text: &str, arguments: &[&str]) -> (Engine, PathBuf) {
    let (host, file) = host_with(text);
    let arguments = arguments.iter().map(|word| (*word).to_owned());
    let arguments = arguments.chain([format!("--config-file={}", file.display())]).collect();
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    (engine, file)
}

/// What the daemon says of a file, without starting.
fn validated(text: &str, arguments: &[&str]) -> String {
    let (host, file) = host_with(text);
    let daemon = host.conex().args(["daemon", "--validate", "--config-file"]).arg(&file).args(arguments);
    let output = daemon.run();
    let said = if output.code == 0 { output.text() } else { output.error_text() };
    said.replace(&file.display().to_string(), "FILE")
}

#[test]
fn containers_get_what_the_file_says_unless_they_say_otherwise() {
    let text = r#"{
        "log-driver": "local", "log-opts": {"max-size": "3m"},
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 700, "Hard": 800}, "core": {"Soft": 5, "Hard": 5}},
        "default-shm-size": "16m", "dns": ["10.1.2.3"], "dns-search": ["corp.example"], "dns-opts": ["ndots:3"],
        "bip": "10.83.0.1/24", "mtu": 1321, "default-address-pools": [{"base": "10.84.0.0/16", "size": 28}],
        "labels": ["rack=7"], "live-restore": true, "features": {"buildkit": true}
    }"#;
    let (engine, _) = engine_with(text, &[]);
    let docker = |arguments: &[&str]| engine.docker(arguments).ok();
    assert_eq!(docker(&["info", "--format", "{{.LoggingDriver}} {{.Labels}}"]), "local [rack=7]");
    let script = "ulimit -n; ulimit -Hn; ulimit -c; df -m /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; cat /etc/resolv.conf; \
                  ip -4 addr show eth0";
    let said = docker(&["run", "--name", "usual", "busybox", "sh", "-c", script]);
    assert!(said.starts_with("700\n800\n"), "{said}");
    for word in ["\n16\n", "nameserver 10.1.2.3", "search corp.example", "options ndots:3", "mtu 1321", "inet 10.83.0."]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let config = docker(&["inspect", "--format", "{{json .HostConfig.LogConfig}} {{.HostConfig.ShmSize}}", "usual"]);
    assert_eq!(config, r#"{"Type":"local","Config":{"max-size":"3m"}} 16777216"#);
    let own =
        ["run", "--rm", "--ulimit", "nofile=50:60", "--shm-size", "8m", "--dns", "10.9.9.9", "busybox", "sh", "-c"];
    let said = docker(&[&own[..], &[script]].concat());
    assert!(said.starts_with("50\n60\n") && said.contains("\n8\n"), "{said}");
    assert!(said.contains("nameserver 10.9.9.9") && !said.contains("10.1.2.3"), "{said}");
    docker(&["run", "--name", "other", "--log-driver", "json-file", "busybox", "true"]);
    let config = docker(&["inspect", "--format", "{{json .HostConfig.LogConfig}}", "other"]);
    assert_eq!(config, r#"{"Type":"json-file","Config":{}}"#);
    docker(&["network", "create", "mine"]);
    let subnet = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "mine"]);
    assert_eq!(subnet, "10.84.0.0/28");
    engine.finish();
}

#[test]
fn a_file_is_checked_in_dockers_words() {
    assert_eq!(validated(r#"{"debug": true}"#, &[]), "configuration OK");
    let cannot = "conex daemon: unable to configure the daemon with file FILE: ";
    for (text, arguments, message) in [
        (r#"{"bogus": 1}"#, &[][..], "the following directives don't match any configuration option: bogus"),
        (
            r#"{"labels": ["a=b"]}"#,
            &["--label", "c=d"],
            "the following directives are specified both as a flag and in the configuration file: labels: (from flag: [c=d], from file: [a=b])",
        ),
        (
            r#"{"live-restore": false}"#,
            &[],
            "the directive live-restore can only be true: containers always outlive the engine",
        ),
        (r#"{"mtu": 5}"#, &[], "invalid --mtu '5': a number from 68 to 65535 is expected"),
        (r#"{"log-opts": {"x": "y"}}"#, &[], ""),
    ] {
        let said = validated(text, arguments);
        let expected = format!("{cannot}{message}");
        match message {
            "" => assert_eq!(said, "conex daemon: unknown log opt 'x' for json-file log driver"),
            _ => assert_eq!(said, expected),
        }
    }
    let missing = Host::new().conex().args(["daemon", "--config-file", "/no/such/file"]).run();
    assert_eq!(missing.code, 1);
    assert!(missing.error_text().contains("daemon with file /no/such/file: "), "{}", missing.error_text());
}

#[test]
fn what_may_change_changes_at_a_signal() {
    let (engine, file) = engine_with(r#"{"labels": ["a=1"], "mtu": 1400}"#, &[]);
    let (mirror, label) = ("http://127.0.0.1:9", "b=2");
    let info = |format: &str| engine.docker(["info", "--format", format]).ok();
    assert_eq!(info("{{.Labels}} {{.DefaultRuntime}}"), "[a=1] conex");
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let count = engine.log().matches("reloading the configuration").count();
        engine.host().program("kill").args(["-HUP", &engine.pid().to_string()]).ok();
        wait_until("the daemon reads its file", || engine.log().matches("reloading the configuration").count() > count);
    };
    let text = format!(
        r#"{{"labels": ["{label}"], "mtu": 1300, "registry-mirrors": ["{mirror}"], "insecure-registries": ["10.5.0.0/16"],
            "runtimes": {{"mine": {{"path": "/bin/sh"}}}}, "default-runtime": "mine", "default-shm-size": "1m", "debug": true}}"#
    );
    reload(&text);
    wait_until("the settings are taken", || info("{{.Labels}}") == "[b=2]");
    assert_eq!(info("{{.DefaultRuntime}} {{.RegistryConfig.Mirrors}}"), "mine [http://127.0.0.1:9/]");
    assert!(info("{{json .RegistryConfig.InsecureRegistryCIDRs}}").contains("10.5.0.0/16"));
    // Until when is told in whole seconds.
    let told = || engine.docker(["events", "--since", "1h", "--until", "0s", "--filter", "event=reload"]).ok();
    wait_until("the event is in the past", || !told().is_empty());
    let events = told();
    assert!(events.contains(" daemon reload ") && events.contains(r#"labels=["b=2"]"#), "{events}");
    for attribute in ["debug=true", "default-runtime=mine", "default-shm-size=1048576", "live-restore=true", "name="] {
        assert!(events.contains(attribute), "{attribute}: {events}");
    }
    assert!(engine.log().contains("these take effect at the next start: mtu"), "{}", engine.log());
    reload(r#"{"labels": ["c=3"], "default-runtime": "nosuch"}"#);
    reload(r#"{"nosuch": 3}"#);
    assert_eq!(info("{{.Labels}}"), "[b=2]", "what is refused changes nothing");
    assert!(engine.log().contains("the configuration stays as it was"), "{}", engine.log());
    reload(r#"{"labels": ["c=3"]}"#);
    wait_until("the event is in the past", || told().contains("c=3"));
    assert_eq!(told().lines().count(), 2, "{}", told());
    engine.finish();
}
