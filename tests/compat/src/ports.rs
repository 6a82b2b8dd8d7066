//! Published ports.

use harness::Engine;

use crate::peers::{call, serve};

#[test]
fn a_published_port_answers_everywhere_and_is_shown() {
    let engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp", "-p", "5353:53/udp", "--expose", "9000"]);
    for (address, port) in [("127.0.0.1", "8080"), ("127.0.0.1", "8081"), ("::1", "8080")] {
        assert_eq!(call(&engine, address, port), "hello", "{address}:{port}");
    }
    let shown = "53/udp -> 0.0.0.0:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081\n80/tcp -> [::]:8080";
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    assert_eq!(sorted(engine.docker(["port", "web"]).ok()), shown);
    assert_eq!(sorted(engine.conex(["port", "web"]).ok()), shown);
    assert_eq!(sorted(engine.docker(["port", "web", "80"]).ok()), "0.0.0.0:8080\n127.0.0.1:8081\n[::]:8080");
    let listed = engine.docker(["ps", "--format", "{{.Ports}}"]).ok();
    for part in ["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp", "127.0.0.1:8081->80/tcp", "9000/tcp"] {
        assert!(listed.contains(part), "{listed}");
    }
    let inspected = engine.docker(["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]).ok();
    assert!(inspected.contains(r#""9000/tcp":null"#), "{inspected}");
    assert!(inspected.contains(r#"{"HostIp":"127.0.0.1","HostPort":"8081"}"#), "{inspected}");
    assert_eq!(engine.docker(["ps", "-q", "--filter", "publish=8080"]).ok().lines().count(), 1);
    engine.docker(["stop", "-t", "0", "web"]).ok();
    assert_eq!(engine.docker(["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]).ok(), "{}");
    engine.finish();
}

#[test]
fn who_comes_second_is_told_why() {
    let engine = Engine::with_busybox();
    serve(&engine, "first", &["-p", "8080:80"]);
    let error = engine.docker(["run", "-p", "8080:80", "--name", "second", "busybox", "true"]).fails(125);
    assert!(error.contains("driver failed programming external connectivity on endpoint second ("), "{error}");
    assert!(error.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{error}");
    // The end of the first is the beginning of the second.
    engine.docker(["rm", "-f", "first"]).ok();
    assert_eq!(engine.docker(["start", "second"]).ok(), "second");
    for _ in 0..5 {
        engine.docker(["run", "--rm", "-p", "8082:80", "busybox", "true"]).ok();
    }
    // The test's thread lives on the engine's host.
    let listener = std::net::TcpListener::bind("127.0.0.1:8083").expect("a free port");
    let error = engine.docker(["run", "-p", "8083:80", "busybox", "true"]).fails(125);
    assert!(error.contains("failed to bind host port for 0.0.0.0:8083:"), "{error}");
    assert!(error.contains(":80/tcp: address already in use"), "{error}");
    drop(listener);
    engine.docker(["run", "--rm", "-p", "8083:80", "busybox", "true"]).ok();
    engine.finish();
}

#[test]
fn ports_without_a_number_are_found() {
    let engine = Engine::with_busybox();
    serve(&engine, "any", &["-P", "--expose", "80", "--expose", "7000-7001", "-p", "8090-8091:90"]);
    serve(&engine, "more", &["-p", "8090-8091:80", "-p", "80"]);
    let port = engine.docker(["port", "any", "80/tcp"]).ok();
    let number: u16 = port.lines().next().and_then(|line| line.rsplit_once(':')?.1.parse().ok()).expect("a port");
    assert!(number >= 32768, "{port}");
    assert_eq!(call(&engine, "127.0.0.1", &number.to_string()), "hello");
    assert!(engine.docker(["port", "any", "90"]).ok().contains("0.0.0.0:8090"));
    assert!(engine.docker(["port", "any", "7001"]).ok().contains("0.0.0.0:"));
    assert!(engine.docker(["port", "more", "80"]).ok().contains("0.0.0.0:8091"));
    engine.finish();
}

#[test]
fn published_ports_outlive_the_daemon() {
    let mut engine = Engine::with_busybox();
    serve(&engine, "web", &["-p", "8080:80"]);
    engine.kill();
    assert_eq!(call(&engine, "127.0.0.1", "8080"), "hello", "while no daemon runs");
    engine.launch();
    assert_eq!(call(&engine, "127.0.0.1", "8080"), "hello");
    assert_eq!(call(&engine, "::1", "8080"), "hello");
    assert!(engine.docker(["port", "web"]).ok().contains("80/tcp -> 0.0.0.0:8080"));
    let error = engine.docker(["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(error.contains("port is already allocated"), "{error}");
    engine.docker(["restart", "-t", "0", "web"]).ok();
    assert_eq!(call(&engine, "127.0.0.1", "8080"), "hello");
    engine.finish();
}

#[test]
fn host_and_none_networks_have_no_ports_of_their_own() {
    let engine = Engine::with_busybox();
    let warned = engine.docker(["create", "--network", "host", "-p", "8080:80", "busybox", "true"]).run();
    assert!(warned.error_text().contains("Published ports are discarded when using host network mode"));
    engine.docker(["run", "--rm", "--network", "none", "-p", "8080:80", "busybox", "true"]).ok();
    serve(&engine, "web", &["-p", "8080:80"]);
    let error = engine.docker(["run", "--network", "container:web", "-p", "8081:81", "busybox", "true"]).fails(125);
    assert!(error.contains("port publishing and the container type network mode"), "{error}");
    engine.finish();
}
