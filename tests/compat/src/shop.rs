//! An application of five services under Docker Compose: everything that people do with one between `up` and `down`.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use harness::{Engine, Program};

use crate::compose::compose_program;

const APPLICATION: &str = r#"
name: shop
services:
  migrate:
    image: busybox
    command: ["sh", "-c", "cp /run/secrets/password /data/stock && echo migrated"]
    secrets: [password]
    volumes: ["data:/data"]
  store:
    image: busybox
    command: ["sh", "-c", "while :; do nc -l -p 6379 </data/stock; done"]
    volumes: ["data:/data:ro"]
    depends_on:
      migrate: {condition: service_completed_successfully}
    healthcheck:
      test: ["CMD-SHELL", "grep -q :18EB /proc/net/tcp6 /proc/net/tcp"]
      interval: 100ms
      retries: 100
  api:
    image: busybox
    command: ["sh", "-c", "nc -w 5 store 6379 </dev/null >/tmp/answer && while :; do nc -l -p 7000 </tmp/answer; done"]
    depends_on:
      store: {condition: service_healthy}
    restart: on-failure
  web:
    image: busybox
    init: true
    command: ["httpd", "-f", "-p", "80", "-h", "/www"]
    configs: [{source: page, target: /www/index.html}]
    ports: ["127.0.0.1:8077:80"]
    depends_on: [api]
  worker:
    image: busybox
    environment: ["COLOUR=${COLOUR:-red}"]
    command: ["sh", "-c", "trap 'exit 0' TERM; echo painting $$COLOUR; while :; do sleep 0.05; done"]
    depends_on:
      store: {condition: service_healthy}
  tools:
    image: busybox
    command: ["sleep", "1000"]
    profiles: [tools]
configs:
  page: {file: ./page.html}
secrets:
  password: {file: ./password}
volumes:
  data:
"#;

/// The application on an engine, with its files.
struct Shop {
    engine: Engine,
}

impl Shop {
    fn new() -> Self {
        let engine = Engine::with_busybox();
        let files = engine.host().files();
        for (name, text) in [("compose.yaml", APPLICATION), ("page.html", "welcome"), ("password", "sesame")] {
            std::fs::write(files.join(name), text).unwrap();
        }
        Self { engine }
    }

    fn compose(&self, arguments: &[&str]) -> Program {
        let program = self.engine.host().program(compose_program()).env("DOCKER_HOST", self.engine.address());
        program.arg("-f").arg(self.engine.host().files().join("compose.yaml")).args(arguments)
    }

    fn ids(&self, service: &str) -> Vec<String> {
        self.compose(&["ps", "-aq", service]).ok().lines().map(str::to_owned).collect()
    }

    /// Asks until the answer is the wanted one.
    fn wait_for(&self, what: &str, wanted: &str, ask: impl Fn() -> String) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = ask();
            if answer.contains(wanted) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {answer}, not {wanted}\n{}", self.engine.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command that goes on by itself and whose lines are read as they come.
struct Following {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Following {
    fn new(program: Program) -> Self {
        let mut child = program.spawn();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn until(&self, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(wanted)) {
            let left = end.saturating_duration_since(Instant::now());
            seen.push(self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {wanted:?} in {seen:#?}")));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn five_services_live_under_compose() {
    let shop = Shop::new();
    shop.compose(&["up", "-d", "--quiet-pull"]).ok();
    goes_up_in_order(&shop);
    changes_what_changed(&shop);
    scales_and_tells(&shop);
    reaches_into_services(&shop);
    pauses_and_restarts(&shop);
    shop.compose(&["--profile", "tools", "down", "-v", "--timeout", "1"]).ok();
    for list in [&["ps", "-aq"][..], &["network", "ls", "-q", "--filter", "type=custom"], &["volume", "ls", "-q"]] {
        assert_eq!(shop.engine.docker(list).ok(), "", "{list:?}");
    }
    shop.engine.finish();
}

/// `depends_on` with all its conditions, configs, secrets, health, ports; `ps`, `images`, `port`, `ls`.
fn goes_up_in_order(shop: &Shop) {
    let fetch = || shop.engine.host().program("busybox").args(["wget", "-qO-", "http://127.0.0.1:8077/"]).run().text();
    shop.wait_for("the page", "welcome", fetch);
    let ask = || shop.compose(&["exec", "-T", "worker", "nc", "-w", "5", "api", "7000"]).run().text();
    shop.wait_for("the api, which has it from the store, which has it from a secret", "sesame", ask);
    let running = shop.compose(&["ps", "--services", "--status", "running"]).ok();
    let mut running: Vec<&str> = running.lines().collect();
    running.sort_unstable();
    assert_eq!(running, ["api", "store", "web", "worker"]);
    let migrated = shop.compose(&["ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}", "migrate"]).ok();
    assert_eq!(migrated, "migrate exited 0");
    assert!(shop.compose(&["ps", "store"]).ok().contains("(healthy)"));
    assert_eq!(shop.compose(&["port", "web", "80"]).ok(), "127.0.0.1:8077");
    assert!(shop.compose(&["ls"]).ok().contains("shop"));
    assert_eq!(shop.compose(&["images", "-q"]).ok().lines().count(), 1, "all are of one image");
}

/// `up` on a change makes the changed service anew, and it alone.
fn changes_what_changed(shop: &Shop) {
    let (web, worker) = (shop.ids("web"), shop.ids("worker"));
    shop.compose(&["up", "-d"]).env("COLOUR", "blue").ok();
    assert_eq!(shop.ids("web"), web);
    assert_ne!(shop.ids("worker"), worker);
    shop.wait_for("the new worker", "painting blue", || shop.compose(&["logs", "worker"]).ok());
}

/// `scale`, `logs -f`, `events`.
fn scales_and_tells(shop: &Shop) {
    let logs = Following::new(shop.compose(&["logs", "-f", "--no-color", "worker"]));
    logs.until("worker-1");
    let events = Following::new(shop.compose(&["events", "--json"]));
    // It says nothing by which to know that it listens: so one thing is done until it tells of it.
    let pauses = Instant::now() + Duration::from_secs(60);
    while events.lines.try_recv().is_err() {
        assert!(Instant::now() < pauses, "compose events tells nothing");
        shop.compose(&["pause", "api"]).ok();
        shop.compose(&["unpause", "api"]).ok();
    }
    shop.compose(&["up", "-d", "--scale", "worker=3", "--no-recreate"]).env("COLOUR", "blue").ok();
    logs.until("worker-3");
    events.until("\"start\"");
    assert_eq!(shop.ids("worker").len(), 3);
    shop.compose(&["scale", "worker=2"]).env("COLOUR", "blue").ok();
    events.until("\"destroy\"");
    assert_eq!(shop.ids("worker").len(), 2);
}

/// `exec`, `run`, `top`, `cp`, a profile.
fn reaches_into_services(shop: &Shop) {
    assert_eq!(shop.compose(&["exec", "-T", "web", "cat", "/www/index.html"]).ok(), "welcome");
    assert_eq!(shop.compose(&["exec", "-T", "--index", "2", "worker", "sh", "-c", "exit 4"]).run().code, 4);
    let said =
        shop.compose(&["run", "--rm", "-T", "--no-deps", "-e", "COLOUR=green", "worker", "sh", "-c", "echo $COLOUR"]);
    assert_eq!(said.ok(), "green");
    assert!(shop.compose(&["top", "web"]).ok().contains("httpd -f -p 80"));
    let files = shop.engine.host().files();
    let (sent, fetched) = (files.join("page.html").display().to_string(), files.join("fetched").display().to_string());
    shop.compose(&["cp", &sent, "web:/tmp/copy"]).ok();
    shop.compose(&["cp", "web:/tmp/copy", &fetched]).ok();
    assert_eq!(std::fs::read_to_string(fetched).unwrap(), "welcome");
    assert_eq!(shop.ids("tools"), [""; 0]);
    shop.compose(&["--profile", "tools", "up", "-d", "tools"]).env("COLOUR", "blue").ok();
    assert_eq!(shop.compose(&["--profile", "tools", "ps", "-q", "tools"]).ok().lines().count(), 1);
}

/// `pause`, `restart`, `stop`, `start`, `kill`, and what a service with a policy does when it ends.
fn pauses_and_restarts(shop: &Shop) {
    let state = |service: &str| shop.compose(&["ps", "-a", "--format", "{{.State}}", service]).ok();
    shop.compose(&["pause", "web"]).ok();
    assert_eq!(state("web"), "paused");
    shop.compose(&["unpause", "web"]).ok();
    let started = |service: &str| {
        let id = &shop.ids(service)[0];
        shop.engine.docker(["inspect", "--format", "{{.State.StartedAt}}", id]).ok()
    };
    let before = started("web");
    shop.compose(&["restart", "--timeout", "1", "web"]).ok();
    assert_ne!(started("web"), before);
    shop.compose(&["stop", "--timeout", "1", "web"]).ok();
    assert_eq!(state("web"), "exited");
    shop.compose(&["start", "web"]).ok();
    assert_eq!(state("web"), "running");
    let before = started("api");
    // The kernel keeps other signals from a first process.
    let pid = shop.engine.docker(["inspect", "--format", "{{.State.Pid}}", &shop.ids("api")[0]]).ok();
    shop.engine.host().program("kill").args(["-KILL", &pid]).ok();
    shop.wait_for("the api, by its policy", "true", || {
        (state("api") == "running" && started("api") != before).to_string()
    });
    shop.compose(&["kill", "web"]).ok();
    assert_eq!(shop.compose(&["ps", "-a", "--format", "{{.State}} {{.ExitCode}}", "web"]).ok(), "exited 137");
}
