//! Checkpoint and restore, by the program criu.
//!
//! CRIU knows how to take processes apart and put them together again; what it cannot know is which mounts and cgroups come from outside.
//! This module tells it that, from the configuration. It runs `criu` as a program, so its absence, and everything that CRIU refuses, is an
//! error with the place of CRIU's own log.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use cgroups::Cgroup;
use linux::clone::Child;
use linux::mount_attr::{MountAttr, Reach, set_attributes};
use linux::namespace;
use oci::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::container::{Membership, Running, cgroup_error, cgroup_path, detect_host};
use crate::error::{Context, Error, Result, Stage};
use crate::mount_options::{MountOptions, PROPAGATION_SLAVE, Source};
use crate::mounts::{attach_at, clone_tree};
use crate::namespaces::NamespacePlan;
use crate::request::{CgroupAccess, CgroupManager};
use crate::root::clean;
use crate::state::Saved;

/// What the standard streams were, beside the images: three links as `/proc/PID/fd` has them. Other runtimes write it in this form too.
const DESCRIPTORS_FILE: &str = "descriptors.json";
/// How far from its end CRIU's log is searched for errors.
const MAX_LOG_BYTES: u64 = 64 * 1024;
/// Longer links of standard streams are not looked at.
const MAX_DESCRIPTORS_BYTES: u64 = 64 * 1024;
/// The name by which both directions speak of a network namespace that the container joined.
const OUTER_NETWORK: &str = "extRootNetNS";

/// What is said to CRIU for both directions.
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where the log goes; beside the images when empty.
    pub work_path: PathBuf,
    /// An earlier image that only differences are written to, relative to the images.
    pub parent_path: Option<PathBuf>,
    /// Lets the container run on.
    pub leave_running: bool,
    /// Writes memory only, before the real checkpoint.
    pub pre_dump: bool,
    /// CRIU's own switches, as `--tcp-established`.
    pub switches: Vec<String>,
    /// How cgroups are treated: `soft`, `full`, `strict` or `ignore`.
    pub manage_cgroups: Option<String>,
}

/// A container to restore.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// The container's name.
    pub id: &'a str,
    /// The configuration with which it was created.
    pub spec: &'a Spec,
    /// Its root.
    pub rootfs: &'a Path,
    /// Who makes the cgroup.
    pub cgroup: CgroupManager,
    /// What is said to CRIU.
    pub options: &'a CriuOptions,
}

/// Writes a container's processes to images. They end, unless the options say otherwise.
pub fn checkpoint(container: &Saved, options: &CriuOptions) -> Result<()> {
    if container.spec.process.as_ref().is_some_and(|process| process.terminal) {
        return Err(Error::new(Stage::Operate, "checkpoint is not supported for a container with a terminal"));
    }
    make_directory(&options.image_path)?;
    let verb = if options.pre_dump { "pre-dump" } else { "dump" };
    let mut criu = criu(verb, &container.rootfs, options)?;
    criu.args(["--tree".to_owned(), container.pid.to_string()]);
    if let Some(namespace) = joined_network(&container.spec)? {
        let failed = || format!("cannot look at the network namespace {}", namespace.path.display());
        let inode = rustix::fs::fstat(&namespace.fd).context(Stage::Operate, failed)?.st_ino;
        criu.args(["--external".to_owned(), format!("net[{inode}]:{OUTER_NETWORK}")]);
    }
    save_descriptors(container.pid, &options.image_path)?;
    for destination in outside_mounts(&container.spec) {
        criu.args(["--external".to_owned(), format!("mnt[{destination}]:{destination}")]);
    }
    if options.leave_running {
        criu.arg("--leave-running");
    }
    if let Some(parent) = &options.parent_path {
        criu.arg("--prev-images-dir").arg(parent);
    }
    if options.pre_dump {
        criu.arg("--track-mem");
    }
    run(criu, verb, options)
}

/// Makes a container again from images. It runs from where it was.
///
/// The caller leaves its mount namespace for a new one.
pub fn restore(request: &RestoreRequest<'_>) -> Result<Running> {
    let hooks = request.spec.hooks.iter();
    if hooks.clone().any(|hooks| !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty()) {
        return Err(Error::new(
            Stage::Hook,
            "restore is not supported for a container with prestart or createRuntime hooks",
        ));
    }
    let namespaces = NamespacePlan::plan(request.spec, [None, None])?;
    let cgroup = match request.cgroup {
        CgroupManager::None => None,
        CgroupManager::Systemd => {
            return Err(Error::new(Stage::Cgroup, "restore is not supported with systemd cgroups"));
        }
        CgroupManager::Files => {
            let path = cgroup_path(request.spec, request.id, CgroupAccess::Required)?;
            let cgroup = Cgroup::create(&detect_host()?, &path).map_err(|error| cgroup_error(&error))?;
            let resources = request.spec.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
            cgroup.apply(&resources).map_err(|error| cgroup_error(&error))?;
            Some(cgroup)
        }
    };
    let restored = restore_into(request, cgroup.as_ref());
    match restored {
        Ok(child) => {
            let membership =
                Membership { namespaces: namespaces.all(), id: request.id.to_owned(), ..Membership::default() };
            Ok(Running::found(child, cgroup, membership))
        }
        Err(error) => {
            if let Some(cgroup) = &cgroup {
                let _the_first_error_is_told = cgroup.remove();
            }
            Err(error)
        }
    }
}

fn restore_into(request: &RestoreRequest<'_>, cgroup: Option<&Cgroup>) -> Result<Child> {
    bind_root_on_itself(request.rootfs)?;
    let pid_file = work_path(request.options).join("restored.pid");
    let mut criu = criu("restore", request.rootfs, request.options)?;
    criu.arg("--restore-detached").arg("--pidfile").arg(&pid_file);
    let sources = request.spec.mounts.iter().filter(|mount| is_from_outside(mount));
    for mount in sources {
        let destination = clean(Path::new(&mount.destination));
        criu.args(["--external".to_owned(), format!("mnt[{}]:{}", destination.display(), mount.source)]);
    }
    for place in cgroup.iter().flat_map(|cgroup| cgroup.paths()) {
        criu.args(["--cgroup-root".to_owned(), format!("{}:/{}", place.name, place.below)]);
    }
    let mut handed_on = Inherited::default();
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (stream, link) in streams.into_iter().zip(read_descriptors(&request.options.image_path)?) {
        // What is no pipe is opened anew by its path.
        if link.starts_with("pipe:[") {
            handed_on.add(&mut criu, stream, &link)?;
        }
    }
    if let Some(namespace) = joined_network(request.spec)? {
        handed_on.add(&mut criu, namespace.fd.as_fd(), OUTER_NETWORK)?;
    }
    run(criu, "restore", request.options)?;
    read_pid(&pid_file)
}

/// Descriptors that criu finds open, as long as this lives.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    /// Says to criu that a descriptor is to be used where the images have `name`.
    fn add(&mut self, criu: &mut Command, descriptor: BorrowedFd<'_>, name: &str) -> Result<()> {
        let failed = || format!("cannot hand {name} to criu");
        // The streams' own numbers are criu's streams.
        let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, 3).context(Stage::Operate, failed)?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty()).context(Stage::Operate, failed)?;
        criu.args(["--inherit-fd".to_owned(), format!("fd[{}]:{name}", copy.as_raw_fd())]);
        self.0.push(copy);
        Ok(())
    }
}

/// A namespace that the configuration names by its path.
struct JoinedNetwork {
    path: PathBuf,
    fd: OwnedFd,
}

/// The network namespace that the container was put into: it is not in the images.
fn joined_network(spec: &Spec) -> Result<Option<JoinedNetwork>> {
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let network = namespaces.find(|one| one.kind == LinuxNamespaceType::Network && !one.path.is_empty());
    let Some(path) = network.map(|network| PathBuf::from(&network.path)) else { return Ok(None) };
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let fd = fd.context(Stage::Namespaces, || format!("cannot open the network namespace {}", path.display()))?;
    Ok(Some(JoinedNetwork { path, fd }))
}

fn save_descriptors(pid: i32, images: &Path) -> Result<()> {
    let links = [0, 1, 2].map(|descriptor| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
        link.map(|path| path.display().to_string()).unwrap_or_default()
    });
    let text = serde_json::to_vec(&links).unwrap_or_default();
    durable::write_volatile(images, DESCRIPTORS_FILE, &text)
        .map_err(|error| Error::new(Stage::Operate, error.to_string()))
}

/// The links of the standard streams; nothing where images of another origin have none.
fn read_descriptors(images: &Path) -> Result<Vec<String>> {
    use std::io::Read;
    let path = images.join(DESCRIPTORS_FILE);
    let failed = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(Stage::Operate, failed)?,
    };
    let mut text = Vec::new();
    file.take(MAX_DESCRIPTORS_BYTES).read_to_end(&mut text).context(Stage::Operate, failed)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(Stage::Operate, format!("{} is not a list of links: {error}", path.display())))
}

fn read_pid(pid_file: &Path) -> Result<Child> {
    let failed = || format!("cannot read {}", pid_file.display());
    let text = std::fs::read_to_string(pid_file).context(Stage::Operate, failed)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::new(Stage::Operate, format!("{} holds no pid", pid_file.display())))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(Stage::Operate, || "the restored container is gone")?;
    Ok(Child { pid, pidfd })
}

/// CRIU wants the root to be a mount whose parent passes nothing on.
fn bind_root_on_itself(rootfs: &Path) -> Result<()> {
    let failed = || format!("cannot bind {} on itself", rootfs.display());
    namespace::unshare(namespace::MOUNT).context(Stage::Namespaces, || "cannot create a mount namespace")?;
    let host = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(Stage::Rootfs, failed)?;
    let slave = MountAttr { propagation: PROPAGATION_SLAVE, ..MountAttr::default() };
    set_attributes(host.as_fd(), Reach::Recursive, &slave).context(Stage::Rootfs, failed)?;
    let place = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let place = place.context(Stage::Rootfs, failed)?;
    let tree = clone_tree(place.as_fd(), Reach::Recursive).context(Stage::Rootfs, failed)?;
    attach_at(tree.as_fd(), place.as_fd()).context(Stage::Rootfs, failed)
}

/// What both directions say to CRIU.
fn criu(verb: &str, rootfs: &Path, options: &CriuOptions) -> Result<Command> {
    make_directory(work_path(options))?;
    let mut criu = Command::new("criu");
    let pairs: [(&str, OsString); 4] = [
        ("--images-dir", options.image_path.clone().into()),
        ("--work-dir", work_path(options).into()),
        ("--root", rootfs.into()),
        ("--log-file", log_name(verb).into()),
    ];
    criu.arg(verb);
    for (option, value) in pairs {
        criu.arg(option).arg(value);
    }
    criu.arg("-v4").args(&options.switches);
    if let Some(mode) = &options.manage_cgroups {
        criu.arg(format!("--manage-cgroups={mode}"));
    }
    Ok(criu)
}

fn run(mut criu: Command, verb: &str, options: &CriuOptions) -> Result<()> {
    let output = criu.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Stage::Operate, format!("{verb} needs the program criu, which is not installed"))
        }
        _ => Error::io(Stage::Operate, "cannot run criu", &error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let log = work_path(options).join(log_name(verb));
    let cause = last_error(&log).unwrap_or_else(|| output.status.to_string());
    Err(Error::new(Stage::Operate, format!("criu failed: {cause}; its log is {}", log.display())))
}

/// The last error that CRIU's log tells, without the time and the place in CRIU's sources.
fn last_error(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    // The last of all says only that the verb failed.
    let errors = tail.lines().filter_map(|line| line.split_once("Error (")?.1.split_once("): ").map(|(_, text)| text));
    let mut told = errors.map(str::trim).filter(|text| !text.is_empty() && !text.ends_with("FAILED."));
    told.next_back().map(str::to_owned)
}

fn log_name(verb: &str) -> String {
    format!("{}.log", if verb == "restore" { "restore" } else { "dump" })
}

fn work_path(options: &CriuOptions) -> &Path {
    if options.work_path.as_os_str().is_empty() { &options.image_path } else { &options.work_path }
}

fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(Stage::Operate, || format!("cannot create {}", path.display())),
    }
}

fn is_from_outside(mount: &oci::runtime::Mount) -> bool {
    MountOptions::parse(mount).source != Source::FileSystem
}

/// The destinations of binds: their sources are not in the images. What covers masked paths is of file systems of the container's own.
fn outside_mounts(spec: &Spec) -> Vec<String> {
    let binds = spec.mounts.iter().filter(|mount| is_from_outside(mount));
    binds.map(|mount| clean(Path::new(&mount.destination)).display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_come_from_outside() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.3.0",
            "mounts": [
                { "destination": "/proc", "type": "proc" },
                { "destination": "/data/../etc/hosts", "type": "bind", "source": "/hosts", "options": ["rbind"] },
            ],
            "linux": { "maskedPaths": ["/proc/kcore"] },
        }))
        .unwrap();
        assert_eq!(outside_mounts(&spec), ["/etc/hosts"]);
    }

    #[test]
    fn the_cause_is_the_last_error_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("dump.log");
        assert_eq!(last_error(&log), None);
        let text = "(00.1) Error (criu/a.c:1): first\n(00.2) Error (criu/b.c:22): tty: no master\n(00.3) pie: 1: hello\n(00.4) Error (criu/c.c:3): Dumping FAILED.\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("tty: no master"));
    }

    #[test]
    fn what_the_streams_were_is_read_back_and_bad_images_are_refused() {
        let images = tempfile::tempdir().unwrap();
        assert_eq!(read_descriptors(images.path()).unwrap(), Vec::<String>::new());
        save_descriptors(std::process::id().cast_signed(), images.path()).unwrap();
        let read = read_descriptors(images.path()).unwrap();
        assert_eq!(read[1], std::fs::read_link("/proc/self/fd/1").unwrap().display().to_string());
        std::fs::write(images.path().join(DESCRIPTORS_FILE), "{").unwrap();
        let error = read_descriptors(images.path()).unwrap_err();
        assert!(error.message.contains("descriptors.json is not a list of links"), "{error}");
    }

    #[test]
    fn the_log_lies_beside_the_images_unless_told_otherwise() {
        let mut options = CriuOptions { image_path: "/images".into(), ..CriuOptions::default() };
        assert_eq!(work_path(&options), Path::new("/images"));
        options.work_path = "/work".into();
        assert_eq!(work_path(&options), Path::new("/work"));
    }
}
