//! What a build tells while it runs, kept so that a reader that comes late reads it all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::model::build::{Description, Event, LintWarning, Output, StepId};
use oci::Digest;
use tokio::sync::watch;

use crate::messages::Timestamp;
use crate::messages::control::{
    Position, Range, SourceInfo, StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};

/// BuildKit's documentation of its rules.
const RULES: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// A build's story.
#[derive(Debug)]
pub(crate) struct Story {
    /// Makes digests of steps that no other build has.
    name: String,
    told: Mutex<Told>,
    length: watch::Sender<Length>,
}

/// How much there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) responses: usize,
    pub(crate) ended: bool,
}

#[derive(Debug, Default)]
struct Told {
    responses: Vec<Arc<StatusResponse>>,
    vertexes: HashMap<StepId, Vertex>,
    statuses: HashMap<(StepId, String), Timestamp>,
    reading: Option<String>,
    counts: Counts,
}

/// How many steps there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: i32,
    pub(crate) completed: i32,
    pub(crate) cached: i32,
}

impl Story {
    pub(crate) fn new(name: &str) -> Story {
        let length = watch::Sender::new(Length { responses: 0, ended: false });
        Story { name: name.to_owned(), told: Mutex::default(), length }
    }

    /// Adds what happens.
    pub(crate) fn tell(&self, event: Event) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(response) = told.response(&self.name, event) else { return };
        self.push(&mut told, response);
    }

    fn push(&self, told: &mut Told, response: StatusResponse) {
        told.responses.push(Arc::new(response));
        let responses = told.responses.len();
        self.length.send_modify(|length| length.responses = responses);
    }

    /// Nothing more will be told.
    pub(crate) fn end(&self) {
        self.length.send_modify(|length| length.ended = true);
    }

    /// Told when there is more to read.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Length> {
        self.length.subscribe()
    }

    pub(crate) fn response(&self, index: usize) -> Option<Arc<StatusResponse>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).responses.get(index).cloned()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// A step outside of the builder: exporting.
    pub(crate) fn step(&self, name: &str) -> Step<'_> {
        let vertex = Vertex {
            digest: Digest::of(format!("{} {name}", self.name).as_bytes()).to_string(),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        };
        let step = Step { story: self, vertex };
        step.send(|step| StatusResponse { vertexes: vec![step.vertex.clone()], ..StatusResponse::default() });
        step
    }
}

/// A step that is told of by hand.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    story: &'a Story,
    vertex: Vertex,
}

impl Step<'_> {
    fn send(&self, response: impl FnOnce(&Self) -> StatusResponse) {
        let response = response(self);
        let mut told = self.story.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.story.push(&mut told, response);
    }

    /// A part of it that is done.
    pub(crate) fn part(&self, name: &str) {
        let now = Some(Timestamp::now());
        let status = VertexStatus {
            id: name.to_owned(),
            vertex: self.vertex.digest.clone(),
            timestamp: now,
            started: now,
            completed: now,
            ..VertexStatus::default()
        };
        self.send(|_| StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    pub(crate) fn end(mut self, error: Option<&str>) {
        self.vertex.completed = Some(Timestamp::now());
        self.vertex.error = error.unwrap_or_default().to_owned();
        self.send(|step| StatusResponse { vertexes: vec![step.vertex.clone()], ..StatusResponse::default() });
    }
}

impl Told {
    fn response(&mut self, name: &str, event: Event) -> Option<StatusResponse> {
        let empty = StatusResponse::default;
        match event {
            // Steps that only change the configuration are none for BuildKit.
            Event::Begin(_, what) if !what.makes_files => None,
            Event::Begin(step, what) => {
                let vertex = self.begin(name, step, &what);
                Some(StatusResponse { vertexes: vec![vertex], ..empty() })
            }
            Event::Cached(step) => {
                let vertex = self.vertexes.get_mut(&step)?;
                if !vertex.cached {
                    self.counts.cached += 1;
                }
                vertex.cached = true;
                Some(StatusResponse { vertexes: vec![vertex.clone()], ..empty() })
            }
            Event::End(step, error) => {
                let vertex = self.vertexes.get_mut(&step)?;
                vertex.completed = Some(Timestamp::now());
                vertex.error = error.unwrap_or_default();
                self.counts.completed += 1;
                Some(StatusResponse { vertexes: vec![vertex.clone()], ..empty() })
            }
            Event::Output(step, stream, msg) => {
                let vertex = self.vertexes.get(&step)?.digest.clone();
                let stream = if stream == Output::Stderr { 2 } else { 1 };
                let log = VertexLog { vertex, timestamp: Some(Timestamp::now()), stream, msg };
                Some(StatusResponse { logs: vec![log], ..empty() })
            }
            Event::Progress(step, progress) => {
                let vertex = self.vertexes.get(&step)?.digest.clone();
                let now = Timestamp::now();
                let started = *self.statuses.entry((step, progress.name.clone())).or_insert(now);
                let status = VertexStatus {
                    id: progress.name.clone(),
                    vertex,
                    name: progress.name,
                    current: progress.current as i64,
                    total: progress.total.unwrap_or_default() as i64,
                    timestamp: Some(now),
                    started: Some(started),
                    completed: progress.done.then_some(now),
                };
                Some(StatusResponse { statuses: vec![status], ..empty() })
            }
            Event::Lint(warning) => Some(StatusResponse { warnings: vec![self.warning(warning)], ..empty() }),
            Event::Because(..)
            | Event::Running(..)
            | Event::Removed(..)
            | Event::Size(..)
            | Event::State(..)
            | Event::Warning(_) => None,
        }
    }

    fn begin(&mut self, name: &str, step: StepId, what: &Description) -> Vertex {
        let digest = |step: &StepId| Digest::of(format!("{name} {}", step.0).as_bytes()).to_string();
        let vertex = Vertex {
            digest: digest(&step),
            inputs: what.inputs.iter().map(digest).collect(),
            name: what.title.clone(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        };
        self.counts.total += 1;
        self.reading.get_or_insert_with(|| vertex.digest.clone());
        self.vertexes.insert(step, vertex.clone());
        vertex
    }

    fn warning(&self, warning: LintWarning) -> VertexWarning {
        let line = warning.lines.map(|(first, _)| format!(" (line {first})")).unwrap_or_default();
        let position = |line: usize| Some(Position { line: line as i32, character: 0 });
        let range = |(first, last): (usize, usize)| Range { start: position(first), end: position(last) };
        let anchor = rule_page(&warning.rule);
        VertexWarning {
            vertex: self.reading.clone().unwrap_or_default(),
            level: 1,
            short: format!("{}: {}{line}", warning.rule, warning.message).into_bytes(),
            detail: vec![warning.description.into_bytes()],
            url: format!("{RULES}{anchor}/"),
            info: Some(SourceInfo { filename: warning.file, data: Vec::new() }),
            ranges: warning.lines.map(range).into_iter().collect(),
        }
    }
}

/// `StageNameCasing` is at `stage-name-casing`.
fn rule_page(rule: &str) -> String {
    let mut page = String::new();
    let letters: Vec<char> = rule.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let before_word = letters.get(at + 1).is_some_and(|next| next.is_ascii_lowercase());
        let after_word = at > 0 && letters[at - 1].is_ascii_lowercase();
        if letter.is_ascii_uppercase() && at > 0 && (before_word || after_word) {
            page.push('-');
        }
        page.extend(letter.to_lowercase());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_rules() {
        assert_eq!(rule_page("StageNameCasing"), "stage-name-casing");
        assert_eq!(rule_page("JSONArgsRecommended"), "json-args-recommended");
        assert_eq!(rule_page("UndefinedArgInFrom"), "undefined-arg-in-from");
    }

    #[test]
    fn a_story_is_read_from_its_beginning() {
        let story = Story::new("build");
        let what = |title: &str, makes_files| Description {
            stage: Some(0),
            title: title.to_owned(),
            text: String::new(),
            number: None,
            inputs: Vec::new(),
            makes_files,
        };
        story.tell(Event::Begin(StepId(1), what("[1/1] RUN x", true)));
        story.tell(Event::Begin(StepId(2), what("ENV a=b", false)));
        story.tell(Event::Output(StepId(1), Output::Stderr, b"oh".to_vec()));
        story.tell(Event::Cached(StepId(1)));
        story.tell(Event::End(StepId(1), None));
        story.end();
        assert_eq!(*story.subscribe().borrow(), Length { responses: 4, ended: true });
        assert_eq!(story.response(1).unwrap().logs[0].stream, 2);
        let last = story.response(3).unwrap();
        assert!(last.vertexes[0].cached && last.vertexes[0].completed.is_some());
        assert_eq!(story.counts(), Counts { total: 1, completed: 1, cached: 1 });
    }
}
