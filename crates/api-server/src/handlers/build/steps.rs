//! A build for those who draw it themselves: every event as it happens, with how long each step took.

use std::collections::HashMap;
use std::time::Instant;

use docker_api::progress::{BuildStep, Message};
use engine::model::build::{Event, StepId};
use serde_json::json;

/// Turns events into lines.
#[derive(Debug, Default)]
pub(super) struct Steps {
    begun: HashMap<StepId, Instant>,
}

impl Steps {
    /// The line to write, if the event is worth one.
    pub(super) fn tell(&mut self, event: Event) -> Option<Message> {
        let told = match event {
            Event::Begin(StepId(step), what) => {
                self.begun.insert(StepId(step), Instant::now());
                BuildStep::Begin { step, title: what.title, makes_files: what.makes_files }
            }
            Event::Cached(StepId(step)) => BuildStep::Cached { step },
            Event::Because(StepId(step), reasons) => BuildStep::Because { step, reasons },
            Event::Output(StepId(step), _, bytes) => {
                BuildStep::Output { step, text: String::from_utf8_lossy(&bytes).into_owned() }
            }
            Event::Progress(StepId(step), part) => {
                BuildStep::Progress { step, name: part.name, current: part.current, total: part.total }
            }
            Event::Size(StepId(step), bytes) => BuildStep::Size { step, bytes },
            Event::End(StepId(step), error) => {
                let seconds = self.begun.remove(&StepId(step)).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
                BuildStep::End { step, seconds, error }
            }
            Event::Warning(text) => BuildStep::Warning { text: text.trim_end().to_owned() },
            Event::Lint(warning) => BuildStep::Warning { text: format!("{}: {}", warning.rule, warning.message) },
            Event::Running(..) | Event::Removed(..) | Event::State(..) => return None,
        };
        Some(Message { aux: Some(json!({ "Build": told })), ..Message::default() })
    }
}
