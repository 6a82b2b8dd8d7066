//! Logs and attach.

use harness::Engine;

#[test]
fn logs_after_and_during_the_run() {
    let engine = Engine::with_busybox();
    engine
        .docker(["run", "--name", "one", "busybox", "sh", "-c", "for n in 1 2 3; do echo line $n; echo e$n >&2; done"])
        .ok();
    let logs = |arguments: &[&str]| engine.docker(["logs"]).args(arguments).arg("one").run().expect_code(0);
    assert_eq!(logs(&[]).text(), "line 1\nline 2\nline 3");
    assert_eq!(logs(&[]).error_text(), "e1\ne2\ne3");
    assert_eq!(logs(&["--tail", "2"]).text().lines().count() + logs(&["--tail", "2"]).error_text().lines().count(), 2);
    let stamped = logs(&["-t"]).text();
    let stamp = stamped.lines().next().unwrap().split(' ').next().unwrap().to_owned();
    assert!(stamp.ends_with('Z') && stamp.len() == 30, "{stamp}");
    assert_eq!(logs(&["--since", "1h"]).text().lines().count(), 3);
    assert_eq!(logs(&["--until", "1h"]).text(), "");
    engine.finish();
}

#[test]
fn following_ends_with_the_container() {
    let engine = Engine::with_busybox();
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "one",
            "busybox",
            "sh",
            "-c",
            "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done",
        ])
        .ok();
    assert_eq!(engine.docker(["logs", "-f", "one"]).ok(), "1\n2\n3\n4\n5");
    engine.finish();
}

#[test]
fn every_byte_arrives() {
    let engine = Engine::with_busybox();
    let program = "dd if=/dev/zero bs=1024 count=20000 2>/dev/null | tr '\\0' 'x'";
    let direct = engine.docker(["run", "--name", "one", "busybox", "sh", "-c", program]).run().expect_code(0);
    assert_eq!(direct.stdout.len(), 20_480_000);
    let logged = engine.docker(["logs", "one"]).run().expect_code(0);
    assert_eq!(logged.stdout.len(), 20_480_000);
    engine.finish();
}

#[test]
fn logs_rotate_by_default_options_of_the_user() {
    let engine = Engine::with_busybox();
    let options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    engine.docker(["run", "--name", "one"]).args(options).args(["busybox", "seq", "1", "20000"]).ok();
    let lines = engine.docker(["logs", "one"]).ok();
    assert_eq!(lines.lines().last(), Some("20000"));
    assert!(lines.lines().count() < 20_000, "old lines are gone");
    assert_eq!(engine.docker(["logs", "--tail", "3", "one"]).ok(), "19998\n19999\n20000");
    let none = engine.docker(["run", "--name", "two", "--log-driver", "none", "busybox", "echo", "hi"]).ok();
    assert_eq!(none, "hi");
    let refused = engine.docker(["logs", "two"]).fails(1);
    assert!(refused.contains("configured logging driver does not support reading"), "{refused}");
    engine.finish();
}

#[test]
fn attach_without_a_terminal() {
    let engine = Engine::with_busybox();
    engine
        .docker(["run", "-d", "-i", "--name", "one", "busybox", "sh", "-c", "read line; echo got $line; exit 6"])
        .ok();
    let output = engine.docker(["attach", "one"]).input("hello\n").run().expect_code(6);
    assert_eq!(output.text(), "got hello");
    engine.finish();
}

/// Asks by hand and returns the connection once the head of the answer is here, not a moment later.
fn ask(engine: &Engine, path: &str) -> std::os::unix::net::UnixStream {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

#[test]
fn who_is_attached_before_the_start_misses_nothing() {
    use std::io::Read;
    let engine = Engine::with_busybox();
    for round in 0..20 {
        let name = format!("c{round}");
        engine.docker(["create", "--name", &name, "busybox", "echo", "first words"]).ok();
        let mut attached = ask(&engine, &format!("/containers/{name}/attach?stdout=1&stream=1&logs=1"));
        drop(ask(&engine, &format!("/containers/{name}/start")));
        let mut frames = Vec::new();
        attached.read_to_end(&mut frames).unwrap();
        assert_eq!(String::from_utf8_lossy(&frames), "\u{1}\0\0\0\0\0\0\u{c}first words\n", "round {round}");
    }
    engine.finish();
}
