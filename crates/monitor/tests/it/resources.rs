//! What a monitor costs.

use std::fs;
use std::io::Write;

use monitor_protocol::{Framing, Request, StdinMode, Stdio, Target};

use crate::rig::{Rig, read_until};

/// What a monitor may own of memory, in kilobytes. The statically linked program of a release stays far below; this bound
/// also holds for what tests are run with.
const PRIVATE_KB: u64 = 4 * 1024;

#[test]
fn memory_stays_small_and_does_not_grow() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("while read n; do seq 1 $n; echo ready; done");
    launch.stdio = Stdio::Pipes { stdin: StdinMode::Open };
    let mut client = rig.start_attached(launch, Framing::Raw);
    let mut round = |count: u32| {
        client.write_all(format!("{count}\n").as_bytes()).unwrap();
        read_until(&mut client, "ready\n");
    };
    round(10_000);
    for _ in 0..100 {
        rig.attach(Target::Container, Framing::Multiplexed);
    }
    let before = rig.memory_kb("Private_Dirty");
    round(100_000);
    for _ in 0..1000 {
        drop(rig.attach(Target::Container, Framing::Multiplexed));
    }
    round(10);
    let after = rig.memory_kb("Private_Dirty");
    println!("private dirty: {before} kB, then {after} kB; pss {} kB", rig.memory_kb("Pss:"));
    assert!(after <= PRIVATE_KB, "{after} kB");
    assert!(after <= before + 64, "grew from {before} to {after} kB");
}

#[test]
fn one_thread_is_enough() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    assert_eq!(fs::read_dir(format!("/proc/{}/task", rig.pid())).unwrap().count(), 1);
    rig.client.request(Request::Status, Vec::new()).unwrap();
}

#[test]
fn descriptors_do_not_leak() {
    let mut rig = Rig::new();
    rig.start(rig.launch("exec sleep 1000"));
    rig.wait_for_introduction();
    let count = |rig: &Rig| fs::read_dir(format!("/proc/{}/fd", rig.pid())).unwrap().count();
    let before = count(&rig);
    for number in 0..20 {
        let id = format!("s{number}");
        let client = rig.exec(&id, "true", Stdio::Pipes { stdin: StdinMode::Once }).unwrap();
        rig.finish_exec(&id);
        crate::rig::read_all(client);
        drop(rig.attach(Target::Container, Framing::Raw));
    }
    // The monitor learns of the last hang-up on its own next turn; a leak, however, never goes away.
    for _ in 0..100 {
        rig.client.request(Request::Status, Vec::new()).unwrap();
        if count(&rig) <= before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(count(&rig), before);
}

#[test]
fn nothing_inherited_is_held_open() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let rig = Rig::new();
    drop(write);
    assert_eq!(rustix::io::read(&read, &mut [0; 1]).unwrap(), 0, "the monitor holds the pipe open");
    assert_eq!(fs::read_link(format!("/proc/{}/fd/0", rig.pid())).unwrap(), std::path::Path::new("/dev/null"));
}
