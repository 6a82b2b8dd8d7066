//! What a daemon asks of a running container.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use monitor_protocol::stats::CgroupVersion;
use monitor_protocol::{
    ClientError, Decoder, Event, FailureKind, FdIndex, Framing, FromMonitor, Request, Response, Rootfs, StdinMode,
    Stdio, Target, Waiting, socket,
};
use oci::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags, openat};

use crate::rig::{Rig, read_all, read_until};

fn memory_limit(bytes: u64) -> LinuxResources {
    serde_json::from_value(serde_json::json!({"memory": {"limit": bytes}})).unwrap()
}

#[test]
fn lack_of_memory_is_told() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("dd if=/dev/zero of=/dev/null bs=100M count=1; echo $?");
    launch.spec.linux.as_mut().unwrap().resources = Some(memory_limit(20 << 20));
    let client = rig.start_attached(launch, Framing::Raw);
    rig.wait_for(|event| matches!(event, Event::OutOfMemory { .. }).then_some(()));
    let finished = rig.finish();
    assert!(finished.exit.oom_killed);
    assert!(read_all(client).contains("137\n"));
}

#[test]
fn numbers_and_limits_are_the_cgroups() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("echo up; exec sleep 1000");
    launch.spec.linux.as_mut().unwrap().resources = Some(memory_limit(64 << 20));
    let mut client = rig.start_attached(launch, Framing::Raw);
    read_until(&mut client, "up\n");
    let stats = |rig: &mut Rig| match rig.client.request(Request::Stats, Vec::new()).unwrap() {
        Response::Stats(stats) => *stats,
        other => panic!("{other:?}"),
    };
    let before = stats(&mut rig);
    assert_eq!((before.pids.current, before.memory.limit_bytes), (1, Some(64 << 20)));
    assert!(before.memory.usage_bytes > 0 && before.cpu.total_ns > 0);
    assert!(!before.memory.details.is_empty());
    assert!(matches!(before.cgroup, CgroupVersion::V1 | CgroupVersion::V2));
    let resources = Box::new(memory_limit(32 << 20));
    assert_eq!(rig.client.request(Request::Update { resources }, Vec::new()).unwrap(), Response::Done);
    assert_eq!(stats(&mut rig).memory.limit_bytes, Some(32 << 20));
}

#[test]
fn processes_are_listed() {
    let mut rig = Rig::new();
    let mut client = rig.start_attached(rig.launch("sleep 1000 & echo up; wait"), Framing::Raw);
    read_until(&mut client, "up\n");
    match rig.client.request(Request::Top, Vec::new()).unwrap() {
        Response::Pids(pids) => assert_eq!(pids.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_root_is_handed_over_though_nobody_sees_its_mount() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("echo inside > /file; echo up; exec sleep 1000");
    let [upper, work] = ["upper", "work"].map(|name| rig.path(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    launch.rootfs = Rootfs::Overlay { lower: vec![rig.path("root")], upper: upper.clone(), work, options: Vec::new() };
    let mut client = rig.start_attached(launch, Framing::Raw);
    read_until(&mut client, "up\n");
    let (response, mut fds) = rig.client.request_with_fds(Request::RootfsFd, Vec::new()).unwrap();
    assert_eq!((response, fds.len()), (Response::Rootfs { fd: FdIndex(0) }, 1));
    let file = openat(fds.remove(0), "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside\n");
    assert_eq!(fs::read_to_string(upper.join("file")).unwrap(), "inside\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(upper.to_str().unwrap()));
}

#[test]
fn a_network_namespace_can_be_given() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("ls -l /proc/self/ns/net");
    let (mut attach, client, theirs) = rig.new_client(Target::Container, Framing::Raw);
    attach.socket = FdIndex(1);
    launch.attaches = vec![attach];
    launch.network_namespace = Some(FdIndex(0));
    let own: OwnedFd = File::open("/proc/self/ns/net").unwrap().into();
    rig.start_with(launch, vec![own, theirs]);
    rig.finish();
    let expected = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(read_all(client).contains(expected.to_str().unwrap()));
}

#[test]
fn descriptors_that_are_not_there_are_refused() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    let (attach, _client, _theirs) = rig.new_client(Target::Container, Framing::Raw);
    match rig.client.request(Request::Attach(attach), Vec::new()) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Invalid),
        other => panic!("{other:?}"),
    }
}

/// Sends a frame as it is, over a connection of its own, and returns what comes back behind the greeting.
fn answer_to(rig: &Rig, body: &str) -> Option<FromMonitor> {
    let mut stream: UnixStream = socket::connect(&rig.path("monitor.sock")).unwrap();
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body.as_bytes());
    stream.write_all(&bytes).unwrap();
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        if socket::receive(stream.as_fd(), &mut decoder, Waiting::Block).unwrap() == 0 {
            return None;
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(FromMonitor::from_json(&frame.body).unwrap());
        }
    }
    frames.pop()
}

#[test]
fn requests_of_other_versions_are_answered() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    match answer_to(&rig, r#"{"id":7,"request":{"Dance":{"steps":3}},"newer":true}"#) {
        Some(FromMonitor::Reply(reply)) => {
            assert_eq!((reply.id.0, reply.result.unwrap_err().kind), (7, FailureKind::Unsupported));
        }
        other => panic!("{other:?}"),
    }
    match answer_to(&rig, r#"{"id":8,"request":"Top","newer":true}"#) {
        Some(FromMonitor::Reply(reply)) => assert!(matches!(reply.result, Ok(Response::Pids(_)))),
        other => panic!("{other:?}"),
    }
    // Whoever cannot even frame a message is hung up on, and nobody else is.
    let mut stranger = socket::connect(&rig.path("monitor.sock")).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stranger.read_to_end(&mut rest);
    assert!(matches!(rig.client.request(Request::Top, Vec::new()), Ok(Response::Pids(_))));
}

#[test]
fn what_needs_a_container_is_refused_before_and_after_it() {
    let mut rig = Rig::new();
    match rig.client.request(Request::Top, Vec::new()) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::NotRunning),
        other => panic!("{other:?}"),
    }
    // A client that has not fetched its output keeps the monitor here.
    let mut launch = rig.launch("seq 1 100000");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Null };
    let _client = rig.start_attached(launch, Framing::Raw);
    match rig.client.request(Request::Shutdown, Vec::new()) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Conflict),
        other => panic!("{other:?}"),
    }
}
