//! Freezing, listing, signalling, killing.

use std::time::Duration;

use cgroups::FreezerState;

use crate::support::{Scratch, eventually};

#[test]
fn frozen_processes_stand_still() {
    let scratch = Scratch::new("freeze");
    let _shell = scratch.spawn("while :; do :; done");
    let usage = || scratch.cgroup.stats().unwrap().cpu.usage_ns;
    eventually("it runs", || usage() > 0);
    assert_eq!(scratch.cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    scratch.cgroup.freeze().unwrap();
    assert_eq!(scratch.cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    let before = usage();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(usage(), before);
    scratch.cgroup.thaw().unwrap();
    eventually("it runs again", || usage() > before);
}

#[test]
fn a_fork_bomb_is_frozen() {
    let scratch = Scratch::new("freeze-bomb");
    let resources = oci::runtime::LinuxResources {
        pids: Some(oci::runtime::LinuxPids { limit: Some(50) }),
        ..oci::runtime::LinuxResources::default()
    };
    scratch.cgroup.apply(&resources).unwrap();
    let _shell = scratch.spawn("while :; do (:) & done");
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..5 {
        scratch.cgroup.freeze().unwrap();
        assert_eq!(scratch.cgroup.freezer_state().unwrap(), FreezerState::Frozen);
        scratch.cgroup.thaw().unwrap();
    }
}

#[test]
fn frozen_processes_are_killed() {
    let scratch = Scratch::new("kill-frozen");
    let shell = scratch.spawn("sleep 100");
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill_all().unwrap();
    assert_eq!(shell.killed_by(), Some(9));
}

#[test]
fn nobody_escapes_a_kill() {
    let scratch = Scratch::new("kill-bomb");
    let shell = scratch.spawn("while :; do (sleep 100) & sleep 0.001; done");
    eventually("there are many", || scratch.cgroup.pids().unwrap().len() > 20);
    scratch.cgroup.kill_all().unwrap();
    shell.wait();
    eventually("all are gone", || !scratch.cgroup.is_populated().unwrap());
}

#[test]
fn processes_of_nested_cgroups_are_found_and_signalled() {
    let scratch = Scratch::new("nested-pids");
    let nested = scratch.cgroup.paths().map(|place| place.path.join("inner")).collect::<Vec<_>>();
    let shell = scratch.spawn("sleep 100 & wait");
    eventually("two are there", || scratch.cgroup.pids().unwrap().len() == 2);
    for path in &nested {
        std::fs::create_dir(path).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if path.join(file).exists() {
                // v1 fills only what we make; this is what a container's own manager does.
                let value = std::fs::read_to_string(path.parent().unwrap().join(file)).unwrap();
                let _ = std::fs::write(path.join(file), value);
            }
        }
        std::fs::write(path.join("cgroup.procs"), shell.pid().to_string()).unwrap();
    }
    assert_eq!(scratch.cgroup.pids().unwrap().len(), 2);
    scratch.cgroup.signal_all(15).unwrap();
    assert_eq!(shell.killed_by(), Some(15));
    eventually("all are gone", || !scratch.cgroup.is_populated().unwrap());
}

#[test]
fn a_signal_does_not_thaw_a_paused_cgroup() {
    let scratch = Scratch::new("signal-paused");
    let shell = scratch.spawn("sleep 100");
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.signal_all(15).unwrap();
    // cgroup v2 wakes a process for its signal and freezes it again, all in the kernel.
    eventually("it has settled", || scratch.cgroup.freezer_state().unwrap() != FreezerState::Freezing);
    assert_eq!(scratch.cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    scratch.cgroup.thaw().unwrap();
    assert_eq!(shell.killed_by(), Some(15));
}
