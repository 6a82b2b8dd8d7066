//! The floor: what the kernel alone costs to start and end a container.
//!
//! `floor LOWER SCRATCH PROGRAM [ARGUMENT...]` runs PROGRAM once in six new namespaces, on an overlay of LOWER with new
//! upper and work folders below SCRATCH, with /proc and a /dev of six devices, after `pivot_root`. Its exit status is the
//! program's. It does nothing else: no cgroup, no capabilities, no seccomp, no network, no log. No container engine can be faster
//! than this unless it prepares something in advance.
//!
//! `floor peak PROGRAM [ARGUMENT...]` runs PROGRAM as it is and prints the largest resident set, in KiB, that it or one of its
//! children had. A process begins with the peak of whoever has forked it, which here is a small one.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use linux::clone::{CloneArgs, Cloned, clone3, exit_now};
use linux::exec::{CStringList, execve};
use linux::namespace;
use rustix::fs::{CWD, FileType, Mode, makedev, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{WaitOptions, chdir, pivot_root, waitpid};

/// Minor numbers of the memory devices (major 1), and the terminal.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const NAMESPACES: u64 =
    namespace::MOUNT | namespace::PID | namespace::UTS | namespace::IPC | namespace::NETWORK | namespace::CGROUP;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, program, arguments @ ..] = arguments.as_slice()
        && word == "peak"
    {
        return peak(program, arguments);
    }
    let [lower, scratch, command @ ..] = arguments.as_slice() else { return usage() };
    let (Some(program), Some(list)) = (command.first(), CStringList::new(command.iter().map(String::as_str))) else {
        return usage();
    };
    match start(lower, scratch, program, &list) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "floor: {error}");
            ExitCode::from(125)
        }
    }
}

fn usage() -> ExitCode {
    let _ = writeln!(
        std::io::stderr(),
        "usage: floor LOWER SCRATCH PROGRAM [ARGUMENT...] | floor peak PROGRAM [ARGUMENT...]"
    );
    ExitCode::from(125)
}

fn peak(program: &str, arguments: &[String]) -> ExitCode {
    let status = std::process::Command::new(program).args(arguments).status();
    match (status, linux::resource::peak_of_children()) {
        (Ok(status), Ok(peak)) if status.success() => {
            let told = writeln!(std::io::stdout(), "{peak}");
            ExitCode::from(u8::from(told.is_err()))
        }
        (status, _) => {
            let _ = writeln!(std::io::stderr(), "floor: {program}: {status:?}");
            ExitCode::FAILURE
        }
    }
}

/// Creates the process and waits for it.
fn start(lower: &str, scratch: &str, program: &str, arguments: &CStringList) -> Result<u8, Errno> {
    let folder = format!("{scratch}/{}", std::process::id());
    for name in ["", "/upper", "/work", "/root"] {
        mkdirat(CWD, format!("{folder}{name}"), Mode::from_raw_mode(0o755))?;
    }
    match clone3(&CloneArgs { namespaces: NAMESPACES, ..CloneArgs::default() })? {
        Cloned::Child => {
            let error = inside(lower, &folder, program, arguments).unwrap_or_else(|error| error);
            let _ = writeln!(std::io::stderr(), "floor: in the container: {error}");
            exit_now(126)
        }
        Cloned::Parent(child) => {
            let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())?.ok_or(Errno::CHILD)?;
            Ok(status.exit_status().map_or(128, |code| code as u8))
        }
    }
}

/// Sets the root up and becomes the program; returns only an error.
fn inside(lower: &str, folder: &str, program: &str, arguments: &CStringList) -> Result<Errno, Errno> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = overlay(lower, folder)?;
    attach(&root, &format!("{folder}/root"))?;
    chdir(format!("{folder}/root"))?;
    attach(&file_system("proc")?, "proc")?;
    let dev = file_system("tmpfs")?;
    attach(&dev, "dev")?;
    for (name, major, minor) in DEVICES {
        mknodat(&dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))?;
    }
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    let program = CString::new(program).map_err(|_| Errno::INVAL)?;
    let environment = CStringList::new([]).ok_or(Errno::INVAL)?;
    Ok(execve(&program, arguments, &environment))
}

fn overlay(lower: &str, folder: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "lowerdir", lower)?;
    fsconfig_set_string(context.as_fd(), "upperdir", format!("{folder}/upper"))?;
    fsconfig_set_string(context.as_fd(), "workdir", format!("{folder}/work"))?;
    finish(&context)
}

fn file_system(kind: &str) -> Result<OwnedFd, Errno> {
    finish(&fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?)
}

fn finish(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attach(mount: &OwnedFd, place: &str) -> Result<(), Errno> {
    move_mount(mount.as_fd(), "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
