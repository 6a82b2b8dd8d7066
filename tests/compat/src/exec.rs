//! `docker exec`.

use harness::{Engine, Terminal};

#[test]
fn in_a_running_container() {
    let engine = Engine::with_busybox();
    engine
        .docker(["run", "-d", "--name", "one", "--hostname", "box", "-e", "FROM=run", "busybox", "sleep", "1000"])
        .ok();
    let exec = |arguments: &[&str]| engine.docker(["exec"]).args(arguments).run();

    let output = exec(&["one", "sh", "-c", "echo out; echo err >&2; exit 9"]).expect_code(9);
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("out", "err"));
    assert_eq!(exec(&["one", "hostname"]).text(), "box");
    assert_eq!(exec(&["-e", "B=2", "one", "sh", "-c", "echo $FROM $B"]).text(), "run 2");
    assert_eq!(exec(&["-u", "daily", "-w", "/tmp", "one", "sh", "-c", "id -u; pwd"]).text(), "1000\n/tmp");
    let piped = engine.docker(["exec", "-i", "one", "cat"]).input("through\n").ok();
    assert_eq!(piped, "through");

    let missing = exec(&["one", "nosuchprogram"]);
    assert!([126, 127].contains(&missing.code), "{missing:?}");
    assert!(format!("{}{}", missing.text(), missing.error_text()).contains("executable file not found in $PATH"));
    let stopped = exec(&["nosuchcontainer", "true"]).expect_code(1).error_text();
    assert!(stopped.contains("No such container: nosuchcontainer"), "{stopped}");

    engine.docker(["exec", "-d", "one", "sh", "-c", "echo detached > /tmp/file"]).ok();
    let file = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Some(exec(&["one", "cat", "/tmp/file"])).filter(|output| output.code == 0)
    });
    assert_eq!(file.expect("the detached process wrote it").text(), "detached");
    engine.finish();
}

#[test]
fn on_a_terminal() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let mut terminal = Terminal::start(engine.docker(["exec", "-it", "one", "sh"]));
    terminal.wait_for("/ # ");
    terminal.type_keys("stty size; exit 4\n");
    terminal.wait_for("24 80");
    assert_eq!(terminal.exit_code(), 4);
    engine.finish();
}

#[test]
fn many_at_once() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let children: Vec<_> =
        (0..20).map(|n| engine.docker(["exec", "one", "sh", "-c", &format!("echo {n}; exit {n}")]).spawn()).collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(n as i32));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), n.to_string());
    }
    engine.finish();
}
