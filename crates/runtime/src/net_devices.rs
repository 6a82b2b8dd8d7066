//! Moving network interfaces of the host into the container (`netDevices`).

use std::collections::BTreeMap;

use oci::runtime::LinuxNetDevice;
use rustix::process::Pid;

use crate::error::{Error, Result, Stage};

/// Moves every interface into the network namespace of process `pid`.
pub(crate) fn move_all(devices: &BTreeMap<String, LinuxNetDevice>, _pid: Pid) -> Result<()> {
    match devices.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            Stage::Properties,
            format!("cannot move network interface {name:?}: netDevices is not supported"),
        )),
    }
}
