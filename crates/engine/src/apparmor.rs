//! The AppArmor profile of containers that ask for none.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use crate::model::{ContainerSpec, SecurityMeaning};

/// The profile of containers that ask for none.
pub(crate) const DEFAULT: &str = "conex-default";
/// The profile that is none.
pub(crate) const UNCONFINED: &str = "unconfined";
const PARSER: &str = "apparmor_parser";
/// What the kernel has, a `NAME (MODE)` a line.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// It lets a container do what its capabilities allow, but mount, trace and signal nobody but itself, and write to no file of procfs and
/// sysfs that is the host's: what read-only mounts and namespaces withhold already is withheld a second time, by another mechanism.
///
/// Of `/proc/sys` what belongs to namespaces is left: `kernel/shm*`, `kernel/msg*`, `kernel/sem` and `net`; of `/sys` `fs/cgroup`.
const TEXT: &str = "
profile conex-default flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  unix,
  umount,
  deny mount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=conex-default,
  ptrace (trace, read, tracedby, readby) peer=conex-default,

  deny /proc/* w,
  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^ey]*/** w,
  deny /proc/sys/[^kn]*/** w,
  deny /proc/sys/kernel/[^ms]** w,
  deny /proc/sys/kernel/m[^s]** w,
  deny /proc/sys/kernel/s[^eh]** w,
  deny /proc/sys/kernel/se[^m]** w,
  deny /proc/sys/kernel/sh[^m]** w,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Puts the default profile into the kernel, unless it is there. Why it cannot be used.
pub(crate) fn load() -> Result<(), String> {
    let is_loaded = |profiles: String| profiles.lines().any(|line| line.split(' ').next() == Some(DEFAULT));
    if std::fs::read_to_string(LOADED).is_ok_and(is_loaded) {
        return Ok(());
    }
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!("{PARSER} is not installed, so that containers are not confined"),
        _ => format!("cannot run {PARSER}: {error}"),
    };
    let mut parser = Command::new(PARSER);
    parser.args(["-K", "-r"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = parser.spawn().map_err(failed)?;
    // It may have ended with an error, which is told below.
    let _ = child.stdin.take().map(|mut input| input.write_all(TEXT.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{PARSER} refuses {DEFAULT}: {}", said.trim())) }
}

/// The profile of a container, where the kernel has AppArmor, and the default one where it is loaded; none leaves it as the engine is.
pub(crate) fn profile_of(spec: &ContainerSpec, default_is_loaded: bool) -> &str {
    let asked = spec.security.iter().rev().find_map(|option| match &option.meaning {
        SecurityMeaning::AppArmorProfile(name) => Some(name.as_str()),
        SecurityMeaning::AppArmorUnconfined => Some(UNCONFINED),
        _ => None,
    });
    match asked {
        // Whether there is AppArmor at all is looked at when the container is made.
        Some(UNCONFINED) | None if !default_is_loaded => "",
        Some(name) => name,
        None if spec.privileged => UNCONFINED,
        None => DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SecurityOption;

    #[test]
    fn who_asks_for_nothing_is_confined() {
        let spec = |options: &[&str], privileged| ContainerSpec {
            security: options.iter().map(|option| SecurityOption::parse(option).unwrap()).collect(),
            privileged,
            ..ContainerSpec::default()
        };
        for (options, privileged, with_default, without) in [
            (&[][..], false, DEFAULT, ""),
            (&[], true, UNCONFINED, ""),
            (&["apparmor=web"], false, "web", "web"),
            (&["apparmor=web"], true, "web", "web"),
            (&["apparmor=unconfined"], false, UNCONFINED, ""),
            (&["apparmor=web", "apparmor=unconfined"], false, UNCONFINED, ""),
        ] {
            let spec = spec(options, privileged);
            assert_eq!(profile_of(&spec, true), with_default, "{options:?}");
            assert_eq!(profile_of(&spec, false), without, "{options:?}");
        }
    }
}
