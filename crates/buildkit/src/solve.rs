//! Running the Dockerfile frontend for a client.

use std::collections::HashMap;
use std::sync::Arc;

use engine::BuildResult;
use engine::model::build::{Event, NamedContext};
use engine::model::{BuildClient, BuildSource};
use prost::Message;

use crate::caches;
use crate::frontend::{self, Wanted};
use crate::grpc::{Code, Status};
use crate::jobs::Job;
use crate::messages::control::{CacheOptionsEntry, Definition, Op, OpInput, OpMetadata, SourceOp};
use crate::service::Control;

/// How a result is named in a definition of operations.
const RESULT: &str = "conex-result://";

/// What a frontend gives.
#[derive(Debug, Default)]
pub(crate) struct Solved {
    /// The results, by their names in the job, each with what it is for.
    pub(crate) references: Vec<(String, String)>,
    /// What is said about it.
    pub(crate) metadata: HashMap<String, Vec<u8>>,
}

/// Runs the frontend; the result stays in the job.
pub(crate) async fn run(
    control: &Control,
    job: &Arc<Job>,
    (frontend, options, inputs): (&String, &HashMap<String, String>, &HashMap<String, Definition>),
    caches: &[CacheOptionsEntry],
) -> Result<Solved, Status> {
    frontend::check(frontend, options)?;
    let Wanted { mut request, remote, subrequest } = frontend::wanted(options, &job.entitlements)?;
    take_inputs(control, &mut request.contexts, inputs).await?;
    let session = match job.session.as_str() {
        "" => None,
        id => Some(control.sessions.find(id).await?),
    };
    request.cache_from = caches::sources(caches::imports(options)?, caches, session.as_ref())?;
    request.inline_cache = job.inline_cache;
    request.id = Some(job.reference.clone());
    let source = match (remote, session) {
        (Some(url), session) => {
            BuildSource::Remote { url, client: session.map(|session| session as Arc<dyn BuildClient>) }
        }
        (None, Some(session)) => BuildSource::Client(session),
        (None, None) => return Err(Status::unknown("a build needs a session that serves its files")),
    };
    let (engine, job, runtime) = (control.engine.clone(), Arc::clone(job), tokio::runtime::Handle::current());
    let work = move || {
        let tell = |event: Event| job.story.tell(event);
        if let Some(question) = subrequest {
            let metadata = crate::subrequest::answer(&engine, source, request, &question, &runtime)?;
            return Ok(Solved { references: Vec::new(), metadata });
        }
        let built = engine.build_here(source, request, &runtime, &job.control, &tell);
        let results = built.map_err(|error| Status::unknown(error.message()))?;
        let metadata = metadata_of(&results);
        let references = results.into_iter().map(|result| (result.platform(), job.keep(result))).collect();
        Ok(Solved { references, metadata })
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::new(Code::Internal, error.to_string()))?
}

/// What is said about results: their configurations, and which is for what.
fn metadata_of(results: &[Arc<BuildResult>]) -> HashMap<String, Vec<u8>> {
    let config = |result: &BuildResult| serde_json::to_vec(&result.config).unwrap_or_default();
    if let [only] = results {
        return HashMap::from([("containerimage.config".to_owned(), config(only))]);
    }
    let platform = |result: &Arc<BuildResult>| serde_json::json!({ "ID": result.platform(), "Platform": result.config.platform() });
    let platforms = serde_json::json!({ "Platforms": results.iter().map(platform).collect::<Vec<_>>() });
    let configs = results.iter().map(|result| (format!("containerimage.config/{}", result.platform()), config(result)));
    configs.chain([("refs.platforms".to_owned(), platforms.to_string().into_bytes())]).collect()
}

/// Contexts that are results of other builds become images without a name.
async fn take_inputs(
    control: &Control,
    contexts: &mut std::collections::BTreeMap<String, NamedContext>,
    inputs: &HashMap<String, Definition>,
) -> Result<(), Status> {
    for (name, context) in contexts {
        let NamedContext::Image(image) = context else { continue };
        let Some(input) = image.strip_prefix("input:") else { continue };
        let unknown = || Status::new(Code::InvalidArgument, format!("context {name:?} is no result of this engine"));
        let result = inputs.get(input).and_then(result_of).ok_or_else(unknown)?;
        let result = control.jobs.result(&result).ok_or_else(unknown)?;
        let engine = control.engine.clone();
        let stored = tokio::task::spawn_blocking(move || engine.store_build(&[result], &[])).await;
        let stored = stored.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        *image = stored.map_err(|error| Status::unknown(error.message()))?.to_string();
    }
    Ok(())
}

/// A definition that names a result and does nothing else.
pub(crate) fn definition_of(result: &str) -> Definition {
    let source = SourceOp { identifier: format!("{RESULT}{result}"), ..SourceOp::default() };
    let source = Op { source: Some(source), ..Op::default() }.encode_to_vec();
    let digest = oci::Digest::of(&source).to_string();
    let last = Op { inputs: vec![OpInput { digest: digest.clone(), index: 0 }], source: None }.encode_to_vec();
    let last_digest = oci::Digest::of(&last).to_string();
    let metadata = [digest, last_digest].map(|digest| (digest, OpMetadata::default())).into();
    Definition { def: vec![source, last], metadata }
}

/// The result that a definition names.
fn result_of(definition: &Definition) -> Option<String> {
    let named = |bytes: &Vec<u8>| {
        let identifier = Op::decode(bytes.as_slice()).ok()?.source?.identifier;
        identifier.strip_prefix(RESULT).map(str::to_owned)
    };
    definition.def.iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_travels_as_a_definition() {
        assert_eq!(result_of(&definition_of("build-0")).as_deref(), Some("build-0"));
        assert_eq!(result_of(&Definition { def: vec![b"odd".to_vec()], ..Definition::default() }), None);
    }
}
