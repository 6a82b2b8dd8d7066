//! A cgroup for one test, and processes in it.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cgroups::{Cgroup, CgroupPath, Host, Version};
use oci::runtime::LinuxResources;

/// A cgroup that ends with the test, whatever is still in it.
pub(crate) struct Scratch {
    pub(crate) host: Host,
    pub(crate) cgroup: Cgroup,
    path: CgroupPath,
}

/// A shell in the cgroup; what is not waited for is killed with the cgroup.
pub(crate) struct Shell {
    child: Child,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let host = Host::detect().unwrap();
        let path = scratch_path(name);
        let cgroup = Cgroup::create(&host, &path).unwrap();
        Self { host, cgroup, path }
    }

    pub(crate) fn with(name: &str, resources: &LinuxResources) -> Self {
        let scratch = Self::new(name);
        scratch.cgroup.apply(resources).unwrap();
        scratch
    }

    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Runs a shell line inside the cgroup: it starts only when the process has been moved.
    pub(crate) fn spawn(&self, line: &str) -> Shell {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {line}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.cgroup.add(child.id().try_into().unwrap()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Shell { child }
    }

    /// The content of one of the cgroup's files, in the hierarchy that has it.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        self.cgroup
            .paths()
            .find_map(|place| std::fs::read_to_string(place.path.join(name)).ok())
            .map(|text| text.trim().to_owned())
    }

    /// The content of the file that the cgroup's version has for something.
    pub(crate) fn file_of(&self, controller: cgroups::Controller, v1: &str, v2: &str) -> String {
        let name = if version_of(&self.host, controller) == Version::V1 { v1 } else { v2 };
        self.file(name).unwrap_or_else(|| panic!("no {name}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.cgroup.kill_all().unwrap();
        self.cgroup.remove().unwrap();
        assert!(self.cgroup.paths().all(|place| !place.path.exists()), "something of the cgroup is left");
    }
}

impl Shell {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn output(self) -> String {
        String::from_utf8(self.child.wait_with_output().unwrap().stdout).unwrap()
    }

    pub(crate) fn killed_by(self) -> Option<i32> {
        self.wait().signal()
    }
}

pub(crate) fn scratch_path(name: &str) -> CgroupPath {
    CgroupPath::parse(&format!("/conex-test-{name}-{}", std::process::id())).unwrap()
}

pub(crate) fn version_of(host: &Host, controller: cgroups::Controller) -> Version {
    let has = |hierarchy: &&cgroups::Hierarchy| hierarchy.controllers().contains(controller);
    host.hierarchies().find(has).unwrap_or_else(|| panic!("no controller {controller}")).version()
}

/// Says whether v2 has the controllers that matter here.
pub(crate) fn is_v2(host: &Host) -> bool {
    version_of(host, cgroups::Controller::Memory) == Version::V2
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}
