//! Our own command line, and the ways to reach an engine: by itself, over TLS, over ssh.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use harness::{Engine, EngineOptions, Host, Terminal};

use crate::waits;

#[test]
fn verbs_formats_and_exit_codes() {
    let engine = Engine::with_busybox();
    assert_eq!(engine.conex(["run", "--rm", "busybox", "echo", "hello"]).ok(), "hello");
    assert_eq!(engine.conex(["run", "--rm", "-i", "busybox", "cat"]).input("through").ok(), "through");
    engine.conex(["run", "--rm", "busybox", "sh", "-c", "exit 7"]).fails(7);
    engine.conex(["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).fails(137);
    engine.conex(["run", "--rm", "busybox", "nosuch"]).fails(127);
    engine.conex(["run", "--rm", "busybox", "/etc"]).fails(126);
    let message = engine.conex(["run", "--rm", "--no-such-option", "busybox"]).fails(125);
    assert!(message.contains("--no-such-option"), "{message}");
    engine.conex(["create", "--name", "one", "busybox", "true"]).ok();
    assert_eq!(engine.conex(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok(), "one Created");
    let listed = engine.conex(["ps", "-a", "--json"]).run().expect_code(0).json();
    assert_eq!(listed["Names"].as_str().or(listed[0]["Names"].as_str()), Some("one"), "{listed}");
    let inspected = engine.conex(["inspect", "one"]).run().expect_code(0).json();
    assert_eq!(inspected[0]["Name"], "/one");
    assert_eq!(engine.conex(["inspect", "-f", "{{.State.Status}}", "one"]).ok(), "created");
    engine.finish();
}

#[test]
fn a_shell_on_a_terminal() {
    let engine = Engine::with_busybox();
    let mut shell = Terminal::start(engine.conex(["run", "-it", "--rm", "--name", "shell", "busybox", "sh"]));
    shell.type_keys("echo $((40+2)); exit 3\n");
    shell.wait_for("42");
    assert_eq!(shell.exit_code(), 3);
    let mut kept = Terminal::start(engine.conex(["run", "-it", "--name", "kept", "busybox", "sh"]));
    kept.type_keys("echo here-$((1+1))\n");
    kept.wait_for("here-2");
    kept.type_keys("\u{10}\u{11}");
    assert_eq!(kept.exit_code(), 0);
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Running}}", "kept"]).ok(), "true");
    engine.finish();
}

#[test]
fn completions_and_manual_pages() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = host.conex().args(["completion", shell]).ok();
        assert!(script.contains("conex") && script.contains("image"), "{shell}: {script}");
    }
    let script = host.conex().args(["completion", "bash"]).ok();
    let check = format!("set -e\n{script}\ncomplete -p conex\n");
    assert!(host.program("bash").arg("--norc").input(check).ok().contains("_conex"));
    let pages = host.files().join("man");
    host.conex().args(["man", &format!("{}/", pages.display())]).ok();
    let names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["conex.1", "conex-run.1", "conex-image-ls.1"] {
        assert!(names.iter().any(|name| name == page), "{page} is not among {names:?}");
    }
}

#[test]
fn the_socket_is_for_its_group_only() {
    let engine = Engine::start();
    let socket = fs::metadata(engine.socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    assert_eq!(socket.uid(), 0);
    engine.finish();
}

/// A machine of the test's own for what an engine makes at its usual places.
fn with_usual_places(host: &Host) {
    for place in ["/run", "/var/lib", "/var/log"] {
        host.program("mount").args(["-t", "tmpfs", "tmpfs", place]).ok();
    }
}

/// The engine that a command has started in this test's own mount namespace.
fn engines_pid() -> u32 {
    let own = fs::read_link("/proc/thread-self/ns/mnt").expect("our own namespace");
    let pids = fs::read_dir("/proc").expect("proc is mounted").flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let here = fs::read_link(entry.path().join("ns/mnt")).ok()? == own;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        (here && command.ends_with(b"\0daemon\0")).then_some(pid)
    });
    pids.into_iter().next().expect("the engine runs")
}

#[test]
fn an_engine_starts_by_itself() {
    let host = Host::new();
    with_usual_places(&host);
    let first = host.conex().args(["run", "--rm", "hello"]).run().expect_code(0);
    assert!(first.error_text().contains("starting an engine"), "{}", first.error_text());
    assert!(first.text().contains("Hello from a container"), "{}", first.text());
    let second = host.conex().args(["run", "--rm", "hello"]).run().expect_code(0);
    assert_eq!(second.error_text(), "");
    let pid = engines_pid();
    host.program("kill").arg(pid.to_string()).ok();
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!Path::new("/sys/fs/cgroup/memory/conex").exists(), "the engine's cgroup is left behind");
}

/// Certificates of an authority, the engine and a client, made with openssl.
pub(crate) fn certificates(host: &Host) -> PathBuf {
    let folder = host.files().join("certificates");
    fs::create_dir(&folder).expect("a new folder");
    let openssl = |words: &str| {
        let words = words.split(' ').map(|word| word.replace('@', folder.to_str().expect("ASCII")));
        host.program("openssl").args(words).ok();
    };
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {new_key} -keyout @/ca-key.pem -out @/ca.pem -days 2 -subj /CN=authority"));
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost").expect("a new file");
    for (name, key) in [("server", "server-key"), ("cert", "key")] {
        openssl(&format!("req {new_key} -keyout @/{key}.pem -out @/{name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in @/{name}.csr -CA @/ca.pem -CAkey @/ca-key.pem -CAcreateserial -days 2 -extfile @/names -out @/{name}.pem"
        ));
    }
    folder
}

#[test]
fn over_tcp_only_who_has_a_certificate_comes_in() {
    let host = Host::new();
    let folder = certificates(&host);
    let file = |name: &str| folder.join(name).display().to_string();
    let address = "tcp://127.0.0.1:2376";
    let tls = ["--tlscacert", &file("ca.pem"), "--tlscert", &file("server.pem"), "--tlskey", &file("server-key.pem")];
    let audit = format!("--audit-log={}", file("audit.log"));
    let arguments = ["-H", address, &audit].into_iter().chain(tls).map(str::to_owned).collect();
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    let docker = |words: &[&str]| engine.host().program("docker").args(["-H", address]).args(words);
    let with_certificate =
        ["--tlsverify", "--tlscacert", &file("ca.pem"), "--tlscert", &file("cert.pem"), "--tlskey", &file("key.pem")];
    let run = ["run", "--rm", "-i", "busybox", "cat"];
    assert_eq!(docker(&[&with_certificate[..], &run].concat()).input("for docker").ok(), "for docker");
    let conex = engine.host().conex().args(["-H", address]).args(with_certificate).args(run);
    assert_eq!(conex.input("for conex").ok(), "for conex");
    let without = ["--tlsverify", "--tlscacert", &file("ca.pem"), "--tlscert", "/dev/null", "--tlskey", "/dev/null"];
    docker(&[&without[..], &["ps"]].concat()).fails(1);
    engine.host().conex().args(["-H", address, "--tls", "ps"]).fails(1);
    docker(&["ps"]).fails(1);
    // Who came in is written down by the names of the certificate, and so is who ended a container.
    docker(&[&with_certificate[..], &["run", "-d", "--name", "one", "busybox", "sleep", "1000"]].concat()).ok();
    docker(&[&with_certificate[..], &["kill", "one"]].concat()).ok();
    let log = fs::read_to_string(file("audit.log")).unwrap();
    let entries: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let killed = entries.iter().find(|entry| entry["path"].as_str().unwrap().ends_with("/one/kill")).expect(&log);
    assert_eq!(killed["peer"]["common_name"], "cert", "{killed}");
    assert_eq!(killed["peer"]["alternative_names"], serde_json::json!(["127.0.0.1", "localhost"]), "{killed}");
    assert!(killed["peer"]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{killed}");
    waits::wait_until("it is told who ended it", || engine.conex(["why", "one"]).ok().contains("cert at 127.0.0.1:"));
    engine.finish();
}

#[test]
fn tcp_without_certificates_must_be_spelled_out() {
    let host = Host::new();
    let refused = host.conex().args(["daemon", "-H", "tcp://127.0.0.1:2375"]).run();
    assert_ne!(refused.code, 0);
    assert!(refused.error_text().contains("--insecure"), "{}", refused.error_text());
}

/// `ssh://` runs the user's ssh; one that stays on this machine shows what the other side is asked to run.
#[test]
fn over_ssh() {
    let engine = Engine::with_busybox();
    let programs = engine.host().files().join("programs");
    fs::create_dir(&programs).unwrap();
    let conex = engine.host().conex().into_command().get_program().to_owned();
    std::os::unix::fs::symlink(conex, programs.join("conex")).unwrap();
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec sh -c \"$*\"\n";
    fs::write(programs.join("ssh"), script).unwrap();
    fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let address = format!("ssh://someone@elsewhere{}", engine.socket().display());
    let run = ["run", "--rm", "-i", "busybox", "cat"];
    let ours = engine.host().conex().env("PATH", &path).args(["-H", &address]).args(run);
    assert_eq!(ours.input("far away").ok(), "far away");
    let dial = ["-H", &engine.address(), "system", "dial-stdio"];
    let reply = engine.host().conex().args(dial).input("GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(reply.ok().ends_with("OK"));
    engine.finish();
}
