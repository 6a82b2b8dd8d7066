//! Log drivers: kept here first, then sent to sinks that are real but for their place.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use harness::Engine;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use crate::waits::{PATIENCE, read_until, wait_until};

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

/// Fails where nobody ever connects.
#[track_caller]
fn wait_for_client(listener: &impl std::os::fd::AsFd) {
    let patience = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    let mut client = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(poll(&mut client, Some(&patience)).unwrap(), 1, "nobody connects");
}

fn accept(listener: &TcpListener) -> TcpStream {
    wait_for_client(listener);
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

/// The next connection to a unix socket.
fn accept_unix(listener: &UnixListener) -> UnixStream {
    wait_for_client(listener);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn syslog_by_stream_sockets_of_this_machine() {
    let host = harness::Host::new();
    // Where a syslog without an address is looked for, after /dev/log.
    host.program("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).ok();
    let usual = UnixListener::bind("/run/syslog").unwrap();
    let engine = Engine::start_in(host, harness::EngineOptions::default());
    engine.import_busybox();
    run(&engine, &["--rm", "--log-driver", "syslog", "--log-opt", "tag=here"], "echo one; echo two");
    let text = read_until(&mut accept_unix(&usual), "two\n");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("<30>") && lines[0].contains(" here["), "{text}");
    let path = engine.host().files().join("stream.sock");
    let named = UnixListener::bind(&path).unwrap();
    let address = format!("syslog-address=unix://{}", path.display());
    run(&engine, &["--rm", "--log-driver", "syslog", "--log-opt", &address], "echo three");
    assert!(read_until(&mut accept_unix(&named), "\n").ends_with("]: three\n"));
    engine.finish();
}

/// A sink that speaks TLS: openssl's own server, which prints what it is sent.
struct TlsSink {
    server: std::process::Child,
    printed: std::process::ChildStdout,
}

impl TlsSink {
    fn start(engine: &Engine, port: u16, options: &[&str]) -> Self {
        let openssl = engine.host().program("openssl").args(["s_server", "-quiet", "-accept", &port.to_string()]);
        let mut server = openssl.args(options).spawn();
        let printed = server.stdout.take().unwrap();
        wait_until("the sink listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { server, printed }
    }
}

impl Drop for TlsSink {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn syslog_over_tls() {
    let engine = Engine::with_busybox();
    let folder = crate::cli::certificates(engine.host());
    let file = |name: &str| folder.join(name).display().to_string();
    let keys = ["-cert", &file("server.pem"), "-key", &file("server-key.pem"), "-CAfile", &file("ca.pem")];
    let mut sink = TlsSink::start(&engine, 6514, &[&keys[..], &["-Verify", "1", "-verify_return_error"]].concat());
    let syslog = |name: &str, options: &[String], script: &str| {
        let fixed = ["--name", name, "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://127.0.0.1:6514"];
        let options = options.iter().flat_map(|option| ["--log-opt", option]);
        run(&engine, &fixed.into_iter().chain(options).collect::<Vec<_>>(), script);
    };
    let ca = format!("syslog-tls-ca-cert={}", file("ca.pem"));
    let identity = [format!("syslog-tls-cert={}", file("cert.pem")), format!("syslog-tls-key={}", file("key.pem"))];
    let fails = |name: &str| {
        let state = || inspect(&engine, name, "{{json .State.Log}}");
        wait_until("the failure is told", || state().contains("cannot send to the sink"));
        engine.docker(["rm", name]).ok();
    };
    // Whom nobody vouches for is sent nothing, and the container does not mind.
    syslog("unknown", &identity, "echo secret");
    fails("unknown");
    // The sink wants to know who is there.
    syslog("nobody", std::slice::from_ref(&ca), "echo secret");
    fails("nobody");
    let all = [&identity[..], &[ca, "syslog-format=rfc5424".to_owned(), "tag=t".to_owned()]].concat();
    syslog("known", &all, "echo one; echo two");
    let text = read_until(&mut sink.printed, "two\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, word) in lines.iter().zip(["one", "two"]) {
        let (length, message) = line.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len() + 1, "a message's length comes first (RFC 5425)");
        assert!(message.starts_with("<30>1 ") && message.ends_with(&format!(" - {word}")), "{message}");
    }
    drop(sink);
    let mut sink = TlsSink::start(&engine, 6514, &keys[..4]);
    syslog("trusting", &["syslog-tls-skip-verify=true".to_owned()], "echo anybody");
    assert!(read_until(&mut sink.printed, "\n").ends_with("]: anybody\n"));
    let half =
        ["create", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://127.0.0.1:6514", "--log-opt"];
    let refused = engine.docker([&half[..], &[&*identity[0], "busybox"]].concat()).fails(1);
    assert!(refused.contains("syslog-tls-key"), "{refused}");
    drop(sink);
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
fn gelf_is_compressed_as_it_is_told() {
    let engine = Engine::with_busybox();
    let (socket, address) = udp();
    let address = format!("gelf-address={address}");
    let send = |options: &[&str]| {
        let options = options.iter().flat_map(|option| ["--log-opt", option]);
        let all = ["--rm", "--log-driver", "gelf", "--log-opt", &address].into_iter().chain(options);
        run(&engine, &all.collect::<Vec<_>>(), "echo hello hello hello hello");
        receive(&socket)
    };
    let text = |mut unpacked: Box<dyn Read + '_>| {
        let mut bytes = Vec::new();
        unpacked.read_to_end(&mut bytes).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["short_message"].as_str().unwrap().to_owned()
    };
    let plain = send(&["gelf-compression-type=none"]);
    assert_eq!(text(Box::new(&plain[..])), "hello hello hello hello");
    let zlib = send(&["gelf-compression-type=zlib"]);
    assert_eq!(text(Box::new(flate2::read::ZlibDecoder::new(&zlib[..]))), "hello hello hello hello");
    let gzip = |level: &str| send(&["gelf-compression-type=gzip", &format!("gelf-compression-level={level}")]);
    let (stored, best) = (gzip("0"), gzip("9"));
    for packed in [&stored, &best] {
        assert_eq!(text(Box::new(flate2::read::GzDecoder::new(&packed[..]))), "hello hello hello hello");
    }
    assert!(stored.len() > plain.len() && best.len() < plain.len(), "{} {}", stored.len(), best.len());
    // What says how often and how fast to try again is refused: it is tried as long as the lines are kept here.
    for (address, option, message) in [
        ("tcp://127.0.0.1", "gelf-tcp-max-reconnect=3", "log opt 'gelf-tcp-max-reconnect' is not built"),
        ("tcp://127.0.0.1", "gelf-tcp-reconnect-delay=1", "log opt 'gelf-tcp-reconnect-delay' is not built"),
        ("udp://127.0.0.1", "gelf-tcp-max-reconnect=3", "\"gelf-tcp-max-reconnect\" is only valid for TCP"),
        ("tcp://127.0.0.1", "gelf-compression-type=zlib", "compression is only supported on UDP"),
        ("udp://127.0.0.1", "gelf-compression-level=10", "unknown value \"10\" for log opt \"gelf-compression-level\""),
    ] {
        let address = format!("gelf-address={address}");
        let create = ["create", "--log-driver", "gelf", "--log-opt", &address, "--log-opt", option, "busybox"];
        let refused = engine.docker(create).fails(1);
        assert!(refused.contains(message), "{refused}");
    }
    engine.finish();
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
fn fluentd_by_a_unix_socket() {
    let engine = Engine::with_busybox();
    let path = engine.host().files().join("fluentd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let address = format!("fluentd-address=unix://{}", path.display());
    run(&engine, &["--name", "one", "--log-driver", "fluentd", "--log-opt", &address], "echo one; echo two >&2");
    let mut stream = accept_unix(&listener);
    let both = [unpack(&mut stream), unpack(&mut stream)].map(|message| {
        let text = |field: &str| message[2][field].as_str().unwrap().to_owned();
        format!("{} {} {}", text("container_name"), text("source"), text("log"))
    });
    let mut sorted = both.clone();
    sorted.sort();
    assert_eq!(sorted, ["/one stderr two", "/one stdout one"]);
    engine.docker(["rm", "one"]).ok();
    engine.finish();
}

/// The process that writes a container's log in the non-blocking mode.
fn log_writer(id: &str) -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.into_iter().find(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("--write-log") && line.contains(id)
    });
    found.expect("the writer runs").file_name().into_string().unwrap()
}

#[test]
fn in_the_non_blocking_mode_a_disk_that_hangs_holds_nobody_up_and_lost_lines_are_counted() {
    const LINES: u64 = 20_000;
    let engine = Engine::with_busybox();
    let options = ["-d", "--name", "one", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"];
    let script = format!(
        "while [ ! -e /go ]; do sleep 0.1; done; n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo number $n; done; \
         touch /done; while [ ! -e /end ]; do sleep 0.1; done"
    );
    let id = run(&engine, &options, &script);
    let signal = |name: &str, pid: &str| engine.host().program("kill").args([name, pid]).ok();
    let writer = log_writer(&id);
    // A writer that does not go on is a disk that hangs, to whoever waits for it.
    signal("-STOP", &writer);
    engine.docker(["exec", "one", "touch", "/go"]).ok();
    wait_until("the container goes on", || engine.docker(["exec", "one", "test", "-e", "/done"]).run().code == 0);
    let lost = || inspect(&engine, "one", "{{.State.Log.Dropped}}").parse::<u64>().unwrap_or_default();
    wait_until("lost lines are told while it runs", || lost() > 0);
    signal("-CONT", &writer);
    engine.docker(["exec", "one", "touch", "/end"]).ok();
    engine.docker(["wait", "one"]).ok();
    let kept = engine.docker(["logs", "one"]).ok().lines().count() as u64;
    assert!(kept > 0 && kept < LINES, "{kept}");
    wait_until("every lost line is counted", || lost() + kept == LINES);
    let told = format!("{} not written here in time", LINES - kept);
    let why = engine.conex(["why", "one"]).ok();
    assert!(why.contains(&told), "{why}");
    let metrics = engine.get("/metrics").ok();
    let counted = metrics.lines().find(|line| line.starts_with("conex_container_log_dropped_lines_total{")).unwrap();
    assert!(counted.ends_with(&format!(" {}", LINES - kept)), "{counted}");
    assert!(engine.log().contains("the buffer of the non-blocking log is full"), "{}", engine.log());
    let refused = engine.docker(["create", "--log-opt", "max-buffer-size=1m", "busybox"]).fails(1);
    assert!(refused.contains("only supported with 'mode=non-blocking'"), "{refused}");
    engine.docker(["rm", "one"]).ok();
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
        ("nosuch", "a=b", "error looking up logging plugin nosuch: plugin \"nosuch\" not found"),
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
