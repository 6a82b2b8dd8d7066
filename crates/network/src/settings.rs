//! Settings below `/proc/sys/net`, as the calling thread's network namespace has them.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

const ROOT: &str = "/proc/sys/net";

/// Why a setting cannot be read or changed.
#[derive(Debug, Error)]
#[error("cannot set {setting} to {value}: {source}")]
pub struct SettingError {
    setting: String,
    value: String,
    source: io::Error,
}

/// Sets `setting` (`ipv4/ip_forward`) to `value`.
pub(crate) fn set(setting: &str, value: &str) -> Result<(), SettingError> {
    std::fs::write(path(setting), value).map_err(|source| SettingError {
        setting: setting.replace('/', "."),
        value: value.to_owned(),
        source,
    })
}

/// The value of `setting`; `None` where the kernel does not have it.
pub(crate) fn get(setting: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(setting)).ok()?.trim_end().to_owned())
}

/// Whether this kernel speaks IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6").exists()
}

fn path(setting: &str) -> PathBuf {
    Path::new(ROOT).join(setting)
}
