//! What fuzz targets and property tests ask of configurations, without making anything.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path};

use oci::runtime::{Linux, Mount, Process, Spec};

use crate::container::cgroup_path;
use crate::devices::DevicePlan;
use crate::finish::{self, CapabilityPlan};
use crate::mount_options::{MountOptions, mount_option_names};
use crate::mounts::PlannedMount;
use crate::request::Identity;
use crate::{id_maps, masked, net_devices, seccomp_notify, sysctl};

/// Plans a container from a configuration; what is taken names nothing outside of the container.
pub fn configuration(spec: &Spec) {
    let (default_linux, default_process) = (Linux::default(), Process::default());
    let linux = spec.linux.as_ref().unwrap_or(&default_linux);
    let process = spec.process.as_ref().unwrap_or(&default_process);
    for mount in &spec.mounts {
        if let Ok(planned) = PlannedMount::plan(mount) {
            assert!(is_inside(&planned.destination), "{:?}", planned.destination);
        }
    }
    if let Ok(devices) = DevicePlan::plan(&linux.devices) {
        assert!(devices.paths().all(is_inside), "{devices:?}");
    }
    if sysctl::check(&linux.sysctl, &spec.domainname, |_| true).is_ok() {
        for name in linux.sysctl.keys() {
            let file = sysctl::file_of(name);
            let own = ["sys/net", "sys/kernel", "sys/fs/mqueue"].iter().any(|folder| file.starts_with(folder));
            assert!(own && file.components().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
        }
    }
    if let Ok(path) = cgroup_path(spec, "id", crate::request::CgroupAccess::Required) {
        assert!(!path.to_string().split('/').any(|part| part == ".."), "{path}");
    }
    let mut warnings = Vec::new();
    let grantable = 0b1010;
    let capabilities = CapabilityPlan::plan(process, grantable, &mut warnings);
    assert!(capabilities.is_within(grantable));
    // What is wrong with them is an error, and no panic.
    let _ = finish::check(process);
    let _ = masked::check(&linux.masked_paths);
    let _ = id_maps::check(&linux.uid_mappings, &linux.gid_mappings);
    let _ = net_devices::check(&linux.net_devices);
    if let Some(seccomp) = &linux.seccomp {
        let _ = seccomp_notify::compile(seccomp);
    }
}

fn is_inside(path: &Path) -> bool {
    path.is_absolute() && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
}

/// Sorts the options of a mount; each word has the effect that it has by itself where nothing after it takes that back.
pub fn mount_options(kind: &str, words: &[String]) {
    let parse = |words: &[String]| {
        MountOptions::parse(&Mount { kind: kind.to_owned(), options: words.to_vec(), ..Mount::default() })
    };
    let options = parse(words);
    let known: BTreeSet<&str> =
        mount_option_names().into_iter().chain(["auto", "noauto", "nouser", "_netdev"]).collect();
    let unknown: Vec<&String> = words.iter().filter(|word| !known.contains(word.as_str())).collect();
    assert_eq!(options.data.iter().collect::<Vec<_>>(), unknown);
    if let Some(last) = words.last() {
        let alone = parse(std::slice::from_ref(last));
        for (whole, alone) in
            [(options.attributes, alone.attributes), (options.recursive_attributes, alone.recursive_attributes)]
        {
            assert_eq!(whole.set & alone.set, alone.set, "{last}");
            assert_eq!(whole.clear & alone.clear, alone.clear, "{last}");
        }
    }
}

/// Looks a user up in a root; nobody becomes user 0 who was not called that, neither by number nor by the root's own file.
pub fn user(rootfs: BorrowedFd<'_>, text: &str, passwd: &str) {
    let mut process = Process::default();
    process.user.username = text.to_owned();
    if crate::resolve_user(rootfs, &mut process, &Identity::Lookup { groups: Vec::new() }).is_err() {
        return;
    }
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    match name.parse::<u32>() {
        Ok(id) => assert_eq!(process.user.uid, id, "{text:?}"),
        Err(_) if name.is_empty() => assert_eq!(process.user.uid, 0),
        Err(_) => {
            let line = passwd.lines().map(str::trim).find(|line| line.split(':').next() == Some(name));
            assert!(line.is_some(), "{text:?} is in no line");
        }
    }
    assert!(process.user.additional_gids.contains(&process.user.gid));
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use oci::runtime::{LinuxDevice, LinuxDeviceType};
    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            proptest::sample::select(vec!["/", "..", ".", "a", "dev", "proc", "\n", "x y", ""]),
            0..8,
        )
        .prop_map(|parts| parts.concat())
    }

    fn word() -> impl Strategy<Value = String> {
        let known = proptest::sample::select(mount_option_names()).prop_map(str::to_owned);
        prop_oneof![4 => known, 1 => "[a-z=,]{0,6}"]
    }

    proptest! {
        #[test]
        fn configurations_name_nothing_outside(paths in proptest::collection::vec(path(), 1..6), name in "[a-z./]{0,24}") {
            let mount = |destination: &String| Mount { destination: destination.clone(), ..Mount::default() };
            let device = |path: &String| LinuxDevice {
                path: path.clone(), kind: LinuxDeviceType::Fifo, major: 0, minor: 0, file_mode: None, uid: None, gid: None,
            };
            for name in [name.clone(), format!("net.{name}"), format!("net/{name}"), format!("fs.mqueue.{name}")] {
                configuration(&Spec {
                    mounts: paths.iter().map(mount).collect(),
                    linux: Some(Linux {
                        devices: paths.iter().map(device).collect(),
                        sysctl: [(name, "1".to_owned())].into(),
                        cgroups_path: paths[0].clone(),
                        masked_paths: paths.clone(),
                        ..Linux::default()
                    }),
                    ..Spec::default()
                });
            }
        }

        #[test]
        fn options_do_what_they_do_alone(words in proptest::collection::vec(word(), 0..10)) {
            mount_options("tmpfs", &words);
            mount_options("bind", &words);
        }

        #[test]
        fn users_are_who_they_are_called(text in prop_oneof!["[a-c0-9:+ -]{0,12}", "[0-9]{1,11}"], passwd in "([a-c0-9+-]{1,3}:x:[0-9+-]{0,10}:[0-9]{0,3}:::\n?){0,5}") {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("etc")).unwrap();
            std::fs::write(folder.path().join("etc/passwd"), &passwd).unwrap();
            let root = std::fs::File::open(folder.path()).unwrap();
            user(root.as_fd(), &text, &passwd);
        }
    }
}
