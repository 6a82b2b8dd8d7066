//! Which namespaces a container gets: new ones, and ones that exist.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use linux::namespace;
use oci::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result, Stage};

/// A namespace to join.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) kind: u64,
    fd: OwnedFd,
    path: PathBuf,
}

impl Joined {
    /// Moves this process in.
    pub(crate) fn join(&self) -> Result<()> {
        namespace::join(self.fd.as_fd(), self.kind)
            .context(Stage::Namespaces, || format!("cannot join the namespace {}", self.path.display()))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(crate) struct NamespacePlan {
    /// `CLONE_NEW*` flags, or'ed.
    pub(crate) new: u64,
    /// In the order in which they are joined: the user namespace first, because it gives the right to join the others.
    pub(crate) joined: Vec<Joined>,
    /// Whether the container's user namespace is not the runtime's.
    pub(crate) other_user_namespace: bool,
}

impl NamespacePlan {
    /// Opens the namespaces to join and checks that each is of its kind; `given` ones take the place of the configuration's.
    pub(crate) fn plan(spec: &Spec, given: [Option<OwnedFd>; 2]) -> Result<NamespacePlan> {
        let [network, user] = given;
        let mut plan = NamespacePlan::default();
        let configured = spec.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
        for (index, configured_one) in configured.iter().enumerate() {
            let kind = flag_of(configured_one.kind);
            if configured[..index].iter().any(|other| other.kind == configured_one.kind) {
                return Err(Error::new(Stage::Spec, format!("namespace {:?} is given twice", configured_one.kind)));
            }
            if kind == namespace::NETWORK && network.is_some() || kind == namespace::USER && user.is_some() {
                continue;
            }
            if configured_one.path.is_empty() {
                plan.new |= kind;
            } else {
                plan.joined.push(open(configured_one, kind)?);
            }
        }
        if let Some(fd) = network {
            check_kind(fd.as_fd(), namespace::NETWORK, "the network namespace given")?;
            plan.joined.push(Joined { kind: namespace::NETWORK, fd, path: PathBuf::from("of the network") });
        }
        if let Some(fd) = user {
            check_kind(fd.as_fd(), namespace::USER, "the user namespace given")?;
            plan.joined.push(Joined { kind: namespace::USER, fd, path: PathBuf::from("of the users") });
        }
        plan.other_user_namespace = plan.has_own(namespace::USER);
        plan.joined.sort_by_key(|joined| joined.kind != namespace::USER);
        Ok(plan)
    }

    /// Whether the container has a namespace of this kind that is not the runtime's own.
    pub(crate) fn has_own(&self, kind: u64) -> bool {
        self.new & kind != 0
            || self.joined.iter().any(|joined| joined.kind == kind && !is_current(joined.as_fd(), kind))
    }

    /// Whether it joins one of this kind.
    pub(crate) fn joins(&self, kind: u64) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// The user namespace that it joins, if it joins one.
    pub(crate) fn joined_user(&self) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|joined| joined.kind == namespace::USER).map(Joined::as_fd)
    }

    /// All kinds that differ from the runtime's: what `exec` has to join.
    pub(crate) fn all(&self) -> u64 {
        self.joined.iter().fold(self.new, |all, joined| all | joined.kind)
    }

    /// Whether a process of its own has to prepare the namespaces in which init is created: one that has joined or made the user
    /// namespace already, or else init could not be made in namespaces that belong to it.
    pub(crate) fn needs_intermediate(&self) -> bool {
        self.joins(namespace::USER)
            || self.new & namespace::USER != 0 && (!self.joined.is_empty() || self.new & namespace::TIME != 0)
    }
}

/// The kernel's flag for a kind.
pub(crate) fn flag_of(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Pid => namespace::PID,
        LinuxNamespaceType::Network => namespace::NETWORK,
        LinuxNamespaceType::Mount => namespace::MOUNT,
        LinuxNamespaceType::Ipc => namespace::IPC,
        LinuxNamespaceType::Uts => namespace::UTS,
        LinuxNamespaceType::User => namespace::USER,
        LinuxNamespaceType::Cgroup => namespace::CGROUP,
        LinuxNamespaceType::Time => namespace::TIME,
    }
}

/// The name of a kind's file in `/proc/PID/ns`.
pub(crate) fn file_of(kind: u64) -> &'static str {
    match kind {
        namespace::PID => "pid",
        namespace::NETWORK => "net",
        namespace::MOUNT => "mnt",
        namespace::IPC => "ipc",
        namespace::UTS => "uts",
        namespace::USER => "user",
        namespace::CGROUP => "cgroup",
        _ => "time",
    }
}

fn open(configured: &LinuxNamespace, kind: u64) -> Result<Joined> {
    let path = PathBuf::from(&configured.path);
    if !path.is_absolute() {
        return Err(Error::new(Stage::Spec, format!("the namespace path {:?} is not absolute", configured.path)));
    }
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Namespaces, || format!("cannot open the namespace {}", path.display()))?;
    check_kind(fd.as_fd(), kind, &configured.path)?;
    Ok(Joined { kind, fd, path })
}

fn check_kind(fd: BorrowedFd<'_>, kind: u64, subject: &str) -> Result<()> {
    match namespace::kind_of(fd) {
        Ok(found) if found == kind => Ok(()),
        Ok(found) => Err(Error::new(
            Stage::Namespaces,
            format!("{subject} is a namespace of kind {}, not {}", file_of(found), file_of(kind)),
        )),
        Err(errno) => Err(Error::os(Stage::Namespaces, format!("{subject} is not a namespace"), errno)),
    }
}

/// Whether this is the namespace that the calling process is in.
fn is_current(fd: BorrowedFd<'_>, kind: u64) -> bool {
    let own = rustix::fs::stat(format!("/proc/self/ns/{}", file_of(kind)));
    match (own, rustix::fs::fstat(fd)) {
        (Ok(own), Ok(other)) => (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// The namespace of a kind that the calling process is in, to return to.
pub(crate) fn current(file: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{file}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::Namespaces, || format!("cannot open {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::Linux;

    fn spec(namespaces: &[(LinuxNamespaceType, &str)]) -> Spec {
        let namespaces = namespaces.iter().map(|(kind, path)| LinuxNamespace { kind: *kind, path: (*path).to_owned() });
        Spec { linux: Some(Linux { namespaces: namespaces.collect(), ..Linux::default() }), ..Spec::default() }
    }

    #[test]
    fn new_and_joined_are_told_apart() {
        let spec = spec(&[(LinuxNamespaceType::Pid, ""), (LinuxNamespaceType::Uts, "/proc/self/ns/uts")]);
        let plan = NamespacePlan::plan(&spec, [None, None]).unwrap();
        assert_eq!(
            (plan.new, plan.joins(namespace::UTS), plan.all()),
            (namespace::PID, true, namespace::PID | namespace::UTS)
        );
        assert!(!plan.has_own(namespace::UTS), "it is the one that we are in");
        assert!(!plan.needs_intermediate());
    }

    #[test]
    fn a_namespace_of_another_kind_is_refused() {
        for (kind, path) in [(LinuxNamespaceType::Pid, "/proc/self/ns/net"), (LinuxNamespaceType::Ipc, "/etc/passwd")] {
            assert!(NamespacePlan::plan(&spec(&[(kind, path)]), [None, None]).is_err());
        }
        assert!(NamespacePlan::plan(&spec(&[(LinuxNamespaceType::Ipc, "proc/self/ns/ipc")]), [None, None]).is_err());
        assert!(
            NamespacePlan::plan(&spec(&[(LinuxNamespaceType::Ipc, ""), (LinuxNamespaceType::Ipc, "")]), [None, None])
                .is_err()
        );
    }
}
