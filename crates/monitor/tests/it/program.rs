//! Other OCI runtimes as programs. `conex-runtime` is one, and it is always here.

use monitor_protocol::{
    ClientError, FailureKind, Framing, Isolation, KillScope, Launch, Request, Response, Signal, StdinMode, Stdio,
};

use crate::rig::{Rig, program, read_all, read_until};
use crate::spec;

/// Makes another runtime run the container: what `CONEX_TEST_RUNTIME` names, or our own.
fn by_program(rig: &Rig, script: &str) -> Launch {
    let mut launch = rig.launch(script);
    let path = std::env::var_os("CONEX_TEST_RUNTIME").map_or_else(program, Into::into);
    launch.isolation =
        Isolation::Program { path, args: Vec::new(), state_dir: rig.path("state"), bundle: rig.path("bundle") };
    launch
}

#[test]
fn output_and_exit_code_arrive() {
    let mut rig = Rig::new();
    let client = rig.start_attached(by_program(&rig, "echo out; echo err >&2; exit 7"), Framing::Raw);
    let finished = rig.finish();
    assert_eq!(finished.exit.code, 7);
    let mut lines: Vec<String> = read_all(client).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert!(!finished.rig.path("bundle").exists());
    assert_eq!(std::fs::read_dir(finished.rig.path("state")).unwrap().count(), 0);
}

#[test]
fn sessions_run_and_signals_arrive() {
    let mut rig = Rig::new();
    rig.start(by_program(&rig, "exec sleep 1000"));
    let script = "grep SigBlk /proc/self/status /proc/1/status; exit 9";
    let client = rig.exec("one", script, Stdio::Pipes { stdin: StdinMode::Null }).unwrap();
    assert_eq!(rig.finish_exec("one").code, 9);
    let masks = read_all(client);
    assert_eq!(masks.lines().filter(|line| line.ends_with("0000000000000000")).count(), 2, "{masks}");
    match rig.client.request(Request::Top, Vec::new()).unwrap() {
        Response::Pids(pids) => assert_eq!(pids.len(), 1),
        other => panic!("{other:?}"),
    }
    rig.client.request(Request::Kill { signal: Signal(9), scope: KillScope::Init }, Vec::new()).unwrap();
    assert_eq!(rig.finish().exit.code, 137);
}

#[test]
fn terminals_come_over_the_console_socket() {
    let mut rig = Rig::new();
    let mut launch = by_program(&rig, "stty size; read line; echo got $line");
    let size = Some(monitor_protocol::WindowSize { height: 11, width: 22 });
    launch.stdio = Stdio::Terminal { stdin: StdinMode::Open, size };
    let mut client = rig.start_attached(launch, Framing::Raw);
    assert_eq!(read_until(&mut client, "\n"), "11 22\r\n");
    std::io::Write::write_all(&mut client, b"hello\n").unwrap();
    read_until(&mut client, "got hello\r\n");
    assert_eq!(rig.finish().exit.code, 0);
}

#[test]
fn users_are_looked_up_in_the_container() {
    let mut rig = Rig::new();
    let mut launch = by_program(&rig, "id -u; id -g; id -G");
    std::fs::create_dir(rig.path("root/etc")).unwrap();
    std::fs::write(rig.path("root/etc/passwd"), "somebody:x:12:34::/:/bin/sh\n").unwrap();
    std::fs::write(rig.path("root/etc/group"), "club:x:56:somebody\nother:x:78:\n").unwrap();
    launch.spec.process.as_mut().unwrap().user.username = "somebody".to_owned();
    launch.identity = monitor_protocol::Identity::Lookup { groups: vec!["other".to_owned()] };
    let client = rig.start_attached(launch, Framing::Raw);
    rig.finish();
    assert_eq!(read_all(client), "12\n34\n34 56 78\n");
}

#[test]
fn pausing_works() {
    let mut rig = Rig::new();
    rig.start(by_program(&rig, "sleep 0.2; exit 5"));
    rig.client.request(Request::Pause, Vec::new()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(!rig.path("exit.json").exists());
    rig.client.request(Request::Unpause, Vec::new()).unwrap();
    assert_eq!(rig.finish().exit.code, 5);
}

#[test]
fn what_cannot_be_started_is_named_and_leaves_nothing() {
    let mut rig = Rig::new();
    let mut launch = by_program(&rig, "");
    launch.spec.process.as_mut().unwrap().args = vec!["/no/such/program".to_owned()];
    match rig.client.request(Request::Launch(Box::new(launch)), Vec::new()) {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.kind, FailureKind::NotFound, "{}", failure.message);
            assert!(failure.message.contains("no such file or directory"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(!rig.path("bundle").exists());
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let mut rig = Rig::new();
    let mut launch = by_program(&rig, "");
    let Isolation::Program { path, .. } = &mut launch.isolation else { panic!("a program") };
    *path = "/no/such/runtime".into();
    match rig.client.request(Request::Launch(Box::new(launch)), Vec::new()) {
        Err(ClientError::Refused(failure)) => {
            assert!(failure.message.contains("/no/such/runtime"), "{}", failure.message)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_that_cannot_be_started_is_named() {
    let mut rig = Rig::new();
    rig.start(by_program(&rig, "exec sleep 1000"));
    let mut process = spec::shell_process("");
    process.args = vec!["nothing".to_owned()];
    match rig.exec_process("one", process, Stdio::Pipes { stdin: StdinMode::Null }) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::NotFound, "{}", failure.message),
        other => panic!("{other:?}"),
    }
}
