//! What becomes of a build's result: an image of the engine, or files that the client gets.

use std::collections::HashMap;
use std::sync::Arc;

use engine::model::EngineError;
use engine::{BuildResult, Engine, TreeOptions};

use crate::frontend::names;
use crate::grpc::{Code, Status};
use crate::jobs::Job;
use crate::messages::control::{CacheOptions, Exporter};
use crate::session::Session;
use crate::{filesync, frontend};

/// What exporters may be told that changes nothing here: times follow `SOURCE_DATE_EPOCH` anyway, images are always stored.
const WITHOUT_EFFECT: &[&str] = &[
    "name",
    "load",
    "push",
    "push-by-digest",
    "registry.insecure",
    "unpack",
    "store",
    "name-canonical",
    "rewrite-timestamp",
    "oci-mediatypes",
    "tar",
    "context",
    "dest",
    "compression",
    "force-compression",
    "buildinfo",
    "buildinfo-attrs",
    "source-date-epoch",
];

const ATTESTATION_PREFIX: &str = "attestation-prefix";
/// What only exporters of files are told.
const OF_FILES: &[&str] = &["platform-split", ATTESTATION_PREFIX];

/// Refuses what cannot be exported before anything is built.
pub(crate) fn check(exporters: &[Exporter], cache: Option<&CacheOptions>) -> Result<(), Status> {
    let refuse = |what: String| Err(Status::new(Code::Unimplemented, what));
    for exporter in exporters {
        let kind = exporter.kind.as_str();
        if !matches!(kind, "moby" | "image" | "docker" | "oci" | "local" | "tar" | "cacheonly") {
            return refuse(format!("exporter {kind:?} is not supported by this engine"));
        }
        let value = |name: &str| exporter.attrs.get(name).map(String::as_str).unwrap_or_default();
        if kind == "image" && value("push") == "true" {
            return refuse(
                "exporter \"image\" with push=true is not supported by this engine: push the image".to_owned(),
            );
        }
        if matches!(kind, "oci" | "docker") && value("tar") == "false" {
            return refuse(format!("exporter {kind:?} with tar=false is not supported by this engine"));
        }
        if value("store") == "false" {
            return refuse(format!("exporter {kind:?} with store=false is not supported by this engine"));
        }
        tree_options(exporter)?;
        // Layers of images are compressed when they are pushed, those of archives are not.
        let compressed_later = matches!(kind, "moby" | "image") && value("compression") == "gzip";
        if !compressed_later && !matches!(value("compression"), "" | "uncompressed") {
            return refuse(format!("compression={} is not supported by this engine", value("compression")));
        }
        let of_files = |name: &String| matches!(kind, "local" | "tar") && OF_FILES.contains(&name.as_str());
        let mut names = exporter.attrs.keys();
        if let Some(name) = names.find(|name| !WITHOUT_EFFECT.contains(&name.as_str()) && !of_files(name)) {
            return refuse(format!("option {name:?} of exporter {kind:?} is not supported by this engine"));
        }
    }
    crate::caches::targets(cache).map(drop)
}

/// Exports a result to all exporters; gives what the client is told. Blocks.
pub(crate) fn export(
    engine: &Engine,
    job: &Job,
    (exporters, session): (&[Exporter], Option<Arc<Session>>),
    results: &[Arc<BuildResult>],
) -> Result<HashMap<String, String>, Status> {
    let mut told = HashMap::new();
    for (index, exporter) in exporters.iter().enumerate() {
        let session = session.as_deref();
        match exporter.kind.as_str() {
            "moby" | "image" => image(engine, job, exporter, results, &mut told)?,
            "cacheonly" => {}
            _ => files(engine, job, (index, exporter), session, results)?,
        }
    }
    Ok(told)
}

fn image(
    engine: &Engine,
    job: &Job,
    exporter: &Exporter,
    results: &[Arc<BuildResult>],
    told: &mut HashMap<String, String>,
) -> Result<(), Status> {
    let step = job.story.step("exporting to image");
    step.part("exporting layers");
    let names = names(&exporter.attrs);
    let stored = engine.store_build(results, &names).map_err(refused);
    match &stored {
        Ok(id) => {
            step.part(&format!("writing image {id}"));
            for name in &names {
                let full = oci::Reference::parse(name).map_or_else(|_| name.clone(), |reference| reference.canonical());
                step.part(&format!("naming to {full}"));
            }
            told.insert("containerimage.digest".to_owned(), id.to_string());
            told.insert("containerimage.config.digest".to_owned(), id.to_string());
            if !names.is_empty() {
                told.insert("image.name".to_owned(), names.join(","));
            }
            step.end(None);
        }
        Err(status) => step.end(Some(&status.message)),
    }
    stored.map(drop)
}

/// Sends files to the client.
fn files(
    engine: &Engine,
    job: &Job,
    (index, exporter): (usize, &Exporter),
    session: Option<&Session>,
    results: &[Arc<BuildResult>],
) -> Result<(), Status> {
    let title = match exporter.kind.as_str() {
        "local" => "exporting to client directory",
        "tar" => "exporting to client tarball",
        "oci" => "exporting to oci image format",
        _ => "exporting to docker image format",
    };
    let step = job.story.step(title);
    let sent = send(engine, (index, exporter), session, results);
    step.end(sent.as_ref().err().map(|status| status.message.as_str()));
    sent
}

fn send(
    engine: &Engine,
    (index, exporter): (usize, &Exporter),
    session: Option<&Session>,
    results: &[Arc<BuildResult>],
) -> Result<(), Status> {
    let session = session.ok_or_else(|| Status::unknown("nobody is there to take the build's files"))?;
    let failed = |error: engine::model::build::HostError| Status::unknown(error.0);
    let is_set = results.len() > 1 || results.iter().any(|result| result.is_attested());
    match exporter.kind.as_str() {
        "local" => {
            let trees = engine.built_trees(results, &tree_options(exporter)?).map_err(refused)?;
            filesync::send_trees(session, index, &trees).map_err(failed)
        }
        "tar" => {
            let trees = engine.built_trees(results, &tree_options(exporter)?).map_err(refused)?;
            filesync::send_bytes(session, index, |output| engine::write_trees(&trees, output)).map_err(failed)
        }
        "docker" if is_set => {
            Err(Status::unknown("docker exporter does not currently support exporting manifest lists"))
        }
        _ => {
            let names = frontend::names(&exporter.attrs);
            let write = |output: &mut dyn std::io::Write| {
                engine.save_build(results, &names, output).map_err(|error| std::io::Error::other(error.to_string()))
            };
            filesync::send_bytes(session, index, write).map_err(failed)
        }
    }
}

/// How files are put out.
fn tree_options(exporter: &Exporter) -> Result<TreeOptions, Status> {
    let value = |name: &str| exporter.attrs.get(name).map(String::as_str);
    let platform_split = match value("platform-split") {
        None => None,
        Some("" | "true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(other) => {
            let message = format!("non-bool value {other:?} specified for platform-split");
            return Err(Status::new(Code::InvalidArgument, message));
        }
    };
    Ok(TreeOptions { attestation_prefix: value(ATTESTATION_PREFIX).unwrap_or_default().to_owned(), platform_split })
}

fn refused(error: EngineError) -> Status {
    Status::unknown(error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(kind: &str, attributes: &[(&str, &str)]) -> Exporter {
        let attrs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Exporter { kind: kind.to_owned(), attrs }
    }

    #[test]
    fn what_cannot_be_exported_is_refused_by_name() {
        let refused = |exporter: Exporter| check(&[exporter], None).unwrap_err().message;
        assert!(refused(exporter("s3", &[])).contains("\"s3\""));
        assert!(refused(exporter("image", &[("annotation.a", "b")])).contains("annotation.a"));
        assert!(refused(exporter("oci", &[("compression", "estargz")])).contains("estargz"));
        assert!(refused(exporter("oci", &[("compression", "gzip")])).contains("compression=gzip"));
        assert!(refused(exporter("image", &[("store", "false")])).contains("store=false"));
        assert!(refused(exporter("oci", &[("platform-split", "true")])).contains("platform-split"));
        assert!(refused(exporter("tar", &[("platform-split", "odd")])).contains("odd"));
        assert!(check(&[exporter("local", &[("platform-split", "true"), ("attestation-prefix", "a-")])], None).is_ok());
        assert!(check(&[exporter("moby", &[("name", "a,b"), ("compression", "gzip")])], None).is_ok());
    }
}
