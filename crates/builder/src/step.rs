//! One step: what it does to the state of its stage.

use std::sync::Arc;

use archive::tar::Metadata;
use dockerfile::arguments::{self, is_for_commands};
use dockerfile::expand::Expander;
use dockerfile::ignore::Ignore;
use dockerfile::{Add, Copy, Instruction, Seen, Sources, clean_path, parse_ports};
use oci::{DiffId, Digest};

use crate::build::{Build, Material, is_remote};
use crate::cache::{CacheEntry, CacheKind, Inputs};
use crate::config::State;
use crate::context::Context;
use crate::copy::{CopyRequest, FoundSources, Placement};
use crate::error::BuildError;
use crate::event::{Event, StepId};
use crate::output::Output;
use crate::owner::{ModeChange, Owner, parse_owner};
use crate::request::{Dialect, NamedContext};
use crate::root::{Found, Root};
use crate::stage::{Origin, Place, Shown, makes_files};

/// A layer with the time at which it was made.
pub(crate) type Made = Option<(DiffId, String)>;

/// A step that may have been done before.
#[derive(Debug, Clone, std::marker::Copy)]
pub(crate) struct Doing<'a> {
    /// What decides about its result.
    pub(crate) inputs: &'a Inputs,
    pub(crate) kind: CacheKind,
    /// What it is called in the cache.
    pub(crate) description: &'a str,
    /// What the history will say, where that says all about it but its files.
    pub(crate) history: Option<&'a str>,
}

/// How COPY and ADD were written, beyond their sources.
struct CopyOptions<'a> {
    instruction: &'static str,
    sources: &'a Sources,
    chown: Option<&'a String>,
    chmod: Option<&'a String>,
    exclude: &'a [String],
    parents: bool,
    link: bool,
    /// Whether archives are taken apart; where nothing is said, those of the context are and those from elsewhere are not.
    unpack: Unpack,
    from: Option<&'a String>,
    keep_git_dir: bool,
    checksum: Option<&'a String>,
}

/// What happens to archives.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
enum Unpack {
    Never,
    Local,
    Always,
}

/// Where COPY takes its files from.
enum Source {
    /// The context and addresses, found already.
    Found(Box<FoundSources>),
    /// A stage or an image.
    Layers(Vec<DiffId>),
}

impl Build<'_> {
    /// Carries out one instruction of a stage.
    pub(crate) fn step(
        &self,
        instruction: &Instruction,
        source: &str,
        state: &mut State,
        place: &mut Place,
        origin: Origin,
    ) -> Result<(), BuildError> {
        if self.stopped() {
            return Err(BuildError::Stopped);
        }
        let shown = if makes_files(instruction) { Shown::Listed } else { Shown::Unlisted };
        let step = self.begin(place.describe(source, source, origin, shown));
        place.position += 1;
        let result = self.carry_out(step, instruction, state, place);
        match &result {
            Ok(()) => {
                self.tell(Event::State(step, state.digest()));
                self.end(step, None);
            }
            Err(error) => self.end(step, Some(error)),
        }
        if shown == Shown::Listed {
            place.last = Some(step);
        }
        result
    }

    fn carry_out(
        &self,
        step: StepId,
        instruction: &Instruction,
        state: &mut State,
        place: &Place,
    ) -> Result<(), BuildError> {
        let escape = self.dockerfile.directives.escape;
        let expanded = instruction.expand(escape, &state.environment, &mut Seen::default())?;
        // Docker's classic builder tells of a cache at every step, BuildKit where a step makes files.
        let is_told = self.request.dialect == Dialect::Classic && !makes_files(&expanded);
        let before = is_told.then(|| state.clone());
        match &expanded {
            Instruction::Run(run) => self.run_command(step, run, state, place)?,
            Instruction::Copy(copy) => self.copy(step, &CopyOptions::of_copy(copy), state, place)?,
            Instruction::Add(add) => self.copy(step, &CopyOptions::of_add(add)?, state, place)?,
            Instruction::Workdir(path) => self.work_in(step, path, state, place)?,
            Instruction::Arg(declared) => self.declare(declared, state)?,
            configuration => {
                if let Some(text) = configure(configuration, state)? {
                    state.note(text);
                }
            }
        }
        if before.is_some_and(|before| self.is_configured_again(&before, state, place)) {
            self.tell(Event::Cached(step));
        }
        Ok(())
    }

    /// Whether a step without a layer does what one has done before: in an image that the build may be like, else in any build.
    fn is_configured_again(&self, before: &State, state: &State, place: &Place) -> bool {
        let was_made = self.cache.configure(state.digest());
        let new = state.image.history.get(before.image.history.len()..).unwrap_or_default();
        let is_in_image = |text: &str| self.step_of_image(before, CacheKind::Files, text).is_some();
        place.reuses
            && match &self.request.like {
                None => was_made,
                Some(_) => new.first().is_some_and(|step| is_in_image(&step.created_by)),
            }
    }

    fn declare(&self, declared: &[dockerfile::Argument], state: &mut State) -> Result<(), BuildError> {
        let escape = self.dockerfile.directives.escape;
        let expander = Expander::new(escape.char());
        // All of one instruction see what was there before it, and the history shows what was written, not what was given.
        let before = state.environment.clone();
        let mut texts = Vec::new();
        for argument in declared {
            let given = &self.request.arguments;
            let value = arguments::declared(argument, escape, given, &self.global, &before, &mut Seen::default())?;
            if let Some(value) = value.as_ref().filter(|_| is_for_commands(&argument.name)) {
                state.environment.set(&argument.name, value);
            }
            texts.push(match &argument.default {
                Some(default) => format!("{}={}", argument.name, expander.expand(default, &before)?.text),
                None => argument.name.clone(),
            });
            state.arguments.push((argument.name.clone(), value));
        }
        state.note(format!("ARG {}", texts.join(" ")));
        Ok(())
    }

    /// The result of an earlier build, or of `make`, which is remembered. Of several builds that need the same at once, one makes it.
    ///
    /// `make` is told of a layer that an image has in this place, which it gives back where it would make the same.
    pub(crate) fn cached(
        &self,
        step: StepId,
        (state, place): (&State, &Place),
        doing: &Doing<'_>,
        make: impl FnOnce(Option<DiffId>) -> Result<Option<DiffId>, BuildError>,
    ) -> Result<Made, BuildError> {
        let Doing { inputs, kind, description, history } = *doing;
        let key = inputs.key();
        let Some(_making) = self.cache.hold(&key, || self.stopped()) else { return Err(BuildError::Stopped) };
        if place.reuses
            && let Some(entry) = self.known(&key, state)
        {
            self.tell(Event::Size(step, entry.size_bytes));
            self.tell(Event::Cached(step));
            self.borrowed.note(place, key, &entry, state.layers());
            return Ok(self.made(&entry));
        }
        let position = Digest::of(format!("{}\n{}\n{}", self.request.identity, place.name, place.position).as_bytes());
        let reasons =
            if place.reuses { self.cache.explain(&position, inputs) } else { vec!["the cache is not used".to_owned()] };
        self.tell(Event::Because(step, reasons));
        let like = history.filter(|_| place.reuses).and_then(|text| self.step_of_image(state, kind, text));
        let (layer, is_like) = match &like {
            // What a command would make nobody knows; files are compared.
            Some(entry) if kind == CacheKind::Command => (entry.layer, true),
            like => {
                let other = like.as_ref().and_then(|entry| entry.layer);
                let layer = make(other)?;
                (layer, layer.is_some() && layer == other)
            }
        };
        let size_bytes = layer.map(|layer| self.snapshotter.size(&layer)).transpose()?.unwrap_or(0);
        let now = jiff::Timestamp::now().as_second();
        let created_s = like.filter(|_| is_like).map_or(now, |entry| entry.created_s);
        let description = description.to_owned();
        let entry = CacheEntry { layer, size_bytes, kind, description, created_s, last_used_s: now, uses: 0 };
        self.tell(Event::Size(step, size_bytes));
        if is_like {
            self.tell(Event::Cached(step));
        }
        self.cache.store(&key, entry.clone())?;
        self.cache.remember(&position, inputs)?;
        self.borrowed.note(place, key, &entry, state.layers());
        Ok(self.made(&entry))
    }

    fn made(&self, entry: &CacheEntry) -> Made {
        let time = || jiff::Timestamp::from_second(entry.created_s).unwrap_or_default().to_string();
        entry.layer.map(|layer| (layer, self.clock.fixed().unwrap_or_else(time)))
    }

    /// Writes a layer, unless it would be as the other one. As with Docker a step that changed nothing makes one as well: an empty one.
    fn write(&self, output: Output<'_>, other: Option<DiffId>) -> Result<Option<DiffId>, BuildError> {
        if let Some(other) = other
            && self.require(&[other]).is_ok()
            && output.is_like(self.snapshotter.open_tar(&other)?).unwrap_or(false)
        {
            return Ok(Some(other));
        }
        Ok(Some(output.write(self.snapshotter)?.0))
    }

    pub(crate) fn root(&self, layers: &[DiffId]) -> Result<Root, BuildError> {
        self.require(layers)?;
        Ok(Root::new(self.host.view(layers)?))
    }

    fn work_in(&self, step: StepId, path: &str, state: &mut State, place: &Place) -> Result<(), BuildError> {
        let path = clean_path(&state.absolute(path));
        state.image.config.working_dir.clone_from(&path);
        let text = format!("WORKDIR {path}");
        if path == "/" {
            state.note(text);
            return Ok(());
        }
        let user = state.image.config.user.clone();
        let layers = state.layers().to_vec();
        let mut inputs = Inputs::new("workdir", &layers);
        inputs.add("the directory", &path).add("the user", &user).add("SOURCE_DATE_EPOCH", self.clock_key());
        let doing = Doing { inputs: &inputs, kind: CacheKind::Files, description: &text, history: Some(&text) };
        let made = self.cached(step, (state, place), &doing, |other| {
            let root = self.root(&layers)?;
            let at = root.resolve(&path).map_err(BuildError::io("cannot look into the image's files"))?;
            let wrong = BuildError::io("cannot look into the image's files");
            if matches!(root.look(&at).map_err(wrong)?, Found::Directory(_)) {
                return self.write(Output::new(&root), other);
            }
            let owner = if user.is_empty() { Owner::default() } else { parse_owner(&user, &root)? };
            let mtime = self.clock.file_time();
            let mut output = Output::new(&root);
            let metadata = Metadata { mode: 0o755, uid: owner.uid, gid: owner.gid, mtime, xattrs: Vec::new() };
            output.directory(&at, &|_| metadata.clone())?;
            self.write(output, other)
        })?;
        state.add_history(text, made);
        Ok(())
    }

    /// A fixed clock is part of what a step makes.
    pub(crate) fn clock_key(&self) -> String {
        self.clock.fixed().unwrap_or_default()
    }

    fn copy(
        &self,
        step: StepId,
        options: &CopyOptions<'_>,
        state: &mut State,
        place: &Place,
    ) -> Result<(), BuildError> {
        let destination = state.absolute(&options.sources.destination);
        let source = self.source(step, options, place)?;
        let layers = state.layers().to_vec();
        // A layer that is linked is the same on whatever it lies.
        let below: &[DiffId] = if options.link { &[] } else { &layers };
        let mut inputs = Inputs::new("copy", below);
        inputs.add("the destination", &destination).add("the instruction", options.facts());
        inputs.add("SOURCE_DATE_EPOCH", self.clock_key());
        match &source {
            Source::Found(found) => {
                let facts = found.facts()?;
                inputs.add_files(facts.digest, facts.files);
            }
            Source::Layers(layers) => drop(inputs.add("the files copied from", format!("{layers:?}"))),
        }
        let numeric = |text: &String| text.split(':').all(|part| part.parse::<u32>().is_ok());
        let owner = match options.chown {
            Some(text) if options.link && !numeric(text) => {
                let owner = parse_owner(text, &self.root(&layers)?)?;
                inputs.add("the owner", format!("{owner:?}"));
                Some(owner)
            }
            _ => None,
        };
        let (shown, text) = (options.history(), format!("{} # buildkit", options.history()));
        let doing = Doing { inputs: &inputs, kind: CacheKind::Files, description: &shown, history: Some(&text) };
        let made = self.cached(step, (state, place), &doing, |other| {
            let root = self.root(below)?;
            let found = match source {
                Source::Found(found) => found,
                Source::Layers(from) => Box::new(FoundSources::in_root(
                    options.request(self.request.dialect)?,
                    &self.root(&from)?,
                    self.dir,
                )?),
            };
            let owner = match (owner, options.chown) {
                (Some(owner), _) => Some(owner),
                (None, text) => text.map(|text| parse_owner(text, &root)).transpose()?,
            };
            let placement = Placement {
                destination: &destination,
                owner,
                mode: options.chmod.map(|text| ModeChange::parse(text)).transpose()?,
                clock: self.clock,
            };
            self.write(found.place(&root, &placement)?, other)
        })?;
        state.add_history(text, made);
        Ok(())
    }

    fn source(&self, step: StepId, options: &CopyOptions<'_>, place: &Place) -> Result<Source, BuildError> {
        if let Some(name) = options.from {
            return match self.files_of(name, step, place)? {
                Files::Layers(layers) => Ok(Source::Layers(layers)),
                Files::Context(context) => {
                    let mut found = FoundSources::new(options.request(self.request.dialect)?);
                    options.sources.paths.iter().try_for_each(|path| found.add(&context, path))?;
                    found.settle(self.dir, |_| false)?;
                    Ok(Source::Found(Box::new(found)))
                }
            };
        }
        let mut found = FoundSources::new(options.request(self.request.dialect)?);
        for path in &options.sources.paths {
            if options.instruction == "ADD" && is_remote(path) {
                self.add_remote(step, options, path, &mut found)?;
            } else {
                found.check_inside(path)?;
                found.add(&self.context(None)?, path)?;
            }
        }
        let unpack = options.unpack;
        found.settle(self.dir, |remote| unpack == Unpack::Always || unpack == Unpack::Local && !remote)?;
        Ok(Source::Found(Box::new(found)))
    }

    fn add_remote(
        &self,
        step: StepId,
        options: &CopyOptions<'_>,
        url: &str,
        found: &mut FoundSources,
    ) -> Result<(), BuildError> {
        if crate::git::is_repository(url) {
            if options.checksum.is_some() {
                return Err(BuildError::Unsupported("ADD --checksum of a repository".to_owned()));
            }
            found.add_whole(self.host.clone_repository(url, options.keep_git_dir)?);
            self.note_material(Material::Repository { url: url.to_owned() });
            return Ok(());
        }
        let download = self.host.download(url, step, self.events)?;
        self.note_material(Material::File { url: url.to_owned(), digest: download.digest });
        if let Some(expected) = options.checksum {
            let wanted = Digest::parse(expected).map_err(|_| BuildError::ChecksumForm(expected.clone()))?;
            if wanted != download.digest {
                return Err(BuildError::Checksum { actual: download.digest, expected: expected.clone() });
            }
        }
        found.add_download(&download);
        Ok(())
    }

    /// What a name after `--from` means: a named context, a stage that is done, or an image.
    pub(crate) fn files_of(&self, name: &str, step: StepId, place: &Place) -> Result<Files, BuildError> {
        let index = place.index;
        match self.named_context(name) {
            Some(NamedContext::Image(image)) => {
                return Ok(Files::Layers(self.image(image, self.request.platform.as_ref(), step)?.layers.clone()));
            }
            Some(folder) => return Ok(Files::Context(self.context(Some(folder))?)),
            None => {}
        }
        if let Some(stage) = self.find_stage(name, index) {
            return Ok(Files::Layers(self.stage_result(stage)?.state.layers().to_vec()));
        }
        if self.find_stage(name, self.dockerfile.stages.len()).is_some() {
            let own = &self.dockerfile.stages[index];
            let own = own.name.clone().unwrap_or_else(|| format!("stage-{index}"));
            return Err(BuildError::LaterStage(name.to_owned(), own));
        }
        if name == "scratch" {
            return Ok(Files::Layers(Vec::new()));
        }
        Ok(Files::Layers(self.image(name, self.request.platform.as_ref(), step)?.layers.clone()))
    }
}

/// What files are taken from.
pub(crate) enum Files {
    /// A stage or an image.
    Layers(Vec<DiffId>),
    /// A folder.
    Context(Arc<Context>),
}

/// Instructions that change the configuration alone; gives what the history says.
fn configure(instruction: &Instruction, state: &mut State) -> Result<Option<String>, BuildError> {
    let shell = state.shell();
    Ok(Some(match instruction {
        Instruction::Env(pairs) => state.set_variables(pairs),
        Instruction::Label(pairs) => state.set_labels(pairs),
        Instruction::Cmd(command) => state.set_command(command.arguments(&shell)),
        Instruction::Entrypoint(command) => state.set_entrypoint(command.arguments(&shell)),
        Instruction::Expose(words) => {
            let mut ports = Vec::new();
            for word in words {
                ports.extend(parse_ports(word)?.0.iter().map(|port| port.to_string()));
            }
            state.expose(&ports)
        }
        Instruction::Volume(paths) => state.add_volumes(paths),
        Instruction::Healthcheck(check) => state.set_healthcheck(check),
        Instruction::User(user) => {
            state.image.config.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::StopSignal(signal) => {
            if !images::is_signal(signal) {
                return Err(BuildError::Signal(signal.clone()));
            }
            state.image.config.stop_signal.clone_from(signal);
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Shell(shell) => {
            state.image.config.shell = Some(shell.clone());
            format!("SHELL [{}]", shell.join(" "))
        }
        Instruction::Maintainer(name) => {
            state.image.author.clone_from(name);
            format!("MAINTAINER {name}")
        }
        // As in BuildKit, a trigger leaves no trace in the history.
        Instruction::OnBuild(trigger) => {
            state.image.config.on_build.get_or_insert_default().push(trigger.clone());
            return Ok(None);
        }
        Instruction::Add(_)
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => return Ok(None),
    }))
}

impl<'a> CopyOptions<'a> {
    fn of_copy(copy: &'a Copy) -> Self {
        CopyOptions {
            instruction: "COPY",
            sources: &copy.sources,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            exclude: &copy.exclude,
            parents: copy.parents,
            link: copy.link,
            unpack: Unpack::Never,
            from: copy.from.as_ref(),
            keep_git_dir: false,
            checksum: None,
        }
    }

    fn of_add(add: &'a Add) -> Result<Self, BuildError> {
        if add.checksum.is_some() && !add.sources.paths.iter().all(|path| is_remote(path)) {
            return Err(BuildError::Unsupported("ADD --checksum of a local file".to_owned()));
        }
        Ok(CopyOptions {
            instruction: "ADD",
            sources: &add.sources,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            exclude: &add.exclude,
            parents: false,
            link: add.link,
            unpack: match add.unpack {
                None => Unpack::Local,
                Some(true) => Unpack::Always,
                Some(false) => Unpack::Never,
            },
            from: None,
            keep_git_dir: add.keep_git_dir.unwrap_or(false),
            checksum: add.checksum.as_ref(),
        })
    }

    fn request(&self, dialect: Dialect) -> Result<CopyRequest, BuildError> {
        Ok(CopyRequest {
            instruction: self.instruction,
            sources: self.sources.clone(),
            exclude: Ignore::of(self.exclude.iter().map(String::as_str))?,
            keep_parents: self.parents,
            dialect,
        })
    }

    fn facts(&self) -> String {
        let from = self.from.is_some();
        format!(
            "{:?}",
            (self.sources, self.chown, self.chmod, self.exclude, self.parents, self.unpack, from, self.link)
        )
    }

    /// The instruction as the history shows it.
    fn history(&self) -> String {
        let mut words = vec![self.instruction.to_owned()];
        if self.parents {
            words.push("--parents".to_owned());
        }
        words.extend(self.chown.map(|owner| format!("--chown={owner}")));
        words.extend(self.chmod.map(|mode| format!("--chmod={mode}")));
        words.extend(self.sources.paths.iter().cloned());
        words.extend(self.sources.files.iter().map(|file| format!("<<{}", file.name)));
        words.push(self.sources.destination.clone());
        words.join(" ")
    }
}
