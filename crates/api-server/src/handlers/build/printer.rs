//! A build as Docker's classic builder tells of it: one step after the other, although stages run side by side.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;

use docker_api::progress::{ErrorDetail, Message};
use engine::model::BuildEvent;
use engine::model::build::{Event, Output, StepId};
use serde_json::json;

/// So long are the ids that are shown.
const SHORT_ID: usize = 12;
/// Standard error of commands is red, as in Docker.
const RED: &str = "\u{1b}[91m";
const PLAIN: &str = "\u{1b}[0m";

/// What the client wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbosity {
    Everything,
    /// The image's id alone.
    Quiet,
}

/// Puts the events of stages into the order of the Dockerfile.
#[derive(Debug)]
pub(super) struct Printer {
    verbosity: Verbosity,
    /// The stage of each step.
    stages: HashMap<StepId, usize>,
    /// Steps that begin a stage or are nobody's: they are not taken from a cache.
    beginnings: Vec<StepId>,
    /// Events that wait, by stage.
    waiting: BTreeMap<usize, VecDeque<Event>>,
    /// The stage that is shown.
    shown: Option<usize>,
    /// Whether that stage is within a step.
    within_step: bool,
    /// The number of the next step that is shown.
    next: usize,
}

impl Printer {
    pub(super) fn new(verbosity: Verbosity) -> Printer {
        Printer {
            verbosity,
            stages: HashMap::new(),
            beginnings: Vec::new(),
            waiting: BTreeMap::new(),
            shown: None,
            within_step: false,
            next: 1,
        }
    }

    /// The lines to write now, and whether they are the last.
    pub(super) fn lines(&mut self, event: BuildEvent) -> (Vec<Message>, ControlFlow<()>) {
        match event {
            BuildEvent::Happens(event) => (self.happens(event), ControlFlow::Continue(())),
            BuildEvent::Built { image, tags, kept } => {
                let mut lines = self.rest();
                lines.extend(self.built(image, &tags, kept.as_deref()));
                (lines, ControlFlow::Break(()))
            }
            BuildEvent::Failed { code, message } => {
                let mut lines = self.rest();
                let detail = ErrorDetail { code: i64::from(code), message: message.clone() };
                lines.push(Message { error: message, error_detail: Some(detail), ..Message::default() });
                (lines, ControlFlow::Break(()))
            }
        }
    }

    /// What still waits when the build is over.
    pub(super) fn rest(&mut self) -> Vec<Message> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().flatten().flat_map(|event| self.show(event)).collect()
    }

    fn happens(&mut self, event: Event) -> Vec<Message> {
        if self.verbosity == Verbosity::Quiet {
            return Vec::new();
        }
        let step = match &event {
            Event::Warning(text) => return vec![Message::stream(text)],
            Event::Lint(_) => return Vec::new(),
            Event::Begin(step, what) => {
                if let Some(stage) = what.stage {
                    self.stages.insert(*step, stage);
                }
                *step
            }
            Event::Cached(step)
            | Event::Because(step, _)
            | Event::Running(step, _)
            | Event::Output(step, ..)
            | Event::Removed(step, _)
            | Event::Progress(step, _)
            | Event::Size(step, _)
            | Event::State(step, _)
            | Event::End(step, _) => *step,
        };
        let Some(stage) = self.stages.get(&step) else { return Vec::new() };
        self.waiting.entry(*stage).or_default().push_back(event);
        self.drain()
    }

    /// Shows what is next as far as it has come.
    fn drain(&mut self) -> Vec<Message> {
        let mut lines = Vec::new();
        loop {
            let is_next = |events: &VecDeque<Event>| matches!(events.front(), Some(Event::Begin(_, what)) if what.number.is_some_and(|(n, _)| n == self.next));
            let own = self.shown.filter(|stage| self.waiting.get(stage).is_some_and(|events| !events.is_empty()));
            let other = || self.waiting.iter().find(|(_, events)| is_next(events)).map(|(stage, _)| *stage);
            let stage = own.or_else(|| if self.within_step { None } else { other() });
            let Some(stage) = stage else { return lines };
            self.shown = Some(stage);
            let event = self.waiting.get_mut(&stage).and_then(VecDeque::pop_front);
            lines.extend(event.into_iter().flat_map(|event| self.show(event)));
        }
    }

    fn show(&mut self, event: Event) -> Vec<Message> {
        match &event {
            Event::Begin(..) => self.within_step = true,
            Event::End(..) => self.within_step = false,
            _ => {}
        }
        match event {
            Event::Begin(step, what) => {
                if what.text.to_ascii_uppercase().starts_with("FROM ") {
                    self.beginnings.push(step);
                }
                match what.number {
                    Some((number, total)) => {
                        self.next = number + 1;
                        vec![Message::stream(format!("Step {number}/{total} : {}", what.text)), Message::stream("\n")]
                    }
                    None => vec![Message::stream("# Executing 1 build trigger\n")],
                }
            }
            Event::Cached(step) if self.beginnings.contains(&step) => Vec::new(),
            Event::Cached(_) => vec![Message::stream(" ---> Using cache\n")],
            Event::Running(_, id) => vec![Message::stream(format!(" ---> Running in {id}\n"))],
            Event::Removed(_, id) => vec![Message::stream(format!(" ---> Removed intermediate container {id}\n"))],
            Event::State(_, digest) => vec![Message::stream(format!(" ---> {}\n", &digest.hex()[..SHORT_ID]))],
            Event::Output(_, Output::Stdout, bytes) => vec![Message::stream(String::from_utf8_lossy(&bytes))],
            Event::Output(_, Output::Stderr, bytes) => {
                vec![Message::stream(format!("{RED}{}{PLAIN}", String::from_utf8_lossy(&bytes)))]
            }
            Event::Warning(_)
            | Event::Lint(_)
            | Event::Because(..)
            | Event::Progress(..)
            | Event::Size(..)
            | Event::End(..) => Vec::new(),
        }
    }

    fn built(&self, image: oci::Digest, tags: &[String], kept: Option<&str>) -> Vec<Message> {
        if self.verbosity == Verbosity::Quiet && kept.is_none() {
            return vec![Message::stream(format!("{image}\n"))];
        }
        let told = match kept {
            None => json!({ "ID": image.to_string() }),
            Some(kept) => json!({ "ID": image.to_string(), "Result": kept }),
        };
        let aux = Message { aux: Some(told), ..Message::default() };
        let success = Message::stream(format!("Successfully built {}\n", &image.hex()[..SHORT_ID]));
        let tagged = tags.iter().map(|tag| Message::stream(format!("Successfully tagged {tag}\n")));
        [aux, success].into_iter().chain(tagged).collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::model::build::Description;

    use super::*;

    fn text(printer: &mut Printer, event: BuildEvent) -> String {
        let lines = printer.lines(event).0;
        lines.iter().map(|line| String::from_utf8(line.to_line()).unwrap()).collect()
    }

    fn begin(step: u32, stage: usize, number: usize, text: &str) -> BuildEvent {
        let what = Description {
            stage: Some(stage),
            title: String::new(),
            text: text.to_owned(),
            number: Some((number, 4)),
            inputs: Vec::new(),
            makes_files: true,
        };
        BuildEvent::Happens(Event::Begin(StepId(step), what))
    }

    #[test]
    fn the_stream_is_dockers() {
        let mut printer = Printer::new(Verbosity::Everything);
        assert_eq!(
            text(&mut printer, begin(1, 0, 1, "FROM x")),
            "{\"stream\":\"Step 1/4 : FROM x\"}\r\n{\"stream\":\"\\n\"}\r\n"
        );
        assert_eq!(text(&mut Printer::new(Verbosity::Quiet), begin(1, 0, 1, "FROM x")), "");
        let image = oci::Digest::of(b"");
        let built = BuildEvent::Built { image, tags: vec!["a:1".into()], kept: None };
        let expected = "{\"aux\":{\"ID\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}}\r\n\
                        {\"stream\":\"Successfully built e3b0c44298fc\\n\"}\r\n{\"stream\":\"Successfully tagged a:1\\n\"}\r\n";
        assert_eq!(text(&mut printer, built), expected);
        let failed = BuildEvent::Failed { code: 3, message: "The command".into() };
        assert_eq!(
            text(&mut printer, failed),
            "{\"errorDetail\":{\"code\":3,\"message\":\"The command\"},\"error\":\"The command\"}\r\n"
        );
    }

    #[test]
    fn stages_side_by_side_are_shown_one_after_the_other() {
        let mut printer = Printer::new(Verbosity::Everything);
        let mut shown = String::new();
        let output = |step, text: &str| {
            BuildEvent::Happens(Event::Output(StepId(step), Output::Stdout, text.as_bytes().to_vec()))
        };
        let events = [
            begin(2, 1, 3, "FROM b"),
            begin(1, 0, 1, "FROM a"),
            BuildEvent::Happens(Event::End(StepId(2), None)),
            begin(4, 1, 4, "RUN b"),
            output(4, "late"),
            BuildEvent::Happens(Event::End(StepId(1), None)),
            begin(3, 0, 2, "RUN a"),
            output(3, "early"),
            BuildEvent::Happens(Event::End(StepId(3), None)),
        ];
        for event in events {
            shown.push_str(&text(&mut printer, event));
        }
        shown.extend(printer.rest().iter().map(|line| String::from_utf8(line.to_line()).unwrap()));
        let places: Vec<_> =
            ["FROM a", "RUN a", "early", "FROM b", "RUN b", "late"].map(|word| shown.find(word)).into();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown}");
    }
}
