//! `--runtime`: containers that other OCI runtimes run.

use harness::{Engine, EngineOptions, Host, Terminal};

/// An engine with busybox, on a host on which crun works too: it refuses a hybrid layout as long as it can see the v2 hierarchy.
fn engine(arguments: &[&str]) -> Engine {
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    let host = Host::new();
    host.lose("/sys/fs/cgroup/unified");
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    engine
}

/// Removes the containers and ends the engine. crun takes the empty folder in the place of the v2 hierarchy for one, and leaves the
/// parent of its cgroups there.
fn finish(engine: Engine) {
    engine.docker(["rm", "-f"]).args(engine.docker(["ps", "-aq"]).ok().lines()).run();
    let _not_there = std::fs::remove_dir_all(std::path::Path::new("/sys/fs/cgroup/unified").join(engine.host().name()));
    engine.finish();
}

#[test]
fn runc_runs_containers() {
    every_verb_works("runc");
}

#[test]
fn crun_runs_containers() {
    every_verb_works("crun");
}

fn every_verb_works(runtime: &str) {
    let mut engine = engine(&[]);
    one_shots(&engine, runtime);
    let pid = a_long_one(&engine, runtime);
    engine.kill();
    engine.launch();
    after_a_crash(&engine, &pid);
    let state = engine.run_folder().join("runtimes").join(runtime);
    assert_eq!(std::fs::read_dir(state).expect("it is there").count(), 0, "the runtime remembers a container");
    assert_eq!(
        std::fs::read_dir(engine.run_folder().join("bundles")).expect("it is there").count(),
        0,
        "a bundle is left"
    );
    finish(engine);
}

/// Output, exit codes, input, a terminal, and what the configuration says.
fn one_shots(engine: &Engine, runtime: &str) {
    let run = |words: &[&str]| engine.docker(["run", "--rm", "-i", "--runtime", runtime]).args(words);
    let output = run(&["busybox", "sh", "-c", "cat; echo err >&2; exit 7"]).input("in").run().expect_code(7);
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("in", "err"));
    let missing = run(&["busybox", "nosuchprogram"]).fails(127);
    assert!(missing.contains("nosuchprogram") && missing.contains("not found in $PATH"), "{missing}");
    run(&["busybox", "/etc/passwd"]).fails(126);
    let script = "grep Seccomp: /proc/self/status | cut -f2; id -u; cat /proc/sys/kernel/domainname; ls /sys/class/net";
    let words =
        ["-u", "daily", "--domainname", "lan", "--init", "--tmpfs", "/t", "-v", "data:/v", "busybox", "sh", "-c"];
    assert_eq!(run(&words).arg(script).ok(), "2\n1000\nlan\neth0\nlo");
    let mut terminal = Terminal::start(engine.docker(["run", "-it", "--rm", "--runtime", runtime, "busybox", "sh"]));
    terminal.wait_for("/ # ");
    terminal.type_keys("stty size; exit 3\n");
    terminal.wait_for("24 80");
    assert_eq!(terminal.exit_code(), 3);
}

/// Everything that is done to a container that runs.
fn a_long_one(engine: &Engine, runtime: &str) -> String {
    let script = "trap 'echo stopped; exit 5' TERM; echo begun; while :; do sleep 0.1; done";
    let options =
        ["run", "-d", "--name", "long", "--memory", "64m", "--runtime", runtime, "busybox", "sh", "-c", script];
    engine.docker(options).ok();
    let inspect = |format: &str| engine.docker(["inspect", "-f", format, "long"]).ok();
    assert_eq!(inspect("{{.HostConfig.Runtime}} {{.State.Status}}"), format!("{runtime} running"));
    assert_eq!(
        engine.docker(["exec", "-i", "long", "sh", "-c", "cat; exit 4"]).input("x").run().expect_code(4).text(),
        "x"
    );
    engine.docker(["exec", "long", "nosuchprogram"]).fails(127);
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    assert_eq!(engine.docker(["exec", "long", "sh", "-c", limit]).ok(), (64 << 20).to_string());
    engine.docker(["update", "--memory", "80m", "--memory-swap", "-1", "long"]).ok();
    assert_eq!(engine.docker(["exec", "long", "sh", "-c", limit]).ok(), (80 << 20).to_string());
    let stats = engine.docker(["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "long"]).ok();
    assert!(stats.contains("/ 80MiB") && !stats.starts_with("0B"), "{stats}");
    assert!(engine.docker(["top", "long"]).ok().contains("sleep 0.1"));
    engine.docker(["pause", "long"]).ok();
    assert_eq!(inspect("{{.State.Status}}"), "paused");
    engine.docker(["unpause", "long"]).ok();
    inspect("{{.State.Pid}}")
}

fn after_a_crash(engine: &Engine, pid: &str) {
    let inspect = |format: &str| engine.docker(["inspect", "-f", format, "long"]).ok();
    assert_eq!(inspect("{{.State.Pid}} {{.State.Status}}"), format!("{pid} running"));
    assert_eq!(engine.docker(["exec", "long", "echo", "alive"]).ok(), "alive");
    engine.docker(["restart", "long"]).ok();
    assert_ne!(inspect("{{.State.Pid}}"), pid);
    engine.docker(["kill", "-s", "TERM", "long"]).ok();
    assert_eq!(engine.docker(["wait", "long"]).ok(), "5");
    assert_eq!(engine.docker(["logs", "long"]).ok(), "begun\nstopped\nbegun\nstopped");
    engine.docker(["start", "long"]).ok();
    engine.docker(["rm", "-f", "long"]).ok();
}

#[test]
fn a_monitor_that_is_killed_leaves_nothing_in_the_way() {
    let engine = engine(&[]);
    engine.docker(["run", "-d", "--name", "one", "--runtime", "crun", "busybox", "sleep", "1000"]).ok();
    let parent = format!("/proc/{}/status", engine.docker(["inspect", "-f", "{{.State.Pid}}", "one"]).ok());
    let status = std::fs::read_to_string(parent).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    engine.host().program("kill").args(["-9", monitor]).ok();
    assert_eq!(engine.docker(["wait", "one"]).ok(), "255");
    engine.docker(["start", "one"]).ok();
    assert_eq!(engine.docker(["exec", "one", "echo", "again"]).ok(), "again");
    finish(engine);
}

#[test]
fn runtimes_are_configured_in_dockers_way() {
    let program = std::fs::canonicalize(
        std::env::var("CONEX_PROGRAMS")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/conex/debug").to_owned()),
    );
    let program = program.unwrap().join("conex-runtime").display().to_string();
    let added = format!("mine={program}");
    let engine = engine(&["--add-runtime", &added, "--default-runtime", "mine"]);
    let info = |format: &str| engine.docker(["info", "-f", format]).ok();
    assert_eq!(info("{{.DefaultRuntime}}"), "mine");
    let runtimes = info("{{range $name, $runtime := .Runtimes}}{{$name}} {{end}}");
    assert_eq!(runtimes.trim(), "conex crun mine runc");
    for (asked, shown) in [
        (None, "mine"),
        (Some("conex"), "conex"),
        (Some("conex-runtime"), "conex-runtime"),
        (Some(program.as_str()), program.as_str()),
    ] {
        let words = asked.map_or(vec![], |name| vec!["--runtime", name]);
        engine.docker(["run", "-d", "--name", "one"]).args(words).args(["busybox", "sleep", "1000"]).ok();
        assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.Runtime}}", "one"]).ok(), shown);
        assert_eq!(engine.docker(["exec", "one", "echo", "hello"]).ok(), "hello");
        engine.docker(["rm", "-f", "one"]).ok();
    }
    for name in ["kata", "/no/such/runtime"] {
        let error = engine.docker(["run", "--rm", "--runtime", name, "busybox", "true"]).fails(125);
        assert!(error.contains(&format!("unknown or invalid runtime name: {name}")), "{error}");
    }
    finish(engine);
}
