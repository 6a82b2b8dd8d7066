//! Which build arguments are visible where.
//!
//! An `ARG` before the first `FROM` is visible in `FROM` lines alone; a stage sees it after naming it again. A stage that begins with
//! another one sees that one's. Values that the user gave win over defaults; they mean nothing to a stage that does not declare them,
//! except for proxies, which every `RUN` sees and no cache or history does.

use std::collections::BTreeMap;

use oci::image::Platform;

use crate::environment::Environment;
use crate::expand::{ExpandError, Expander};
use crate::instruction::{Argument, Seen};
use crate::lines::Escape;
use crate::stages::Dockerfile;

/// What the user gave with `--build-arg`.
pub type Given = BTreeMap<String, String>;

/// Arguments that every `RUN` sees without declaration, in upper and lower case.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Declared arguments that no command sees.
const NOT_FOR_COMMANDS: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Whether the argument is a proxy: used, but neither cached nor remembered.
pub fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name.to_ascii_uppercase().as_str())
}

/// Whether commands see a declared argument in their environment.
pub fn is_for_commands(name: &str) -> bool {
    !NOT_FOR_COMMANDS.contains(&name)
}

/// The arguments that exist without declaration in `FROM` lines, and in stages after one: for which platform is built, and where.
pub fn predefined(build: &Platform, target: &Platform, target_stage: Option<&str>, given: &Given) -> Environment {
    let values = [
        ("BUILDPLATFORM", platform_name(build)),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", platform_name(target)),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", target.os_version.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", target_stage.filter(|name| !name.is_empty()).unwrap_or("default").to_owned()),
    ];
    let mut environment = Environment::default();
    for (name, value) in values {
        environment.set(name, given.get(name).unwrap_or(&value));
    }
    environment
}

/// `os/architecture[/variant]`.
pub fn platform_name(platform: &Platform) -> String {
    let name = format!("{}/{}", platform.os, platform.architecture);
    if platform.variant.is_empty() { name } else { format!("{name}/{}", platform.variant) }
}

/// What `FROM` lines see: the predefined arguments, and those declared before the first stage.
pub fn global(dockerfile: &Dockerfile, given: &Given, predefined: Environment) -> Result<Environment, ExpandError> {
    let expander = Expander::new(dockerfile.directives.escape.char());
    let mut environment = predefined;
    for argument in &dockerfile.arguments {
        let value = match (given.get(&argument.name), &argument.default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(expander.expand(default, &environment)?.text),
            (None, None) => None,
        };
        if let Some(value) = value {
            environment.set(&argument.name, &value);
        }
    }
    Ok(environment)
}

/// The value that an `ARG` of a stage has: the given one, its default, or what is declared for all stages.
pub fn declared(
    argument: &Argument,
    escape: Escape,
    given: &Given,
    global: &Environment,
    environment: &Environment,
    seen: &mut Seen,
) -> Result<Option<String>, ExpandError> {
    if let Some(value) = given.get(&argument.name) {
        return Ok(Some(value.clone()));
    }
    let Some(default) = &argument.default else { return Ok(global.get(&argument.name).map(str::to_owned)) };
    let expanded = Expander::new(escape.char()).expand(default, environment)?;
    seen.unset.extend(expanded.unset);
    Ok(Some(expanded.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Platform {
        Platform { os: "linux".into(), architecture: "arm64".into(), variant: "v8".into(), ..Platform::host() }
    }

    #[test]
    fn arguments_for_from_lines() {
        let dockerfile = crate::parse("ARG A=1\nARG B=${A}2\nARG C\nARG D=x\nFROM $B\n").unwrap();
        let given = Given::from([("D".to_owned(), "given".to_owned()), ("E".to_owned(), "unseen".to_owned())]);
        let global = global(&dockerfile, &given, predefined(&host(), &host(), None, &given)).unwrap();
        let get = |name| global.get(name);
        assert_eq!(
            (get("A"), get("B"), get("C"), get("D"), get("E")),
            (Some("1"), Some("12"), None, Some("given"), None)
        );
        assert_eq!((get("TARGETPLATFORM"), get("TARGETSTAGE")), (Some("linux/arm64/v8"), Some("default")));
    }

    #[test]
    fn a_stage_declares_what_it_sees() {
        let mut global = Environment::default();
        global.set("G", "global");
        let given = Given::from([("U".to_owned(), "user".to_owned())]);
        let declare = |name: &str, default: Option<&str>| {
            let argument = Argument { name: name.to_owned(), default: default.map(str::to_owned) };
            declared(
                &argument,
                Escape::Backslash,
                &given,
                &global,
                &Environment::of(&["X=1".into()]),
                &mut Seen::default(),
            )
        };
        assert_eq!(declare("G", None).unwrap().as_deref(), Some("global"));
        assert_eq!(declare("G", Some("own$X")).unwrap().as_deref(), Some("own1"));
        assert_eq!(declare("U", Some("own")).unwrap().as_deref(), Some("user"));
        assert_eq!(declare("N", None).unwrap(), None);
    }

    #[test]
    fn proxies_in_both_cases() {
        assert!(is_proxy("http_proxy") && is_proxy("NO_PROXY") && !is_proxy("PROXY"));
    }
}
