//! Prints what resolving and compiling Docker's default profile costs, and how long the filter is.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for a developer's terminal")]

use std::collections::BTreeSet;
use std::time::Instant;

use seccomp::{Conditions, KernelVersion, Profile};

const ROUNDS: usize = 500;

fn main() {
    let started = Instant::now();
    let profile = Profile::docker_default();
    println!("parse    {:>7.1} µs", started.elapsed().as_secs_f64() * 1e6);
    let capabilities: BTreeSet<String> =
        ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"].into_iter().map(str::to_owned).collect();
    let conditions =
        Conditions { capabilities: &capabilities, arch: seccomp::native(), kernel: KernelVersion::new(6, 12) };
    let mut times = [Vec::new(), Vec::new()];
    let mut count = 0;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let resolved = profile.resolve(&conditions).unwrap();
        times[0].push(started.elapsed().as_secs_f64() * 1e6);
        let started = Instant::now();
        count = seccomp::compile(&resolved).unwrap().instruction_count();
        times[1].push(started.elapsed().as_secs_f64() * 1e6);
    }
    for (name, times) in ["resolve", "compile"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{name:<8} {:>7.1} µs median {:>7.1} µs p99", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
    println!("{count} instructions");
}
