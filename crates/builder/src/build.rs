//! A build from its Dockerfile to its image: which stages are needed, and a thread for each of them. A stage waits for another one
//! only where it begins with it or takes files from it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dockerfile::arguments::{self, Given};
use dockerfile::expand::Expander;
use dockerfile::ignore::Ignore;
use dockerfile::mount::Mount;
use dockerfile::{Dockerfile, Environment, Instruction, Stage, suggest};
use images::Image;
use oci::Digest;
use oci::image::{ImageConfig, Platform};
use snapshots::Snapshotter;

use crate::borrow::Borrowed;
use crate::cache::Cache;
use crate::config::State;
use crate::context::Context;
use crate::error::BuildError;
use crate::event::{Description, Event, Sink, StepId};
use crate::host::{Host, Wanted};
use crate::portable::{BuiltStep, inline_cache};
use crate::request::{NamedContext, Request};
use crate::scan::Ingredient;
use crate::single::Single;
use crate::time::Clock;

/// The parts that a build works with.
pub(crate) struct Build<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) snapshotter: &'a dyn Snapshotter,
    pub(crate) cache: &'a Cache,
    /// For what a build keeps only while it runs.
    pub(crate) dir: &'a Path,
    pub(crate) request: &'a Request,
    pub(crate) dockerfile: Dockerfile,
    ignore: String,
    /// What `FROM` lines see.
    pub(crate) global: Environment,
    pub(crate) clock: Clock,
    pub(crate) platform: Platform,
    /// The stages that the target needs, in their order, with the number of their first instruction.
    needed: Vec<(usize, usize)>,
    total: usize,
    finished: Finished,
    images: Single<(String, Option<String>), Arc<Image>>,
    pub(crate) borrowed: Borrowed,
    materials: Mutex<BTreeSet<Material>>,
    contexts: Single<String, Arc<Context>>,
    next_step: AtomicU32,
    pub(crate) events: Sink<'a>,
}

/// Stages that are done, by their number in the Dockerfile, and whether one of them failed.
#[derive(Debug, Default)]
struct Finished {
    stages: Mutex<Vec<Option<Arc<Finish>>>>,
    changed: Condvar,
    failed: AtomicBool,
}

/// What a stage left.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    pub(crate) state: State,
    /// Its last step.
    pub(crate) last: Option<StepId>,
}

/// A build that is done: its image's configuration, and its layers are in the store.
#[derive(Debug, Clone)]
pub struct Built {
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration as it is stored: what the image's id is the digest of.
    pub bytes: Vec<u8>,
    /// Every step that the build took, made or found, in the Dockerfile's order.
    pub steps: Vec<BuiltStep>,
    /// Files that went into it and are looked at as well when its packages are listed.
    pub ingredients: Vec<Ingredient>,
    /// What it was made of.
    pub materials: Vec<Material>,
    /// The Dockerfile.
    pub dockerfile: String,
}

/// Something that a build took from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Material {
    /// An image.
    Image {
        /// Its name.
        name: String,
        /// What it is for.
        platform: Platform,
        /// What a registry calls it, or its id where none does.
        digest: Digest,
    },
    /// A file from the web.
    File {
        /// Its address.
        url: String,
        /// The SHA-256 of its bytes.
        digest: Digest,
    },
    /// A repository.
    Repository {
        /// Its address.
        url: String,
    },
}

/// What the Dockerfile is for readers that want no image.
#[derive(Debug)]
pub struct Read {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// The Dockerfile's text.
    pub text: String,
    /// What its ignore file says.
    pub ignore: String,
}

/// Reads the Dockerfile of a build.
pub fn read(host: &dyn Host, request: &Request) -> Result<Read, BuildError> {
    let came = host.dockerfile(&request.dockerfile)?;
    let came = came.ok_or_else(|| BuildError::DockerfileMissing(request.dockerfile.clone()))?;
    let dockerfile = dockerfile::parse(&came.text)?;
    let ignore = came.ignore.unwrap_or_default();
    Ignore::parse(&ignore)?;
    Ok(Read { dockerfile, text: came.text, ignore })
}

/// Builds what a request asks for. The caller holds a lease of the image store from before until after the layers are named.
pub fn build(
    host: &dyn Host,
    (snapshotter, cache): (&dyn Snapshotter, &Cache),
    dir: &Path,
    request: &Request,
    events: Sink<'_>,
) -> Result<Built, BuildError> {
    let read = tell_reading(host, request, events)?;
    let dockerfile = read.text.clone();
    let host_platform = Platform::host();
    let platform = request.platform.clone().unwrap_or_else(|| host_platform.clone());
    let given: Given = request.arguments.clone();
    let predefined = arguments::predefined(&host_platform, &platform, request.target.as_deref(), &given);
    let global = arguments::global(&read.dockerfile, &given, predefined)?;
    let epoch = given.get("SOURCE_DATE_EPOCH").map(String::as_str).or(global.get("SOURCE_DATE_EPOCH"));
    let clock = Clock::new(epoch)?;
    let mut build = Build {
        host,
        snapshotter,
        cache,
        dir,
        request,
        ignore: read.ignore,
        dockerfile: read.dockerfile,
        global,
        clock,
        platform,
        needed: Vec::new(),
        total: 0,
        finished: Finished::default(),
        images: Single::default(),
        borrowed: Borrowed::default(),
        materials: Mutex::default(),
        contexts: Single::default(),
        next_step: AtomicU32::new(request.first_step.0 + 1),
        events,
    };
    let target = build.target()?;
    build.plan(target)?;
    build.lint()?;
    build.import();
    let (mut state, ingredients) = build.run_to_the_end(target)?;
    build.warn_of_unused_arguments();
    build.keep_borrowed()?;
    state.add_labels(&request.labels);
    crate::finish::fill_times(&mut state, clock);
    let materials = build.materials.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    let steps = build.borrowed.into_steps();
    if request.inline_cache {
        state.image.build_cache = Some(inline_cache(&steps, &state.image.rootfs.diff_ids));
    }
    Ok(Built { bytes: state.bytes(), config: state.image, steps, ingredients, materials, dockerfile })
}

fn tell_reading(host: &dyn Host, request: &Request, events: Sink<'_>) -> Result<Read, BuildError> {
    let title = format!("[internal] load build definition from {}", request.dockerfile);
    let step = request.first_step;
    events(Event::Begin(step, internal(title)));
    let read = read(host, request);
    events(Event::End(step, read.as_ref().err().map(ToString::to_string)));
    read
}

/// A step that nobody wrote.
fn internal(title: String) -> Description {
    Description { stage: None, text: title.clone(), title, number: None, inputs: Vec::new(), makes_files: true }
}

impl Build<'_> {
    /// Builds; a second time without what caches from elsewhere have said if a layer of theirs is needed that cannot be had.
    fn run_to_the_end(&mut self, target: usize) -> Result<(State, Vec<Ingredient>), BuildError> {
        loop {
            let gone = match self.run(target).and_then(|state| self.complete(target, state)) {
                Err(BuildError::LayerGone(layer)) => layer,
                done => return done,
            };
            self.tell(Event::Warning(format!("[Warning] {}: the step is made again\n", BuildError::LayerGone(gone))));
            self.forget_borrowed(gone);
            self.finished = Finished::default();
            self.finished.stages = Mutex::new(vec![None; self.dockerfile.stages.len()]);
        }
    }

    /// Sees to it that all is here that is asked for.
    fn complete(&self, target: usize, state: State) -> Result<(State, Vec<Ingredient>), BuildError> {
        self.require(state.layers())?;
        let ingredients = self.ingredients(target, &state)?;
        Ok((state, ingredients))
    }

    fn run(&self, target: usize) -> Result<State, BuildError> {
        let first_error = Mutex::new(None);
        let work = |index: usize| {
            let result = self.stage(&self.dockerfile.stages[index], index);
            if let Some(error) = self.finished.put(index, result) {
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        match self.needed.as_slice() {
            [(only, _)] => work(*only),
            several => std::thread::scope(|scope| {
                for (index, _) in several {
                    scope.spawn(move || work(*index));
                }
            }),
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(self.stage_result(target)?.state.clone()),
        }
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

    /// Finds the stages that the target needs, and numbers their instructions.
    fn plan(&mut self, target: usize) -> Result<(), BuildError> {
        let (mut needed, mut open) = (vec![target], vec![target]);
        while let Some(index) = open.pop() {
            let names = self.names_of(&self.dockerfile.stages[index])?;
            for stage in names.iter().filter_map(|name| self.find_stage(name, index)) {
                if !needed.contains(&stage) {
                    needed.push(stage);
                    open.push(stage);
                }
            }
        }
        needed.sort_unstable();
        let mut number = 1;
        for index in needed {
            self.needed.push((index, number));
            number += 1 + self.dockerfile.stages[index].steps.len();
        }
        self.total = number - 1;
        self.finished.stages = Mutex::new(vec![None; self.dockerfile.stages.len()]);
        Ok(())
    }

    /// What a stage takes files from, by the names that its instructions use. Contexts that the user named are no stages.
    fn names_of(&self, stage: &Stage) -> Result<Vec<String>, BuildError> {
        let mut names = vec![self.base_name(stage)?];
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
        names.retain(|name| self.named_context(name).is_none());
        Ok(names)
    }

    /// What `--build-context` says about a name.
    pub(crate) fn named_context(&self, name: &str) -> Option<&NamedContext> {
        let exact = self.request.contexts.get(name);
        exact.or_else(|| {
            let full = oci::Reference::parse(name).ok()?.with_default_tag().canonical();
            let means =
                |given: &String| oci::Reference::parse(given).is_ok_and(|r| r.with_default_tag().canonical() == full);
            self.request.contexts.iter().find(|(given, _)| means(given)).map(|(_, context)| context)
        })
    }

    pub(crate) fn base_name(&self, stage: &Stage) -> Result<String, BuildError> {
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        let name = expander.expand(&stage.base, &self.global)?.text;
        if name.is_empty() { Err(BuildError::BlankBase(stage.base.clone())) } else { Ok(name) }
    }

    /// What a stage is called where several are shown.
    pub(crate) fn stage_name(&self, index: usize) -> String {
        let several = self.needed.len() > 1 || self.dockerfile.stages[index].name.is_some();
        match &self.dockerfile.stages[index].name {
            Some(name) => name.clone(),
            None if several => format!("stage-{index}"),
            None => String::new(),
        }
    }

    /// The number of a stage's first instruction, and how many instructions there are in all.
    pub(crate) fn numbers(&self, index: usize) -> (usize, usize) {
        let first = self.needed.iter().find(|(stage, _)| *stage == index).map_or(1, |(_, number)| *number);
        (first, self.total)
    }

    /// The stages that the target needs, itself included.
    pub(crate) fn needed_stages(&self) -> impl Iterator<Item = usize> + '_ {
        self.needed.iter().map(|(index, _)| *index)
    }

    /// The result of a stage that this one needs, once it is there.
    pub(crate) fn stage_result(&self, index: usize) -> Result<Arc<Finish>, BuildError> {
        let mut stages = self.finished.stages.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(done) = &stages[index] {
                return Ok(Arc::clone(done));
            }
            if self.stopped() {
                return Err(BuildError::Stopped);
            }
            stages = self.finished.changed.wait(stages).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the build has failed elsewhere, or nobody wants it any more.
    pub(crate) fn stopped(&self) -> bool {
        self.finished.failed.load(Ordering::Relaxed) || self.host.cancelled()
    }

    /// An image that stages begin with or take files from; asked for once a build.
    pub(crate) fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: StepId,
    ) -> Result<Arc<Image>, BuildError> {
        let key = (name.to_owned(), platform.map(arguments::platform_name));
        let image = self.images.get(key, || self.host.image(name, platform, step, self.events))?;
        let name = name.to_owned();
        let digest = image.digests.iter().find_map(|reference| reference.digest()).unwrap_or(image.id.digest());
        self.note_material(Material::Image { name, platform: image.config.platform(), digest: *digest });
        Ok(image)
    }

    pub(crate) fn note_material(&self, material: Material) {
        self.materials.lock().unwrap_or_else(PoisonError::into_inner).insert(material);
    }

    /// The build's own context, or one that was named; read once a build, filtered as its ignore file says.
    pub(crate) fn context(&self, name: Option<&NamedContext>) -> Result<Arc<Context>, BuildError> {
        let key = name.map(|name| format!("{name:?}")).unwrap_or_default();
        self.contexts.get(key, || {
            let title = match name {
                None => "[internal] load build context".to_owned(),
                Some(NamedContext::Image(name) | NamedContext::Client(name) | NamedContext::Remote(name)) => {
                    format!("[context {name}] load from client")
                }
            };
            let paths = if name.is_none() { self.paths_of_context()? } else { None };
            let ignore = if name.is_none() { self.ignore.as_str() } else { "" };
            self.internal_step(title, |step| {
                let wanted = Wanted { name, ignore, paths: paths.as_deref() };
                Ok(self.host.context(&wanted, step, self.events)?)
            })
        })
    }

    /// The only paths of the context that this build looks at; none when that is not known before.
    fn paths_of_context(&self) -> Result<Option<Vec<String>>, BuildError> {
        let mut paths = Vec::new();
        for (index, _) in &self.needed {
            for step in &self.dockerfile.stages[*index].steps {
                let (from, sources) = match &step.instruction {
                    Instruction::Copy(copy) => (copy.from.as_ref(), &copy.sources),
                    Instruction::Add(add) => (None, &add.sources),
                    Instruction::Run(run) if run.mounts.is_empty() => continue,
                    Instruction::Run(_) | Instruction::OnBuild(_) => return Ok(None),
                    _ => continue,
                };
                if from.is_some() {
                    continue;
                }
                for path in sources.paths.iter().filter(|path| !is_remote(path)) {
                    let clean = dockerfile::clean_path(&format!("/{path}")).trim_start_matches('/').to_owned();
                    if path.contains(['$', '\\', '"', '\'', '`']) || clean.is_empty() {
                        return Ok(None);
                    }
                    paths.push(clean);
                }
            }
            // What a base image triggers is not known here.
            let base = self.base_name(&self.dockerfile.stages[*index])?;
            if base != "scratch" && self.find_stage(&base, *index).is_none() && self.may_trigger(&base) {
                return Ok(None);
            }
        }
        Ok(Some(paths))
    }

    /// Whether a base image is known to trigger nothing.
    fn may_trigger(&self, base: &str) -> bool {
        let image = self.image(base, self.request.platform.as_ref(), self.request.first_step);
        image.map_or(true, |image| image.config.config.on_build.as_ref().is_some_and(|list| !list.is_empty()))
    }

    /// Does something that the user did not write as a step of its own.
    pub(crate) fn internal_step<T>(
        &self,
        title: String,
        work: impl FnOnce(StepId) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let step = self.begin(internal(title));
        let result = work(step);
        self.end(step, result.as_ref().err());
        result
    }

    pub(crate) fn begin(&self, description: Description) -> StepId {
        let step = StepId(self.next_step.fetch_add(1, Ordering::Relaxed));
        self.tell(Event::Begin(step, description));
        step
    }

    pub(crate) fn end(&self, step: StepId, error: Option<&BuildError>) {
        // A build that begins anew without a cache has not failed.
        let error = error.filter(|error| !self.borrowed.begins_anew(error));
        self.tell(Event::End(step, error.map(ToString::to_string)));
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.events)(event);
    }

    /// Arguments that no stage declares are most often misspelt.
    fn warn_of_unused_arguments(&self) {
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

    /// Tells of broken lint rules; they are an error where the Dockerfile or the user wants them to be.
    fn lint(&self) -> Result<(), BuildError> {
        let needed = self.needed.iter().map(|(stage, _)| self.base_name(&self.dockerfile.stages[*stage]));
        let needed = needed.collect::<Result<Vec<_>, _>>()?;
        let found = crate::lint::lint(&self.dockerfile, self.request, &self.ignore, &|name| {
            // No image is fetched for a stage that is not built.
            let is_needed = needed.iter().any(|base| base == name);
            if !is_needed || name == "scratch" || self.named_context(name).is_some() {
                return None;
            }
            self.image(name, self.request.platform.as_ref(), self.request.first_step).ok()
        })?;
        let names: std::collections::BTreeSet<&str> = found.warnings.iter().map(|w| w.rule.as_str()).collect();
        let refused = found.is_error && !names.is_empty();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        for warning in found.warnings {
            self.tell(Event::Lint(warning));
        }
        if refused { Err(BuildError::Lint(names)) } else { Ok(()) }
    }
}

/// Whether a source of ADD is an address.
pub(crate) fn is_remote(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@")
}

impl Finished {
    /// Keeps a stage's result and wakes those that wait; gives back why it failed.
    fn put(&self, index: usize, result: Result<Finish, BuildError>) -> Option<BuildError> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match result {
            Ok(finish) => {
                stages[index] = Some(Arc::new(finish));
                None
            }
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                // Only the stage that failed knows why; the others merely stopped.
                Some(error).filter(|error| !matches!(error, BuildError::Stopped))
            }
        };
        self.changed.notify_all();
        error
    }
}
