//! Where the time of `conex-runtime run` goes: for each step what it takes, and what of that the kernel takes for the same calls.
//!
//! The runtime is traced; a step is a group of system calls. Between two calls the time is ours, in a call it is the kernel's. Tracing
//! makes every call slower by a constant, which is why only the shares are to be read, not the sum.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Options;
use super::image;
use super::report::Report;
use super::world::World;

const STEPS: [(&str, &[&str]); 7] = [
    (
        "mounts and root",
        &[
            "fsopen",
            "fsconfig",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "pivot_root",
            "umount2",
            "openat2",
            "mknodat",
            "symlinkat",
            "statfs",
            "fstatfs",
        ],
    ),
    ("cgroups", &["mkdirat", "unlinkat", "rmdir", "bpf"]),
    ("clone", &["clone3", "unshare", "setns"]),
    (
        "seccomp and privileges",
        &["seccomp", "prctl", "capset", "capget", "setresuid", "setresgid", "setgroups", "keyctl"],
    ),
    ("exec", &["execve", "execveat"]),
    ("waiting", &["waitid", "wait4", "poll", "ppoll", "recvmsg", "accept4"]),
    ("files and the rest", &[]),
];

/// Ours and the kernel's, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    ours: f64,
    kernel: f64,
}

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let program = options.programs()?.context("this bench is of our own runtime")?.join("conex-runtime");
    let bundle = world.state().join("cost");
    fs::create_dir_all(&bundle)?;
    ensure!(Command::new(&program).arg("spec").arg("--bundle").arg(&bundle).status()?.success(), "spec failed");
    let spec = fs::read_to_string(bundle.join("config.json"))?;
    image::write_bundle(&bundle, &spec, &["/bin/true"])?;
    let mut sums: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    for round in 0..options.rounds {
        let trace = bundle.join("trace");
        let status = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-o"])
            .arg(&trace)
            .arg(&program)
            .arg("--root")
            .arg(bundle.join("state"))
            .args(["run", "-b"])
            .arg(&bundle)
            .arg(format!("cost-{}-{round}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot start strace")?;
        ensure!(status.success(), "the traced runtime failed");
        for (step, cost) in costs(&fs::read_to_string(&trace)?) {
            sums.entry(step).or_default().push(cost);
        }
    }
    let mut report = Report::new();
    for (step, _) in STEPS {
        let Some(costs) = sums.get(step) else { continue };
        let median = |of: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        report.figure(format!("{step}: all"), median(|cost| cost.ours + cost.kernel), "µs");
        report.figure(format!("{step}: in the kernel"), median(|cost| cost.kernel), "µs");
    }
    Ok(report)
}

/// Adds up a trace: each call's time is the kernel's, the time since the process's call before is ours.
fn costs(trace: &str) -> BTreeMap<&'static str, Cost> {
    let mut costs: BTreeMap<&'static str, Cost> = BTreeMap::new();
    let mut ends: BTreeMap<&str, f64> = BTreeMap::new();
    for line in trace.lines() {
        let Some(call) = Call::parse(line) else { continue };
        let cost = costs.entry(step_of(call.name)).or_default();
        if let Some(end) = ends.get(call.pid) {
            cost.ours += (call.start - end).max(0.0) * 1e6;
        }
        cost.kernel += call.seconds * 1e6;
        ends.insert(call.pid, call.start + call.seconds);
    }
    costs
}

fn step_of(name: &str) -> &'static str {
    let last = STEPS[STEPS.len() - 1].0;
    STEPS.iter().find(|(_, calls)| calls.contains(&name)).map_or(last, |(step, _)| step)
}

/// One line of a trace: `4711 1795914000.123456 mkdirat(…) = 0 <0.000012>`.
struct Call<'a> {
    pid: &'a str,
    start: f64,
    name: &'a str,
    seconds: f64,
}

impl<'a> Call<'a> {
    /// Calls that another process's interrupts in the trace are in two lines, of which only the second has the time.
    fn parse(line: &'a str) -> Option<Call<'a>> {
        let (pid, rest) = line.split_once(' ')?;
        let (start, rest) = rest.trim_start().split_once(' ')?;
        let name = match rest.strip_prefix("<... ") {
            Some(resumed) => resumed.split(' ').next()?,
            None => rest.split('(').next()?,
        };
        let seconds = rest.strip_suffix('>')?.rsplit_once('<')?.1.parse().ok()?;
        let start: f64 = start.parse().ok()?;
        // A resumed call's line is written at its end.
        let start = if rest.starts_with("<...") { start - seconds } else { start };
        Some(Call { pid, start, name, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_added_up() {
        let trace = "1 10.000000 fsopen(\"proc\", 0) = 3 <0.000010>\n\
                     1 10.000030 fsmount(3, 0, 0) = 4 <0.000020>\n\
                     1 10.000060 clone3({...} <unfinished ...>\n\
                     2 10.000070 execve(\"/x\", [], []) = 0 <0.000100>\n\
                     1 10.000090 <... clone3 resumed>) = 2 <0.000030>\n\
                     2 10.000200 +++ exited with 0 +++\n";
        let costs = costs(trace);
        let close =
            |cost: Cost, ours: f64, kernel: f64| (cost.ours - ours).abs() < 0.5 && (cost.kernel - kernel).abs() < 0.5;
        assert!(close(costs["mounts and root"], 20.0, 30.0), "{costs:?}");
        assert!(close(costs["clone"], 10.0, 30.0), "{costs:?}");
        assert!(close(costs["exec"], 0.0, 100.0), "{costs:?}");
    }
}
