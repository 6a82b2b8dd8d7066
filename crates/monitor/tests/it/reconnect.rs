//! Daemons die; containers do not.

use std::fs;

use monitor_protocol::{Client, Framing, MonitorRecord, Phase, Request, StdinMode, Stdio, Target};

use crate::rig::{Rig, logged, read_until};

#[test]
fn a_new_daemon_finds_the_whole_state() {
    let mut rig = Rig::new();
    let pid = rig.start(rig.launch("exec sleep 1000"));
    let _client = rig.exec("session", "exec sleep 1000", Stdio::Pipes { stdin: StdinMode::Null }).unwrap();
    rig.wait_for_introduction();
    let record: MonitorRecord = serde_json::from_slice(&fs::read(rig.path("monitor.json")).unwrap()).unwrap();
    assert_eq!((record.pid, record.monitor_pid), (pid, rig.pid() as i32));
    assert!(record.monitor_start_ticks > 0 && record.pid_start_ticks >= record.monitor_start_ticks);
    rig.lose_daemon();
    let status = rig.client.hello().container.clone().unwrap();
    assert_eq!((status.id.as_str(), status.pid, status.phase), (rig.id().as_str(), pid, Phase::Running));
    assert_eq!(status.execs.iter().map(|exec| exec.id.0.as_str()).collect::<Vec<_>>(), ["session"]);
    assert_eq!(status.attached.len(), 1);
}

#[test]
fn nothing_is_lost_while_nobody_listens() {
    let mut rig = Rig::new();
    // 20 MB, in the time that 10 MB/s would take when nobody slows it down.
    let mut launch = rig.launch("seq 1 2800000; echo the end; exit 3");
    let monitor_protocol::LogConfig::JsonFile(json) = &mut launch.log else { panic!("a json-file log") };
    json.max_size_bytes = None;
    rig.start(launch);
    for _ in 0..20 {
        rig.lose_daemon();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let finished = rig.finish();
    assert_eq!(finished.exit.code, 3);
    let mut expected: String = (1..=2_800_000).map(|number| format!("{number}\n")).collect();
    expected += "the end\n";
    assert!(finished.logged() == expected, "the log differs");
}

#[test]
fn an_end_that_nobody_saw_is_on_disk() {
    let mut rig = Rig::new();
    rig.start(rig.launch("read x < /dev/null; sleep 0.2; echo done; exit 42"));
    // The socket is dropped, and no other daemon comes.
    drop(std::mem::replace(&mut rig.client, silent_client()));
    rig.wait_for_monitor();
    let record = fs::read_to_string(rig.path("exit.json")).unwrap();
    assert!(record.contains("\"code\":42"), "{record}");
    assert_eq!(logged(&rig.log_path()), "done\n");
}

/// A client of nobody, to put in the place of the one that is dropped.
fn silent_client() -> Client {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut outbox = monitor_protocol::Outbox::new();
    let hello = monitor_protocol::Hello { version: 0, monitor_pid: 0, container: None };
    outbox.push(&monitor_protocol::FromMonitor::Hello(Box::new(hello)), Vec::new()).unwrap();
    outbox.flush(std::os::fd::AsFd::as_fd(&theirs), monitor_protocol::Waiting::Block).unwrap();
    Client::over(ours).unwrap()
}

#[test]
fn clients_stay_attached_while_daemons_change() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("while read line; do echo got $line; done");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Open };
    let mut client = rig.start_attached(launch, Framing::Raw);
    for number in 0..3 {
        rig.lose_daemon();
        std::io::Write::write_all(&mut client, format!("{number}\n").as_bytes()).unwrap();
        assert_eq!(read_until(&mut client, "\n"), format!("got {number}\n"));
    }
    let mut later = rig.attach(Target::Container, Framing::Raw);
    std::io::Write::write_all(&mut later, b"later\n").unwrap();
    assert_eq!(read_until(&mut client, "\n"), "got later\n");
    rig.client.request(Request::CloseStdin { target: Target::Container }, Vec::new()).unwrap();
    assert_eq!(rig.finish().exit.code, 0);
}

#[test]
fn several_daemons_may_listen_at_once() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    let mut others: Vec<Client> = (0..5).map(|_| Client::connect(&rig.path("monitor.sock")).unwrap()).collect();
    rig.client.request(Request::Pause, Vec::new()).unwrap();
    for other in &mut others {
        assert_eq!(other.next_event().unwrap(), monitor_protocol::Event::Paused);
    }
    rig.client.request(Request::Unpause, Vec::new()).unwrap();
}
