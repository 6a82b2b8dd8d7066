//! `GET /containers/{id}/why`: how a container's last run ended, and who asked for that.

use docker_api::container::{Why, WhyAsked, WhyEnd, WhyHealth};
use engine::Engine;
use engine::model::{EndRequest, RunEnd};

use crate::error::ApiResult;
use crate::reply::{self, Reply};

pub(crate) fn why(engine: &Engine, name: &str) -> ApiResult<Reply> {
    let why = engine.container_why(name)?;
    let sentences = why.sentences();
    Ok(reply::document(&Why {
        id: why.id,
        name: why.name,
        state: why.status.as_str().to_owned(),
        restart_count: why.restart_count,
        error: why.error,
        started_at: why.started_at.map(|at| at.to_string()),
        end: why.end.map(end),
        sentences,
    }))
}

fn end(end: RunEnd) -> WhyEnd {
    let memory = end.cause.memory;
    WhyEnd {
        exit_code: end.exit_code,
        signal: end.cause.signal,
        unseen: end.cause.unseen,
        oom_killed: end.oom_killed,
        memory_limit_bytes: memory.and_then(|memory| memory.limit_bytes),
        memory_peak_bytes: memory.map(|memory| memory.peak_bytes),
        oom_kills: memory.map(|memory| memory.kills),
        started_at: end.started_at.map(|at| at.to_string()),
        finished_at: end.finished_at.to_string(),
        asked: end.asked.into_iter().map(asked).collect(),
        health: end.health.map(|health| WhyHealth {
            status: health.status,
            failing_streak: health.failing_streak,
            output: health.output,
        }),
    }
}

fn asked(asked: EndRequest) -> WhyAsked {
    WhyAsked { verb: asked.verb.as_str().to_owned(), signal: asked.signal, by: asked.by, at: asked.at.to_string() }
}
