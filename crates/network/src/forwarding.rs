//! Switching forwarding on, and not becoming a router by it.
//!
//! Containers reach out only when the host forwards. Where it does not yet, we switch it on, and keep packets between the
//! interfaces that the host had at that moment from being forwarded: what it did not do before, it does not do now. Interfaces that
//! other engines make later are not ours to judge. What was done is recorded in the run folder, for the next start and for
//! taking it back.

use std::path::Path;

use durable::{RecordError, Versioned};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::endpoint::Family;
use crate::settings::{self, SettingError};

/// What it is called, and where it is recorded that we switched it on.
fn names(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ipv4/ip_forward", "forwarding.json"),
        Family::Ipv6 => ("ipv6/conf/all/forwarding", "forwarding6.json"),
    }
}

/// What we did to the host's forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    /// The interfaces that led out of the host when we switched it on.
    pub(crate) kept_apart: Vec<String>,
    /// All interfaces that there were then.
    pub(crate) present: Vec<String>,
}

impl Versioned for Forwarding {
    const VERSION: u32 = 1;
}

/// Why forwarding is not as it should be.
#[derive(Debug, Error)]
pub(crate) enum ForwardingError {
    /// The kernel does not let us.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// It cannot be recorded, so it was not done.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// How the host forwards after [`enable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enabled {
    /// It did so without us.
    Before,
    /// We switched it on: just now, or at an earlier start.
    ByUs(Forwarding),
}

/// Makes sure that the host forwards; `now` is what to record if it does not yet.
pub(crate) fn enable(run: &Path, family: Family, now: Forwarding) -> Result<Enabled, ForwardingError> {
    let (setting, record) = names(family);
    let recorded: Option<Forwarding> = durable::load_if_exists(&run.join(record))?;
    if settings::get(setting).as_deref() == Some("1") {
        return Ok(recorded.map_or(Enabled::Before, Enabled::ByUs));
    }
    let forwarding = recorded.unwrap_or(now);
    // Recorded first: switched on without a record would never be taken back.
    durable::save_volatile(run, record, &forwarding)?;
    if family == Family::Ipv6 {
        keep_listening_to_routers(&forwarding.present);
    }
    settings::set(setting, "1")?;
    Ok(Enabled::ByUs(forwarding))
}

/// A host that forwards no longer takes its own address and default route from a router unless it is told to.
fn keep_listening_to_routers(interfaces: &[String]) {
    for interface in interfaces {
        let setting = format!("ipv6/conf/{interface}/accept_ra");
        if settings::get(&setting).as_deref() == Some("1") {
            // It may be gone by now.
            let _ = settings::set(&setting, "2");
        }
    }
}

/// Switches forwarding off again if we switched it on and nobody has come to rely on it: no interface was added since.
pub(crate) fn restore(run: &Path, family: Family, interfaces: &[String]) -> Result<(), ForwardingError> {
    let (setting, record) = names(family);
    let Some(recorded): Option<Forwarding> = durable::load_if_exists(&run.join(record))? else { return Ok(()) };
    if interfaces.iter().all(|interface| recorded.present.contains(interface)) {
        settings::set(setting, "0")?;
    }
    durable::remove(run, record).map_err(RecordError::from)?;
    Ok(())
}
