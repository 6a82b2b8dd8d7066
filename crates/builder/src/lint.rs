//! The lint rules, asked about a build.

use std::sync::Arc;

use dockerfile::ignore::Ignore;
use dockerfile::lint::{BaseImage, Choice, Facts};
use dockerfile::{Dockerfile, Environment};
use images::Image;
use oci::image::Platform;

use crate::error::BuildError;
use crate::event::LintWarning;
use crate::request::Request;

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linted {
    /// What is wrong, in the order of the lines.
    pub warnings: Vec<LintWarning>,
    /// Whether that ends the build.
    pub is_error: bool,
}

/// Checks a Dockerfile; rules about variables are left out where a base image is not known.
pub fn lint(
    dockerfile: &Dockerfile,
    request: &Request,
    ignore: &str,
    base: &dyn Fn(&str) -> Option<Arc<Image>>,
) -> Result<Linted, BuildError> {
    let asked = request.arguments.get("BUILDKIT_DOCKERFILE_CHECK").or(dockerfile.directives.check.as_ref());
    let choice = Choice::parse(asked.map(String::as_str).unwrap_or_default())?;
    let ignore = Ignore::parse(ignore)?;
    let (build, target) = (Platform::host(), request.platform.clone().unwrap_or_else(Platform::host));
    let known = |name: &str| {
        let image = base(name)?;
        let config = &image.config.config;
        Some(BaseImage {
            environment: Environment::of(config.env.as_deref().unwrap_or_default()),
            platform: Some(image.config.platform()),
            has_shell: config.shell.is_some(),
        })
    };
    let facts = Facts {
        given: &request.arguments,
        build: &build,
        target: &target,
        target_stage: request.target.as_deref(),
        ignore: Some(&ignore).filter(|ignore| !ignore.is_empty()),
        base: &known,
    };
    let warnings = dockerfile::lint::lint(dockerfile, &facts, &choice);
    let told = |warning: dockerfile::lint::Warning| LintWarning {
        rule: warning.rule.name.to_owned(),
        description: warning.rule.description.to_owned(),
        message: warning.message,
        lines: Some((warning.lines.first, warning.lines.last)),
        file: request.dockerfile.clone(),
    };
    Ok(Linted { warnings: warnings.into_iter().map(told).collect(), is_error: choice.error })
}
