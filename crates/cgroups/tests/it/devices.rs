//! Device rules, by v1's lists or v2's program.

use oci::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupType, LinuxResources};

use crate::support::Scratch;

/// `/dev/kmsg`: on every machine, and in no container's default list.
const KMSG: (i64, i64) = (1, 11);

fn rule(allow: bool, device: Option<(i64, i64)>, access: &str) -> LinuxDeviceCgroup {
    let kind = if device.is_some() { LinuxDeviceCgroupType::Character } else { LinuxDeviceCgroupType::All };
    let (major, minor) = device.unzip();
    LinuxDeviceCgroup { allow, kind, major, minor, access: access.to_owned() }
}

fn resources(devices: Vec<LinuxDeviceCgroup>) -> LinuxResources {
    LinuxResources { devices, ..LinuxResources::default() }
}

/// Which of two devices a shell in the cgroup can open.
fn opened(scratch: &Scratch) -> String {
    scratch
        .spawn("for device in zero kmsg; do (: < /dev/$device) 2> /dev/null && echo $device; done")
        .output()
        .replace('\n', " ")
}

#[test]
fn only_listed_devices_open() {
    let scratch = Scratch::with("devices", &resources(vec![rule(false, None, "rwm")]));
    assert_eq!(opened(&scratch), "zero ");
}

#[test]
fn no_rules_at_all_mean_the_default_devices() {
    let scratch = Scratch::with("devices-none", &resources(Vec::new()));
    assert_eq!(opened(&scratch), "zero ");
}

#[test]
fn rules_give_and_take_while_it_runs() {
    let scratch =
        Scratch::with("devices-update", &resources(vec![rule(false, None, "rwm"), rule(true, Some(KMSG), "r")]));
    assert_eq!(opened(&scratch), "zero kmsg ");
    scratch.cgroup.update(&resources(Vec::new())).unwrap();
    assert_eq!(opened(&scratch), "zero kmsg ", "an update without rules changed them");
    scratch.cgroup.update(&resources(vec![rule(false, None, "rwm")])).unwrap();
    assert_eq!(opened(&scratch), "zero ");
    scratch.cgroup.update(&resources(vec![rule(true, None, "rwm")])).unwrap();
    assert_eq!(opened(&scratch), "zero kmsg ");
}

#[test]
fn access_is_by_letter() {
    let scratch =
        Scratch::with("devices-access", &resources(vec![rule(false, None, "rwm"), rule(true, Some(KMSG), "w")]));
    assert_eq!(opened(&scratch), "zero ", "reading was not granted");
}

/// The eBPF filter is v2's, and a hybrid layout has v2 to try it on.
#[test]
fn a_program_is_replaced_and_never_doubled() {
    let scratch = Scratch::new("devices-program");
    let Some(place) = scratch.cgroup.paths().find(|place| place.version == cgroups::Version::V2) else { return };
    let directory = std::fs::File::open(place.path).unwrap();
    if scratch.cgroup.paths().any(|place| place.name.contains("devices")) {
        return;
    }
    for _ in 0..3 {
        scratch.cgroup.apply(&resources(vec![rule(false, None, "rwm")])).unwrap();
        let programs = linux::bpf::device_programs(std::os::fd::AsFd::as_fd(&directory)).unwrap();
        assert_eq!(programs.len(), 1);
    }
}
