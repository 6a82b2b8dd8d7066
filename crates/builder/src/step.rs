//! One step: what it does to the state of its stage.

use dockerfile::arguments::{self, is_for_commands, is_proxy};
use dockerfile::ignore::Ignore;
use dockerfile::mount::{Mount, MountKind};
use dockerfile::{Add, Copy, Instruction, Network, Run, Security, Seen, Sources, clean_path, parse_ports};
use oci::{DiffId, Digest};

use crate::base::Build;
use crate::cache::{CacheEntry, CacheKind};
use crate::config::State;
use crate::copy::{CopyRequest, FoundSources, Placement};
use crate::error::BuildError;
use crate::host::{Event, HostError, Job, JobMount, JobMountKind, JobNetwork, Outcome};
use crate::output::Output;
use crate::owner::{ModeChange, parse_owner};
use crate::root::{Found, Root};

/// How COPY and ADD were written, beyond their sources.
struct CopyOptions<'a> {
    instruction: &'static str,
    sources: &'a Sources,
    chown: Option<&'a String>,
    chmod: Option<&'a String>,
    exclude: &'a [String],
    parents: bool,
    unpack: bool,
    from: Option<&'a String>,
}

impl Build<'_> {
    /// Carries out one instruction of stage `index`.
    pub(crate) fn step(
        &mut self,
        instruction: &Instruction,
        source: &str,
        state: &mut State,
        index: usize,
    ) -> Result<(), BuildError> {
        if self.host.cancelled() {
            return Err(HostError("build cancelled".to_owned()).into());
        }
        self.begin_step(source.to_owned());
        let escape = self.dockerfile.directives.escape;
        let expanded = instruction.expand(escape, &state.environment, &mut Seen::default())?;
        match &expanded {
            Instruction::Run(run) => self.run_command(run, state)?,
            Instruction::Copy(copy) => self.copy(&CopyOptions::of_copy(copy), state, index)?,
            Instruction::Add(add) => self.copy(&CopyOptions::of_add(add)?, state, index)?,
            Instruction::Workdir(path) => self.work_in(path, state)?,
            Instruction::Arg(declared) => self.declare(declared, state)?,
            configuration => {
                if let Some(text) = configure(configuration, state)? {
                    state.note(text, self.clock);
                }
            }
        }
        self.tell(Event::State(state.digest()));
        Ok(())
    }

    fn declare(&mut self, declared: &[dockerfile::Argument], state: &mut State) -> Result<(), BuildError> {
        let escape = self.dockerfile.directives.escape;
        let mut texts = Vec::new();
        for argument in declared {
            let given = &self.request.arguments;
            let value =
                arguments::declared(argument, escape, given, &self.global, &state.environment, &mut Seen::default())?;
            if let Some(value) = value.as_ref().filter(|_| is_for_commands(&argument.name)) {
                state.environment.set(&argument.name, value);
            }
            texts.push(match &value {
                Some(value) => format!("{}={value}", argument.name),
                None => argument.name.clone(),
            });
            state.arguments.push((argument.name.clone(), value));
        }
        state.note(format!("ARG {}", texts.join(" ")), self.clock);
        Ok(())
    }

    /// The result of an earlier build, or of `make`, which is remembered.
    fn cached(
        &mut self,
        key: &Digest,
        kind: CacheKind,
        description: &str,
        make: impl FnOnce(&mut Self) -> Result<Option<DiffId>, BuildError>,
    ) -> Result<Option<DiffId>, BuildError> {
        if self.request.use_cache
            && let Some(entry) = self.cache.find(key, self.snapshotter)
        {
            self.tell(Event::Cached);
            return Ok(entry.layer);
        }
        let layer = make(self)?;
        let size_bytes = layer.map(|layer| self.snapshotter.size(&layer)).transpose()?.unwrap_or(0);
        let now = jiff::Timestamp::now().as_second();
        let description = description.to_owned();
        self.cache.store(
            key,
            CacheEntry { layer, size_bytes, kind, description, created_s: now, last_used_s: now, uses: 0 },
        )?;
        Ok(layer)
    }

    fn write(&self, output: Output<'_>) -> Result<Option<DiffId>, BuildError> {
        if output.is_unchanged() { Ok(None) } else { Ok(Some(output.write(self.snapshotter)?.0)) }
    }

    fn root(&self, layers: &[DiffId]) -> Result<Root, BuildError> {
        Ok(Root::new(self.host.view(layers)?))
    }

    fn work_in(&mut self, path: &str, state: &mut State) -> Result<(), BuildError> {
        let path = clean_path(&state.absolute(path));
        state.image.config.working_dir.clone_from(&path);
        let text = format!("WORKDIR {path}");
        if path == "/" {
            state.note(text, self.clock);
            return Ok(());
        }
        let user = state.image.config.user.clone();
        let key = key("workdir", state.layers(), &[&path, &user, &self.clock_key()]);
        let layers = state.layers().to_vec();
        let layer = self.cached(&key, CacheKind::Files, &text, |build| {
            let root = build.root(&layers)?;
            let place = root.resolve(&path).map_err(BuildError::io("cannot look into the image's files"))?;
            let wrong = BuildError::io("cannot look into the image's files");
            if matches!(root.look(&place).map_err(wrong)?, Found::Directory(_)) {
                return Ok(None);
            }
            let owner = if user.is_empty() { Default::default() } else { parse_owner(&user, &root)? };
            let mtime = build.clock.file_time();
            let mut output = Output::new(&root);
            output.directory(&place, &|_| archive::tar::Metadata {
                mode: 0o755,
                uid: owner.uid,
                gid: owner.gid,
                mtime,
                xattrs: Vec::new(),
            })?;
            build.write(output)
        })?;
        state.add_history(text, layer, self.clock);
        Ok(())
    }

    /// A fixed clock is part of what a step makes.
    fn clock_key(&self) -> String {
        self.request.arguments.get("SOURCE_DATE_EPOCH").cloned().unwrap_or_default()
    }

    fn copy(&mut self, options: &CopyOptions<'_>, state: &mut State, index: usize) -> Result<(), BuildError> {
        let destination = state.absolute(&options.sources.destination);
        let from = options.from.map(|name| self.source_layers(name, index)).transpose()?;
        let source_root = from.as_ref().map(|layers| self.root(layers)).transpose()?;
        let context = self.context;
        let found = match (&source_root, &from) {
            (Some(_), Some(_)) => None,
            _ => Some(FoundSources::in_context(options.request()?, context, self.dir)?),
        };
        let content = match (&found, &from) {
            (Some(found), _) => found.digest(&mut self.digests)?.to_string(),
            (None, layers) => format!("{layers:?}"),
        };
        let facts = options.facts();
        let key = key("copy", state.layers(), &[&destination, &facts, &content, &self.clock_key()]);
        let layers = state.layers().to_vec();
        let layer = self.cached(&key, CacheKind::Files, &options.history(), |build| {
            let root = build.root(&layers)?;
            let found = match (found, &source_root) {
                (Some(found), _) => found,
                (None, Some(source)) => FoundSources::in_root(options.request()?, source, context, build.dir)?,
                (None, None) => unreachable!("files come from the context or from a root"),
            };
            let placement = Placement {
                destination: &destination,
                owner: options.chown.map(|text| parse_owner(text, &root)).transpose()?,
                mode: options.chmod.map(|text| ModeChange::parse(text)).transpose()?,
                clock: build.clock,
            };
            build.write(found.place(&root, &placement)?)
        })?;
        state.add_history(format!("{} # buildkit", options.history()), layer, self.clock);
        Ok(())
    }

    /// The layers of a stage that is done, or of an image.
    fn source_layers(&self, name: &str, index: usize) -> Result<Vec<DiffId>, BuildError> {
        if let Some(stage) = self.find_stage(name, index) {
            let state = self.done.get(&stage);
            let later = || BuildError::LaterStage(name.to_owned(), format!("stage-{index}"));
            return state.map(|state| state.layers().to_vec()).ok_or_else(later);
        }
        if self.find_stage(name, self.dockerfile.stages.len()).is_some() {
            let own = &self.dockerfile.stages[index];
            let own = own.name.clone().unwrap_or_else(|| format!("stage-{index}"));
            return Err(BuildError::LaterStage(name.to_owned(), own));
        }
        Ok(self.host.image(name)?.layers.clone())
    }

    fn run_command(&mut self, run: &Run, state: &mut State) -> Result<(), BuildError> {
        if run.security == Security::Insecure {
            return Err(BuildError::Unsupported("RUN --security=insecure".to_owned()));
        }
        if !run.devices.is_empty() {
            return Err(BuildError::Unsupported("RUN --device".to_owned()));
        }
        let arguments = command(run, state)?;
        let mounts = self.mounts(run, state)?;
        let environment = state.environment.entries();
        let working_dir = Some(state.image.config.working_dir.clone()).filter(|dir| !dir.is_empty());
        let mut job = Job {
            layers: state.layers().to_vec(),
            arguments,
            environment,
            user: state.image.config.user.clone(),
            working_dir: working_dir.unwrap_or_else(|| "/".to_owned()),
            network: match run.network {
                Network::Default => JobNetwork::Default,
                Network::None => JobNetwork::None,
                Network::Host => JobNetwork::Host,
            },
            mounts,
        };
        // The proxies that the build was started with are no part of what it makes.
        let hidden = |entry: &String| {
            let name = entry.split('=').next().unwrap_or_default();
            is_proxy(name) && self.request.arguments.contains_key(name)
        };
        let visible: Vec<&String> = job.environment.iter().filter(|entry| !hidden(entry)).collect();
        let facts = format!("{:?}{visible:?}{:?}{:?}", job.arguments, job.mounts, job.network);
        let key = key("run", &job.layers, &[&facts, &job.user, &job.working_dir]);
        let proxies = self.request.arguments.iter().filter(|(name, _)| is_proxy(name));
        let declared = &state.environment;
        let more: Vec<String> = proxies
            .filter(|(name, _)| declared.get(name).is_none())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        job.environment.extend(more);
        let text = run_text(&job.arguments, state);
        let layer = self.cached(&key, CacheKind::Command, &text, |build| build.execute(&job))?;
        state.add_history(format!("RUN {text} # buildkit"), layer, self.clock);
        Ok(())
    }

    fn execute(&mut self, job: &Job) -> Result<Option<DiffId>, BuildError> {
        let outcome = self.host.run(job, &mut *self.events)?;
        match outcome {
            Outcome::Unchanged => Ok(None),
            Outcome::Layer(layer) => Ok(Some(layer)),
            Outcome::Failed(code) => Err(BuildError::Command { command: job.arguments.join(" "), code }),
        }
    }

    fn mounts(&self, run: &Run, state: &State) -> Result<Vec<JobMount>, BuildError> {
        let escape = self.dockerfile.directives.escape.char();
        let expander = dockerfile::expand::Expander::new(escape);
        let mut expand = |word: &str| Ok(expander.expand(word, &state.environment)?.text);
        let mut mounts = Vec::new();
        for mount in run.mounts(&mut expand)? {
            mounts.extend(job_mount(&mount, state)?);
        }
        Ok(mounts)
    }
}

fn job_mount(mount: &Mount, state: &State) -> Result<Option<JobMount>, BuildError> {
    let kind = match &mount.kind {
        MountKind::Tmpfs { size_bytes } => JobMountKind::Tmpfs { size_bytes: *size_bytes },
        MountKind::Cache { id, sharing, from: None, source, owner } if source.is_empty() => {
            let name = id.clone().unwrap_or_else(|| clean_path(&mount.target));
            // A digest, so that no name can be a path.
            let id = Digest::of(name.as_bytes()).hex();
            let owner = (owner.mode.unwrap_or(0o755), owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
            JobMountKind::Cache { id, sharing: *sharing, owner }
        }
        MountKind::Cache { .. } => return Err(BuildError::Unsupported("RUN --mount=type=cache,from=…".to_owned())),
        MountKind::Bind { .. } => return Err(BuildError::Unsupported("RUN --mount=type=bind".to_owned())),
        // Without a session nobody gives secrets; a step that can do without one does, as in Docker.
        MountKind::Secret { id, required: true, .. } => return Err(BuildError::Secret(id.clone())),
        MountKind::Ssh { id, required: true, .. } => {
            return Err(BuildError::Ssh(id.clone().unwrap_or_else(|| "default".to_owned())));
        }
        MountKind::Secret { .. } | MountKind::Ssh { .. } => return Ok(None),
    };
    let target = clean_path(&state.absolute(&mount.target));
    if target == "/" {
        return Err(BuildError::MountTarget(target));
    }
    Ok(Some(JobMount { target, read_only: mount.read_only, kind }))
}

/// Program and arguments. A heredoc that stands alone is a script for the shell; others are put back behind their command.
fn command(run: &Run, state: &State) -> Result<Vec<String>, BuildError> {
    let shell = state.shell();
    let dockerfile::CommandLine::Shell(line) = &run.command else { return Ok(run.command.arguments(&shell)) };
    let [first, ..] = run.heredocs.as_slice() else { return Ok(run.command.arguments(&shell)) };
    let alone = line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("<<") && !line.trim().contains(' ');
    if alone {
        let script = first.text();
        if let Some(rest) = script.strip_prefix("#!") {
            // The kernel would start this interpreter with the script's file; it gets the script itself.
            let interpreter = rest.lines().next().unwrap_or_default().split_whitespace();
            let name = interpreter.clone().next().unwrap_or_default().to_owned();
            return Err(BuildError::Unsupported(format!("a RUN heredoc with an interpreter of its own ({name})")));
        }
        return Ok(shell.into_iter().chain([script]).collect());
    }
    let mut text = line.clone();
    for heredoc in &run.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(shell.into_iter().chain([text]).collect())
}

/// `|2 A=1 B=2 /bin/sh -c make`: the declared arguments count as part of the command.
fn run_text(arguments: &[String], state: &State) -> String {
    let mut declared: Vec<String> = Vec::new();
    for (name, value) in &state.arguments {
        let value = state.environment.get(name).or(value.as_deref()).unwrap_or_default();
        let entry = format!("{name}={value}");
        match declared.iter_mut().find(|old| old.starts_with(&format!("{name}="))) {
            Some(old) => *old = entry,
            None => declared.push(entry),
        }
    }
    let prefix =
        if declared.is_empty() { String::new() } else { format!("|{} {} ", declared.len(), declared.join(" ")) };
    prefix + &arguments.join(" ")
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

/// What a step depends on.
fn key(what: &str, layers: &[DiffId], facts: &[&str]) -> Digest {
    let layers: Vec<String> = layers.iter().map(DiffId::to_string).collect();
    Digest::of(format!("1 {what} {layers:?} {facts:?}").as_bytes())
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
            unpack: false,
            from: copy.from.as_ref(),
        }
    }

    fn of_add(add: &'a Add) -> Result<Self, BuildError> {
        let remote = |path: &&String| path.contains("://") || path.starts_with("git@");
        if let Some(path) = add.sources.paths.iter().find(remote) {
            return Err(BuildError::Unsupported(format!("ADD from an address ({path})")));
        }
        if add.checksum.is_some() {
            return Err(BuildError::Unsupported("ADD --checksum of a local file".to_owned()));
        }
        Ok(CopyOptions {
            instruction: "ADD",
            sources: &add.sources,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            exclude: &add.exclude,
            parents: false,
            unpack: add.unpack.unwrap_or(true),
            from: None,
        })
    }

    fn request(&self) -> Result<CopyRequest<'a>, BuildError> {
        Ok(CopyRequest {
            instruction: self.instruction,
            sources: self.sources,
            exclude: Ignore::of(self.exclude.iter().map(String::as_str))?,
            keep_parents: self.parents,
            unpack: self.unpack,
        })
    }

    fn facts(&self) -> String {
        format!("{:?}", (self.sources, self.chown, self.chmod, self.exclude, self.parents, self.unpack, self.from))
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
