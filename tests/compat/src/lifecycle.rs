//! Creating, starting, stopping, naming, listing, removing.

use harness::Engine;

#[test]
fn create_start_stop_remove() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run();
    let id =
        docker(&["create", "--name", "one", "busybox", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done"])
            .expect_code(0)
            .text();
    assert_eq!(id.len(), 64);
    let status = || docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"]).text();
    assert_eq!(status(), "created 0");
    docker(&["start", "one"]).expect_code(0);
    assert_eq!(status(), "running 0");
    let running = docker(&["rm", "one"]).expect_code(1).error_text();
    assert!(running.contains("container is running"), "{running}");
    docker(&["stop", "one"]).expect_code(0);
    assert_eq!(status(), "exited 5");
    docker(&["start", "one"]).expect_code(0);
    docker(&["restart", "-t", "1", "one"]).expect_code(0);
    assert_eq!(status(), "running 0");
    docker(&["kill", "one"]).expect_code(0);
    assert_eq!(docker(&["wait", "one"]).text(), "137");
    assert_eq!(status(), "exited 137");
    docker(&["rename", "one", "two"]).expect_code(0);
    assert_eq!(docker(&["ps", "-a", "--format", "{{.Names}}"]).text(), "two");
    docker(&["rm", "two"]).expect_code(0);
    let gone = docker(&["inspect", "two"]).expect_code(1).error_text();
    assert!(gone.contains("No such object: two"), "{gone}");
    engine.finish();
}

#[test]
fn names_are_unique() {
    let engine = Engine::with_busybox();
    engine.docker(["create", "--name", "one", "busybox"]).ok();
    let conflict = engine.docker(["create", "--name", "one", "busybox"]).fails(1);
    assert!(conflict.contains("The container name \"/one\" is already in use by container"), "{conflict}");
    let invalid = engine.docker(["create", "--name", "a b", "busybox"]).fails(1);
    assert!(invalid.contains("Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"), "{invalid}");
    engine.finish();
}

#[test]
fn pause_and_unpause() {
    let engine = Engine::with_busybox();
    engine
        .docker(["run", "-d", "--name", "one", "busybox", "sh", "-c", "while :; do date +%s%N; sleep 0.01; done"])
        .ok();
    engine.docker(["pause", "one"]).ok();
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "one"]).ok(), "paused true");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let lines = || engine.docker(["logs", "one"]).ok().lines().count();
    let before = lines();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(lines(), before, "a paused container prints nothing");
    let twice = engine.docker(["pause", "one"]).fails(1);
    assert!(twice.contains("is already paused"), "{twice}");
    let exec = engine.docker(["exec", "one", "true"]).fails(1);
    assert!(exec.contains("paused"), "{exec}");
    engine.docker(["unpause", "one"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(lines() > before);
    engine.finish();
}

#[test]
fn lists_and_filters() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "up", "--label", "tier=web", "busybox", "sleep", "1000"]).ok();
    engine.docker(["run", "--name", "down", "--label", "tier=db", "busybox", "false"]).fails(1);
    let names = |arguments: &[&str]| {
        let mut names: Vec<String> =
            engine.docker(["ps", "--format", "{{.Names}}"]).args(arguments).ok().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["up"]);
    assert_eq!(names(&["-a"]), ["down", "up"]);
    assert_eq!(names(&["-a", "--filter", "label=tier=db"]), ["down"]);
    assert_eq!(names(&["-a", "--filter", "exited=1"]), ["down"]);
    assert_eq!(names(&["-a", "--filter", "status=running"]), ["up"]);
    assert_eq!(names(&["-a", "--filter", "name=ow"]), ["down"]);
    assert_eq!(names(&["-a", "--filter", "name=^/?d.wn$"]), ["down"], "a regular expression");
    assert!(names(&["-a", "--filter", "name=^ow"]).is_empty());
    let id = engine.docker(["inspect", "--format", "{{.Id}}", "up"]).ok();
    assert_eq!(names(&["-a", "--filter", &format!("id=^{}.{}", &id[..11], &id[12..14])]), ["up"]);
    engine.docker(["volume", "create", "data-1"]).ok();
    let listed = |kind: &str, filter: &str| engine.docker([kind, "ls", "-q", "--filter", filter]).ok();
    assert_eq!(listed("volume", "name=^d.ta-[0-9]$"), "data-1");
    assert_eq!(listed("volume", "name=^ata"), "");
    assert_eq!(listed("network", "name=^(no.e|host)$").lines().count(), 2);
    assert_eq!(listed("network", "name=^one"), "");
    engine.docker(["volume", "rm", "data-1"]).ok();
    assert_eq!(names(&["-a", "--filter", "ancestor=busybox"]), ["down", "up"]);
    assert_eq!(names(&["-a", "-n", "1"]), ["down"]);
    let table = engine.docker(["ps", "-a"]).ok();
    assert!(table.contains("Exited (1)") && table.contains("Up "), "{table}");
    let invalid = engine.docker(["ps", "--filter", "nonsense=1"]).fails(1);
    assert!(invalid.contains("invalid filter"), "{invalid}");
    let pruned = engine.docker(["container", "prune", "-f"]).ok();
    assert!(pruned.contains("Deleted Containers:"), "{pruned}");
    assert_eq!(names(&["-a"]), ["up"]);
    engine.finish();
}

#[test]
fn top_shows_the_processes() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "4321"]).ok();
    let top = engine.docker(["top", "one"]).ok();
    assert!(top.lines().next().is_some_and(|line| line.starts_with("UID") && line.ends_with("CMD")), "{top}");
    assert!(top.contains("sleep 4321"), "{top}");
    engine.finish();
}

#[test]
fn restart_policies() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3"]).ok();
    assert_eq!(engine.docker(["wait", "one"]).ok(), "3");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let count = || engine.docker(["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "one"]).ok();
    while count() != "2 exited" {
        assert!(std::time::Instant::now() < end, "{}", count());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    engine.finish();
}

#[test]
fn events_in_dockers_order() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "--rm", "--name", "one", "--label", "a=b", "busybox", "true"]).ok();
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let until = (now + 1).to_string();
    let events = engine
        .docker(["events", "--since", "0", "--until", &until, "--filter", "type=container", "--format", "{{.Action}}"])
        .ok();
    let actions: Vec<&str> = events.lines().collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
    let labels = engine
        .docker([
            "events",
            "--since",
            "0",
            "--until",
            &until,
            "--filter",
            "event=die",
            "--format",
            "{{json .Actor.Attributes}}",
        ])
        .run()
        .json();
    assert_eq!(labels["a"], "b");
    assert_eq!(labels["image"], "busybox");
    assert_eq!(labels["exitCode"], "0");
    engine.finish();
}

#[test]
fn why_says_how_a_run_ended_and_who_asked() {
    let mut engine = Engine::with_busybox();
    let why = |engine: &Engine, name: &str| engine.conex(["why", name]).ok();
    engine.docker(["create", "--name", "fresh", "busybox"]).ok();
    assert_eq!(why(&engine, "fresh"), "fresh has never been started.");
    engine.docker(["run", "--name", "three", "busybox", "sh", "-c", "exit 3"]).fails(3);
    assert!(why(&engine, "three").contains("Its last run exited with code 3 at "), "{}", why(&engine, "three"));
    engine.docker(["run", "-d", "--name", "asked", "busybox", "sleep", "1000"]).ok();
    engine.docker(["stop", "-t", "0", "asked"]).ok();
    let told = why(&engine, "asked");
    assert!(told.contains("was ended by SIGKILL") && told.contains("stop was asked for by docker (pid "), "{told}");
    assert!(told.contains("uid 0") && told.contains("(SIGTERM)"), "{told}");
    engine.docker(["run", "-d", "--name", "own", "busybox", "sleep", "1000"]).ok();
    // From outside, and with the one signal that the kernel does not keep from a first process.
    let pid = engine.docker(["inspect", "--format", "{{.State.Pid}}", "own"]).ok();
    engine.host().program("kill").args(["-KILL", &pid]).ok();
    assert_eq!(engine.docker(["wait", "own"]).ok(), "137");
    assert!(why(&engine, "own").contains("Nobody asked the engine for this"), "{}", why(&engine, "own"));
    let eat = "x=; while :; do x=$x$x........................................; done";
    engine.docker(["run", "--name", "greedy", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", eat]).run();
    let before = why(&engine, "greedy");
    assert!(before.contains("for want of memory: a limit of 16777216 bytes"), "{before}");
    // It is on the disk.
    engine.kill();
    engine.launch();
    assert_eq!(why(&engine, "greedy"), before);
    let document = engine.conex(["--json", "why", "asked"]).run().json();
    assert_eq!(document["End"]["Asked"][0]["Verb"], "stop", "{document}");
    assert!(engine.conex(["why", "nobody"]).fails(1).contains("No such container: nobody"));
    engine.docker(["rm", "fresh", "three", "asked", "own", "greedy"]).ok();
    engine.finish();
}
