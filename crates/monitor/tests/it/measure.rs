//! What things cost. Run with `--ignored --nocapture`, and against the small profile (`CONEX_PROGRAMS`).

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use monitor_protocol::{Event, Framing, StdinMode, Stdio};

use crate::rig::{Rig, read_all};

const ROUNDS: usize = 100;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what:32} min {:>9.1?}  median {:>9.1?}  p99 {:>9.1?}", at(0), at(50), at(99));
}

#[test]
#[ignore = "a measurement, not a check"]
fn start_and_end() {
    let (mut warm, mut started, mut ended, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut rig = Rig::new();
        warm.push(begun.elapsed());
        let mut launch = rig.launch("");
        launch.spec.process.as_mut().unwrap().args = vec!["/bin/true".to_owned()];
        let begun = Instant::now();
        rig.start(launch);
        started.push(begun.elapsed());
        rig.wait_for(|event| matches!(event, Event::Exited(_)).then_some(()));
        ended.push(begun.elapsed());
        rig.wait_for(|event| matches!(event, Event::CleanedUp).then_some(()));
        gone.push(begun.elapsed());
    }
    report("spawn to hello", warm);
    report("launch to started", started);
    report("launch to exited (true)", ended);
    report("launch to cleaned up", gone);
}

#[test]
#[ignore = "a measurement, not a check"]
fn exec_sessions() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let id = format!("s{round}");
        let mut process = crate::spec::shell_process("");
        process.args = vec!["/bin/true".to_owned()];
        let begun = Instant::now();
        let client = rig.exec_process(&id, process, Stdio::Pipes { stdin: StdinMode::Null }).unwrap();
        started.push(begun.elapsed());
        rig.finish_exec(&id);
        read_all(client);
        ended.push(begun.elapsed());
    }
    report("exec to started", started);
    report("exec to end of stream", ended);
}

#[test]
#[ignore = "a measurement, not a check"]
fn memory_of_an_idle_monitor() {
    let mut rig = Rig::new();
    println!(
        "warm:    private dirty {} kB, pss {} kB, rss {} kB",
        rig.memory_kb("Private_Dirty"),
        rig.memory_kb("Pss:"),
        rig.memory_kb("Rss")
    );
    rig.start(rig.launch("exec sleep 1000"));
    std::thread::sleep(Duration::from_millis(100));
    println!(
        "running: private dirty {} kB, pss {} kB, rss {} kB",
        rig.memory_kb("Private_Dirty"),
        rig.memory_kb("Pss:"),
        rig.memory_kb("Rss")
    );
}

/// User and system time of a process so far.
fn cpu_times(pid: u32) -> [Duration; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    [fields[0], fields[1]].map(|ticks| Duration::from_millis(ticks * 10))
}

#[test]
#[ignore = "a measurement, not a check"]
fn a_hundred_megabytes_of_log() {
    for (what, line) in [("lines of 100 bytes", 99), ("lines of 10 bytes", 9)] {
        let mut rig = Rig::new();
        let text = "x".repeat(line);
        let mut launch = rig.launch(&format!("yes {text} | head -c 100000000; read done"));
        launch.stdio = Stdio::Pipes { stdin: StdinMode::Open };
        if let monitor_protocol::LogConfig::JsonFile(json) = &mut launch.log {
            json.max_size_bytes = Some(1 << 40);
        }
        let begun = Instant::now();
        let client = rig.start_attached(launch, Framing::Multiplexed);
        drain(client, 100_000_000);
        println!(
            "100 MB in {what}: {:.2?}, processor time user and system {:.2?}",
            begun.elapsed(),
            cpu_times(rig.pid())
        );
        rig.client
            .request(monitor_protocol::Request::CloseStdin { target: monitor_protocol::Target::Container }, Vec::new())
            .unwrap();
        rig.finish();
    }
}

fn drain(mut client: UnixStream, mut bytes: usize) {
    let mut buffer = vec![0; 1 << 18];
    while bytes > 0 {
        let count = std::io::Read::read(&mut client, &mut buffer).unwrap();
        assert!(count > 0);
        bytes = bytes.saturating_sub(count);
    }
}
