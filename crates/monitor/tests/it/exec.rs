//! Exec sessions.

use std::io::Write;
use std::net::Shutdown;

use monitor_protocol::{
    ClientError, ExecId, FailureKind, KillScope, Request, Response, Signal, StdinMode, Stdio, Target, WindowSize,
};

use crate::rig::{Rig, read_all, read_until};
use crate::spec;

const NO_INPUT: Stdio = Stdio::Pipes { stdin: StdinMode::Null };

fn running() -> Rig {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    rig
}

#[test]
fn a_session_has_output_and_an_exit_code() {
    let mut rig = running();
    let client = rig.exec("one", "echo hello; exit 9", NO_INPUT).unwrap();
    assert_eq!(rig.finish_exec("one").code, 9);
    assert_eq!(read_all(client), "hello\n");
}

#[test]
fn clients_see_the_end_after_the_daemon_has_acknowledged() {
    let mut rig = running();
    let mut client = rig.exec("one", "echo hello", NO_INPUT).unwrap();
    read_until(&mut client, "hello\n");
    rig.wait_for(|event| matches!(event, monitor_protocol::Event::ExecExited { .. }).then_some(()));
    client.set_nonblocking(true).unwrap();
    let too_early = std::io::Read::read(&mut client, &mut [0]);
    assert_eq!(too_early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    let target = Target::Exec(ExecId("one".to_owned()));
    rig.client.request(Request::AcknowledgeExit { target }, Vec::new()).unwrap();
    assert_eq!(read_all(client), "");
}

#[test]
fn a_silent_daemon_holds_nobody_for_long() {
    let mut rig = running();
    let client = rig.exec("one", "echo hello", NO_INPUT).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(read_all(client), "hello\n");
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
}

#[test]
fn input_reaches_a_session() {
    let mut rig = running();
    let mut client = rig.exec("one", "cat", Stdio::Pipes { stdin: StdinMode::Once }).unwrap();
    client.write_all(b"there and back").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.finish_exec("one").code, 0);
    assert_eq!(read_all(client), "there and back");
}

#[test]
fn a_session_can_have_a_terminal() {
    let mut rig = running();
    let size = Some(WindowSize { height: 12, width: 34 });
    let mut client =
        rig.exec("one", "stty size; read x; stty size", Stdio::Terminal { stdin: StdinMode::Once, size }).unwrap();
    assert_eq!(read_until(&mut client, "\n"), "12 34\r\n");
    let target = Target::Exec(ExecId("one".to_owned()));
    rig.client.request(Request::Resize { target, size: WindowSize { height: 5, width: 6 } }, Vec::new()).unwrap();
    client.write_all(b"\n").unwrap();
    read_until(&mut client, "5 6\r\n");
    assert_eq!(rig.finish_exec("one").code, 0);
}

#[test]
fn many_sessions_at_once_are_kept_apart() {
    let mut rig = running();
    let clients: Vec<_> = (0..30)
        .map(|number| rig.exec(&format!("s{number}"), &format!("echo {number}; exit {number}"), NO_INPUT).unwrap())
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        assert_eq!(rig.finish_exec(&format!("s{number}")).code, number as i32);
        assert_eq!(read_all(client), format!("{number}\n"));
    }
}

#[test]
fn a_session_can_be_killed() {
    let mut rig = running();
    let _client = rig.exec("one", "exec sleep 100", NO_INPUT).unwrap();
    let scope = KillScope::Exec(ExecId("one".to_owned()));
    rig.client.request(Request::Kill { signal: Signal(15), scope }, Vec::new()).unwrap();
    assert_eq!(rig.finish_exec("one").code, 143);
}

#[test]
fn a_background_child_does_not_hang_a_session() {
    let mut rig = running();
    let client = rig.exec("one", "sleep 1000 & echo started", NO_INPUT).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(rig.finish_exec("one").code, 0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(read_all(client), "started\n");
}

#[test]
fn what_cannot_be_started_is_named_and_leaves_the_container_alone() {
    let mut rig = running();
    let mut process = spec::shell_process("");
    process.args = vec!["nothing".to_owned()];
    match rig.exec_process("one", process, NO_INPUT) {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.kind, FailureKind::NotFound);
            assert!(failure.message.contains("executable file not found in $PATH"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
    let client = rig.exec("one", "echo fine", NO_INPUT).unwrap();
    rig.finish_exec("one");
    assert_eq!(read_all(client), "fine\n");
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    let mut rig = running();
    for id in ["", "../x", "a/b", ".hidden"] {
        match rig.exec(id, "true", NO_INPUT) {
            Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Invalid),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sessions_end_with_the_container() {
    let mut rig = running();
    let client = rig.exec("one", "echo up; exec sleep 1000", NO_INPUT).unwrap();
    let kill = Request::Kill { signal: Signal(9), scope: KillScope::Init };
    assert_eq!(rig.client.request(kill, Vec::new()).unwrap(), Response::Done);
    assert_eq!(rig.finish_exec("one").code, 137);
    assert_eq!(rig.finish().exit.code, 137);
    assert!(read_all(client).len() <= 3);
}
