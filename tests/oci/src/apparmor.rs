//! AppArmor: for real where the kernel has it (in the virtual machine of `./x vm-test`), by its clear error elsewhere.

use serde_json::json;

use crate::support::Runtime;

fn enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|value| value.starts_with(b"Y"))
}

/// A profile that forbids one file, in the kernel as long as this lives.
struct Profile<'a> {
    runtime: &'a Runtime,
    name: String,
}

impl<'a> Profile<'a> {
    fn load(runtime: &'a Runtime, word: &str) -> Self {
        let profile = Self { runtime, name: format!("conex-{word}-{}", runtime.host.name()) };
        profile.parser("-Kr");
        profile
    }

    fn parser(&self, option: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected) {{\n file,\n capability,\n mount,\n network,\n signal,\n deny /canary rwl,\n}}\n",
            self.name
        );
        self.runtime.host.program("apparmor_parser").arg(option).input(text).ok();
    }
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        self.parser("-KR");
    }
}

#[test]
fn a_profile_confines_the_program_and_what_joins_it() {
    if !enabled() {
        return;
    }
    let runtime = Runtime::new();
    let (first, second) = (Profile::load(&runtime, "first"), Profile::load(&runtime, "second"));
    let mut container = runtime.container(
        "cat /proc/self/attr/current; cat /canary 2>&1; cat /other; readlink /proc/self/exe; exec sleep 1000",
    );
    for name in ["canary", "other"] {
        std::fs::write(container.rootfs().join(name), format!("{name}\n")).unwrap();
    }
    // With no_new_privs the profile still comes with the program: it is no privilege.
    for no_new_privileges in [true, false] {
        container
            .set("/process/noNewPrivileges", no_new_privileges)
            .set("/process/apparmorProfile", first.name.as_str());
        container.start();
        crate::support::eventually("it has looked", || container.written().contains("busybox"));
        let written = container.written();
        let lines: Vec<_> = written.lines().take(3).collect();
        let confined = format!("{} (enforce)", first.name);
        assert_eq!(lines, [confined.as_str(), "cat: can't open '/canary': Permission denied", "other"], "{written}");

        let look = ["cat", "/proc/self/attr/current"];
        assert_eq!(container.command_then(&["exec"], &look).ok(), confined);
        let other = container.command_then(&["exec", "--apparmor", &second.name], &look).run().expect_code(0);
        assert_eq!(other.text(), format!("{} (enforce)", second.name));
        container.command(&["delete", "--force"]).ok();
    }
    // Not confined is a wish too.
    container.set("/process/apparmorProfile", "unconfined");
    container.set("/process/args", json!(["cat", "/proc/self/attr/current"]));
    assert_eq!(container.output(), "unconfined");
}

#[test]
fn a_profile_that_cannot_be_applied_is_named() {
    let runtime = Runtime::new();
    let mut container = runtime.container("true");
    container.set("/process/apparmorProfile", "no-such-profile");
    let error = container.run();
    let reason = if enabled() { "no such profile is loaded" } else { "AppArmor is not enabled on this host" };
    let text = error.error_text();
    assert!(error.code != 0 && text.contains("\"no-such-profile\"") && text.contains(reason), "{error:?}");
    // Unconfined is what everybody is where there is no AppArmor.
    container.set("/process/apparmorProfile", "unconfined");
    assert_eq!(container.run().code, 0);
}

#[test]
fn a_container_cannot_hide_the_kernels_answer() {
    // What says whether there is AppArmor is the host's file and not one of the image.
    let runtime = Runtime::new();
    let mut container = runtime.container("true");
    let faked = container.rootfs().join("sys/module/apparmor/parameters");
    std::fs::create_dir_all(&faked).unwrap();
    std::fs::write(faked.join("enabled"), if enabled() { "N" } else { "Y" }).unwrap();
    let mounts = container.spec["mounts"].as_array().unwrap().iter();
    let without_sys: Vec<_> = mounts.filter(|mount| mount["destination"] != "/sys").cloned().collect();
    container.set("/mounts", without_sys).set("/process/apparmorProfile", "unconfined");
    assert_eq!(container.run().code, 0);
}

/// CVE-2019-16884 and CVE-2025-52881: the profile is written to the kernel's file, whatever lies at that place in the container.
///
/// Fails where the runtime opens the file below the container's `/proc`.
#[test]
fn a_file_of_the_image_does_not_take_the_profile() {
    if !enabled() {
        return;
    }
    let runtime = Runtime::new();
    let profile = Profile::load(&runtime, "faked");
    let mut container = runtime.container("cat /canary 2>&1; echo done");
    std::fs::write(container.rootfs().join("canary"), "canary\n").unwrap();
    for name in ["self", "thread-self"] {
        for folder in ["attr", "attr/apparmor"] {
            let folder = container.rootfs().join("proc").join(name).join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("exec"), "").unwrap();
        }
    }
    let mounts = container.spec["mounts"].as_array().unwrap().iter();
    let without_proc: Vec<_> = mounts.filter(|mount| mount["destination"] != "/proc").cloned().collect();
    container.set("/mounts", without_proc).set("/process/apparmorProfile", profile.name.as_str());
    assert_eq!(container.output(), "cat: can't open '/canary': Permission denied\ndone");
    for file in ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec"]
    {
        assert_eq!(std::fs::read_to_string(container.rootfs().join("proc").join(file)).unwrap(), "", "{file}");
    }
}
