//! Caches that a client names: read before a build, written after it.

use std::collections::HashMap;
use std::sync::Arc;

use engine::model::EngineError;
use engine::model::build_cache::{BlobStore, CacheOption, CacheSource, CacheTarget};
use engine::{BuildResult, Engine};
use serde::Deserialize;

use crate::content::ClientFolder;
use crate::grpc::{Code, Status};
use crate::jobs::Job;
use crate::messages::control::{CacheOptions, CacheOptionsEntry};
use crate::session::Session;

/// The descriptor of an exported cache's manifest, which clients put into the index of their folder.
const MANIFEST: &str = "cache.manifest";

/// A cache in a frontend's options.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: HashMap<String, String>,
}

fn option(kind: String, attributes: impl IntoIterator<Item = (String, String)>) -> CacheOption {
    CacheOption { kind, attributes: attributes.into_iter().collect() }
}

fn option_of(entry: &CacheOptionsEntry) -> CacheOption {
    option(entry.kind.clone(), entry.attrs.clone())
}

/// The caches that are named in a frontend's options, each once.
pub(crate) fn imports(options: &HashMap<String, String>) -> Result<Vec<CacheOption>, Status> {
    let text = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let mut imports = Vec::new();
    if !text("cache-imports").is_empty() {
        let wrong = |error| Status::new(Code::InvalidArgument, format!("failed to unmarshal cache-imports: {error}"));
        let named: Vec<Named> = serde_json::from_str(text("cache-imports")).map_err(wrong)?;
        imports.extend(named.into_iter().map(|named| option(named.kind, named.attributes)));
    }
    // As older clients say it.
    for name in text("cache-from").split(',').filter(|name| !name.is_empty()) {
        imports.push(option("registry".to_owned(), [("ref".to_owned(), name.to_owned())]));
    }
    Ok(imports)
}

/// The caches of a request, and those of its frontend's options.
pub(crate) fn sources(
    named: Vec<CacheOption>,
    entries: &[CacheOptionsEntry],
    session: Option<&Arc<Session>>,
) -> Result<Vec<CacheSource>, Status> {
    let mut options = named;
    for option in entries.iter().map(option_of) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    let open = |path: &str| folder(session, path);
    options.iter().map(|option| option.source(&open).map_err(refused)).collect()
}

fn folder(session: Option<&Arc<Session>>, path: &str) -> Result<Arc<dyn BlobStore>, EngineError> {
    let session = session.ok_or_else(|| EngineError::invalid("local cache exporter/importer requires session"))?;
    Ok(Arc::new(ClientFolder::new(Arc::clone(session), path)))
}

/// What a client wants to be exported; what cannot be is refused by name.
pub(crate) fn targets(cache: Option<&CacheOptions>) -> Result<Vec<CacheTarget>, Status> {
    let exports = cache.iter().flat_map(|cache| &cache.exports);
    exports.map(|entry| option_of(entry).target().map_err(refused)).collect()
}

/// Whether the image is to tell of its steps.
pub(crate) fn is_inline(cache: Option<&CacheOptions>) -> bool {
    cache.iter().flat_map(|cache| &cache.exports).any(|entry| entry.kind == "inline")
}

/// Writes a build's caches; what the client is told is added to `told`. Blocks.
pub(crate) fn export(
    engine: &Engine,
    job: &Job,
    (cache, session): (Option<&CacheOptions>, Option<&Arc<Session>>),
    results: &[Arc<BuildResult>],
    told: &mut HashMap<String, String>,
) -> Result<(), Status> {
    let open = |path: &str| folder(session, path);
    for target in targets(cache)? {
        let step = job.story.step(target.title());
        match engine.export_build_cache(results, &target, &open, &|part| step.part(part)) {
            Ok(manifest) => {
                step.end(None);
                if let Some(text) = manifest.and_then(|manifest| serde_json::to_string(&manifest).ok()) {
                    told.insert(MANIFEST.to_owned(), text);
                }
            }
            Err(error) => {
                step.end(Some(error.message()));
                if !target.may_fail {
                    return Err(Status::unknown(format!("failed to solve: {}", error.message())));
                }
            }
        }
    }
    Ok(())
}

fn refused(error: EngineError) -> Status {
    let code = match error.kind() {
        engine::model::ErrorKind::NotImplemented => Code::Unimplemented,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_come_in_several_ways() {
        let options = HashMap::from([
            ("cache-from".to_owned(), "a,b:1".to_owned()),
            ("cache-imports".to_owned(), r#"[{"Type":"registry","Attrs":{"ref":"c"}}]"#.to_owned()),
        ]);
        let named = imports(&options).unwrap();
        let again = CacheOptionsEntry { kind: "registry".into(), attrs: HashMap::from([("ref".into(), "c".into())]) };
        let sources = sources(named, &[again], None).unwrap();
        let titles: Vec<String> = sources.iter().map(CacheSource::title).collect();
        assert_eq!(titles, ["c:latest", "a:latest", "b:1"].map(|name| format!("importing cache manifest from {name}")));
        assert!(imports(&HashMap::from([("cache-imports".to_owned(), "{".to_owned())])).is_err());
    }

    #[test]
    fn what_cannot_be_exported_is_refused_by_name() {
        let check = |kind: &str| {
            let entry = CacheOptionsEntry { kind: kind.to_owned(), ..CacheOptionsEntry::default() };
            targets(Some(&CacheOptions { exports: vec![entry], imports: Vec::new() })).map_err(|status| status.message)
        };
        for kind in ["gha", "s3", "azblob"] {
            assert!(check(kind).unwrap_err().contains(&format!("{kind:?}")));
        }
        assert!(check("inline").is_ok());
        assert!(is_inline(Some(&CacheOptions {
            exports: vec![CacheOptionsEntry { kind: "inline".into(), ..CacheOptionsEntry::default() }],
            imports: Vec::new()
        })));
    }
}
