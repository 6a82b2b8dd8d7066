//! One stage: what it begins with, what its base image triggers, and its instructions one after the other.

use dockerfile::arguments::platform_name;
use dockerfile::expand::Expander;
use dockerfile::{Instruction, Stage};

use crate::build::{Build, Finish};
use crate::config::State;
use crate::error::BuildError;
use crate::event::{Description, Event, StepId};
use crate::request::NamedContext;

/// A stage while it is built.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its number in the Dockerfile.
    pub(crate) index: usize,
    /// Its name, or `stage-N`; empty where it is the only one.
    pub(crate) name: String,
    /// What stands before the name where an image is built for several platforms.
    prefix: String,
    /// The step before.
    pub(crate) last: Option<StepId>,
    /// How many of its steps make files, and which of them is next.
    titles: (usize, usize),
    /// The number of the next instruction, and of all.
    numbers: (usize, usize),
    /// Where the step is among those that a build explains.
    pub(crate) position: usize,
    /// Whether it takes what is there.
    pub(crate) reuses: bool,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The Dockerfile.
    Written,
    /// The base image.
    Triggered,
}

impl Build<'_> {
    pub(crate) fn stage(&self, stage: &Stage, index: usize) -> Result<Finish, BuildError> {
        let base = self.base_name(stage)?;
        let name = self.stage_name(index);
        let makers = stage.steps.iter().filter(|step| makes_files(&step.instruction)).count();
        // Only an image is shown as a beginning: neither another stage nor nothing is.
        let is_stage = self.named_context(&base).is_none() && self.find_stage(&base, index).is_some();
        let beginnings = usize::from(!is_stage && base != "scratch");
        let own = stage.name.clone().unwrap_or_else(|| index.to_string());
        let mut place = Place {
            index,
            name,
            prefix: self.request.prefix.clone(),
            last: None,
            titles: (1, beginnings + makers),
            numbers: self.numbers(index),
            position: 0,
            reuses: self.request.reuse.allows(&own),
        };
        let mut state = self.beginning(stage, &base, &mut place)?;
        for trigger in std::mem::take(&mut state.triggers) {
            let instruction = dockerfile::parse_trigger(&trigger)?;
            self.step(&instruction, &trigger, &mut state, &mut place, Origin::Triggered)?;
        }
        for step in &stage.steps {
            self.step(&step.instruction, &step.source, &mut state, &mut place, Origin::Written)?;
        }
        Ok(Finish { state, last: place.last })
    }

    /// `FROM`, as a step of its own.
    fn beginning(&self, stage: &Stage, base: &str, place: &mut Place) -> Result<State, BuildError> {
        let text = match &stage.name {
            Some(name) => format!("FROM {base} AS {name}"),
            None => format!("FROM {base}"),
        };
        if self.named_context(base).is_none()
            && let Some(earlier) = self.find_stage(base, place.index)
        {
            let finish = self.stage_result(earlier)?;
            place.last = finish.last;
            let step = self.begin(place.describe(&text, &format!("FROM {base}"), Origin::Written, Shown::Unlisted));
            self.tell(Event::State(step, finish.state.digest()));
            self.end(step, None);
            return Ok(finish.state.clone().into_next_stage());
        }
        if base == "scratch" {
            let step = self.begin(place.describe(&text, "FROM scratch", Origin::Written, Shown::Unlisted));
            self.end(step, None);
            return Ok(State::empty(&self.platform));
        }
        let full = oci::Reference::parse(base).map_or_else(|_| base.to_owned(), |r| r.with_default_tag().canonical());
        let step = self.begin(place.describe(&text, &format!("FROM {full}"), Origin::Written, Shown::Listed));
        let state = self.base_state(stage, base, step);
        match &state {
            Ok(state) => {
                self.tell(Event::State(step, state.digest()));
                self.tell(Event::Cached(step));
            }
            Err(_) => self.tell(Event::End(step, state.as_ref().err().map(ToString::to_string))),
        }
        let state = state?;
        self.end(step, None);
        place.last = Some(step);
        Ok(state)
    }

    fn base_state(&self, stage: &Stage, base: &str, step: StepId) -> Result<State, BuildError> {
        let name = match self.named_context(base) {
            None => base,
            Some(NamedContext::Image(name)) => name,
            Some(NamedContext::Client(_) | NamedContext::Remote(_)) => {
                return Err(BuildError::Unsupported(format!("FROM {base}, which is a folder")));
            }
        };
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        let own = stage.platform.as_ref().map(|text| expander.expand(text, &self.global)).transpose()?;
        let wanted = match own {
            Some(text) => {
                Some(images::parse_platform(&text.text).map_err(|_| BuildError::PlatformName(text.text.clone()))?)
            }
            None => self.request.platform.clone(),
        };
        let image = self.image(name, wanted.as_ref(), step)?;
        let actual = platform_name(&image.config.platform());
        let wanted = wanted.as_ref().map(platform_name);
        let fits = |wanted: &String| actual == *wanted || actual.starts_with(&format!("{wanted}/"));
        match wanted {
            Some(wanted) if !fits(&wanted) => Err(BuildError::Platform { image: name.to_owned(), actual, wanted }),
            _ => Ok(State::upon(image.config.as_ref().clone())),
        }
    }
}

/// Whether a step counts among those that are shown with numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It does.
    Listed,
    /// It only changes the configuration.
    Unlisted,
}

impl Place {
    /// Describes the next step.
    pub(crate) fn describe(&mut self, text: &str, shown_text: &str, origin: Origin, shown: Shown) -> Description {
        let (next, all) = self.titles;
        let title = match shown {
            Shown::Unlisted => shown_text.to_owned(),
            Shown::Listed => {
                let words = [&self.prefix, &self.name].into_iter().filter(|word| !word.is_empty());
                let stage: String = words.map(|word| format!("{word} ")).collect();
                let width = all.to_string().len();
                format!("[{stage}{next:>width$}/{all}] {shown_text}")
            }
        };
        let number = (origin == Origin::Written).then_some(self.numbers);
        if origin == Origin::Written {
            self.numbers.0 += 1;
            if shown == Shown::Listed {
                self.titles.0 += 1;
            }
        }
        Description {
            stage: Some(self.index),
            title,
            text: text.to_owned(),
            number,
            inputs: self.last.into_iter().collect(),
            makes_files: shown == Shown::Listed,
        }
    }
}

/// Whether an instruction makes files.
pub(crate) fn makes_files(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
}
