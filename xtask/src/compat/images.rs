//! The images that the suites want, made of a static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::image::{write_archive, write_root};

/// Archives, and for each the names under which the registry is to have its image.
pub(super) const IMAGES: [(&str, &[&str]); 4] = [
    ("alpine", &["alpine:latest", "library/alpine:latest", "library/alpine:3.10"]),
    ("busybox", &["library/busybox:latest", "library/busybox:buildroot-2013.08.1", "busybox:latest"]),
    ("hello-world", &["hello-world:linux", "hello-world:latest", "library/hello-world:latest"]),
    ("uhttpd", &["fussybeaver/uhttpd:latest"]),
];

/// Writes the archive of an image and returns its path.
pub(super) fn archive(name: &str, folder: &Path) -> Result<PathBuf> {
    let root = folder.join(format!("root-{name}"));
    write_root(&root)?;
    install_applets(&root)?;
    write_accounts(&root)?;
    match name {
        // Each image's contents differ, as those of the real ones do.
        "alpine" => fs::write(root.join("etc/alpine-release"), "3.10.9\n")?,
        "hello-world" => script(&root.join("hello"), "echo; echo Hello from Docker!")?,
        "uhttpd" => {
            fs::create_dir_all(root.join("www"))?;
            fs::write(root.join("www/index.html"), "well\n")?;
            fs::create_dir_all(root.join("usr/sbin"))?;
            fs::create_dir_all(root.join("etc/config"))?;
            fs::write(root.join("etc/config/uhttpd"), "\nconfig uhttpd main\n")?;
            script(&root.join("usr/sbin/run_uhttpd"), "exec httpd \"$@\"")?;
        }
        _ => {}
    }
    let archive = folder.join(format!("{name}.tar"));
    write_archive(&root, &format!("{name}:made"), &archive)?;
    Ok(archive)
}

fn install_applets(root: &Path) -> Result<()> {
    let output =
        Command::new("busybox").arg("--list").output().context("busybox-static is not installed: ./x setup")?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let link = root.join("bin").join(applet);
        if applet != "busybox" && fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    Ok(())
}

fn write_accounts(root: &Path) -> Result<()> {
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\npostgres:x:70:\nnobody:x:65534:\n")?;
    for folder in ["root", "usr/bin", "var/opt", "mnt", "home", "run", "opt"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
