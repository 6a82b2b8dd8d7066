//! Questions about a Dockerfile in the place of a build: `--call check`, `outline` and `targets`.

use std::collections::HashMap;

use engine::Engine;
use engine::model::build::LintWarning;
use engine::model::{BuildRequest, BuildSource};
use serde_json::json;

use crate::grpc::{Code, Status};

/// Answers a question; what the client prints is among the metadata.
pub(crate) fn answer(
    engine: &Engine,
    source: BuildSource,
    request: BuildRequest,
    question: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<HashMap<String, Vec<u8>>, Status> {
    let (text, document) = match question {
        "frontend.lint" => {
            let checked = engine.check_build(source, request, runtime).map_err(refused)?;
            let status = i32::from(!checked.warnings.is_empty());
            let mut metadata = answered(&lint_text(&checked.warnings), &lint_document(&checked.warnings));
            metadata.insert("result.statuscode".to_owned(), status.to_string().into_bytes());
            return Ok(metadata);
        }
        "frontend.targets" => {
            let outline = engine.outline_build(source, request, runtime).map_err(refused)?;
            targets(&outline.stages)
        }
        "frontend.outline" => {
            let outline = engine.outline_build(source, request, runtime).map_err(refused)?;
            let arguments: Vec<_> =
                outline.arguments.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let mut text = format!("TARGET: {}\n\nBUILD ARG    VALUE\n", outline.target);
            for (name, value) in &outline.arguments {
                text.push_str(&format!("{name:<12} {}\n", value.as_deref().unwrap_or_default()));
            }
            (text, json!({ "name": outline.target, "args": arguments }))
        }
        other => return Err(Status::new(Code::Unimplemented, format!("unsupported request {other}"))),
    };
    Ok(answered(&text, &document))
}

fn answered(text: &str, document: &serde_json::Value) -> HashMap<String, Vec<u8>> {
    let document = serde_json::to_vec_pretty(document).unwrap_or_default();
    let parts = [("result.txt", text.as_bytes().to_vec()), ("result.json", document), ("version", b"1.0.0".to_vec())];
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn targets(stages: &[(Option<String>, String)]) -> (String, serde_json::Value) {
    let last = stages.len().saturating_sub(1);
    let mut text = "TARGET            DESCRIPTION\n".to_owned();
    let mut targets = Vec::new();
    for (index, (name, base)) in stages.iter().enumerate() {
        let shown = name.clone().unwrap_or_default();
        let mark = if index == last { " (default)" } else { "" };
        text.push_str(&format!("{shown}{mark}\n"));
        targets.push(json!({ "name": shown, "default": index == last, "base": base }));
    }
    (text, json!({ "targets": targets }))
}

fn lint_text(warnings: &[LintWarning]) -> String {
    let mut text = String::new();
    for warning in warnings {
        let line = warning.lines.map_or(0, |(first, _)| first);
        text.push_str(&format!("\nWARNING: {}\n{}\n", warning.rule, warning.message));
        text.push_str(&format!("{}:{line}\n", warning.file));
    }
    text
}

fn lint_document(warnings: &[LintWarning]) -> serde_json::Value {
    let warning = |warning: &LintWarning| {
        let (first, last) = warning.lines.unwrap_or_default();
        json!({
            "ruleName": warning.rule,
            "description": warning.description,
            "detail": warning.message,
            "location": { "ranges": [{ "start": { "line": first }, "end": { "line": last } }] },
        })
    };
    json!({ "warnings": warnings.iter().map(warning).collect::<Vec<_>>(), "sources": [] })
}

fn refused(error: engine::model::EngineError) -> Status {
    Status::unknown(error.message())
}
