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

/// The compose program: `CONEX_COMPOSE`, or the one that `./x test` unpacks.
pub(crate) fn compose_program() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/compose/docker-compose");
    let program = std::env::var_os("CONEX_COMPOSE").map_or_else(default, PathBuf::from);
    assert!(program.exists(), "{} is missing: ./x test puts it there", program.display());
    program
}

fn compose(engine: &Engine, arguments: &[&str]) -> Program {
    let file = engine.host().files().join("compose.yaml");
    std::fs::write(&file, APPLICATION).expect("a new file");
    let program = engine.host().program(compose_program()).env("DOCKER_HOST", engine.address());
    program.args(["-f"]).arg(file).args(arguments)
}

#[test]
fn an_application_goes_up_answers_and_goes_down() {
    let engine = Engine::with_busybox();
    compose(&engine, &["up", "-d", "--quiet-pull"]).ok();
    let end = Instant::now() + Duration::from_secs(30);
    let answer = loop {
        let answer = engine.host().program("busybox").args(["nc", "-w", "5", "127.0.0.1", "8088"]).run().text();
        if !answer.is_empty() || Instant::now() > end {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(answer, "stock", "the web server has it from the store, by name");
    let listed = compose(&engine, &["ps", "--format", "{{.Service}} {{.Health}} {{.Publishers}}"]).ok();
    assert!(listed.contains("store healthy") && listed.contains("8088"), "{listed}");
    compose(&engine, &["exec", "-T", "web", "nslookup", "-type=a", "shelf"]).ok();
    // Again without a change: nothing is made anew.
    let before = engine.docker(["ps", "-q"]).ok();
    compose(&engine, &["up", "-d"]).ok();
    assert_eq!(engine.docker(["ps", "-q"]).ok(), before);
    compose(&engine, &["down", "-v"]).ok();
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    assert_eq!(engine.docker(["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "");
    engine.finish();
}
