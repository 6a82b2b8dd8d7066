//! What runs inside a container opens nothing of it otherwise than through `root.rs`: looked up in the sources themselves.

use std::path::Path;

/// The modules that handle what a container controls, and the calls by path that each may make: of the host's files, or of `/` and `.`.
const MODULES: [(&str, &[&str]); 11] = [
    ("init.rs", &["\"/proc/self/timens_offsets\""]),
    ("exec.rs", &["c\"/\"", "path", "\"/proc/self/oom_score_adj\""]),
    ("finish.rs", &["c\"/\""]),
    ("users.rs", &[]),
    ("masked.rs", &[]),
    ("mounts.rs", &["c\".\""]),
    ("cgroup_mount.rs", &[]),
    ("copy_up.rs", &[]),
    ("devices.rs", &[]),
    ("rootfs.rs", &["c\"/\"", "c\"/..\"", "path"]),
    ("sysctl.rs", &[]),
];

/// Calls that resolve a path from the process's own root or working directory, or follow links.
const CALLS: [&str; 12] = [
    "rustix::fs::open(",
    "File::open(",
    "File::create(",
    "OpenOptions",
    "std::fs::read",
    "std::fs::write(",
    "std::fs::create_dir",
    "std::fs::remove",
    "rustix::fs::mkdir(",
    "mount_bind",
    "canonicalize",
    "std::fs::metadata",
];

#[test]
fn nothing_bypasses_the_module_that_opens() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, allowed) in MODULES {
        let text = std::fs::read_to_string(sources.join(module)).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap();
        for call in CALLS {
            for (at, _) in product.match_indices(call) {
                let rest = product[at + call.len()..].trim_start().trim_start_matches('&');
                let argument = rest.split([',', ')']).next().unwrap();
                assert!(allowed.contains(&argument), "{module}: {call}{argument}");
            }
        }
    }
}

#[test]
fn the_door_itself_follows_no_magic_link() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = std::fs::read_to_string(sources.join("root.rs")).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap();
    assert_eq!(
        product.matches("ResolveFlags::IN_ROOT").count(),
        product.matches("ResolveFlags::NO_MAGICLINKS").count()
    );
    assert_eq!(product.matches("openat2(").count(), 1);
}
