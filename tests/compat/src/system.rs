//! The daemon as a whole.

use harness::Engine;

#[test]
fn version_info_and_disk_use() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    assert!(!docker(&["version", "--format", "{{.Server.Version}}"]).is_empty());
    let info = docker(&["info", "--format", "{{.OSType}} {{.Images}} {{.Swarm.LocalNodeState}} {{.CgroupVersion}}"]);
    assert!(info.starts_with("linux ") && info.contains("inactive"), "{info}");
    let df = docker(&["system", "df"]);
    for word in ["Images", "Containers", "Local Volumes", "Build Cache"] {
        assert!(df.contains(word), "{df}");
    }
    engine.finish();
}

#[test]
fn what_is_not_there_yet_says_so() {
    let engine = Engine::with_busybox();
    let cases: &[&[&str]] =
        &[&["pull", "nosuchimage"], &["commit", "x"], &["swarm", "ca"], &["network", "create", "-d", "weird", "x"]];
    for arguments in cases {
        let output = engine.docker(*arguments).run();
        assert_ne!(output.code, 0, "{output:?}");
        assert!(!output.error_text().is_empty(), "{output:?}");
    }
    engine.finish();
}

#[test]
fn one_root_has_one_daemon() {
    let engine = Engine::start();
    let daemon = engine.host().conex().args(["daemon", "--name", "second", "--root"]);
    let second = daemon.arg(engine.root_folder()).arg("--run").arg(engine.host().files().join("run")).run();
    assert_ne!(second.code, 0);
    assert!(second.error_text().contains("root"), "{}", second.error_text());
    engine.finish();
}

/// Every answer is that of Docker 26.1 outside a swarm, without plugins.
#[test]
fn what_only_a_swarm_has_is_refused_as_docker_refuses_it() {
    const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    const NO_STREAM: &str = "Bad parameters: you must choose at least one stream";
    let engine = Engine::start();
    let ask = |method: &str, path: &str| {
        let url = format!("http://x/v1.45{path}");
        let curl = engine.host().program("curl").args(["-s", "-w", "%{http_code}", "-X", method, "--unix-socket"]);
        curl.arg(engine.socket()).args(["-H", "Content-Type: application/json", "-d", "{}", &url]).ok()
    };
    let check = |method: &str, path: &str, status: u16, message: &str| {
        let expected = format!("{}\n{status}", serde_json::json!({ "message": message }));
        assert_eq!(ask(method, path), expected, "{method} {path}");
    };
    for path in
        ["swarm", "nodes", "services", "tasks", "secrets", "configs", "swarm/unlockkey", "services/x/logs?stdout=1"]
    {
        check("GET", &format!("/{path}"), 503, NO_MANAGER);
    }
    for area in ["nodes", "services", "secrets", "configs"] {
        check("GET", &format!("/{area}/x"), 503, NO_MANAGER);
        check("POST", &format!("/{area}/x/update?version=1"), 503, NO_MANAGER);
        check("DELETE", &format!("/{area}/x"), 503, NO_MANAGER);
    }
    for path in ["swarm/update?version=1", "swarm/unlock", "services/create", "secrets/create", "configs/create"] {
        check("POST", &format!("/{path}"), 503, NO_MANAGER);
    }
    check("POST", "/swarm/leave", 503, "This node is not part of a swarm");
    check("GET", "/services/x/logs", 500, NO_STREAM);
    check("GET", "/tasks/x/logs", 500, NO_STREAM);
    assert_eq!(ask("GET", "/plugins"), "[]\n200");
    for (method, path) in [("GET", "json"), ("POST", "disable"), ("POST", "push"), ("POST", "set")] {
        check(method, &format!("/plugins/x/{path}"), 404, "plugin \"x\" not found");
    }
    check("DELETE", "/plugins/x", 404, "plugin \"x\" not found");
    engine.finish();
}

/// What has happened so far, oldest first.
pub(crate) fn events(engine: &Engine, arguments: &[&str]) -> String {
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    engine.docker(["events", "--since", "0", "--until", &(now + 1).to_string()]).args(arguments).ok()
}
