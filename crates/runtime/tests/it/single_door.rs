//! What runs inside a container opens nothing of it otherwise than through `root.rs`: looked up in the sources themselves.

use std::collections::BTreeSet;
use std::path::Path;

/// The modules that handle what a container controls, and the paths that each may name all the same: of the host's files, or `/` and `.`.
const CONTAINED: [(&str, &[&str]); 11] = [
    ("cgroup_mount.rs", &["host", "hierarchy.path"]),
    ("copy_up.rs", &[]),
    // A device's path on the host, where the container cannot make one; whether the host has a file.
    ("devices.rs", &["self.path", "Path::new(\"/proc/kcore\")"]),
    // A container without a mount namespace has its root from procfs. The score is the host's file, before anything is joined.
    ("exec.rs", &["c\"/\"", "c\".\"", "path", "\"/proc/self/oom_score_adj\""]),
    // The program, in a process that has the container's root already and no descriptor of the host's any more.
    ("finish.rs", &["c\"/\"", "path"]),
    ("init.rs", &["\"/proc/self/timens_offsets\""]),
    ("masked.rs", &[]),
    // A bind's source on the host; the working directory, which a descriptor chose.
    ("mounts.rs", &["c\".\"", "path", "source"]),
    // The root itself, as the engine names it on the host; the places where it is attached.
    ("rootfs.rs", &["c\"/\"", "c\"/..\"", "c\".\"", "path", "c\"overlay\""]),
    ("sysctl.rs", &[]),
    ("users.rs", &[]),
];

/// The modules that work for the host, or on no path at all.
const OTHERS: [&str; 22] = [
    "capability_names.rs",
    "channel.rs",
    "checkpoint.rs",
    "container.rs",
    "creator.rs",
    "error.rs",
    "features.rs",
    "hooks.rs",
    "id_maps.rs",
    "intel_rdt.rs",
    "labels.rs",
    "lib.rs",
    "mount_options.rs",
    "namespaces.rs",
    "net_devices.rs",
    "procfs.rs",
    "properties.rs",
    "request.rs",
    "root.rs",
    "seccomp_notify.rs",
    "self_protection.rs",
    "state.rs",
];

/// Calls that resolve a path from the process's own root or working directory, or follow links; the path is their first argument.
const CALLS: [&str; 35] = [
    "rustix::fs::open(",
    " fs::open(",
    "rustix::fs::access(",
    "rustix::fs::chmod(",
    "rustix::fs::chown(",
    "rustix::fs::link(",
    "rustix::fs::lstat(",
    "rustix::fs::mkdir(",
    "rustix::fs::readlink(",
    "rustix::fs::rename(",
    "rustix::fs::rmdir(",
    "rustix::fs::stat(",
    "rustix::fs::statfs(",
    "rustix::fs::symlink(",
    "rustix::fs::unlink(",
    " stat(",
    " lstat(",
    "File::open(",
    "File::create(",
    "File::options(",
    "OpenOptions::new(",
    "std::fs::canonicalize(",
    "std::fs::copy(",
    "std::fs::create_dir",
    "std::fs::exists(",
    "std::fs::metadata(",
    "std::fs::read",
    "std::fs::remove",
    "std::fs::rename(",
    "std::fs::set_permissions(",
    "std::fs::symlink_metadata(",
    "std::fs::write(",
    "process::chdir(",
    "process::chroot(",
    "rustix::mount::mount(",
];

/// Where the path comes behind the word for "the working directory".
const AT_WORKING_DIRECTORY: &str = "CWD,";

/// Methods of paths that ask the file system.
const METHODS: [&str; 8] = [
    ".exists()",
    ".is_dir()",
    ".is_file()",
    ".is_symlink()",
    ".metadata()",
    ".symlink_metadata()",
    ".read_link()",
    ".canonicalize()",
];

/// The paths that a module's product code resolves by itself.
fn resolved(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]").next().unwrap();
    let lines = product.lines().filter(|line| !line.trim_start().starts_with("//") && !line.starts_with("use "));
    let code: String = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let argument = |rest: &str| {
        let rest = rest.trim_start().trim_start_matches("read_to_string(").trim_start_matches('&');
        rest.split([',', ')']).next().unwrap().to_owned()
    };
    let mut found = Vec::new();
    for call in CALLS.iter().chain([&AT_WORKING_DIRECTORY]) {
        found.extend(code.match_indices(call).map(|(at, _)| argument(&code[at + call.len()..])));
    }
    for method in METHODS {
        found
            .extend(code.match_indices(method).map(|(at, _)| code[..at].rsplit([' ', '!']).next().unwrap().to_owned()));
    }
    // Calls with the working directory in front of the path are in both lists.
    found.retain(|path| path != "CWD");
    found
}

fn source(module: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module)).unwrap()
}

#[test]
fn nothing_bypasses_the_module_that_opens() {
    for (module, allowed) in CONTAINED {
        for path in resolved(&source(module)) {
            assert!(allowed.contains(&path.as_str()), "{module} resolves {path}");
        }
    }
}

#[test]
fn every_module_is_on_one_side() {
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let found: BTreeSet<String> = sources
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "fuzzing.rs")
        .collect();
    let known = CONTAINED.iter().map(|(module, _)| *module).chain(OTHERS).map(str::to_owned).collect();
    assert_eq!(found, known);
}

#[test]
fn a_bypass_is_found() {
    let table = [
        ("let fd = rustix::fs::open(path_of(root), OFlags::PATH, Mode::empty())?;", "path_of(root"),
        ("let fd = openat(CWD, &target, OFlags::PATH, Mode::empty())?;", "target"),
        ("let fd = rustix::fs::openat(\n    CWD,\n    target,\n    flags)?;", "target"),
        ("let tree = open_tree(CWD, root.join(name), flags)?;", "root.join(name"),
        ("mknodat(CWD, inside, kind, mode, 0)?;", "inside"),
        ("std::fs::create_dir_all(inside)?;", "_all(inside"),
        ("let text = std::fs::read_to_string(&passwd)?;", "_to_string(&passwd"),
        ("if inside.exists() {", "inside"),
        ("File::create(inside)?;", "inside"),
        ("std::fs::write(inside, text)?;", "inside"),
        ("rustix::process::chdir(cwd)?;", "cwd"),
        ("rustix::mount::mount(source, inside, kind, flags, None)?;", "source"),
    ];
    for (code, path) in table {
        assert_eq!(resolved(code), [path], "{code}");
    }
    for code in [
        "root.open(path, flags)?;",
        "openat(parent, name, flags, mode)?;",
        "// File::open(path)",
        "use x::{CWD, Mode};",
    ] {
        assert!(resolved(code).is_empty(), "{code}");
    }
}

#[test]
fn the_door_itself_follows_no_magic_link() {
    let text = source("root.rs");
    let product = text.split("#[cfg(test)]").next().unwrap();
    assert_eq!(
        product.matches("ResolveFlags::IN_ROOT").count(),
        product.matches("ResolveFlags::NO_MAGICLINKS").count()
    );
    assert_eq!(product.matches("openat2(").count(), 1);
}
