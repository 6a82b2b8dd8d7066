//! The driver against a stand-in that speaks systemd's side of the conversation.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::bus::Peer;
use super::wire::{FIXED_LENGTH, Writer, body_texts, parse, rest_length, stand_in};
use super::*;

/// How the stand-in answers `StartTransientUnit` and `StopUnit`.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Obliging,
    Failing,
    /// The first unit is there already, and has failed.
    Reluctant,
    Refusing,
}

/// Serves one conversation and gives back the members that were called.
fn serve(listener: &UnixListener, mood: Mood) -> Vec<String> {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    greet(&mut reader, &stream);
    let mut called: Vec<String> = Vec::new();
    loop {
        let mut fixed = [0; FIXED_LENGTH];
        if reader.read_exact(&mut fixed).is_err() {
            return called;
        }
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED_LENGTH + rest_length(&fixed).unwrap(), 0);
        reader.read_exact(&mut bytes[FIXED_LENGTH..]).unwrap();
        let call = parse(&bytes).unwrap();
        let is_first = !called.contains(&call.member);
        called.push(call.member.clone());
        let refuse = |name: &str| stand_in::error(9, call.serial, name, "no");
        let answer = match (call.member.as_str(), mood) {
            ("StartTransientUnit", Mood::Reluctant) if is_first => refuse("org.freedesktop.systemd1.UnitExists"),
            ("StartTransientUnit", Mood::Refusing) => refuse("org.freedesktop.DBus.Error.AccessDenied"),
            ("StopUnit", Mood::Refusing) => refuse("org.freedesktop.systemd1.NoSuchUnit"),
            ("StartTransientUnit" | "StopUnit", _) => {
                assert!(body_texts(&call, "ss").unwrap()[0].ends_with(".scope"));
                let result = if matches!(mood, Mood::Failing) { "failed" } else { "done" };
                [removed(1, "/job/other", "done"), job_reply(call.serial), removed(2, "/job/7", result)].concat()
            }
            _ => stand_in::reply(9, call.serial, "", &[]),
        };
        (&stream).write_all(&answer).unwrap();
    }
}

fn greet(reader: &mut BufReader<UnixStream>, mut stream: &UnixStream) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("\0AUTH EXTERNAL 3"), "{line:?}");
    stream.write_all(b"OK 1234deadbeef\r\n").unwrap();
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "BEGIN\r\n");
}

fn job_reply(to: u32) -> Vec<u8> {
    let mut body = Writer::default();
    body.text("/job/7");
    stand_in::reply(9, to, "o", &body.into_bytes())
}

fn removed(id: u32, job: &str, result: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(id);
    [job, "x.scope", result].iter().for_each(|text| body.text(text));
    stand_in::signal(9, "JobRemoved", "uoss", &body.into_bytes())
}

fn with_stand_in<T>(mood: Mood, peer: Peer, talk: impl FnOnce(&mut Connection) -> T) -> (T, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, mood));
        let mut connection = Connection::connect(&path, peer).unwrap();
        let result = talk(&mut connection);
        drop(connection);
        (result, server.join().unwrap())
    })
}

fn properties() -> Vec<Property> {
    SystemdUnit::parse("system.slice:conex:x").unwrap().properties(Version::V2, 1, &LinuxResources::default())
}

#[test]
fn a_scope_is_started_and_stopped() {
    let (result, called) = with_stand_in(Mood::Obliging, Peer::Systemd, |connection| {
        connection.start_transient_unit("conex-x.scope", &properties())?;
        connection.set_unit_properties("conex-x.scope", &[("TasksMax".to_owned(), Value::U64(5))])?;
        connection.stop_unit("conex-x.scope")
    });
    result.unwrap();
    assert_eq!(called, ["Subscribe", "StartTransientUnit", "SetUnitProperties", "StopUnit", "ResetFailedUnit"]);
}

#[test]
fn the_bus_is_greeted_first() {
    let (result, called) = with_stand_in(Mood::Obliging, Peer::Bus, |connection| connection.stop_unit("conex-x.scope"));
    result.unwrap();
    assert_eq!(called, ["Hello", "AddMatch", "Subscribe", "StopUnit", "ResetFailedUnit"]);
}

#[test]
fn failures_are_reported() {
    let start = |connection: &mut Connection| connection.start_transient_unit("conex-x.scope", &properties());
    let error = with_stand_in(Mood::Failing, Peer::Systemd, start).0.unwrap_err();
    assert_eq!(error.to_string(), "systemd's job for conex-x.scope ended with failed");
    let error = with_stand_in(Mood::Refusing, Peer::Systemd, start).0.unwrap_err();
    assert_eq!(error.to_string(), "systemd refuses StartTransientUnit: no (org.freedesktop.DBus.Error.AccessDenied)");
    let (result, called) = with_stand_in(Mood::Reluctant, Peer::Systemd, start);
    result.unwrap();
    assert_eq!(called, ["Subscribe", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
    // A unit that is gone is stopped.
    with_stand_in(Mood::Refusing, Peer::Systemd, |connection| connection.stop_unit("conex-x.scope")).0.unwrap();
}

#[test]
fn units_are_parsed() {
    let unit = |text: &str| {
        let unit = SystemdUnit::parse(text).unwrap();
        (unit.name().to_owned(), unit.cgroup_path().unwrap().to_string())
    };
    assert_eq!(unit("system.slice:docker:abc"), ("docker-abc.scope".into(), "/system.slice/docker-abc.scope".into()));
    assert_eq!(unit(":conex:abc").1, "/system.slice/conex-abc.scope");
    assert_eq!(unit("user-1000.slice::abc").1, "/user.slice/user-1000.slice/abc.scope");
    assert_eq!(unit("-.slice:p:abc").1, "/p-abc.scope");
    assert_eq!(unit("kube.slice:p:pod.slice"), ("pod.slice".into(), "/kube.slice/pod.slice".into()));
    for bad in [
        "",
        "a",
        "a:b",
        "a:b:c:d",
        "a:b:c",
        "a/b.slice:p:x",
        "a--b.slice:p:x",
        "x.slice:p:",
        "x.slice:p:a/b",
        "..slice/..:p:x",
    ] {
        assert!(SystemdUnit::parse(bad).is_err(), "{bad:?} was taken");
    }
}

#[test]
fn without_systemd_the_error_says_so() {
    if std::path::Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let host = Host::detect().unwrap();
    let unit = SystemdUnit::parse("system.slice:conex:x").unwrap();
    let error = Cgroup::create_systemd(&host, &unit, 1, &LinuxResources::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "systemd is not running on this machine, or not for this user: use the cgroupfs driver"
    );
}

#[test]
fn annotations_come_along() {
    let unit = SystemdUnit::parse("system.slice:conex:x").unwrap().with_property("CollectMode", "'inactive'").unwrap();
    let properties = unit.properties(Version::V1, 42, &LinuxResources::default());
    assert!(properties.contains(&("CollectMode".to_owned(), Value::Text("inactive".to_owned()))));
    assert!(properties.contains(&("PIDs".to_owned(), Value::Pids(vec![42]))));
    assert!(unit.with_property("CollectMode", "?").is_err());
}
