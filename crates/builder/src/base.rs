//! A build from its Dockerfile to its image: which stages are needed, what they begin with, and what comes out.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use archive::layer::NodeId;
use dockerfile::arguments::{self, Given, platform_name};
use dockerfile::expand::Expander;
use dockerfile::ignore::Ignore;
use dockerfile::mount::Mount;
use dockerfile::{Dockerfile, Environment, Instruction, Stage, suggest};
use images::{Image, ImageStore, NewImage};
use oci::Digest;
use oci::image::Platform;
use snapshots::Snapshotter;

use crate::cache::Cache;
use crate::config::State;
use crate::context::Context;
use crate::error::BuildError;
use crate::host::{Event, Host, Request};
use crate::time::Clock;

/// The parts that a build works with.
pub(crate) struct Build<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) snapshotter: &'a dyn Snapshotter,
    pub(crate) cache: &'a Cache,
    pub(crate) context: &'a Context,
    /// For what a build keeps only while it runs.
    pub(crate) dir: &'a Path,
    pub(crate) request: &'a Request,
    pub(crate) dockerfile: Dockerfile,
    /// What `FROM` lines see.
    pub(crate) global: Environment,
    pub(crate) clock: Clock,
    pub(crate) platform: Platform,
    /// Stages that are done, by their number.
    pub(crate) done: HashMap<usize, State>,
    pub(crate) digests: HashMap<NodeId, Digest>,
    pub(crate) steps: usize,
    pub(crate) total: usize,
    pub(crate) events: &'a mut dyn FnMut(Event),
}

/// Builds an image and gives it its names. The caller holds a lease of the image store.
pub fn build(
    host: &dyn Host,
    store: &ImageStore,
    (snapshotter, cache): (&dyn Snapshotter, &Cache),
    (context, dir): (&mut Context, &Path),
    request: &Request,
    events: &mut dyn FnMut(Event),
) -> Result<Arc<Image>, BuildError> {
    let text = context.text(&request.dockerfile);
    let text = text.ok_or_else(|| BuildError::DockerfileMissing(request.dockerfile.clone()))?;
    hide_ignored(context, &request.dockerfile)?;
    let dockerfile = dockerfile::parse(&text)?;
    let host_platform = Platform::host();
    let platform = request.platform.clone().unwrap_or_else(|| host_platform.clone());
    let given: Given = request.arguments.clone();
    let predefined = arguments::predefined(&host_platform, &platform, request.target.as_deref(), &given);
    let global = arguments::global(&dockerfile, &given, predefined)?;
    let epoch = given.get("SOURCE_DATE_EPOCH").map(String::as_str).or(global.get("SOURCE_DATE_EPOCH"));
    let clock = Clock::new(epoch)?;
    let mut build = Build {
        host,
        snapshotter,
        cache,
        context,
        dir,
        request,
        dockerfile,
        global,
        clock,
        platform,
        done: HashMap::new(),
        digests: HashMap::new(),
        steps: 0,
        total: 0,
        events,
    };
    let mut state = build.run()?;
    build.warn_of_unused_arguments();
    state.image.created = Some(clock.now());
    state.add_labels(&request.labels);
    Ok(store.create(NewImage { config: state.bytes(), references: request.tags.clone(), parent: None })?)
}

/// The Dockerfile and `.dockerignore` always come; where the latter names them, no step sees them.
fn hide_ignored(context: &mut Context, dockerfile: &str) -> Result<(), BuildError> {
    let own = format!("{dockerfile}.dockerignore");
    let Some(text) = context.text(&own).or_else(|| context.text(".dockerignore")) else { return Ok(()) };
    let ignore = Ignore::parse(&text)?;
    for path in [dockerfile, ".dockerignore", &own] {
        if ignore.matches(path) {
            context.hide(path);
        }
    }
    Ok(())
}

impl Build<'_> {
    fn run(&mut self) -> Result<State, BuildError> {
        let target = self.target()?;
        let needed = self.needed(target)?;
        self.total = needed.iter().map(|stage| 1 + self.dockerfile.stages[*stage].steps.len()).sum();
        for index in needed {
            let stage = self.dockerfile.stages[index].clone();
            let state = self.stage(&stage, index)?;
            self.done.insert(index, state);
        }
        self.done.remove(&target).ok_or_else(|| BuildError::Target(String::new(), String::new()))
    }

    fn target(&self) -> Result<usize, BuildError> {
        let stages = &self.dockerfile.stages;
        let Some(name) = self.request.target.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(stages.len() - 1);
        };
        let found = self.find_stage(name, stages.len());
        found.ok_or_else(|| {
            let hint = suggest(name, stages.iter().filter_map(|stage| stage.name.as_deref()));
            let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            BuildError::Target(name.to_owned(), hint)
        })
    }

    /// A stage before `end`, by name or number; of several with one name the last.
    pub(crate) fn find_stage(&self, name: &str, end: usize) -> Option<usize> {
        let lower = name.to_lowercase();
        let earlier = &self.dockerfile.stages[..end];
        let by_name = earlier.iter().rposition(|stage| stage.name.as_deref() == Some(&lower));
        by_name.or_else(|| name.parse::<usize>().ok().filter(|number| *number < end))
    }

    /// The stages that the target needs, in their order.
    fn needed(&self, target: usize) -> Result<Vec<usize>, BuildError> {
        let (mut needed, mut open) = (vec![target], vec![target]);
        while let Some(index) = open.pop() {
            let stage = &self.dockerfile.stages[index];
            let base = self.base_name(stage)?;
            let mut names = vec![base];
            for step in &stage.steps {
                match &step.instruction {
                    Instruction::Copy(copy) => names.extend(copy.from.clone()),
                    Instruction::Run(run) => {
                        for mount in &run.mounts {
                            names.extend(Mount::parse_unexpanded(mount)?);
                        }
                    }
                    _ => {}
                }
            }
            for stage in names.iter().filter_map(|name| self.find_stage(name, index)) {
                if !needed.contains(&stage) {
                    needed.push(stage);
                    open.push(stage);
                }
            }
        }
        needed.sort_unstable();
        Ok(needed)
    }

    fn base_name(&self, stage: &Stage) -> Result<String, BuildError> {
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        let name = expander.expand(&stage.base, &self.global)?.text;
        if name.is_empty() { Err(BuildError::BlankBase(stage.base.clone())) } else { Ok(name) }
    }

    fn stage(&mut self, stage: &Stage, index: usize) -> Result<State, BuildError> {
        let base = self.base_name(stage)?;
        let text = match (&stage.name, &stage.platform) {
            (Some(name), _) => format!("FROM {base} AS {name}"),
            (None, _) => format!("FROM {base}"),
        };
        self.begin_step(text);
        let mut state = self.beginning(stage, &base, index)?;
        if base != "scratch" {
            self.tell(Event::State(state.digest()));
        }
        for trigger in std::mem::take(&mut state.triggers) {
            self.total += 1;
            let instruction = dockerfile::parse_trigger(&trigger)?;
            self.step(&instruction, &trigger, &mut state, index)?;
        }
        for step in &stage.steps {
            self.step(&step.instruction, &step.source, &mut state, index)?;
        }
        Ok(state)
    }

    fn beginning(&self, stage: &Stage, base: &str, index: usize) -> Result<State, BuildError> {
        if base == "scratch" {
            return Ok(State::empty(&self.platform));
        }
        if let Some(state) = self.find_stage(base, index).and_then(|stage| self.done.get(&stage)) {
            // What an earlier stage declared stays visible.
            let mut state = state.clone();
            state.command_set = false;
            state.triggers = state.image.config.on_build.take().unwrap_or_default();
            return Ok(state);
        }
        let image = self.host.image(base)?;
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        let wanted = match &stage.platform {
            Some(text) => Some(expander.expand(text, &self.global)?.text),
            None => self.request.platform.as_ref().map(platform_name),
        };
        let actual = platform_name(&image.config.platform());
        let fits = |wanted: &String| actual == *wanted || actual.starts_with(&format!("{wanted}/"));
        match wanted {
            Some(wanted) if !fits(&wanted) => Err(BuildError::Platform { image: base.to_owned(), actual, wanted }),
            _ => Ok(State::upon(image.config.as_ref().clone())),
        }
    }

    pub(crate) fn begin_step(&mut self, text: String) {
        self.steps += 1;
        let (number, total) = (self.steps, self.total);
        self.tell(Event::Step { number, total, text });
    }

    pub(crate) fn tell(&mut self, event: Event) {
        (self.events)(event);
    }

    /// Arguments that no stage declares are most often misspelt.
    fn warn_of_unused_arguments(&mut self) {
        let steps = self.dockerfile.stages.iter().flat_map(|stage| &stage.steps);
        let of_stages = steps.filter_map(|step| match &step.instruction {
            Instruction::Arg(arguments) => Some(arguments),
            _ => None,
        });
        let declared: Vec<&str> =
            of_stages.flatten().chain(&self.dockerfile.arguments).map(|argument| argument.name.as_str()).collect();
        let predefined =
            |name: &str| arguments::is_proxy(name) || name.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH";
        let given = self.request.arguments.keys();
        let unused: Vec<&String> =
            given.filter(|name| !declared.contains(&name.as_str()) && !predefined(name)).collect();
        if !unused.is_empty() {
            let names = unused.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
            self.tell(Event::Warning(format!("[Warning] One or more build-args [{names}] were not consumed\n")));
        }
    }
}
