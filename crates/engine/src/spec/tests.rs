//! Against what Docker 26 writes into config.json.

use oci::ContainerId;
use oci::runtime::{LinuxNamespaceType, Spec};

use super::{
    BlockDevices, CgroupNamespace, JoinedNamespaces, Owners, SpecHost, SpecInput, UserMount, UserMountSource, build,
};
use crate::model::{
    Access, BindRecursion, Capability, ContainerSpec, IpcMode, NetworkMode, PidMode, Propagation, Resources,
    SecurityOption, Ulimit, UtsMode,
};

fn host() -> SpecHost {
    SpecHost {
        capabilities: crate::model::CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
        swap_limit: true,
        recursive_read_only: true,
        ..SpecHost::default()
    }
}

fn spec_of(spec: &ContainerSpec, mounts: &[UserMount]) -> Spec {
    let id = ContainerId::from_random([7; 32]);
    let host = host();
    build(&SpecInput {
        id: &id,
        engine_name: "conex",
        spec,
        hostname: "web",
        command: vec!["sh".into()],
        mounts,
        files: vec![("/c/hosts".into(), "/etc/hosts")],
        init: spec.init.filter(|init| *init).map(|_| "/usr/lib/conex-runtime".into()),
        devices: &[],
        block_devices: &BlockDevices::new(),
        joined: JoinedNamespaces { ipc: Some(5), pid: Some(6), network: Some(7) },
        id_mappings: None,
        shared_memory: Some("/run/shm/x".into()),
        cgroup_namespace: CgroupNamespace::Host,
        host: &host,
    })
    .unwrap()
}

fn kinds(spec: &Spec) -> Vec<(LinuxNamespaceType, String)> {
    spec.linux.as_ref().unwrap().namespaces.iter().map(|ns| (ns.kind, ns.path.clone())).collect()
}

fn has_mount(spec: &Spec, target: &str) -> bool {
    spec.mounts.iter().any(|mount| mount.destination == target)
}

#[test]
fn defaults_are_dockers() {
    let spec = spec_of(&ContainerSpec { tty: true, env: vec!["A=1".into()], ..ContainerSpec::default() }, &[]);
    let process = spec.process.as_ref().unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(process.env, [path, "HOSTNAME=web", "TERM=xterm", "A=1"]);
    let capabilities = process.capabilities.as_ref().unwrap();
    let mask = capabilities.bounding.iter().fold(0u64, |mask, name| {
        mask | 1 << crate::model::CAPABILITIES.iter().position(|known| known == name).unwrap()
    });
    assert_eq!(format!("{mask:x}"), "a80425fb");
    assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
    let targets: Vec<&str> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(
        targets,
        ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/etc/hosts"]
    );
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.cgroups_path.starts_with("/conex/0707"));
    assert!(
        linux.masked_paths.contains(&"/proc/kcore".to_owned())
            && linux.readonly_paths.contains(&"/proc/sys".to_owned())
    );
    let shm = spec.mounts.iter().find(|mount| mount.destination == "/dev/shm").unwrap();
    assert!(shm.options.contains(&"size=67108864".to_owned()));
}

#[test]
fn privileged_opens_everything() {
    let spec = spec_of(&ContainerSpec { privileged: true, ..ContainerSpec::default() }, &[]);
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty());
    assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding.len(), crate::model::CAPABILITIES.len());
    let rules = &linux.resources.as_ref().unwrap().devices;
    assert_eq!((rules.len(), rules[0].allow, rules[0].access.as_str()), (1, true, "rwm"));
    let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
    assert!(sys.options.contains(&"rw".to_owned()) && !sys.options.contains(&"ro".to_owned()));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let one = |name: &str| Capability::parse(name).unwrap();
    let bounding = |add: &[Capability], drop: &[Capability]| {
        let spec = ContainerSpec { cap_add: add.to_vec(), cap_drop: drop.to_vec(), ..ContainerSpec::default() };
        spec_of(&spec, &[]).process.unwrap().capabilities.unwrap().bounding
    };
    assert_eq!(bounding(&[one("NET_ADMIN")], &[Capability::All]), ["CAP_NET_ADMIN"]);
    assert!(!bounding(&[Capability::All], &[one("MKNOD")]).contains(&"CAP_MKNOD".to_owned()));
    assert_eq!(bounding(&[], &[one("MKNOD")]).len(), 13);
}

#[test]
fn namespaces_follow_the_modes() {
    use LinuxNamespaceType as N;
    let new = |kind| (kind, String::new());
    assert_eq!(
        kinds(&spec_of(&ContainerSpec::default(), &[])),
        [N::Mount, N::Network, N::Uts, N::Pid, N::Ipc].map(new)
    );
    let shared = ContainerSpec {
        network: NetworkMode::Container("x".into()),
        ipc: IpcMode::Container("x".into()),
        pid: PidMode::Container("x".into()),
        uts: UtsMode::Host,
        ..ContainerSpec::default()
    };
    let expected = [
        new(N::Mount),
        (N::Network, "/proc/7/ns/net".to_owned()),
        (N::Pid, "/proc/6/ns/pid".to_owned()),
        (N::Ipc, "/proc/5/ns/ipc".to_owned()),
    ];
    let spec = spec_of(&shared, &[]);
    assert_eq!(kinds(&spec), expected);
    let shm = spec.mounts.iter().find(|mount| mount.destination == "/dev/shm").unwrap();
    assert_eq!((shm.kind.as_str(), shm.source.as_str()), ("bind", "/run/shm/x"));
    let host = ContainerSpec {
        network: NetworkMode::Host,
        ipc: IpcMode::Host,
        pid: PidMode::Host,
        ..ContainerSpec::default()
    };
    assert_eq!(kinds(&spec_of(&host, &[])), [N::Mount, N::Uts].map(new));
}

#[test]
fn user_mounts_replace_defaults() {
    let mount =
        |target: &str, source| UserMount { target: target.into(), source, access: Access::ReadOnly, propagation: None };
    let bind = |path: &str| UserMountSource::Bind {
        path: path.into(),
        recursion: BindRecursion::Recursive,
        owners: Owners::Host,
    };
    let mounts = [
        mount("/dev/shm", bind("/x")),
        mount("/etc/hosts", bind("/y")),
        mount("/t", UserMountSource::Tmpfs { options: vec!["size=1m".into()] }),
    ];
    let spec = spec_of(&ContainerSpec::default(), &mounts);
    let sources: Vec<&str> =
        spec.mounts.iter().filter(|mount| mount.destination == "/dev/shm").map(|mount| mount.source.as_str()).collect();
    assert_eq!(sources, ["/x"]);
    let hosts = spec.mounts.iter().find(|mount| mount.destination == "/etc/hosts").unwrap();
    assert_eq!((hosts.source.as_str(), hosts.options.join(",")), ("/y", "rbind,rro,rprivate".into()));
    let writable = UserMount { access: Access::ReadWrite, ..mount("/data", bind("/w")) };
    let spec = spec_of(&ContainerSpec::default(), &[writable]);
    let data = spec.mounts.iter().find(|mount| mount.destination == "/data").unwrap();
    assert_eq!(data.options.join(","), "rbind,rprivate", "no rw, which a read-only source would obey");
    let etc = spec_of(&ContainerSpec::default(), &[mount("/etc", bind("/z"))]);
    let order: Vec<&str> =
        etc.mounts.iter().map(|mount| mount.destination.as_str()).filter(|target| target.starts_with("/etc")).collect();
    assert_eq!(order, ["/etc", "/etc/hosts"]);
    let dev = spec_of(&ContainerSpec::default(), &[mount("/dev", bind("/dev"))]);
    assert!(!has_mount(&dev, "/dev/pts") && !has_mount(&dev, "/dev/shm"));
}

#[test]
fn limits_reach_the_cgroup() {
    let resources = Resources {
        memory_bytes: 1 << 26,
        memory_swap_bytes: 1 << 27,
        nano_cpus: 1_500_000_000,
        pids_limit: Some(50),
        ulimits: vec![Ulimit::new("nofile", 10, -1).unwrap()],
        ..Resources::default()
    };
    let spec = spec_of(&ContainerSpec { resources, ..ContainerSpec::default() }, &[]);
    let limits = spec.linux.unwrap().resources.unwrap();
    let memory = limits.memory.unwrap();
    assert_eq!((memory.limit, memory.swap), (Some(1 << 26), Some(1 << 27)));
    let cpu = limits.cpu.unwrap();
    assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
    assert_eq!(limits.pids.unwrap().limit, Some(50));
    let rlimit = &spec.process.unwrap().rlimits[0];
    assert_eq!((rlimit.soft, rlimit.hard), (10, u64::MAX));
}

#[test]
fn options_of_security_are_carried_over() {
    let security = ["no-new-privileges", "systempaths=unconfined", "apparmor=web"];
    let security = security.map(|text| SecurityOption::parse(text).unwrap()).to_vec();
    let spec = spec_of(&ContainerSpec { security, init: Some(true), ..ContainerSpec::default() }, &[]);
    let process = spec.process.as_ref().unwrap();
    assert!(process.no_new_privileges && process.apparmor_profile == "web");
    assert!(spec.linux.as_ref().unwrap().masked_paths.is_empty());
    assert_eq!(process.args, ["/sbin/docker-init", "--", "sh"]);
    assert!(has_mount(&spec, "/sbin/docker-init"));
}

#[test]
fn shared_mounts_need_a_shared_root() {
    let mount = |propagation| UserMount {
        target: "/m".into(),
        source: UserMountSource::Bind { path: "/m".into(), recursion: BindRecursion::Recursive, owners: Owners::Host },
        access: Access::ReadWrite,
        propagation: Some(propagation),
    };
    let propagation =
        |p| format!("{:?}", spec_of(&ContainerSpec::default(), &[mount(p)]).linux.unwrap().rootfs_propagation.unwrap());
    assert_eq!(propagation(Propagation::RShared), "Shared");
    assert_eq!(propagation(Propagation::RSlave), "Slave");
    assert_eq!(propagation(Propagation::Private), "Private");
}
