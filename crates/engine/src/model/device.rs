//! Devices and the cgroup's device rules.

use serde::{Deserialize, Serialize};

use super::EngineError;

/// One `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `PathOnHost`
    pub host_path: String,
    /// `PathInContainer`
    pub container_path: String,
    /// `CgroupPermissions`: of `r`, `w`, `m`.
    pub permissions: String,
}

impl Device {
    /// Fills the defaults and checks the permissions.
    pub fn new(host_path: &str, container_path: &str, permissions: &str) -> Result<Self, EngineError> {
        let permissions = if permissions.is_empty() { "rwm" } else { permissions };
        if host_path.is_empty() || !are_permissions(permissions) {
            return Err(EngineError::invalid(format!(
                "invalid device specification: {host_path}:{container_path}:{permissions}"
            )));
        }
        let container_path = if container_path.is_empty() { host_path } else { container_path };
        if !container_path.starts_with('/') {
            return Err(EngineError::invalid(format!("{container_path} is not an absolute path")));
        }
        Ok(Self { host_path: host_path.into(), container_path: container_path.into(), permissions: permissions.into() })
    }
}

/// One of `DeviceRequests`: what `--gpus` and `--device vendor.com/class=name` ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `cdi`, `nvidia`; empty for whoever has the capabilities.
    pub driver: String,
    /// How many; -1 for all.
    pub count: i64,
    /// Which; full names for `cdi`.
    pub device_ids: Vec<String>,
    /// One of these lists has to be had whole.
    pub capabilities: Vec<Vec<String>>,
    /// For the driver.
    pub options: std::collections::BTreeMap<String, String>,
}

/// One `--device-cgroup-rule`: `c 1:3 rwm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// None is `*`.
    pub major: Option<i64>,
    /// None is `*`.
    pub minor: Option<i64>,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

impl DeviceRule {
    /// Reads `c 1:3 rwm`, `b 8:* r`, `a *:* rwm`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid(format!("invalid device cgroup rule format: '{text}'"));
        let mut parts = text.split_ascii_whitespace();
        let (Some(kind), Some(numbers), Some(permissions), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
        if !matches!(kind, "a" | "b" | "c") || !are_permissions(permissions) {
            return Err(invalid());
        }
        Ok(Self {
            kind: kind.chars().next().ok_or_else(invalid)?,
            major: number(major).ok_or_else(invalid)?,
            minor: number(minor).ok_or_else(invalid)?,
            permissions: permissions.into(),
        })
    }

    /// The text that inspect shows.
    pub fn text(&self) -> String {
        let show = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, show(self.major), show(self.minor), self.permissions)
    }
}

impl TryFrom<String> for DeviceRule {
    type Error = EngineError;
    fn try_from(text: String) -> Result<Self, EngineError> {
        Self::parse(&text)
    }
}

impl From<DeviceRule> for String {
    fn from(rule: DeviceRule) -> String {
        rule.text()
    }
}

fn are_permissions(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
}

/// `*` or a number of at most 32 bits.
fn number(text: &str) -> Option<Option<i64>> {
    match text {
        "*" => Some(None),
        _ => text.parse::<u32>().ok().map(|number| Some(i64::from(number))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, DeviceRule};

    #[test]
    fn rules_are_read_and_shown() {
        for text in ["c 1:3 rwm", "b 8:* r", "a *:* rwm"] {
            assert_eq!(DeviceRule::parse(text).unwrap().text(), text);
        }
        for text in ["c 1:3", "x 1:3 r", "c 1 r", "c 1:3 q", "c 1:3 r r", "c -1:3 r"] {
            assert!(DeviceRule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_have_defaults() {
        let device = Device::new("/dev/null", "", "").unwrap();
        assert_eq!((device.container_path.as_str(), device.permissions.as_str()), ("/dev/null", "rwm"));
        assert!(Device::new("/dev/null", "x", "r").is_err());
        assert!(Device::new("/dev/null", "", "rx").is_err());
    }
}
