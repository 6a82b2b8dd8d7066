//! Namespaces of a test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tempfile::TempDir;

use crate::program::Program;

/// The calling thread's own mount and network namespace, and a scratch folder.
///
/// The thread stays in these namespaces to its end: a test makes one host, on its own thread.
#[derive(Debug)]
pub struct Host {
    scratch: TempDir,
    name: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// Leaves the machine's namespaces for new ones with a loopback interface.
    pub fn new() -> Self {
        linux::namespace::unshare(linux::namespace::MOUNT | linux::namespace::NETWORK)
            .expect("end-to-end tests run as root");
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("/ is a mount");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The name goes into interface names, which have 15 characters.
        let name = format!("t{}{}", std::process::id(), letters(count));
        let scratch = tempfile::Builder::new().prefix("conex-test-").tempdir().expect("a scratch folder");
        for folder in ["home", "files"] {
            std::fs::create_dir(scratch.path().join(folder)).expect("a new folder");
        }
        let host = Self { scratch, name };
        host.program("ip").args(["link", "set", "lo", "up"]).ok();
        host
    }

    /// Takes a mount of the machine away from this host, and leaves an empty folder of its own there.
    pub fn lose(&self, folder: &str) {
        if unmount(folder, UnmountFlags::DETACH).is_ok() {
            mount("tmpfs", folder, "tmpfs", MountFlags::empty(), None).expect("end-to-end tests run as root");
        }
    }

    /// Gives this host a folder of the machine for its own: what is changed there stays with the test.
    pub fn own(&self, folder: &str) {
        let place = self.scratch().join(format!("own{}", folder.replace('/', "-")));
        let parts = ["upper", "work"].map(|part| place.join(part));
        parts.iter().for_each(|part| std::fs::create_dir_all(part).expect("a new folder"));
        let options = format!("lowerdir={folder},upperdir={},workdir={}", parts[0].display(), parts[1].display());
        self.program("mount").args(["-t", "overlay", "overlay", "-o", &options, folder]).ok();
    }

    /// A name that no other test on this machine has at the same time.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scratch folder, removed with the host.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A folder for files of the test itself.
    pub fn files(&self) -> PathBuf {
        self.scratch.path().join("files")
    }

    /// A program that runs in this host, with a clean environment.
    pub fn program(&self, name: impl AsRef<std::ffi::OsStr>) -> Program {
        let home = self.scratch.path().join("home");
        Program::new(name.as_ref()).env("HOME", &home).env("DOCKER_CONFIG", home.join(".docker"))
    }

    /// Our own command line, without an engine's address.
    pub fn conex(&self) -> Program {
        self.program(crate::engine::programs().join("conex"))
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

fn letters(mut number: u32) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return text;
        }
    }
}
