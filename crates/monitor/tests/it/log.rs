//! The log of a real container.

use std::fs::{self, File};
use std::io::Read;

use flate2::read::GzDecoder;
use monitor_protocol::{Delivery, Event, LogConfig, Request, Rotated};

use crate::rig::{Rig, logged};

fn with_log(rig: &Rig, script: &str, change: impl FnOnce(&mut monitor_protocol::JsonFile)) -> monitor_protocol::Launch {
    let mut launch = rig.launch(script);
    let LogConfig::JsonFile(json) = &mut launch.log else { panic!("a json-file log") };
    change(json);
    launch
}

#[test]
fn rotated_files_are_compressed() {
    let mut rig = Rig::new();
    let launch = with_log(&rig, "seq 1 20000; sleep 0.5; seq 20001 40000", |json| {
        json.max_size_bytes = Some(600_000);
        json.rotated = Rotated::Compressed;
        json.max_files = 10;
    });
    rig.start(launch);
    let finished = rig.finish();
    let folder = finished.rig.folder.path();
    let mut text = String::new();
    let mut compressed = 0;
    for index in (1..10).rev() {
        let (plain, packed) = (folder.join(format!("log.{index}")), folder.join(format!("log.{index}.gz")));
        if packed.exists() {
            compressed += 1;
            assert!(!plain.exists());
            let mut entries = String::new();
            GzDecoder::new(File::open(packed).unwrap()).read_to_string(&mut entries).unwrap();
            fs::write(&plain, entries).unwrap();
        }
        if plain.exists() {
            text += &logged(&plain);
        }
    }
    text += &finished.logged();
    let expected: String = (1..=40_000).map(|number| format!("{number}\n")).collect();
    assert!(compressed >= 2, "only {compressed} compressed files");
    assert_eq!(text, expected);
    assert!(!folder.join("log.gz.part").exists());
}

#[test]
fn rotation_can_be_asked_for() {
    let mut rig = Rig::new();
    let launch = with_log(&rig, "echo one; read x; echo two", |_| {});
    let mut launch = launch;
    launch.stdio = monitor_protocol::Stdio::Pipes { stdin: monitor_protocol::StdinMode::Open };
    rig.start(launch);
    while logged(&rig.log_path()).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    rig.client.request(Request::RotateLogs, Vec::new()).unwrap();
    rig.client.request(Request::CloseStdin { target: monitor_protocol::Target::Container }, Vec::new()).unwrap();
    let finished = rig.finish();
    assert_eq!((logged(&finished.rig.path("log.1")), finished.logged()), ("one\n".to_owned(), "two\n".to_owned()));
}

#[test]
fn the_non_blocking_mode_keeps_everything_when_there_is_time() {
    let mut rig = Rig::new();
    let launch = with_log(&rig, "seq 1 3000", |json| {
        json.delivery = Delivery::NonBlocking { buffer_bytes: 1_000_000 };
        json.max_size_bytes = Some(100_000);
    });
    rig.start(launch);
    let finished = rig.finish();
    let text = logged(&finished.rig.path("log.2")) + &logged(&finished.rig.path("log.1")) + &finished.logged();
    let expected: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected);
}

#[test]
fn a_full_disk_is_told_once_and_stops_nobody() {
    let mut rig = Rig::new();
    let launch = with_log(&rig, "for i in 1 2 3; do echo $i; sleep 0.05; done", |json| json.path = "/dev/full".into());
    rig.start(launch);
    let (message, _) = rig.wait_for(|event| match event {
        Event::LogTrouble { message, dropped_lines } => Some((message.clone(), *dropped_lines)),
        _ => None,
    });
    assert!(message.contains("cannot write log file /dev/full"), "{message}");
    assert_eq!(rig.finish().exit.code, 0);
}

#[test]
fn what_the_writer_of_the_non_blocking_mode_loses_is_counted() {
    let mut rig = Rig::new();
    let launch = with_log(&rig, "for i in 1 2 3; do echo $i; done", |json| {
        json.path = "/dev/full".into();
        json.delivery = Delivery::NonBlocking { buffer_bytes: 1_000_000 };
    });
    rig.start(launch);
    rig.wait_for(|event| matches!(event, Event::LogTrouble { dropped_lines: 3, .. }).then_some(()));
    assert_eq!(rig.finish().exit.code, 0);
}

#[test]
fn without_a_log_output_still_flows() {
    let mut rig = Rig::new();
    let mut launch = rig.launch("seq 1 50000 | wc -l");
    launch.log = LogConfig::None;
    let client = rig.start_attached(launch, monitor_protocol::Framing::Raw);
    let finished = rig.finish();
    assert_eq!(crate::rig::read_all(client), "50000\n");
    assert!(!finished.rig.log_path().exists());
}
