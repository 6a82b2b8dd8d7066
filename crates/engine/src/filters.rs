//! Seccomp filters, compiled once per profile and set of capabilities and kept.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use monitor_protocol::SeccompProgram;
use oci::Digest;
use oci::runtime::{LinuxSeccomp, SeccompAction};
use seccomp::{Conditions, KernelVersion, Profile};

use crate::model::{ContainerSpec, EngineError, SecurityMeaning};

/// Compiled filters that are kept; each takes about ten kilobytes.
const KEPT: usize = 64;

/// All compiled filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    compiled: Mutex<Compiled>,
}

/// A filter (none where the profile allows everything) by its profile's text (none for Docker's) and the capabilities.
type Compiled = HashMap<(Option<Digest>, Vec<String>), Option<SeccompProgram>>;

/// Which profile a container asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked<'a> {
    Unconfined,
    Default,
    Profile(&'a str),
}

impl Filters {
    /// A container's filter; none when it is unconfined.
    pub(crate) fn program(
        &self,
        spec: &ContainerSpec,
        available: &[String],
    ) -> Result<Option<SeccompProgram>, EngineError> {
        let text = match asked(spec) {
            Asked::Unconfined => return Ok(None),
            Asked::Default => None,
            Asked::Profile(text) => Some(text),
        };
        let capabilities = crate::spec::granted(spec, available);
        let key = (text.map(|text| Digest::of(text.as_bytes())), capabilities);
        if let Some(known) = self.lock().get(&key) {
            return Ok(known.clone());
        }
        let program = compile(text, &key.1)?;
        let mut compiled = self.lock();
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        compiled.insert(key, program.clone());
        Ok(program)
    }

    /// The same as rules, for a runtime that compiles them itself; none when it is unconfined.
    pub(crate) fn rules(
        &self,
        spec: &ContainerSpec,
        available: &[String],
    ) -> Result<Option<LinuxSeccomp>, EngineError> {
        let text = match asked(spec) {
            Asked::Unconfined => return Ok(None),
            Asked::Default => None,
            Asked::Profile(text) => Some(text),
        };
        let capabilities = crate::spec::granted(spec, available).into_iter().collect();
        let rules = profile(text)?.resolve(&conditions(&capabilities));
        if rules.iter().flat_map(|rules| &rules.syscalls).any(|rule| rule.action == SeccompAction::Notify) {
            return Err(refuse_listener());
        }
        Ok(rules)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a profile that cannot be read or compiled, before anything is made.
pub(crate) fn check(text: &str) -> Result<(), EngineError> {
    compile(Some(text), &[]).map(|_| ())
}

fn asked(spec: &ContainerSpec) -> Asked<'_> {
    let last = spec.security.iter().rev().find_map(|option| match &option.meaning {
        SecurityMeaning::SeccompUnconfined => Some(Asked::Unconfined),
        SecurityMeaning::SeccompBuiltin => Some(Asked::Default),
        SecurityMeaning::SeccompProfile(text) => Some(Asked::Profile(text)),
        _ => None,
    });
    last.unwrap_or(if spec.privileged { Asked::Unconfined } else { Asked::Default })
}

fn compile(text: Option<&str>, capabilities: &[String]) -> Result<Option<SeccompProgram>, EngineError> {
    let capabilities: BTreeSet<String> = capabilities.iter().cloned().collect();
    let filter = profile(text)?.compile(&conditions(&capabilities)).map_err(wrong)?;
    let Some(filter) = filter else { return Ok(None) };
    if filter.has_listener {
        return Err(refuse_listener());
    }
    let flags =
        u32::try_from(filter.flags).map_err(|error| EngineError::system("cannot use the filter's flags", error))?;
    Ok(Some(SeccompProgram { flags, instructions: filter.program }))
}

/// The profile of this text, or Docker's.
fn profile(text: Option<&str>) -> Result<Cow<'static, Profile>, EngineError> {
    match text {
        None => Ok(Cow::Borrowed(Profile::docker_default())),
        Some(text) => Profile::parse(text).map(Cow::Owned).map_err(wrong),
    }
}

fn conditions(capabilities: &BTreeSet<String>) -> Conditions<'_> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel = KernelVersion::of_release(&release).unwrap_or(KernelVersion::new(5, 10));
    Conditions { capabilities, arch: seccomp::native(), kernel }
}

fn wrong(error: seccomp::ProfileError) -> EngineError {
    EngineError::invalid(format!("Decoding seccomp profile failed: {}", crate::model::chain(&error)))
}

fn refuse_listener() -> EngineError {
    EngineError::not_implemented("security option seccomp: a profile with SCMP_ACT_NOTIFY is not built")
}

#[cfg(test)]
mod tests {
    use super::Filters;
    use crate::model::{ContainerSpec, SecurityOption};

    #[test]
    fn filters_are_made_once_and_differ_by_capabilities() {
        let filters = Filters::default();
        let available: Vec<String> = crate::model::CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
        let program = |spec: &ContainerSpec| filters.program(spec, &available).unwrap();
        let default = program(&ContainerSpec::default()).unwrap();
        assert_eq!(program(&ContainerSpec::default()).unwrap(), default);
        assert_eq!(filters.lock().len(), 1);
        let admin = ContainerSpec {
            cap_add: vec![crate::model::Capability::parse("SYS_ADMIN").unwrap()],
            ..ContainerSpec::default()
        };
        assert_ne!(program(&admin).unwrap(), default);
        assert!(program(&ContainerSpec { privileged: true, ..ContainerSpec::default() }).is_none());
        let unconfined = SecurityOption::parse("seccomp=unconfined").unwrap();
        assert!(program(&ContainerSpec { security: vec![unconfined], ..ContainerSpec::default() }).is_none());
    }

    #[test]
    fn broken_profiles_are_refused() {
        assert!(super::check("{").is_err());
        super::check("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}").unwrap();
    }
}
