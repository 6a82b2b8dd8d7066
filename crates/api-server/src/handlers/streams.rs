//! Containers: everything that answers with a stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use docker_api::container::{WaitError, WaitResponse};
use docker_api::{ApiVersion, FrameHeader, MULTIPLEXED_STREAM, RAW_STREAM, StreamKind, json};
use engine::model::{AttachRequest, DetachKeys, LogEntry, LogQuery, OutputStream, StatsSample, WaitCondition};
use engine::{ByteStream, Engine, LogStream, Waiter};

use super::containers::is_not_found;
use crate::body::{ClientGone, ReplyBody, Writer};
use crate::error::{ApiError, ApiResult};
use crate::hijack::{Begin, Hijack};
use crate::map::stats as map_stats;
use crate::map::time::limit;
use crate::reply::{self, Reply};
use crate::request::{Request, Unbodied};

/// Between the two readings of one answer, which clients compute rates from.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How many bytes of log lines go out in one piece when they come fast.
const LOG_PIECE: usize = 64 * 1024;

/// The type of a stream that clients have asked to be told about.
pub(crate) fn stream_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version.before(42) { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

pub(crate) async fn attach(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let flag = |key: &str| request.query.flag(key);
    let wanted = AttachRequest {
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        stream: flag("stream"),
        logs: flag("logs"),
        detach_keys: match request.query.get("detachKeys") {
            "" => None,
            text => Some(DetachKeys::parse(text)?),
        },
    };
    let request = request.without_body().await?;
    let pending = engine.attach_container(name, wanted).await?;
    let head = attach_head(&request, pending.tty);
    let name = name.to_owned();
    let begin = if pending.speaks_at_once() { Begin::AfterHead } else { Begin::AtOnce };
    Ok(hijack(&request, head, begin, move |target| {
        Box::pin(async move {
            if let Err(error) = pending.connect(target).await {
                tracing::debug!(%error, name, "attach failed");
            }
        })
    }))
}

/// Leaves a hijack for the connection, and an answer that goes nowhere.
pub(crate) fn hijack(
    request: &Unbodied,
    head: String,
    begin: Begin,
    take: impl FnOnce(engine::model::AttachTarget) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static,
) -> Reply {
    request.hijack.leave(Hijack { head: head.into_bytes(), begin, take: Box::new(take) });
    reply::empty(http::StatusCode::SWITCHING_PROTOCOLS)
}

/// Without an upgrade the type is always "raw", even for frames: so it is in Docker.
fn attach_head(request: &Unbodied, tty: bool) -> String {
    if request.wants_upgrade {
        let content_type = stream_type(tty, request.version);
        format!("HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n\r\n")
    }
}

pub(crate) async fn wait(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let legacy = request.version.before(30);
    let condition = match legacy {
        true => WaitCondition::NotRunning,
        false => WaitCondition::parse(request.query.get("condition"))?,
    };
    let waiter = engine.wait_container(name, condition).await?;
    if legacy {
        return Ok(reply::document(&wait_response(waiter).await?));
    }
    // The head goes out now: the client starts the container when it has seen it.
    let (writer, body) = ReplyBody::watched(request.peer);
    tokio::spawn(async move {
        let response = tokio::select! {
            response = wait_response(waiter) => response,
            () = writer.closed() => return,
        };
        let response = response.unwrap_or_else(|error| WaitResponse {
            error: Some(WaitError { message: error.message }),
            status_code: -1,
        });
        let _ = writer.send(json::to_line(&response)).await;
    });
    Ok(reply::stream("application/json", body))
}

async fn wait_response(waiter: Waiter) -> ApiResult<WaitResponse> {
    let result = waiter.result().await?;
    Ok(WaitResponse {
        error: result.error.map(|message| WaitError { message }),
        status_code: i64::from(result.exit_code),
    })
}

pub(crate) async fn logs(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let query = &request.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let wanted = LogQuery {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: limit(query.get("since"))?,
        until: limit(query.get("until"))?,
        timestamps: query.flag("timestamps"),
        // Anything that is no number means all lines.
        tail: query.get("tail").parse().ok(),
        details: query.flag("details"),
    };
    let follow = wanted.follow;
    let log = engine.container_logs(name, wanted).await?;
    let content_type = stream_type(log.tty, request.version);
    let (writer, body) = if follow { ReplyBody::watched(request.peer) } else { ReplyBody::busy() };
    tokio::spawn(write_log(log, writer));
    Ok(reply::stream(content_type, body))
}

async fn write_log(mut log: LogStream, writer: Writer) {
    let mut piece = BytesMut::new();
    loop {
        let first = tokio::select! {
            entry = log.entries.recv() => entry,
            () = writer.closed() => return,
        };
        let Some(first) = first else { return };
        let mut next = Some(first);
        // Lines that are there already go along.
        while let Some(entry) = next {
            match entry {
                Ok(entry) => append_entry(&mut piece, &entry, log.tty),
                Err(error) => {
                    append_error(&mut piece, error.message(), log.tty);
                    let _ = writer.send(piece.split().freeze()).await;
                    return;
                }
            }
            next = if piece.len() < LOG_PIECE { log.entries.try_recv().ok() } else { None };
        }
        if writer.send(piece.split().freeze()).await.is_err() {
            return;
        }
    }
}

fn append_entry(piece: &mut BytesMut, entry: &LogEntry, tty: bool) {
    if !tty {
        let stream = match entry.stream {
            OutputStream::Stdout => StreamKind::Stdout,
            OutputStream::Stderr => StreamKind::Stderr,
        };
        append_header(piece, stream, entry.payload.len());
    }
    piece.extend_from_slice(&entry.payload);
}

/// Once the answer has begun, errors can only be told in it.
fn append_error(piece: &mut BytesMut, message: &str, tty: bool) {
    let text = format!("Error grabbing logs: {message}\n");
    if !tty {
        append_header(piece, StreamKind::SystemError, text.len());
    }
    piece.extend_from_slice(text.as_bytes());
}

fn append_header(piece: &mut BytesMut, stream: StreamKind, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    piece.extend_from_slice(&FrameHeader { stream, len }.encode());
}

pub(crate) async fn export(engine: &Engine, name: &str) -> ApiResult<Reply> {
    let tar = engine.export_container(name).await?;
    Ok(reply::stream("application/x-tar", tar_body(tar)))
}

/// A tar on its way out; when it breaks, so does the connection.
pub(crate) fn tar_body(mut tar: ByteStream) -> ReplyBody {
    let (writer, body) = ReplyBody::busy();
    tokio::spawn(async move {
        while let Some(piece) = tar.recv().await {
            match piece {
                Ok(bytes) => {
                    if let Err(ClientGone) = writer.send(bytes).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a tar was cut short");
                    return writer.abort().await;
                }
            }
        }
    });
    body
}

pub(crate) async fn stats(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let one_shot = request.version.at_least(41) && request.query.flag("one-shot");
    let first = engine.container_stats(name).await?;
    if request.query.flag_or("stream", true) {
        let (writer, body) = ReplyBody::watched(request.peer);
        // By id, so that another container of the same name is not taken for it.
        let id = first.id.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
        tokio::spawn(write_stats(engine.clone(), id, first, writer));
        return Ok(reply::stream("application/json", body));
    }
    if one_shot || first.read.is_none() {
        return Ok(reply::document(&map_stats::show(&first, None)));
    }
    tokio::time::sleep(STATS_INTERVAL).await;
    let second = engine.container_stats(name).await?;
    Ok(reply::document(&map_stats::show(&second, Some(&first))))
}

/// One sample a second until the client or the container is gone.
async fn write_stats(engine: Engine, id: String, first: StatsSample, writer: Writer) {
    let mut before: Option<StatsSample> = None;
    let mut now = first;
    loop {
        let line: Bytes = json::to_line(&map_stats::show(&now, before.as_ref())).into();
        if writer.send(line).await.is_err() {
            return;
        }
        tokio::select! {
            () = engine.next_stats_moment() => {}
            () = writer.closed() => return,
        }
        before = Some(now);
        now = match engine.container_stats(&id).await {
            Ok(sample) => sample,
            Err(error) if is_not_found(&error) => return,
            Err(error) => {
                tracing::debug!(%error, "cannot read statistics");
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_in_frames_of_new_clients_are_called_so() {
        assert_eq!(stream_type(false, ApiVersion::NEWEST), MULTIPLEXED_STREAM);
        assert_eq!(stream_type(true, ApiVersion::NEWEST), RAW_STREAM);
        assert_eq!(stream_type(false, ApiVersion::new(1, 41)), RAW_STREAM);
    }

    #[test]
    fn lines_of_a_terminal_have_no_header() {
        let entry = LogEntry { stream: OutputStream::Stderr, payload: Bytes::from_static(b"hi\n") };
        let mut piece = BytesMut::new();
        append_entry(&mut piece, &entry, false);
        assert_eq!(&piece[..], b"\x02\0\0\0\0\0\0\x03hi\n");
        piece.clear();
        append_entry(&mut piece, &entry, true);
        assert_eq!(&piece[..], b"hi\n");
    }
}
