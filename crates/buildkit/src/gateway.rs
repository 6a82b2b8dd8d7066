//! The bridge over which clients run frontends: what the Dockerfile frontend needs of it.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use engine::BuildResult;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::caps;
use crate::grpc::{Call, Code, Reply, Status};
use crate::jobs::Job;
use crate::messages::Empty;
use crate::messages::gateway::{
    FileRequest, GatewayResult, ImageMeta, PongResponse, ReadFileRequest, ReadFileResponse, Ref, Refs,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
    ResultRef, ReturnRequest, SolveRequest, SolveResponse, StatFileResponse, WarnRequest,
};
use crate::service::Control;
use crate::solve;

/// The header that says to which build a call belongs.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The largest file that is read whole.
const FILE_BYTES_MAX: u64 = 8 << 20;

pub(crate) async fn answer(control: Arc<Control>, method: &str, mut call: Call) -> Reply {
    let id = call.header(BUILD_ID).unwrap_or_default().to_owned();
    let job = match control.jobs.find(&id).await {
        Ok(job) => job,
        Err(status) => return Reply::of(Err::<Empty, _>(status)),
    };
    match method {
        "Ping" => Reply::of(Ok(PongResponse {
            frontend_caps: caps::frontend(),
            llb_caps: caps::operations(),
            workers: vec![control.worker()],
        })),
        "Solve" => Reply::of(solve_frontend(&control, &job, &mut call).await),
        "Return" => Reply::of(give_back(&job, &mut call).await),
        "Inputs" | "Evaluate" => Reply::of(Ok(Empty {})),
        "Warn" => Reply::of(warn(&job, &mut call).await),
        "ReadFile" => Reply::of(read_file(&control, &job, &mut call).await),
        "StatFile" => Reply::of(stat_file(&control, &job, &mut call).await),
        "ResolveImageConfig" => Reply::of(image_config(&control, &mut call).await),
        "ResolveSourceMeta" => Reply::of(source_meta(&control, &mut call).await),
        other => Reply::of(Err::<Empty, _>(Status::new(
            Code::Unimplemented,
            format!("{other} of the frontend gateway is not supported by this engine"),
        ))),
    }
}

async fn solve_frontend(control: &Control, job: &Arc<Job>, call: &mut Call) -> Result<SolveResponse, Status> {
    let request: SolveRequest = call.message().await?;
    if request.frontend.is_empty() {
        let empty = request.definition.is_none_or(|definition| definition.def.is_empty());
        return match empty {
            true => Ok(SolveResponse { result: Some(GatewayResult::default()), ..SolveResponse::default() }),
            false => Err(Status::new(
                Code::Unimplemented,
                "solving a definition of operations is not supported by this engine",
            )),
        };
    }
    let options = (&request.frontend, &request.frontend_opt, &request.frontend_inputs);
    let solved = solve::run(control, job, options, &request.cache_imports).await?;
    let reference = |name: String| Ref { def: Some(solve::definition_of(&name)), id: name };
    let mut references = solved.references.into_iter().map(|(platform, name)| (platform, reference(name)));
    let result = match (references.len(), references.next()) {
        (0, _) | (_, None) => None,
        (1, Some((_, only))) => Some(ResultRef::Ref(only)),
        (_, first) => Some(ResultRef::Refs(Refs { refs: first.into_iter().chain(references).collect() })),
    };
    let result = GatewayResult { result, metadata: solved.metadata };
    Ok(SolveResponse { result: Some(result), ..SolveResponse::default() })
}

async fn give_back(job: &Job, call: &mut Call) -> Result<Empty, Status> {
    let request: ReturnRequest = call.message().await?;
    let outcome = match (request.error, request.result.and_then(|result| result.result)) {
        (Some(error), _) => Err(error.message),
        (None, Some(ResultRef::Ref(Ref { id, .. }) | ResultRef::OldRef(id))) => {
            Ok(Some(id).filter(|id| !id.is_empty()).into_iter().collect())
        }
        (None, Some(ResultRef::Refs(refs))) => Ok(refs.refs.into_values().map(|one| one.id).collect()),
        (None, Some(ResultRef::OldRefs(refs))) => Ok(refs.refs.into_values().collect()),
        (None, None) => Ok(Vec::new()),
    };
    job.give_back(outcome);
    Ok(Empty {})
}

async fn warn(job: &Job, call: &mut Call) -> Result<Empty, Status> {
    let request: WarnRequest = call.message().await?;
    let text = String::from_utf8_lossy(&request.short).into_owned();
    job.story.step(&format!("warning: {text}")).end(None);
    Ok(Empty {})
}

fn find(control: &Control, job: &Job, reference: &str) -> Result<Arc<BuildResult>, Status> {
    let found = job.result(reference).or_else(|| control.jobs.result(reference));
    found.ok_or_else(|| Status::new(Code::NotFound, format!("no such result {reference}")))
}

/// A file of a result; names are resolved inside it.
fn open(control: &Control, result: &BuildResult, path: &str, flags: OFlags) -> Result<OwnedFd, Status> {
    let files = control.engine.built_files(result).map_err(|error| Status::unknown(error.message()))?;
    let relative = path.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    rustix::fs::openat2(files.root(), relative, flags, Mode::empty(), resolve)
        .map_err(|error| Status::new(Code::NotFound, format!("{path}: {error}")))
}

async fn read_file(control: &Control, job: &Job, call: &mut Call) -> Result<ReadFileResponse, Status> {
    let request: ReadFileRequest = call.message().await?;
    let result = find(control, job, &request.reference)?;
    let file = open(control, &result, &request.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let (offset, length) = request.range.map_or((0, 0), |range| (range.offset.max(0), range.length.max(0)));
    let limit = if length == 0 { FILE_BYTES_MAX } else { (length as u64).min(FILE_BYTES_MAX) };
    let mut file = std::fs::File::from(file);
    let mut data = Vec::new();
    let read = std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset as u64))
        .and_then(|_| file.take(limit).read_to_end(&mut data));
    read.map_err(|error| Status::unknown(format!("{}: {error}", request.path)))?;
    Ok(ReadFileResponse { data })
}

async fn stat_file(control: &Control, job: &Job, call: &mut Call) -> Result<StatFileResponse, Status> {
    let request: FileRequest = call.message().await?;
    let result = find(control, job, &request.reference)?;
    let file = open(control, &result, &request.path, OFlags::PATH)?;
    let stat = rustix::fs::fstat(file.as_fd()).map_err(|error| Status::unknown(error.to_string()))?;
    let name = request.path.rsplit('/').next().unwrap_or_default();
    Ok(StatFileResponse { stat: Some(crate::filesync::stat_of(name, &stat)) })
}

async fn image_config(control: &Control, call: &mut Call) -> Result<ResolveImageConfigResponse, Status> {
    let request: ResolveImageConfigRequest = call.message().await?;
    let (digest, config) = config_of(control, &request.reference)?;
    Ok(ResolveImageConfigResponse { digest, config, reference: request.reference })
}

async fn source_meta(control: &Control, call: &mut Call) -> Result<ResolveSourceMetaResponse, Status> {
    let request: ResolveSourceMetaRequest = call.message().await?;
    let identifier = request.source.as_ref().map(|source| source.identifier.clone()).unwrap_or_default();
    let image = match identifier.strip_prefix("docker-image://") {
        Some(reference) => {
            let (digest, config) = config_of(control, reference)?;
            Some(ImageMeta { digest, config })
        }
        None => None,
    };
    Ok(ResolveSourceMetaResponse { source: request.source, image })
}

/// The configuration of an image that is here.
fn config_of(control: &Control, reference: &str) -> Result<(String, Vec<u8>), Status> {
    let found = control.engine.image_config(reference);
    let (digest, bytes) = found.map_err(|error| Status::new(Code::NotFound, error.message()))?;
    Ok((digest.to_string(), bytes))
}
