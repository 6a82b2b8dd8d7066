//! Clients that come and go.

use std::io::Write;
use std::net::Shutdown;

use monitor_protocol::{AttachEnd, DetachKeys, Event, Framing, Request, StdinMode, Stdio, Streams, Target};

use crate::rig::{Rig, read_all, read_until};

#[test]
fn input_ends_with_the_client_and_output_goes_on() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("cat; echo end");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Once };
    let mut client = rig.start_attached(launch, Framing::Raw);
    client.write_all(b"input\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rig.finish();
    assert_eq!(read_all(client), "input\nend\n");
}

#[test]
fn input_sent_behind_the_request_comes_first() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("cat");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Once };
    let (mut attach, mut client, theirs) = rig.new_client(Target::Container, Framing::Raw);
    attach.early_input = b"early ".to_vec();
    launch.attaches = vec![attach];
    rig.start_with(launch, vec![theirs]);
    client.write_all(b"late").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rig.finish();
    assert_eq!(read_all(client), "early late");
}

#[test]
fn the_daemon_can_end_the_input() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("cat; echo end");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Open };
    let client = rig.start_attached(launch, Framing::Raw);
    rig.client.request(Request::CloseStdin { target: Target::Container }, Vec::new()).unwrap();
    rig.finish();
    assert_eq!(read_all(client), "end\n");
}

#[test]
fn detach_keys_leave_the_container_running() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("read a; echo got $a; read b; echo got $b");
    launch.stdio = Stdio::Terminal { stdin: StdinMode::Open, size: None };
    launch.spec.process.as_mut().unwrap().terminal = true;
    rig.start(launch);
    let keys = DetachKeys::standard();
    let mut first = rig.attach_with(Target::Container, Framing::Raw, |attach| attach.detach_keys = keys.clone());
    first.write_all(b"one\n").unwrap();
    read_until(&mut first, "got one\r\n");
    first.write_all(b"\x10\x11").unwrap();
    assert_eq!(read_all(first), "");
    let why = rig.wait_for(|event| match event {
        Event::AttachEnded { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why, AttachEnd::DetachKeys);
    let mut second = rig.attach(Target::Container, Framing::Raw);
    second.write_all(b"two\n").unwrap();
    assert_eq!(rig.finish().exit.code, 0);
    assert!(read_all(second).ends_with("got two\r\n"));
}

#[test]
fn the_daemon_can_hang_up_on_a_client() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 100"));
    let (attach, client, theirs) = rig.new_client(Target::Container, Framing::Raw);
    let id = attach.id;
    rig.client.request(Request::Attach(attach), vec![theirs]).unwrap();
    rig.client.request(Request::Detach { attach: id }, Vec::new()).unwrap();
    assert_eq!(read_all(client), "");
}

#[test]
fn a_slow_client_gets_everything_though_the_container_is_gone() {
    let mut rig = Rig::new();
    let client = rig.start_attached(rig.launch("seq 1 200000"), Framing::Raw);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!rig.path("exit.json").exists(), "the client should have held it back");
    let reader = std::thread::spawn(|| read_all(client));
    let finished = rig.finish();
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(reader.join().unwrap().len(), expected.len());
    assert_eq!(finished.logged().len(), expected.len());
}

#[test]
fn output_only_clients_give_no_input() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("read line && echo $line");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Open };
    rig.start(launch);
    let mut listener = rig.attach_with(Target::Container, Framing::Raw, |attach| attach.streams = Streams::OUTPUT);
    listener.write_all(b"ignored\n").unwrap();
    let mut speaker = rig.attach(Target::Container, Framing::Raw);
    speaker.write_all(b"heard\n").unwrap();
    rig.finish();
    assert_eq!(read_all(listener), "heard\n");
}
