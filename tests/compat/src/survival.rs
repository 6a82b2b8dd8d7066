//! Containers outlive the engine.

use std::time::Duration;

use harness::Engine;

#[test]
fn a_crash_of_the_daemon_loses_nothing() {
    let mut engine = Engine::with_busybox();
    let counter = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo line $n; sleep 0.01; done; exit 21";
    engine.docker(["run", "-d", "--name", "count", "busybox", "sh", "-c", counter]).ok();
    engine.docker(["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]).ok();
    let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", "stays"]).ok();
    std::thread::sleep(Duration::from_millis(300));

    engine.kill();
    std::thread::sleep(Duration::from_millis(500));
    engine.launch();

    assert_eq!(
        engine.docker(["inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "stays"]).ok(),
        format!("{pid} running")
    );
    assert_eq!(engine.docker(["exec", "stays", "echo", "alive"]).ok(), "alive");
    assert_eq!(engine.docker(["wait", "count"]).ok(), "21");
    let expected: Vec<String> = (1..=400).map(|n| format!("line {n}")).collect();
    assert_eq!(engine.docker(["logs", "count"]).ok(), expected.join("\n"));
    engine.docker(["stop", "-t", "0", "stays"]).ok();
    engine.finish();
}

#[test]
fn an_exit_while_the_daemon_is_away_is_known_afterwards() {
    let mut engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sh", "-c", "sleep 0.5; echo last words; exit 33"]).ok();
    engine.docker(["run", "-d", "--rm", "--name", "goes", "busybox", "sleep", "0.5"]).ok();
    engine.kill();
    std::thread::sleep(Duration::from_millis(1500));
    engine.launch();
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"]).ok(), "exited 33");
    assert_eq!(engine.docker(["logs", "one"]).ok(), "last words");
    assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).ok(), "one", "--rm removes it all the same");
    engine.finish();
}

#[test]
fn a_clean_stop_leaves_containers_running_and_attach_works_again() {
    let mut engine = Engine::with_busybox();
    engine
        .docker(["run", "-d", "-i", "--name", "one", "busybox", "sh", "-c", "read line; echo got $line; exit 4"])
        .ok();
    engine.stop();
    engine.launch();
    let output = engine.docker(["attach", "one"]).input("after\n").run().expect_code(4);
    assert_eq!(output.text(), "got after");
    let again = engine.docker(["start", "-ai", "one"]).input("once more\n").run().expect_code(4);
    assert_eq!(again.text(), "got once more", "it can be started again");
    engine.finish();
}

#[test]
fn restart_policies_hold_over_the_death_of_daemon_monitors_and_containers() {
    let mut engine = Engine::with_busybox();
    let policies = [
        ("no", "no"),
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("failed", "on-failure:3"),
        ("always-stopped", "always"),
        ("unless-stopped", "unless-stopped"),
    ];
    for (name, policy) in policies {
        engine.docker(["run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "1000"]).ok();
    }
    engine.docker(["stop", "-t", "0", "always-stopped", "unless-stopped"]).ok();
    let processes: Vec<String> = ["no", "always", "unless", "failed"]
        .iter()
        .flat_map(|name| {
            let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).ok();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
            [monitor, pid]
        })
        .collect();
    // As when the machine loses its power: nobody is left to see how they end.
    engine.kill();
    engine.host().program("kill").arg("-KILL").args(&processes).ok();
    engine.launch();
    let state = |name: &str| engine.docker(["inspect", "-f", "{{.State.Status}}", name]).ok();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    for name in ["always", "unless", "failed", "always-stopped"] {
        while state(name) != "running" {
            assert!(std::time::Instant::now() < end, "{name} is {}", state(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let code = engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "no"]).ok();
    assert_eq!(code, "exited 255", "nobody saw how it ended");
    assert_eq!(state("unless-stopped"), "exited");
    engine.docker(["rm", "-f", "no", "always", "unless", "failed", "always-stopped", "unless-stopped"]).ok();
    engine.finish();
}
