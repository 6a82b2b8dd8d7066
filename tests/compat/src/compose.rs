//! Docker Compose brings an application up and down again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Engine, Program};

const APPLICATION: &str = r#"
name: shop
services:
  web:
    image: busybox
    command: ["sh", "-c", "until nc -w 1 store 6379 </dev/null >/tmp/seen; do sleep 0.1; done; while :; do nc -l -p 80 </tmp/seen; done"]
    ports: ["8088:80"]
    networks: [front, back]
    depends_on:
      store:
        condition: service_healthy
  store:
    image: busybox
    command: ["sh", "-c", "while :; do echo stock | nc -l -p 6379; done"]
    healthcheck:
      test: ["CMD-SHELL", "grep -q :18EB /proc/net/tcp6 /proc/net/tcp"]
      interval: 200ms
      retries: 50
    volumes: ["data:/data"]
    networks:
      back:
        aliases: [shelf]
networks:
  front:
  back:
    internal: true
volumes:
  data:
"#;

/// The compose program.
pub(crate) fn compose_program() -> PathBuf {
    harness::unpacked("CONEX_COMPOSE", "compose/docker-compose")
}

fn compose(engine: &Engine, application: &str, arguments: &[&str]) -> Program {
    let file = engine.host().files().join("compose.yaml");
    std::fs::write(&file, application).expect("a new file");
    let program = engine.host().program(compose_program()).env("DOCKER_HOST", engine.address());
    program.args(["-f"]).arg(file).args(arguments)
}

#[test]
fn an_application_goes_up_answers_and_goes_down() {
    let engine = Engine::with_busybox();
    compose(&engine, APPLICATION, &["up", "-d", "--quiet-pull"]).ok();
    let end = Instant::now() + Duration::from_secs(30);
    let answer = loop {
        let answer = engine.host().program("busybox").args(["nc", "-w", "5", "127.0.0.1", "8088"]).run().text();
        if !answer.is_empty() || Instant::now() > end {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(answer, "stock", "the web server has it from the store, by name");
    let listed = compose(&engine, APPLICATION, &["ps", "--format", "{{.Service}} {{.Health}} {{.Publishers}}"]).ok();
    assert!(listed.contains("store healthy") && listed.contains("8088"), "{listed}");
    compose(&engine, APPLICATION, &["exec", "-T", "web", "nslookup", "-type=a", "shelf"]).ok();
    // Again without a change: nothing is made anew.
    let before = engine.docker(["ps", "-q"]).ok();
    compose(&engine, APPLICATION, &["up", "-d"]).ok();
    assert_eq!(engine.docker(["ps", "-q"]).ok(), before);
    compose(&engine, APPLICATION, &["down", "-v"]).ok();
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    assert_eq!(engine.docker(["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "");
    engine.finish();
}

/// A web server and a database as Debian ships them: each page is counted in Redis.
const REAL: &str = r#"
name: counter
services:
  web:
    image: debian:app
    command: ["lighttpd", "-D", "-f", "/etc/counter/lighttpd.conf"]
    ports: ["8089:80"]
    networks: [front, back]
    volumes: ["./counter:/etc/counter:ro"]
    depends_on:
      store:
        condition: service_healthy
    healthcheck:
      test: ["CMD-SHELL", "grep -q :0050 /proc/net/tcp"]
      interval: 200ms
      retries: 100
  store:
    image: debian:app
    command: ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 200ms
      retries: 100
    stop_grace_period: 10s
    volumes: ["data:/data"]
    networks: [back]
networks:
  front:
  back:
    internal: true
volumes:
  data:
"#;

const LIGHTTPD: &str = r#"
server.modules = ("mod_cgi")
server.document-root = "/etc/counter"
server.port = 80
cgi.assign = (".sh" => "/bin/sh")
"#;

const PAGE: &str = "echo Content-Type: text/plain; echo; redis-cli -h store incr visits\n";

#[test]
fn debians_web_server_and_redis_work_together_and_leave_nothing() {
    let image = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/compose/debian.tar");
    assert!(image.exists(), "{} is missing: ./x test puts it there", image.display());
    let engine = Engine::start();
    engine.docker(["import"]).arg(image).arg("debian:app").ok();
    let folder = engine.host().files().join("counter");
    std::fs::create_dir_all(&folder).expect("a new folder");
    for (name, text) in [("lighttpd.conf", LIGHTTPD), ("page.sh", PAGE)] {
        std::fs::write(folder.join(name), text).expect("a new file");
    }
    // Comes back when both are healthy.
    compose(&engine, REAL, &["up", "-d", "--wait", "--quiet-pull"]).ok();
    let page = |address: &str| {
        let url = format!("http://{address}:8089/page.sh");
        engine.host().program("curl").args(["-s", "-g", "-m", "10", "--noproxy", "*", &url]).ok()
    };
    assert_eq!(page("127.0.0.1"), "1");
    assert_eq!(page("[::1]"), "2");
    let healthy = compose(&engine, REAL, &["ps", "--format", "{{.Service}} {{.Health}}"]).ok();
    assert_eq!(healthy.matches("healthy").count(), 2, "{healthy}");
    // What is in a volume is there after a restart, under the same name.
    compose(&engine, REAL, &["restart", "store"]).ok();
    let end = Instant::now() + Duration::from_secs(20);
    while page("127.0.0.1") != "3" {
        assert!(Instant::now() < end, "the store does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    compose(&engine, REAL, &["down", "-v"]).ok();
    for list in [&["ps", "-aq"][..], &["network", "ls", "-q", "--filter", "type=custom"], &["volume", "ls", "-q"]] {
        assert_eq!(engine.docker(list).ok(), "", "{list:?}");
    }
    engine.finish();
}
