//! Numbers come from the right files in the right units.

use crate::support::{Scratch, eventually, is_v2};

#[test]
fn numbers_move_with_what_runs() {
    let scratch = Scratch::new("stats");
    let before = scratch.cgroup.stats().unwrap();
    assert_eq!((before.cpu.usage_ns, before.pids.current), (0, 0));
    let _shell = scratch.spawn("dd if=/dev/zero bs=16M count=2 | (sleep 100; cat > /dev/null)");
    eventually("memory is counted", || scratch.cgroup.stats().unwrap().memory.memory.usage > 16 << 20);
    let stats = scratch.cgroup.stats().unwrap();
    assert!(stats.pids.current >= 3 && stats.pids.limit.is_none(), "{:?}", stats.pids);
    assert!(stats.cpu.usage_ns > 100_000 && stats.cpu.usage_ns < 60_000_000_000, "{:?}", stats.cpu);
    assert!(stats.cpu.user_ns + stats.cpu.system_ns <= stats.cpu.usage_ns * 2);
    assert_eq!(stats.cpu.per_cpu_ns.is_empty(), is_v2(&scratch.host));
    assert_eq!(stats.memory.memory.limit, u64::MAX);
    assert!(stats.memory.raw.len() > 10 && stats.memory.raw.contains_key("pgfault"));
}

#[test]
fn pressure_is_there_where_v2_is() {
    let scratch = Scratch::new("pressure");
    let has_file = scratch.file("cpu.pressure").is_some();
    assert_eq!(scratch.cgroup.stats().unwrap().cpu.pressure.is_some(), has_file);
}

#[test]
fn a_removed_cgroup_is_an_error_and_not_a_panic() {
    let scratch = Scratch::new("gone");
    scratch.cgroup.remove().unwrap();
    assert!(scratch.cgroup.stats().is_err());
    assert!(scratch.cgroup.pids().unwrap().is_empty());
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
    scratch.cgroup.kill_all().unwrap();
}

#[test]
fn a_reader_sees_what_changes_and_opens_nothing_twice() {
    let scratch = Scratch::new("reader");
    let mut reader = scratch.cgroup.stats_reader(cgroups::Interest::Usage).unwrap();
    assert_eq!(reader.read().unwrap().pids.current, 0);
    // Other tests of this process open files of their own.
    let own = scratch.path().to_string();
    let leads_there = |link: &std::path::Path| link.to_string_lossy().contains(own.trim_start_matches('/'));
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|fd| std::fs::read_link(fd.path()));
        links.filter(|link| link.as_ref().is_ok_and(|link| leads_there(link))).count()
    };
    let before = open();
    assert!(before > 0);
    let _shell = scratch.spawn("sleep 100 & sleep 100");
    // Some shells become their last command.
    eventually("processes are counted", || reader.read().unwrap().pids.current >= 2);
    assert_eq!(reader.read().unwrap().memory.memory.limit, u64::MAX);
    assert_eq!(open(), before);
}
