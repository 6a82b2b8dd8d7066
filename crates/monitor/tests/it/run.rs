//! Starting, ending, and what is said of it.

use monitor_protocol::{
    ClientError, Event, FailureKind, Framing, KillScope, Phase, Request, Response, Signal, StdinMode, Stdio, Target,
};

use crate::rig::{Rig, read_all};

#[test]
fn output_and_exit_code_arrive() {
    let mut rig = Rig::new();
    let client = rig.start_attached(rig.launch("echo out; echo err >&2; exit 7"), Framing::Raw);
    let finished = rig.finish();
    assert_eq!((finished.exit.code, finished.exit.signal), (7, None));
    let mut lines: Vec<String> = read_all(client).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert_eq!(finished.logged().len(), 8);
}

#[test]
fn frames_tell_the_streams_apart() {
    let mut rig = Rig::new();
    let client = rig.start_attached(rig.launch("echo out; sleep 0.1; echo err >&2"), Framing::Multiplexed);
    rig.finish();
    assert_eq!(read_all(client), "\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
}

#[test]
fn a_signal_is_told_as_docker_does() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 100"));
    kill(&mut rig, 9, KillScope::Init).unwrap();
    let finished = rig.finish();
    assert_eq!((finished.exit.code, finished.exit.signal), (137, Some(Signal(9))));
}

#[test]
fn all_processes_can_be_signalled() {
    let mut rig = Rig::new();
    let script = "trap 'exit 3' TERM; sleep 100 & echo ready; wait; exit 4";
    let mut client = rig.start_attached(rig.launch(script), Framing::Raw);
    crate::rig::read_until(&mut client, "ready\n");
    kill(&mut rig, 15, KillScope::All).unwrap();
    assert_eq!(rig.finish().exit.code, 3);
}

fn kill(rig: &mut Rig, signal: i32, scope: KillScope) -> Result<Response, ClientError> {
    rig.client.request(Request::Kill { signal: Signal(signal), scope }, Vec::new())
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("");
    launch.spec.process.as_mut().unwrap().args = vec!["/no/such/program".to_owned()];
    match rig.client.request(Request::Launch(Box::new(launch)), Vec::new()) {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.kind, FailureKind::NotFound);
            assert!(failure.message.contains("no such file or directory"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_may_not_be_run_is_another_failure() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("");
    launch.spec.process.as_mut().unwrap().args = vec!["/tmp".to_owned()];
    match rig.client.request(Request::Launch(Box::new(launch)), Vec::new()) {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.kind, FailureKind::PermissionDenied, "{}", failure.message)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_launch_is_refused() {
    let mut rig = Rig::new();
    // The second launch takes the files away: the shell must need none of them any more.
    let mut first = rig.launch("read forever");
    first.stdio = Stdio::Pipes { stdin: StdinMode::Open };
    rig.start(first);
    match rig.client.request(Request::Launch(Box::new(rig.launch_again())), Vec::new()) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Conflict),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pausing_stops_and_goes_on() {
    let mut rig = Rig::new();
    rig.start(rig.launch("sleep 0.3; exit 5"));
    assert_eq!(rig.client.request(Request::Pause, Vec::new()).unwrap(), Response::Done);
    assert_eq!(rig.client.next_event().unwrap(), Event::Paused);
    match rig.client.request(Request::Status, Vec::new()).unwrap() {
        Response::Status(hello) => assert_eq!(hello.container.unwrap().phase, Phase::Paused),
        other => panic!("{other:?}"),
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!rig.path("exit.json").exists());
    rig.client.request(Request::Unpause, Vec::new()).unwrap();
    assert_eq!(rig.finish().exit.code, 5);
}

#[test]
fn terminals_have_a_size_and_one_stream() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("stty size; read line; stty size; echo $line >&2");
    let size = Some(monitor_protocol::WindowSize { height: 11, width: 22 });
    launch.stdio = Stdio::Terminal { stdin: StdinMode::Open, size };
    launch.spec.process.as_mut().unwrap().terminal = true;
    let mut client = rig.start_attached(launch, Framing::Raw);
    assert_eq!(crate::rig::read_until(&mut client, "\n"), "11 22\r\n");
    let size = monitor_protocol::WindowSize { height: 33, width: 44 };
    rig.client.request(Request::Resize { target: Target::Container, size }, Vec::new()).unwrap();
    std::io::Write::write_all(&mut client, b"hello\n").unwrap();
    assert_eq!(crate::rig::read_until(&mut client, "\r\nhello\r\n"), "hello\r\n33 44\r\nhello\r\n");
    assert_eq!(rig.finish().exit.code, 0);
}

#[test]
fn a_monitor_without_a_container_ends_with_its_daemon() {
    let rig = Rig::new();
    let pid = rig.pid();
    drop(rig);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn ps_shows_whose_monitor_it_is() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 100"));
    rig.wait_for_introduction();
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", rig.pid())).unwrap();
    assert!(shown.starts_with("conex-monitor conex-"), "{shown:?}");
}
