//! Images that tests run: no registry, only what Debian's packages bring.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Applets that get a link of their own, besides those busybox lists itself.
const FOLDERS: &[&str] = &["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp"];

/// A root file system around Debian's static busybox, as a tar: sh, passwd and group files, about 2 MB.
pub fn busybox_tar() -> Vec<u8> {
    let root = TempDir::new().expect("a scratch folder");
    write_root(root.path());
    let output = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@1700000000", "-C"])
        .arg(root.path())
        .args(["-cf", "-", "."])
        .output()
        .expect("tar is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn write_root(root: &Path) {
    for folder in FOLDERS {
        std::fs::create_dir_all(root.join(folder)).expect("a new folder");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("Debian's busybox-static is installed");
    std::fs::copy(busybox, root.join("bin/busybox")).expect("a copy");
    // Not the copy: another thread's child may still hold it open for writing.
    let list = Command::new(busybox).arg("--list").output().expect("it runs").stdout;
    for applet in String::from_utf8(list).expect("ASCII").lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a new link");
    }
    let files = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\ndaily:x:1000:1000::/home:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\ndaily:x:1000:\nextra:x:50000:daily\n"),
        ("etc/hostname", "image\n"),
    ];
    for (path, text) in files {
        std::fs::write(root.join(path), text).expect("a new file");
    }
    std::fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).expect("ours");
}
