//! `conex-runtime init`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use monitor_protocol::{Framing, Rootfs, SeccompProgram};

use crate::rig::{Rig, TIMEOUT, program, read_all};

fn exit_code(script: &str) -> Option<i32> {
    Command::new(program()).args(["init", "--", "sh", "-c", script]).status().unwrap().code()
}

#[test]
fn the_exit_code_is_the_programs() {
    assert_eq!(exit_code("exit 7"), Some(7));
    assert_eq!(exit_code("kill -9 $$"), Some(137));
}

#[test]
fn what_cannot_be_run_has_dockers_codes() {
    for (name, code) in [("no-such-program", 127), ("/tmp", 126)] {
        let output = Command::new(program()).args(["init", "--", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(String::from_utf8(output.stderr).unwrap().contains(name));
    }
    assert_eq!(Command::new(program()).arg("init").stderr(Stdio::null()).status().unwrap().code(), Some(125));
}

#[test]
fn signals_are_handed_on() {
    let script = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    let mut init = Command::new(program()).args(["init", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(init.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_raw(init.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    let begun = Instant::now();
    while init.try_wait().unwrap().is_none() && begun.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(init.try_wait().unwrap().unwrap().code(), Some(3));
}

#[test]
fn orphans_are_reaped() {
    let script =
        "for n in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 0.5; grep -ls '^State:.Z' /proc/[0-9]*/status | wc -l";
    let output = Command::new("unshare")
        .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
        .arg(program())
        .args(["init", "--", "sh", "-c", script])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_program_finds_no_signal_blocked_or_ignored() {
    let output = Command::new(program())
        .args(["init", "--", "grep", "^SigBlk\\|^SigIgn", "/proc/self/status"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let bits = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!((bits("SigBlk"), bits("SigIgn") & 1 << 12), (0, 0), "{text}");
}

/// `load number; if it is clone3's: ENOSYS; allow`, as Docker's profile treats that call.
fn refuse_clone3() -> SeccompProgram {
    let instructions: [(u16, u8, u8, u32); 4] =
        [(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x0005_0026), (0x06, 0, 0, 0x7fff_0000)];
    let bytes = instructions.iter().flat_map(|(code, yes, no, value)| {
        let [a, b] = code.to_ne_bytes();
        let [c, d, e, f] = value.to_ne_bytes();
        [a, b, *yes, *no, c, d, e, f]
    });
    SeccompProgram { flags: 0, instructions: bytes.collect() }
}

#[test]
fn it_works_under_dockers_seccomp_profile() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("");
    // The host's root, because the program that tests are run with needs its libraries.
    launch.rootfs = Rootfs::Directory { path: "/".into() };
    launch.seccomp = Some(refuse_clone3());
    let script = "grep ^Seccomp: /proc/self/status; exit 3";
    let words = [program().to_str().unwrap(), "init", "--", "/bin/sh", "-c", script].map(str::to_owned);
    launch.spec.process.as_mut().unwrap().args = words.into();
    let client = rig.start_attached(launch, Framing::Raw);
    assert_eq!(rig.finish().exit.code, 3);
    assert_eq!(read_all(client), "Seccomp:\t2\n");
}
