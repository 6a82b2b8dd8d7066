//! What an engine may have left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::host::Host;

/// A list of everything in a host that an engine could leave, taken before and compared after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    rules: String,
}

impl Leftovers {
    /// Looks at the calling thread's namespaces, and at the cgroups that bear the host's name.
    pub fn look(host: &Host) -> Self {
        Self {
            processes: processes(),
            mounts: mounts(),
            cgroups: cgroups(host.name()),
            interfaces: lines(&host.program("ip").args(["-o", "link"]).ok(), interface),
            rules: host.program("nft").args(["list", "ruleset"]).ok(),
        }
    }

    /// What is here now and was not before, one line each.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        for (kind, now, then) in [
            ("process", &self.processes, &before.processes),
            ("mount", &self.mounts, &before.mounts),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("interface", &self.interfaces, &before.interfaces),
        ] {
            left.extend(now.difference(then).map(|name| format!("{kind} {name}")));
        }
        if self.rules != before.rules {
            left.push(format!("nftables rules:\n{}", self.rules));
        }
        left
    }
}

/// Kills what a failed test has left running: its monitors, by their namespaces, and its containers, by their cgroups.
pub(crate) fn end_processes(host: &Host) {
    let mut pids: Vec<String> =
        processes().iter().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
    for cgroup in cgroups(host.name()) {
        walk(Path::new(&cgroup), 0, &mut |path| {
            let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            pids.extend(members.lines().map(str::to_owned));
        });
    }
    if !pids.is_empty() {
        host.program("kill").arg("-9").args(pids).run();
    }
}

fn lines(text: &str, name: fn(&str) -> Option<String>) -> BTreeSet<String> {
    text.lines().filter_map(name).collect()
}

fn interface(line: &str) -> Option<String> {
    line.split(": ").nth(1).map(str::to_owned)
}

/// Processes, other than this one, that live in the calling thread's mount or network namespace.
fn processes() -> BTreeSet<String> {
    let kinds = ["mnt", "net"];
    let here = kinds.map(|kind| fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("our own namespace"));
    let own = std::process::id().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let shares = |index: usize| {
            fs::read_link(entry.path().join("ns").join(kinds[index])).is_ok_and(|link| link == here[index])
        };
        if shares(0) || shares(1) {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            // A process without a command line is a zombie that its parent has not yet seen.
            if !words.is_empty() {
                found.insert(format!("{pid}: {words}"));
            }
        }
    }
    found
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("proc is mounted");
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn cgroups(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), 0, &mut |path| {
        if path.file_name().is_some_and(|last| last.to_string_lossy().starts_with(name)) {
            found.insert(path.display().to_string());
        }
    });
    found
}

fn walk(folder: &Path, depth: usize, visit: &mut dyn FnMut(&Path)) {
    const DEEPEST: usize = 4;
    visit(folder);
    if depth == DEEPEST {
        return;
    }
    // A cgroup of another test may go while we look.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), depth + 1, visit);
        }
    }
}
