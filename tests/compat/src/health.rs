//! Health checks: by commands, and by the engine itself.

use std::time::{Duration, Instant};

use harness::Engine;

fn wait_for(engine: &Engine, name: &str, wanted: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let status = engine.docker(["inspect", "--format", "{{.State.Health.Status}}", name]).ok();
        if status == wanted {
            return;
        }
        assert!(Instant::now() < end, "{name} is {status}, not {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A container with this health check, through the API: the command lines only know commands.
fn create(engine: &Engine, name: &str, command: &str, test: &str) -> String {
    let body = format!(
        r#"{{"Image":"busybox","Cmd":["sh","-c",{command:?}],"Healthcheck":{{"Test":{test},"Interval":50000000,"Retries":2}}}}"#
    );
    let curl = engine.host().program("curl").args(["-s", "--unix-socket"]).arg(engine.socket());
    let url = format!("http://conex/containers/create?name={name}");
    curl.args(["-H", "Content-Type: application/json", "-d", &body, &url]).ok()
}

#[test]
fn probes_without_a_process_reach_into_the_container() {
    let engine = Engine::with_busybox();
    // Two web servers at the same port, each in its own network; one tells that it is not well.
    let serve = |status: &str| {
        format!("while :; do printf 'HTTP/1.1 {status}\\r\\nContent-Length: 0\\r\\n\\r\\n' | nc -l -p 8080; done")
    };
    create(&engine, "well", &serve("200 OK"), r#"["HTTP","http://:8080/health"]"#);
    create(&engine, "ill", &serve("503 Not Now"), r#"["HTTP","http://:8080/health"]"#);
    create(&engine, "open", "while :; do nc -l -p 5432 </dev/null; done", r#"["TCP","5432"]"#);
    engine
        .docker(["run", "-d", "--name", "shut", "--label", "conex.health.tcp=5432"])
        .args(["busybox", "sleep", "1000"])
        .ok();
    for name in ["well", "ill", "open"] {
        engine.docker(["start", name]).ok();
    }
    wait_for(&engine, "well", "healthy");
    wait_for(&engine, "open", "healthy");
    wait_for(&engine, "ill", "unhealthy");
    let log = engine.docker(["inspect", "--format", "{{json .State.Health.Log}}", "ill"]).ok();
    assert!(log.contains("HTTP/1.1 503 Not Now"), "{log}");
    assert_eq!(engine.docker(["inspect", "--format", "{{.State.Health.Status}}", "shut"]).ok(), "starting");
    // Docker's command line cuts off the fractions of a second, and with them what has just happened.
    let events = engine.docker(["events", "--since", "0", "--until", "-1s", "--filter", "container=well"]).ok();
    assert!(events.contains("health_status: healthy") && !events.contains("exec_"), "{events}");
    for (test, message) in [
        (r#"["HTTP","https://localhost/"]"#, "must begin with http://"),
        (r#"["TCP","example.com:80"]"#, "invalid health check address"),
        (r#"["WHAT","x"]"#, "Unknown healthcheck type 'WHAT'"),
    ] {
        let refused = create(&engine, "refused", "true", test);
        assert!(refused.contains(message), "{refused}");
    }
    engine.docker(["rm", "-f", "well", "ill", "open", "shut"]).ok();
    engine.finish();
}
