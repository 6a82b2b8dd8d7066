//! Log drivers: kept here first, then sent to sinks that are real but for their place.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use harness::Engine;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a container to its end whose output goes through a driver.
fn run(engine: &Engine, options: &[&str], script: &str) -> String {
    let mut arguments = vec!["run"];
    arguments.extend(options);
    arguments.extend(["busybox", "sh", "-c", script]);
    engine.docker(arguments).ok()
}

fn inspect(engine: &Engine, name: &str, format: &str) -> String {
    engine.docker(["inspect", "--format", format, name]).ok()
}

/// Waits until what is asked for is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn udp() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    (socket, address)
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 65536];
    let count = socket.recv(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn syslog_by_udp_tcp_and_a_unix_socket() {
    let engine = Engine::with_busybox();
    let (socket, address) = udp();
    let address = format!("syslog-address={address}");
    let options = ["--name", "one", "--log-driver", "syslog", "--log-opt", &address];
    let tagged = ["--log-opt", "tag={{.ImageName}}/{{.Name}}", "--log-opt", "syslog-facility=local3"];
    run(&engine, &[&options[..], &tagged].concat(), "echo out; echo err >&2");
    let both = [receive(&socket), receive(&socket)].map(|message| String::from_utf8(message).unwrap());
    let has = |priority: &str, text: &str| {
        let fits = |message: &&String| message.starts_with(priority) && message.ends_with(&format!("]: {text}\n"));
        both.iter().find(fits).is_some_and(|message| message.contains(" busybox/one["))
    };
    assert!(has("<158>", "out") && has("<155>", "err"), "{both:?}");
    // Kept here as well, as Docker's dual logging has it.
    assert_eq!(engine.docker(["logs", "one"]).ok(), "out");
    assert_eq!(inspect(&engine, "one", "{{.LogPath}}|{{.HostConfig.LogConfig.Type}}"), "|syslog");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("syslog-address=tcp://{}", listener.local_addr().unwrap());
    let format = ["--log-opt", "syslog-format=rfc5424micro"];
    let script = "for n in 1 2 3; do echo line $n; done";
    let options = ["--name", "two", "--log-driver", "syslog", "--log-opt", &address];
    run(&engine, &[&options[..], &format].concat(), script);
    let mut text = String::new();
    let mut stream = accept(&listener);
    while text.matches('\n').count() < 3 {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    for (line, number) in text.lines().zip(1..) {
        let words: Vec<&str> = line.splitn(8, ' ').collect();
        assert_eq!((words[0], words[6], words[7]), ("<30>1", "-", &*format!("line {number}")), "{line}");
    }
    let path = engine.host().files().join("log.sock");
    let local = UnixDatagram::bind(&path).unwrap();
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("syslog-address=unixgram://{}", path.display());
    run(&engine, &["--rm", "--log-driver", "syslog", "--log-opt", &address], "echo by the socket");
    let mut buffer = [0; 4096];
    let count = local.recv(&mut buffer).unwrap();
    assert!(buffer[..count].ends_with(b"]: by the socket\n"));
    engine.finish();
}

/// A GELF message from its datagrams, in whatever order they come.
fn gelf_message(socket: &UdpSocket) -> Value {
    let mut pieces = std::collections::BTreeMap::new();
    loop {
        let datagram = receive(socket);
        let packed = match datagram.strip_prefix(b"\x1e\x0f") {
            None => datagram,
            Some(piece) => {
                assert!(datagram.len() <= 1420);
                let (number, count) = (piece[8], piece[9]);
                pieces.insert(number, piece[10..].to_vec());
                if pieces.len() < usize::from(count) {
                    continue;
                }
                pieces.values().flatten().copied().collect()
            }
        };
        let mut gunzip = std::process::Command::new("gzip");
        let mut gunzip =
            gunzip.arg("-dc").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut stdin = gunzip.stdin.take().unwrap();
        stdin.write_all(&packed).unwrap();
        drop(stdin);
        return serde_json::from_slice(&gunzip.wait_with_output().unwrap().stdout).unwrap();
    }
}

#[test]
fn gelf_by_udp_in_pieces_and_by_tcp() {
    let engine = Engine::with_busybox();
    let (socket, address) = udp();
    let address = format!("gelf-address={address}");
    let gelf = ["--log-driver", "gelf", "--log-opt"];
    let labelled =
        ["--label", "app=shop", "--env", "STAGE=test", "--log-opt", "labels=app", "--log-opt", "env-regex=^STA"];
    run(&engine, &[&["--name", "one"], &gelf[..], &[&address], &labelled].concat(), "echo hello >&2");
    let message = gelf_message(&socket);
    assert_eq!(
        (&message["version"], &message["short_message"], &message["level"]),
        (&"1.1".into(), &"hello".into(), &3.into())
    );
    assert_eq!((&message["_app"], &message["_STAGE"]), (&"shop".into(), &"test".into()));
    assert_eq!((&message["_container_name"], &message["_image_name"]), (&"one".into(), &"busybox".into()));
    assert!(message["timestamp"].as_f64().unwrap() > 1.6e9);
    // What does not compress has to go in pieces.
    let noise = "head -c 9000 /dev/urandom | base64 | tr -d '\\n'; echo";
    run(&engine, &[&["--rm"], &gelf[..], &[&address]].concat(), noise);
    assert_eq!(gelf_message(&socket)["short_message"].as_str().unwrap().len(), 12_000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("gelf-address=tcp://{}", listener.local_addr().unwrap());
    run(&engine, &[&["--rm"], &gelf[..], &[&address]].concat(), "echo one; echo two");
    let mut bytes = Vec::new();
    let mut stream = accept(&listener);
    while bytes.iter().filter(|byte| **byte == 0).count() < 2 {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        bytes.extend_from_slice(&piece[..count]);
    }
    let texts: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|message| !message.is_empty())
        .map(|message| serde_json::from_slice::<Value>(message).unwrap()["short_message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["one", "two"]);
    engine.finish();
}

/// Reads one value of MessagePack.
fn unpack(stream: &mut impl Read) -> Value {
    fn take<const N: usize>(stream: &mut impl Read) -> [u8; N] {
        let mut bytes = [0; N];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }
    fn text(stream: &mut impl Read, length: usize) -> Value {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap().into()
    }
    match take::<1>(stream)[0] {
        head @ 0x80..=0x8f => {
            let pairs = (0..head & 15).map(|_| (unpack(stream).as_str().unwrap().to_owned(), unpack(stream)));
            Value::Object(pairs.collect())
        }
        head @ 0x90..=0x9f => (0..head & 15).map(|_| unpack(stream)).collect(),
        head @ 0xa0..=0xbf => text(stream, usize::from(head & 31)),
        0xd9 => {
            let length = take::<1>(stream)[0].into();
            text(stream, length)
        }
        0xda => {
            let length = u16::from_be_bytes(take(stream)).into();
            text(stream, length)
        }
        0xd3 => i64::from_be_bytes(take(stream)).into(),
        0xd7 => {
            assert_eq!(take::<1>(stream), [0], "the type of an EventTime");
            let (seconds, nanos) = (u32::from_be_bytes(take(stream)), u32::from_be_bytes(take(stream)));
            (f64::from(seconds) + f64::from(nanos) / 1e9).into()
        }
        other => panic!("unexpected {other:#x}"),
    }
}

#[test]
fn fluentd_with_acknowledgements_across_a_dead_sink_and_a_dead_engine() {
    let mut engine = Engine::with_busybox();
    // Nobody listens yet: the container neither waits nor ends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let address = format!("fluentd-address={place}");
    let options = [
        "-d",
        "--name",
        "one",
        "--log-driver",
        "fluentd",
        "--log-opt",
        &address,
        "--log-opt",
        "tag=app.{{.Name}}",
        "--log-opt",
        "fluentd-request-ack=true",
        "--log-opt",
        "fluentd-sub-second-precision=true",
    ];
    run(
        &engine,
        &options,
        "for n in 1 2 3; do echo first $n; done; read x < /dev/null; while [ ! -e /go ]; do sleep 0.1; done; echo second; sleep 1000",
    );
    wait_until("the log is written", || engine.docker(["logs", "one"]).ok().ends_with("first 3"));
    let state = |engine: &Engine| inspect(engine, "one", "{{json .State.Log}}");
    wait_until("the failure is told", || state(&engine).contains("cannot send to the sink"));
    let listener = TcpListener::bind(place).unwrap();
    let mut stream = accept(&listener);
    let next = |stream: &mut TcpStream| {
        let message = unpack(stream);
        let chunk = message[3]["chunk"].as_str().unwrap().to_owned();
        let mut answer = vec![0x81, 0xa3];
        answer.extend_from_slice(b"ack");
        answer.extend_from_slice(&[0xd9, chunk.len() as u8]);
        answer.extend_from_slice(chunk.as_bytes());
        stream.write_all(&answer).unwrap();
        assert_eq!((&message[0], message[1].as_f64().unwrap() > 1.6e9), (&"app.one".into(), true));
        assert_eq!((&message[2]["container_name"], &message[2]["source"]), (&"/one".into(), &"stdout".into()));
        message[2]["log"].as_str().unwrap().to_owned()
    };
    let first: Vec<String> = (0..3).map(|_| next(&mut stream)).collect();
    assert_eq!(first, ["first 1", "first 2", "first 3"]);
    wait_until("sending is told", || state(&engine).contains("\"Sent\":3"));
    assert!(state(&engine).contains("\"Dropped\":0"), "{}", state(&engine));
    // What is written while no engine runs is sent by the next one, and nothing twice.
    engine.docker(["exec", "one", "touch", "/tmp/ready"]).ok();
    engine.kill();
    drop(stream);
    let pid = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let root = entry.path().join("root/tmp/ready");
        root.exists().then(|| entry.path().join("root/go"))
    });
    std::fs::write(pid.expect("the container runs on"), "").unwrap();
    engine.launch();
    let mut stream = accept(&listener);
    assert_eq!(next(&mut stream), "second");
    engine.docker(["rm", "-f", "one"]).ok();
    engine.finish();
}

#[test]
fn the_journal_gets_fields() {
    let host = harness::Host::new();
    host.own("/run");
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    host.program("mount").args(["-t", "tmpfs", "tmpfs", "/run/systemd/journal"]).ok();
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let engine = Engine::start_in(host, harness::EngineOptions::default());
    engine.import_busybox();
    let options = ["--name", "one", "--label", "com.example/role=web", "--log-driver", "journald"];
    run(&engine, &[&options[..], &["--log-opt", "labels-regex=^com"]].concat(), "echo to the journal >&2");
    let mut buffer = [0; 65536];
    let count = journal.recv(&mut buffer).unwrap();
    let entry = std::str::from_utf8(&buffer[..count]).unwrap();
    let id = inspect(&engine, "one", "{{.Id}}");
    for field in [
        "MESSAGE=to the journal",
        "PRIORITY=3",
        &format!("CONTAINER_ID={}", &id[..12]),
        &format!("CONTAINER_ID_FULL={id}"),
        "CONTAINER_NAME=one",
        &format!("CONTAINER_TAG={}", &id[..12]),
        &format!("SYSLOG_IDENTIFIER={}", &id[..12]),
        "IMAGE_NAME=busybox",
        "COM_EXAMPLE_ROLE=web",
    ] {
        assert!(entry.lines().any(|line| line == field), "{field} is not in {entry}");
    }
    engine.docker(["rm", "one"]).ok();
    drop(journal);
    engine.finish();
}

#[test]
fn what_a_dead_sink_never_takes_is_counted() {
    let engine = Engine::with_busybox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("gelf-address=tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = [
        "--name",
        "one",
        "--log-driver",
        "gelf",
        "--log-opt",
        &address,
        "--log-opt",
        "cache-max-size=64k",
        "--log-opt",
        "cache-max-file=2",
        "--log-opt",
        "cache-compress=false",
    ];
    // Five thousand lines into two files of 64 KiB: most of them have to go. The container ends all the same.
    run(&engine, &options, "n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo line $n; done");
    let state = || -> Value { serde_json::from_str(&inspect(&engine, "one", "{{json .State.Log}}")).unwrap() };
    wait_until("lost lines are counted", || {
        state()["Dropped"].as_u64().unwrap() + state()["Gaps"].as_u64().unwrap() > 0
    });
    assert_eq!(state()["Sent"], 0);
    let metrics = engine.get("/metrics").ok();
    let failing = metrics.lines().find(|line| line.starts_with("conex_container_log_sink_failing{")).unwrap();
    assert!(failing.ends_with(" 1") && metrics.contains("conex_container_log_dropped_lines_total{"), "{metrics}");
    engine.docker(["rm", "one"]).ok();
    engine.finish();
}

#[test]
fn options_are_refused_in_dockers_words() {
    let engine = Engine::with_busybox();
    for (driver, option, message) in [
        ("syslog", "nosuch=1", "unknown log opt 'nosuch' for syslog log driver"),
        ("syslog", "syslog-address=1.2.3.4", "syslog-address should be in form proto://address, got 1.2.3.4"),
        ("gelf", "tag=x", "gelf-address is a required parameter"),
        ("fluentd", "fluentd-address=ftp://x", "unsupported scheme: 'ftp'"),
        ("journald", "tag={{.Nothing}}", "template: log-tag"),
        ("nosuch", "a=b", "logger: no log driver named 'nosuch' is registered"),
    ] {
        let refused = engine.docker(["create", "--log-driver", driver, "--log-opt", option, "busybox"]).fails(1);
        assert!(refused.contains(message), "{refused}");
    }
    let unread = ["--name", "one", "--log-driver", "journald", "--log-opt", "cache-disabled=true"];
    run(&engine, &unread, "echo x");
    let refused = engine.docker(["logs", "one"]).fails(1);
    assert!(refused.contains("configured logging driver does not support reading"), "{refused}");
    engine.finish();
}
