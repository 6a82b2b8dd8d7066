//! Creating, joining, saving, opening and removing.

use cgroups::{Cgroup, CgroupPath, CreateError, Host, Version};
use linux::clone::{CloneArgs, Cloned};

use crate::support::{Scratch, eventually, is_v2, scratch_path};

#[test]
fn a_cgroup_is_made_in_every_hierarchy_and_removed_from_it() {
    let scratch = Scratch::new("everywhere");
    assert_eq!(scratch.cgroup.paths().count(), scratch.host.hierarchies().count());
    for place in scratch.cgroup.paths() {
        assert!(place.path.is_dir() && place.path.starts_with(place.mount_point), "{place:?}");
    }
}

#[test]
fn missing_ancestors_are_made_and_removed_when_empty() {
    let host = Host::detect().unwrap();
    let parent = scratch_path("ancestors");
    let path = CgroupPath::parse(&format!("{parent}/middle/leaf")).unwrap();
    let cgroup = Cgroup::create(&host, &path).unwrap();
    host.remove_empty(&parent);
    assert!(cgroup.paths().all(|place| place.path.is_dir()), "a cgroup with children was removed");
    cgroup.remove().unwrap();
    host.remove_empty(&CgroupPath::parse(&format!("{parent}/middle")).unwrap());
    host.remove_empty(&parent);
    assert!(cgroup.paths().all(|place| !place.path.parent().unwrap().parent().unwrap().exists()));
}

/// v1's cpusets start empty, and nothing can enter an empty one: whoever makes a cgroup fills it, and its siblings after it.
#[test]
fn every_child_of_a_new_parent_can_be_entered() {
    let host = Host::detect().unwrap();
    let parent = scratch_path("siblings");
    let children: Vec<_> = (0..3)
        .map(|number| Cgroup::create(&host, &CgroupPath::parse(&format!("{parent}/{number}")).unwrap()).unwrap())
        .collect();
    for child in &children {
        for place in child.paths().filter(|place| place.name.contains("cpuset")) {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                assert!(
                    !std::fs::read_to_string(place.path.join(file)).unwrap().trim().is_empty(),
                    "{file} of {place:?}"
                );
            }
        }
        child.remove().unwrap();
    }
    host.remove_empty(&parent);
}

#[test]
fn an_empty_cgroup_is_taken_over_and_a_used_one_is_not() {
    let scratch = Scratch::new("used");
    drop(Cgroup::create(&scratch.host, scratch.path()).unwrap());
    let shell = scratch.spawn("sleep 100");
    eventually("the process is seen", || scratch.cgroup.pids().unwrap().contains(&shell.pid()));
    let error = Cgroup::create(&scratch.host, scratch.path()).unwrap_err();
    assert!(matches!(error, CreateError::InUse { .. }), "{error}");
    scratch.cgroup.kill_all().unwrap();
    assert_eq!(shell.killed_by(), Some(9));
}

#[test]
fn a_taken_over_cgroup_is_thawed() {
    let scratch = Scratch::new("frozen-leftover");
    scratch.cgroup.freeze().unwrap();
    drop(Cgroup::create(&scratch.host, scratch.path()).unwrap());
    assert_eq!(scratch.cgroup.freezer_state().unwrap(), cgroups::FreezerState::Thawed);
}

#[test]
fn a_saved_cgroup_is_the_same_when_opened() {
    let scratch = Scratch::new("saved");
    let shell = scratch.spawn("sleep 100");
    let text = serde_json::to_string(&scratch.cgroup.saved()).unwrap();
    let opened = Cgroup::open(&serde_json::from_str(&text).unwrap()).unwrap();
    assert!(opened.paths().eq(scratch.cgroup.paths()));
    assert_eq!(opened.pids().unwrap(), scratch.cgroup.pids().unwrap());
    opened.freeze().unwrap();
    opened.kill_all().unwrap();
    assert_eq!(shell.killed_by(), Some(9));
    opened.remove().unwrap();
    // What is gone is no error.
    opened.remove().unwrap();
    assert_eq!(Cgroup::open(&opened.saved()).unwrap().paths().count(), 0);
}

#[test]
fn cgroups_that_the_container_made_go_too() {
    let scratch = Scratch::new("nested");
    for place in scratch.cgroup.paths() {
        std::fs::create_dir_all(place.path.join("a/b")).unwrap();
        std::fs::create_dir(place.path.join("c")).unwrap();
    }
    scratch.cgroup.remove().unwrap();
}

#[test]
fn a_process_joins_by_the_opened_ways_alone() {
    let scratch = Scratch::new("entry");
    let entry = scratch.cgroup.entry().unwrap();
    let has_v2 = scratch.host.hierarchies().any(|hierarchy| hierarchy.version() == Version::V2);
    assert_eq!(entry.v2.is_some(), has_v2);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let args = CloneArgs { cgroup: entry.v2.as_ref().map(std::os::fd::AsFd::as_fd), ..CloneArgs::default() };
    match linux::clone::clone3(&args).unwrap() {
        Cloned::Child => {
            let is_in = entry.join().is_ok();
            drop(writer);
            let _ = rustix::io::read(&reader, &mut [0]);
            linux::clone::exit_now(i32::from(!is_in));
        }
        Cloned::Parent(child) => {
            let pid = child.pid.as_raw_nonzero().get();
            for place in scratch.cgroup.paths() {
                eventually("the child is in every hierarchy", || {
                    std::fs::read_to_string(place.path.join("cgroup.procs"))
                        .unwrap()
                        .lines()
                        .any(|line| line == pid.to_string())
                });
            }
            drop(writer);
            let status =
                rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).unwrap().unwrap().1;
            assert_eq!(status.exit_status(), Some(0));
        }
    }
}

#[test]
fn a_cgroup_is_removed_while_its_last_process_is_still_ending() {
    let scratch = Scratch::new("ending");
    let shell = scratch.spawn("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; sleep 100");
    eventually("all are there", || scratch.cgroup.pids().unwrap().len() >= 9);
    scratch.cgroup.kill_all().unwrap();
    // The shell's children are orphans of the init process now: nobody here waits for them.
    let waiter = std::thread::spawn(move || shell.wait());
    scratch.cgroup.remove().unwrap();
    waiter.join().unwrap();
}

#[test]
fn v2_can_be_given_to_a_user() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new("delegate");
    scratch.cgroup.delegate(1234, 2345).unwrap();
    for place in scratch.cgroup.paths().filter(|place| place.version == Version::V2) {
        for (file, uid) in [(".", 1234), ("cgroup.procs", 1234), ("cgroup.subtree_control", 1234)] {
            assert_eq!(std::fs::metadata(place.path.join(file)).unwrap().uid(), uid, "{file}");
        }
        if is_v2(&scratch.host) {
            assert_eq!(std::fs::metadata(place.path.join("memory.max")).unwrap().uid(), 0, "limits stay root's");
        }
    }
}
