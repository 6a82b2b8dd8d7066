//! User namespaces: writing their mappings, and making one only for its mappings.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::process::Command;

use linux::clone::{CloneArgs, Cloned, clone3, exit_now};
use linux::{Errno, namespace};
use oci::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::error::{Context, Error, Result, Stage};

/// The kernel's limit of lines in a map.
const MAX_MAPPINGS: usize = 340;

/// The text of a map file.
fn text(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        let _infallible = writeln!(text, "{} {} {}", mapping.container_id, mapping.host_id, mapping.size);
        text
    })
}

/// Refuses maps that the kernel would not take.
pub(crate) fn check(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    for (what, mappings) in [("uid", uids), ("gid", gids)] {
        if mappings.len() > MAX_MAPPINGS {
            return Err(Error::new(
                Stage::Spec,
                format!("{} {what} mappings are more than {MAX_MAPPINGS}", mappings.len()),
            ));
        }
        if let Some(mapping) = mappings.iter().find(|mapping| mapping.size == 0) {
            return Err(Error::new(Stage::Spec, format!("the {what} mapping of {} has size 0", mapping.container_id)));
        }
    }
    Ok(())
}

/// Writes the maps of the new user namespace of process `pid`.
///
/// Without privilege there are two ways: a single id, which is one's own; or the setuid programs newuidmap and newgidmap.
pub(crate) fn write(pid: Pid, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        write_map(pid, "gid_map", &text(gids))?;
        return write_map(pid, "uid_map", &text(uids));
    }
    if is_self(uids, rustix::process::geteuid().as_raw()) && is_self(gids, rustix::process::getegid().as_raw()) {
        write_map(pid, "setgroups", "deny")?;
        write_map(pid, "gid_map", &text(gids))?;
        return write_map(pid, "uid_map", &text(uids));
    }
    run_helper("newuidmap", pid, uids)?;
    run_helper("newgidmap", pid, gids)
}

fn is_self(mappings: &[LinuxIdMapping], id: u32) -> bool {
    matches!(mappings, [mapping] if mapping.host_id == id && mapping.size == 1)
}

fn write_map(pid: Pid, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
    let failed = || format!("cannot write {path}");
    let file =
        rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).context(Stage::Namespaces, failed)?;
    rustix::io::write(&file, text.as_bytes()).context(Stage::Namespaces, failed).map(drop)
}

fn run_helper(program: &str, pid: Pid, mappings: &[LinuxIdMapping]) -> Result<()> {
    let numbers = mappings.iter().flat_map(|mapping| [mapping.container_id, mapping.host_id, mapping.size]);
    let output = Command::new(program)
        .arg(pid.as_raw_nonzero().to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .context(Stage::Namespaces, || format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(Stage::Namespaces, format!("{program} failed: {why}")))
}

/// Makes a user namespace with these maps, for an id-mapped mount; no process stays in it.
pub(crate) fn namespace_with(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let failed = || "cannot make a user namespace for an id-mapped mount";
    let args = CloneArgs { namespaces: namespace::USER, ..CloneArgs::default() };
    match clone3(&args).context(Stage::Mounts, failed)? {
        Cloned::Child => {
            // The creator kills it; should the creator die first, this does not stay.
            let _until_killed = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 60, tv_nsec: 0 });
            exit_now(0)
        }
        Cloned::Parent(child) => {
            let path = format!("/proc/{}/ns/user", child.pid.as_raw_nonzero());
            let made = write(child.pid, uids, gids).and_then(|()| {
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(Stage::Mounts, failed)
            });
            let _it_may_have_ended = kill_process(child.pid, Signal::KILL);
            while let Err(Errno::INTR) = waitpid(Some(child.pid), WaitOptions::empty()) {}
            made
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_written_as_lines() {
        let mapping = LinuxIdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
        assert_eq!(text(&[mapping, mapping]), "0 100000 65536\n0 100000 65536\n");
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_refused() {
        let mapping = LinuxIdMapping { container_id: 0, host_id: 100_000, size: 1 };
        assert!(check(&vec![mapping; 341], &[]).is_err());
        assert!(check(&[], &[LinuxIdMapping { size: 0, ..mapping }]).is_err());
        check(&vec![mapping; 340], &[mapping]).unwrap();
    }

    #[test]
    fn a_namespace_is_made_for_its_maps() {
        let mapping = [LinuxIdMapping { container_id: 0, host_id: 100_000, size: 10 }];
        let fd = namespace_with(&mapping, &mapping).unwrap();
        assert_eq!(namespace::kind_of(std::os::fd::AsFd::as_fd(&fd)).unwrap(), namespace::USER);
    }
}
