//! Processes in running containers.

use base64::Engine as _;
use docker_api::RAW_STREAM;
use docker_api::exec::{CreateRequest, CreateResponse, Inspect, ProcessConfig, StartRequest};
use engine::Engine;
use engine::model::{DetachKeys, ExecSpec, ExecState, ExecView, StreamFraming, TerminalSize};
use http::StatusCode;

use super::streams::{hijack, stream_type};
use super::terminal_size;
use crate::error::{ApiError, ApiResult};
use crate::hijack::Begin;
use crate::reply::{self, Reply};
use crate::request::{Request, Unbodied};

pub(crate) async fn create(engine: &Engine, container: &str, request: Request) -> ApiResult<Reply> {
    let (version, scope) = (request.version, request.scope.clone());
    let body: CreateRequest = request.document().await?;
    let console_size = body.console_size.filter(|_| version.at_least(42));
    let spec = exec_spec(body, console_size)?;
    if let Some(scope) = scope {
        scope.confine_exec(&spec)?;
    }
    let id = engine.create_exec(container, spec).await?;
    Ok(reply::created(&CreateResponse { id }))
}

fn exec_spec(body: CreateRequest, console_size: Option<[u32; 2]>) -> ApiResult<ExecSpec> {
    let command = crate::map::words(body.cmd).unwrap_or_default();
    if command.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    Ok(ExecSpec {
        command,
        env: body.env.unwrap_or_default(),
        user: body.user,
        working_dir: body.working_dir,
        privileged: body.privileged,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: match body.detach_keys.as_str() {
            "" => None,
            text => Some(DetachKeys::parse(text)?),
        },
        detach_keys_text: body.detach_keys,
        console_size: console_size.and_then(size),
    })
}

fn size([height, width]: [u32; 2]) -> Option<TerminalSize> {
    let side = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    (height > 0 || width > 0).then(|| TerminalSize { height: side(height), width: side(width) })
}

pub(crate) async fn start(engine: &Engine, id: &str, request: Request) -> ApiResult<Reply> {
    let (body, request): (StartRequest, Unbodied) = request.document_and_rest().await?;
    let console_size = body.console_size.filter(|_| request.version.at_least(42) && body.tty).and_then(size);
    if body.detach {
        engine.start_exec_detached(id, console_size).await?;
        return Ok(reply::empty(StatusCode::OK));
    }
    // As in Docker the request says whether there are frames, whatever the process has.
    let framing = if body.tty { StreamFraming::Raw } else { StreamFraming::Multiplexed };
    let pending = engine.prepare_exec(id, framing, console_size).await?;
    let head = start_head(&request, body.tty);
    let id = id.to_owned();
    Ok(hijack(&request, head, Begin::AfterHead, move |target| {
        Box::pin(async move {
            if let Err(error) = pending.start(target).await {
                tracing::debug!(%error, id, "exec failed");
            }
        })
    }))
}

/// Unlike attach's, this head carries the headers of other answers.
fn start_head(request: &Unbodied, tty: bool) -> String {
    let mut head = if request.wants_upgrade {
        let content_type = stream_type(tty, request.version);
        format!("HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n")
    };
    for (name, value) in
        ["Api-Version", "Docker-Experimental", "Ostype", "Server"].iter().zip(reply::identity_headers())
    {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value.1.to_str().unwrap_or_default());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

pub(crate) async fn resize(engine: &Engine, id: &str, request: &Request) -> ApiResult<Reply> {
    engine.resize_exec(id, terminal_size(request)?).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) fn inspect(engine: &Engine, id: &str) -> ApiResult<Reply> {
    Ok(reply::document(&shown(&*engine.exec(id)?)))
}

fn shown(exec: &ExecView) -> Inspect {
    let spec = &exec.spec;
    let (running, exit_code, pid) = match exec.state {
        ExecState::Created => (false, None, 0),
        ExecState::Running { pid } => (true, None, pid),
        ExecState::Exited { code, pid } => (false, Some(i64::from(code)), pid),
    };
    Inspect {
        id: exec.id.clone(),
        running,
        exit_code,
        process_config: ProcessConfig {
            tty: spec.tty,
            entrypoint: exec.entrypoint.clone(),
            arguments: exec.arguments.clone(),
            privileged: Some(spec.privileged),
            user: spec.user.clone(),
        },
        open_stdin: spec.attach_stdin,
        open_stderr: spec.attach_stderr,
        open_stdout: spec.attach_stdout,
        can_remove: exit_code.is_some(),
        container_id: exec.container.to_string(),
        detach_keys: base64::engine::general_purpose::STANDARD.encode(&spec.detach_keys_text),
        pid: i64::from(pid),
    }
}
