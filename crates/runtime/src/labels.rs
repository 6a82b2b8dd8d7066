//! Whether this host has the security modules that a configuration asks for.

use crate::error::{Error, Result, Stage};

const APPARMOR_ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The profile that is none.
pub(crate) const UNCONFINED: &str = "unconfined";
const SELINUX_MOUNT: &str = "/sys/fs/selinux/enforce";

/// Whether AppArmor is enabled.
pub fn has_apparmor() -> bool {
    std::fs::read(APPARMOR_ENABLED).is_ok_and(|value| value.starts_with(b"Y"))
}

/// Whether SELinux is enabled.
pub fn has_selinux() -> bool {
    std::path::Path::new(SELINUX_MOUNT).exists()
}

/// A profile that cannot be applied must not be forgotten silently.
pub(crate) fn require_apparmor(profile: &str) -> Result<()> {
    // Not confined is what every process is where there is no AppArmor.
    if profile == UNCONFINED || has_apparmor() {
        return Ok(());
    }
    Err(Error::new(
        Stage::Spec,
        format!("cannot apply apparmor profile {profile:?}: AppArmor is not enabled on this host"),
    ))
}

/// A label that cannot be applied must not be forgotten silently.
pub(crate) fn require_selinux() -> Result<()> {
    if has_selinux() {
        return Ok(());
    }
    Err(Error::new(
        Stage::Spec,
        "selinux label is specified in config, but selinux is disabled or not supported on this host",
    ))
}
