//! Prints what the steps of a container's cgroup cost on this machine, in microseconds.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for a developer's terminal")]

use std::time::Instant;

use cgroups::{Cgroup, CgroupPath, Host};
use oci::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

const ROUNDS: usize = 200;

fn main() {
    let started = Instant::now();
    let host = Host::detect().unwrap();
    println!("detect   {:>8.1}", started.elapsed().as_secs_f64() * 1e6);
    let resources = LinuxResources {
        memory: Some(LinuxMemory { limit: Some(1 << 28), swap: Some(1 << 29), ..LinuxMemory::default() }),
        cpu: Some(LinuxCpu { shares: Some(512), quota: Some(50_000), period: Some(100_000), ..LinuxCpu::default() }),
        pids: Some(LinuxPids { limit: Some(100) }),
        ..LinuxResources::default()
    };
    let parent = CgroupPath::parse(&format!("/conex-cost-{}", std::process::id())).unwrap();
    let keeper = Cgroup::create(&host, &parent).unwrap();
    let mut times = [const { Vec::new() }; 6];
    for round in 0..ROUNDS {
        let path = CgroupPath::parse(&format!("{parent}/{round}")).unwrap();
        let mut lap = Instant::now();
        let mut note = |step: usize| {
            times[step].push(lap.elapsed().as_secs_f64() * 1e6);
            lap = Instant::now();
        };
        let cgroup = Cgroup::create(&host, &path).unwrap();
        note(0);
        cgroup.apply(&resources).unwrap();
        note(1);
        let _entry = cgroup.entry().unwrap();
        note(2);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        note(5);
        cgroup.add(child.id().try_into().unwrap()).unwrap();
        note(3);
        child.kill().unwrap();
        child.wait().unwrap();
        note(5);
        cgroup.remove().unwrap();
        note(4);
    }
    keeper.remove().unwrap();
    for (name, times) in ["create", "apply", "entry", "add", "remove"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{name:<8} {:>8.1} median {:>8.1} p99", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
}
