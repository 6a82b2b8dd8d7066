//! Where the time of `conex-runtime run` goes: for each step what it takes, and what of that the kernel takes for the same calls.
//!
//! The kernel's own tracing tells when each system call begins and ends, in every process of the run. The time inside a step's calls is its
//! floor: whoever makes these calls pays that. What is between them is ours. Tracing makes each call slower by some tenths of a
//! microsecond; the whole run is therefore timed with and without it too.

mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::Options;
use super::image;
use super::report::Report;
use super::world::World;
use trace::{Event, Instance, What};

/// Calls that the filter of the traced container refuses: as many as the filters of engines name in one rule.
const REFUSED: [&str; 40] = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "userfaultfd",
];

/// A step's whole time and the kernel's part of it, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    all: f64,
    kernel: f64,
}

/// Steps by their place in the run, and the name.
type Step = (usize, String);

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let program = options.programs()?.context("this bench is of our own runtime")?.join("conex-runtime");
    let bundle = world.state().join("cost");
    let mounts = make_bundle(&program, &bundle)?;
    let command = |number: usize| -> Result<Command> {
        let mut command = Command::new(&program);
        command.arg("--root").arg(bundle.join("state")).args(["run", "-b"]).arg(&bundle);
        command.arg(format!("cost-{}-{number}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    };
    let instance = Instance::open(world.state())?;
    let mut costs: BTreeMap<Step, Vec<Cost>> = BTreeMap::new();
    let mut walls = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        walls[0].push(timed(&mut command(2 * round)?)?);
        let events = instance.record(|| {
            walls[1].push(timed(&mut command(2 * round + 1)?)?);
            Ok(())
        })?;
        for (step, cost) in costs_of(&events, &mounts)? {
            costs.entry(step).or_default().push(cost);
        }
    }
    let mut report = Report::new();
    for ((_, step), costs) in &costs {
        report.figure(format!("{step}: all"), median(costs.iter().map(|cost| cost.all)), "µs");
        report.figure(format!("{step}: in the kernel"), median(costs.iter().map(|cost| cost.kernel)), "µs");
    }
    for (name, times) in ["the whole run", "the whole run, traced"].into_iter().zip(walls) {
        report.figure(name, median(times), "µs");
    }
    Ok(report)
}

fn timed(command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    ensure!(command.status().context("cannot start the runtime")?.success(), "the runtime failed");
    Ok(begin.elapsed().as_secs_f64() * 1e6)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Makes a bundle with a filter and without a `cgroup` mount, which on v1 is a dozen mounts; returns where its mounts are.
fn make_bundle(program: &Path, bundle: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(bundle)?;
    ensure!(Command::new(program).arg("spec").arg("--bundle").arg(bundle).status()?.success(), "spec failed");
    let mut spec: serde_json::Value = serde_json::from_str(&fs::read_to_string(bundle.join("config.json"))?)?;
    let mounts = spec["mounts"].as_array_mut().context("the specification has mounts")?;
    mounts.retain(|mount| mount["type"] != "cgroup");
    let names = mounts.iter().filter_map(|mount| mount["destination"].as_str().map(str::to_owned)).collect();
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": REFUSED.as_slice(), "action": "SCMP_ACT_ERRNO" }],
    });
    image::write_bundle(bundle, &spec.to_string(), &["/bin/true"])?;
    Ok(names)
}

/// Sorts the events of a run into steps: the creator's up to the clone, init's, and the creator's after init's end.
fn costs_of(events: &[Event], mounts: &[String]) -> Result<BTreeMap<Step, Cost>> {
    let is_end = |event: &&Event| event.what == What::Begin && event.call == "exit_group";
    let ends: Vec<&Event> = events.iter().filter(is_end).collect();
    let [init_end, creator_end] = ends[..] else { bail!("{} processes ended, not two", ends.len()) };
    let of = |pid: u32| events.iter().filter(move |event| event.pid == pid);
    let clone = of(creator_end.pid).find(|event| event.what == What::Begin && event.call == "clone3");
    let begun = of(init_end.pid).next().zip(clone).context("nobody was cloned")?;
    let mut costs = BTreeMap::new();
    let taken = begun.0.time - begun.1.time;
    costs.insert((CLONE, "clone3".to_owned()), Cost { all: taken, kernel: taken });
    let before = of(creator_end.pid).take_while(|event| event.time < begun.1.time);
    add_up(&mut costs, before, creator_steps());
    let work = of(init_end.pid).take_while(|event| event.time < init_end.time);
    add_up(&mut costs, work, init_steps(mounts));
    let after = of(creator_end.pid).filter(|event| event.time > init_end.time);
    add_up(&mut costs, after, |_| Some((END, "end: cgroup and state removed".to_owned())));
    Ok(costs)
}

const CLONE: usize = 10;
const INIT: usize = 20;
const END: usize = 99;

/// Adds up the events of one process. `step_of` is asked for each call in turn; what it gives no step to does not count.
fn add_up<'a>(
    costs: &mut BTreeMap<Step, Cost>,
    events: impl Iterator<Item = &'a Event>,
    mut step_of: impl FnMut(&'a Event) -> Option<Step>,
) {
    let (mut last, mut step) = (None, None);
    for event in events {
        if event.what == What::Begin {
            step = step_of(event);
        }
        let taken = last.replace(event.time).map_or(0.0, |last| event.time - last);
        let Some(step) = &step else { continue };
        let cost = costs.entry(step.clone()).or_default();
        cost.all += taken;
        if event.what == What::End {
            cost.kernel += taken;
        }
    }
}

/// The creator's steps before the clone, by the calls that begin them.
fn creator_steps() -> impl FnMut(&Event) -> Option<Step> {
    let names = ["start, twice", "configuration and state", "the host's hierarchies", "cgroup"];
    let (mut executed, mut at) = (0, 0);
    move |event| {
        match event.call.as_str() {
            "execve" | "execveat" => executed += 1,
            _ if executed == 2 && at == 0 => at = 1,
            "openat" | "open" if at == 1 => {}
            "signalfd4" if at == 1 => at = 2,
            "mkdirat" if at == 2 => at = 3,
            _ => {}
        }
        Some((at, names[at].to_owned()))
    }
}

/// Init's steps, by the calls that begin or end them.
fn init_steps(mounts: &[String]) -> impl FnMut(&Event) -> Option<Step> {
    let mut at = 0;
    let devices_at = mounts.iter().position(|mount| mount == "/dev").map(|place| place + 3);
    let (mut in_devices, mut attached, mut is_program) = (false, false, false);
    move |event| {
        let call = event.call.as_str();
        let begins_mount = ["fsopen", "open_tree"].contains(&call);
        if std::mem::take(&mut attached) {
            at += 1;
            in_devices = Some(at) == devices_at;
        }
        in_devices &= !begins_mount;
        match call {
            _ if at == 0 && begins_mount => at = 1,
            "move_mount" if (1..=mounts.len() + 1).contains(&at) => attached = true,
            "pivot_root" => at = mounts.len() + 3,
            "umount2" => {}
            _ if at >= mounts.len() + 3 => at = mounts.len() + 4,
            _ => {}
        }
        if is_program {
            return None;
        }
        is_program = call == "execve";
        let name = match at {
            0 => "cgroup joined, signals, loopback".to_owned(),
            1 => "mount of the root".to_owned(),
            _ if in_devices => "devices".to_owned(),
            _ if at <= mounts.len() + 1 => format!("mount of {}", mounts[at - 2]),
            _ if at == mounts.len() + 2 => "masked and read-only paths".to_owned(),
            _ if at == mounts.len() + 3 => "pivot_root".to_owned(),
            _ => return Some(last_step(call)),
        };
        Some((INIT + 2 * at - usize::from(in_devices), name))
    }
}

/// After the root is changed the calls come in turns.
fn last_step(call: &str) -> Step {
    match call {
        "keyctl" | "prctl" | "capget" | "capset" | "setgroups" | "setgid" | "setuid" | "umask" => {
            (91, "user and capabilities".to_owned())
        }
        "seccomp" => (92, "seccomp".to_owned()),
        "execve" => (93, "exec".to_owned()),
        _ => (90, "working directory, program, descriptors".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of a process, each as long as said, after a gap of 1 µs.
    fn events(pid: u32, begin: f64, calls: &[(&str, f64)]) -> Vec<Event> {
        let mut time = begin;
        let mut events = Vec::new();
        for (call, length) in calls {
            for (what, after) in [(What::Begin, 1.0), (What::End, *length)] {
                time += after;
                events.push(Event { pid, time, call: (*call).to_owned(), what });
            }
        }
        events
    }

    #[test]
    fn a_run_is_cut_into_its_steps() {
        let creator =
            [("execve", 50.0), ("brk", 1.0), ("execveat", 50.0), ("mkdir", 5.0), ("signalfd4", 1.0), ("mkdirat", 9.0)];
        let mut all = events(1, 0.0, &creator);
        all.extend(events(1, 200.0, &[("clone3", 30.0), ("recvmsg", 500.0)]));
        all.push(Event { pid: 2, time: 230.0, call: "clone3".to_owned(), what: What::End });
        let init = [
            ("setsid", 1.0),
            ("open_tree", 2.0),
            ("move_mount", 3.0),
            ("fsopen", 4.0),
            ("move_mount", 5.0),
            ("fsopen", 1.0),
            ("move_mount", 1.0),
            ("mknodat", 7.0),
            ("open_tree", 8.0),
            ("mount_setattr", 9.0),
            ("move_mount", 9.0),
            ("pivot_root", 20.0),
            ("umount2", 30.0),
            ("chdir", 1.0),
            ("capset", 2.0),
            ("seccomp", 40.0),
            ("execve", 100.0),
            ("write", 3.0),
        ];
        all.extend(events(2, 230.0, &init));
        all.push(Event { pid: 2, time: 900.0, call: "exit_group".to_owned(), what: What::Begin });
        all.extend(events(1, 950.0, &[("rmdir", 10.0)]));
        all.push(Event { pid: 1, time: 1000.0, call: "exit_group".to_owned(), what: What::Begin });
        let costs = costs_of(&all, &["/proc".to_owned(), "/dev".to_owned()]).unwrap();
        let found: Vec<_> = costs.iter().map(|((_, name), cost)| (name.as_str(), cost.all, cost.kernel)).collect();
        assert_eq!(
            found,
            [
                ("start, twice", 103.0, 101.0),
                ("configuration and state", 6.0, 5.0),
                ("the host's hierarchies", 2.0, 1.0),
                ("cgroup", 10.0, 9.0),
                ("clone3", 29.0, 29.0),
                ("cgroup joined, signals, loopback", 2.0, 1.0),
                ("mount of the root", 7.0, 5.0),
                ("mount of /proc", 11.0, 9.0),
                ("mount of /dev", 4.0, 2.0),
                ("devices", 8.0, 7.0),
                ("masked and read-only paths", 29.0, 26.0),
                ("pivot_root", 52.0, 50.0),
                ("working directory, program, descriptors", 2.0, 1.0),
                ("user and capabilities", 3.0, 2.0),
                ("seccomp", 41.0, 40.0),
                ("exec", 101.0, 100.0),
                ("end: cgroup and state removed", 49.0, 10.0),
            ]
        );
    }
}
