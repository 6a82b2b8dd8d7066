//! SBOM generators: images whose program looks at the files that were built and writes what it finds, by BuildKit's protocol for scanners:
//! the files are where `BUILDKIT_SCAN_SOURCE` says, what went into them is in folders below `BUILDKIT_SCAN_SOURCE_EXTRAS`, and statements
//! (in-toto) are left where `BUILDKIT_SCAN_DESTINATION` says.

use std::io::Read;

use archive::tar::{EntryKind, Header, Metadata, Reader, Writer};
use builder::{Description, Event, Host, HostError, Job, JobMount, JobMountKind, JobNetwork, Outcome, Sink, StepId};
use oci::DiffId;
use serde_json::Value;

use super::host::BuildHost;
use super::{Attested, BuildResult, sbom};

/// Where the generator finds the files; the last part names the statement.
const SOURCE: &str = "/run/src/core/sbom";
/// Where it finds what the files were made from, if there is any of that.
const EXTRAS: &str = "/run/src/extras";
/// Where it leaves what it found.
const DESTINATION: &str = "/run/out/";
/// Where it may write besides.
const SCRATCH: &str = "/tmp";
/// The largest statement that is read.
const STATEMENT_BYTES_MAX: u64 = 64 << 20;

/// Lets a generator look at what was built.
pub(super) fn run(
    host: &BuildHost,
    generator: &str,
    result: &BuildResult,
    (step, tell): (StepId, Sink<'_>),
) -> Result<Vec<Attested>, HostError> {
    let title = format!("[{}] generating sbom using {generator}", result.platform());
    let text = title.clone();
    let what = Description { stage: None, title, text, number: None, inputs: Vec::new(), makes_files: true };
    tell(Event::Begin(step, what));
    let found = scan(host, generator, result, (step, tell));
    tell(Event::End(step, found.as_ref().err().map(ToString::to_string)));
    found
}

fn scan(
    host: &BuildHost,
    generator: &str,
    result: &BuildResult,
    (step, tell): (StepId, Sink<'_>),
) -> Result<Vec<Attested>, HostError> {
    let wrong = |what: &str| HostError(format!("SBOM generator {generator:?} {what}"));
    let image = host.image(generator, None, step, tell)?;
    let config = &image.config.config;
    let arguments: Vec<String> =
        config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect();
    if arguments.is_empty() {
        return Err(wrong("has no command"));
    }
    let mut environment = config.env.clone().unwrap_or_default();
    environment.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
    environment.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}"));
    let ingredients = &result.built.ingredients;
    if !ingredients.is_empty() {
        environment.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
    }
    let files = |target: String, layers: &[DiffId]| JobMount {
        target,
        read_only: true,
        kind: JobMountKind::Bind { layers: layers.to_vec(), source: "/".to_owned() },
    };
    let scratch = JobMountKind::Tmpfs { size_bytes: None };
    let mut mounts = vec![JobMount { target: SCRATCH.to_owned(), read_only: false, kind: scratch }];
    mounts.push(files(SOURCE.to_owned(), &result.config.rootfs.diff_ids));
    mounts.extend(ingredients.iter().map(|one| files(format!("{EXTRAS}/{}", sbom_name(&one.name)), &one.layers)));
    let job = Job {
        layers: image.layers.iter().copied().chain([destination(host)?]).collect(),
        platform: image.config.platform(),
        arguments,
        environment,
        user: config.user.clone(),
        working_dir: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
        network: JobNetwork::Default,
        mounts,
        secrets: Vec::new(),
    };
    match host.run(&job, step, tell, &|| host.cancelled())? {
        Outcome::Failed(code) => Err(wrong(&format!("ended with exit code {code}"))),
        Outcome::Unchanged => Err(wrong("found nothing to say")),
        Outcome::Layer(layer) => match statements(host, &layer)? {
            none if none.is_empty() => Err(wrong("found nothing to say")),
            some => Ok(some),
        },
    }
}

/// What the SBOM of something that went into an image is called.
pub(super) fn sbom_name(ingredient: &str) -> String {
    format!("sbom-{ingredient}")
}

/// A layer with the folder in which statements are left.
fn destination(host: &BuildHost) -> Result<DiffId, HostError> {
    let mut writer = Writer::new(host.engine.inner.snapshotter.stage().map_err(failed)?);
    for (path, mode) in [(&b"run"[..], 0o755), (b"run/out", 0o777)] {
        let metadata = Metadata { mode, ..Metadata::default() };
        writer.start(&Header { path, metadata: &metadata, kind: &EntryKind::Directory }).map_err(failed)?;
    }
    Ok(writer.finish().map_err(failed)?.finish(None).map_err(failed)?.diff_id)
}

/// The statements in what a generator has written.
fn statements(host: &BuildHost, layer: &DiffId) -> Result<Vec<Attested>, HostError> {
    let mut reader = Reader::new(host.engine.inner.snapshotter.open_tar(layer).map_err(failed)?);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(failed)? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let Some(name) = path.strip_prefix(DESTINATION.trim_start_matches('/')).filter(|name| !name.contains('/'))
        else {
            continue;
        };
        if matches!(entry.kind, EntryKind::File { .. }) {
            let mut bytes = Vec::new();
            (&mut reader).take(STATEMENT_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
            let predicate = predicate(name, &bytes)?;
            found.push(Attested { file: name.to_owned(), predicate });
        }
    }
    Ok(found)
}

fn predicate(name: &str, bytes: &[u8]) -> Result<images::Predicate, HostError> {
    let mut statement: Value = serde_json::from_slice(bytes)
        .map_err(|error| HostError(format!("{name}, which the SBOM generator wrote, is no statement: {error}")))?;
    let kind = statement["predicateType"].as_str().unwrap_or_default().to_owned();
    if kind != sbom::SPDX {
        return Err(HostError(format!(
            "bundle entry {kind:?} does not match required predicate type {:?}",
            sbom::SPDX
        )));
    }
    Ok(images::Predicate { kind, value: statement["predicate"].take() })
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_packages_are_taken() {
        let text = |kind: &str| format!(r#"{{"predicateType":"{kind}","subject":[],"predicate":{{"a":1}}}}"#);
        let found = predicate("x.json", text(sbom::SPDX).as_bytes()).unwrap();
        assert_eq!((found.kind.as_str(), found.value["a"].as_i64()), (sbom::SPDX, Some(1)));
        assert!(predicate("x.json", text("other").as_bytes()).unwrap_err().0.contains("other"));
        assert!(predicate("x.json", b"no JSON").unwrap_err().0.contains("x.json"));
    }
}
