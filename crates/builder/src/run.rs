//! RUN: the command, what is mounted for it, and what of all that decides about its result.

use dockerfile::arguments::is_proxy;
use dockerfile::mount::{FileOwner, Mount, MountKind};
use dockerfile::{Network, Run, Security, clean_path};
use oci::{DiffId, Digest};

use crate::build::Build;
use crate::cache::{CacheKind, Inputs};
use crate::config::State;
use crate::context::Context;
use crate::copy::{FoundSources, Placement};
use crate::error::BuildError;
use crate::event::StepId;
use crate::host::{Job, JobMount, JobMountKind, JobNetwork, Outcome, Ownership, SecretVariable};
use crate::output::Output;
use crate::stage::Place;
use crate::step::{Doing, Files};

/// Where secrets are when nothing is said.
const SECRETS: &str = "/run/secrets";
/// Where agents' sockets are when nothing is said.
const AGENT: &str = "/run/buildkit/ssh_agent";
/// Where a script lies whose first line names its interpreter.
const SCRIPT_DIR: &str = "/dev/pipes";

/// Layers, and for those of a context a digest of the files that is the same whenever they were written.
type Mountable = (Vec<DiffId>, Option<Digest>);

/// What a command sees besides its root.
#[derive(Debug, Default)]
struct Surroundings {
    mounts: Vec<JobMount>,
    /// What of each mount decides about the result.
    facts: Vec<String>,
    secrets: Vec<SecretVariable>,
    /// Variables that mounts bring.
    environment: Vec<String>,
}

impl Surroundings {
    fn add(&mut self, mount: JobMount) {
        self.facts.push(format!("{mount:?}"));
        self.mounts.push(mount);
    }
}

impl Build<'_> {
    pub(crate) fn run_command(
        &self,
        step: StepId,
        run: &Run,
        state: &mut State,
        place: &Place,
    ) -> Result<(), BuildError> {
        if run.security == Security::Insecure {
            return Err(BuildError::NotAllowed("security.insecure"));
        }
        if run.network == Network::Host && !self.request.allowed.host_network {
            return Err(BuildError::NotAllowed("network.host"));
        }
        if let Some(device) = run.devices.first() {
            return Err(BuildError::Unsupported(format!("RUN --device={device}")));
        }
        let command = command(run, state);
        let mut around = self.surroundings(step, run, state, place)?;
        if let Some(script) = &command.script {
            around.add(self.script_mount(script, &command.arguments)?);
        }
        let facts = std::mem::take(&mut around.facts);
        let job = self.job(run, &command, around, state);
        let inputs = self.inputs(&job, &facts, state);
        let text = run_text(&command.shown, state);
        let history = format!("RUN {text} # buildkit");
        // What is mounted the history does not say.
        let is_plain = run.mounts.is_empty() && run.network == Network::Default && command.script.is_none();
        let said = Some(history.as_str()).filter(|_| is_plain);
        let doing = Doing { inputs: &inputs, kind: CacheKind::Command, description: &text, history: said };
        let made = self.cached(step, (state, place), &doing, |_| self.execute(step, &job))?;
        state.add_history(history, made);
        Ok(())
    }

    fn job(&self, run: &Run, command: &Command, around: Surroundings, state: &State) -> Job {
        let working_dir = Some(state.image.config.working_dir.clone()).filter(|dir| !dir.is_empty());
        let mut environment = state.environment.entries();
        let set = |name: &str| state.environment.get(name).is_some();
        environment.extend(around.environment.into_iter().filter(|e| !set(e.split('=').next().unwrap_or_default())));
        // The proxies that the build was started with are no part of what it makes.
        let proxies = self.request.arguments.iter().filter(|(name, _)| is_proxy(name) && !set(name));
        environment.extend(proxies.map(|(name, value)| format!("{name}={value}")));
        Job {
            layers: state.layers().to_vec(),
            platform: state.image.platform(),
            arguments: command.arguments.clone(),
            environment,
            user: state.image.config.user.clone(),
            working_dir: working_dir.unwrap_or_else(|| "/".to_owned()),
            network: match run.network {
                Network::Default => JobNetwork::Default,
                Network::None => JobNetwork::None,
                Network::Host => JobNetwork::Host,
            },
            mounts: around.mounts,
            secrets: around.secrets,
        }
    }

    /// What decides about a command's result. Secrets and proxies do not.
    fn inputs(&self, job: &Job, mounts: &[String], state: &State) -> Inputs {
        let given = |entry: &&String| {
            let name = entry.split('=').next().unwrap_or_default();
            !(is_proxy(name) && self.request.arguments.contains_key(name))
        };
        let mut inputs = Inputs::new("run", &job.layers);
        inputs.add("the command", format!("{:?}", job.arguments));
        inputs.add(
            "the environment",
            format!("{:?}", state.environment.entries().iter().filter(given).collect::<Vec<_>>()),
        );
        inputs.add("the mounts", format!("{mounts:?}")).add("the network", format!("{:?}", job.network));
        inputs.add("the secrets' names", format!("{:?}", job.secrets));
        inputs.add("the user", &job.user).add("the working directory", &job.working_dir);
        inputs.add("SOURCE_DATE_EPOCH", self.clock_key());
        inputs
    }

    fn execute(&self, step: StepId, job: &Job) -> Result<Option<DiffId>, BuildError> {
        self.require(&job.layers)?;
        for mount in &job.mounts {
            self.require(mount.kind.layers())?;
        }
        let outcome = self.host.run(job, step, self.events, &|| self.stopped());
        // Whatever the host says: why the build ends is known elsewhere.
        match outcome.map_err(|error| if self.stopped() { BuildError::Stopped } else { error.into() })? {
            // As with Docker, a layer nevertheless.
            Outcome::Unchanged => Ok(Some(Output::new(&self.root(&[])?).write(self.snapshotter)?.0)),
            Outcome::Layer(layer) if self.clock.fixed().is_some() => {
                crate::clamp::clamp(self.snapshotter, &layer, self.clock).map(Some)
            }
            Outcome::Layer(layer) => Ok(Some(layer)),
            Outcome::Failed(code) => Err(BuildError::Command { command: job.arguments.join(" "), code }),
        }
    }

    fn surroundings(&self, step: StepId, run: &Run, state: &State, place: &Place) -> Result<Surroundings, BuildError> {
        let escape = self.dockerfile.directives.escape.char();
        let expander = dockerfile::expand::Expander::new(escape);
        let mut expand = |word: &str| Ok(expander.expand(word, &state.environment)?.text);
        let mut around = Surroundings::default();
        let mut agents = 0;
        for mount in run.mounts(&mut expand)? {
            self.surround(&mut around, &mount, &mut agents, (step, state, place))?;
        }
        Ok(around)
    }

    fn surround(
        &self,
        around: &mut Surroundings,
        mount: &Mount,
        agents: &mut u32,
        (step, state, place): (StepId, &State, &Place),
    ) -> Result<(), BuildError> {
        let mut target = mount.target.clone();
        let mut files = None;
        let kind = match &mount.kind {
            MountKind::Tmpfs { size_bytes } => JobMountKind::Tmpfs { size_bytes: *size_bytes },
            MountKind::Cache { id, sharing, from, source, owner } => {
                let name = id.clone().unwrap_or_else(|| clean_path(&mount.target));
                let namespace = self.request.arguments.get("BUILDKIT_CACHE_MOUNT_NS").cloned().unwrap_or_default();
                let seed = match from {
                    Some(from) => Some((self.layers_of(from, step, place, "/")?.0, rooted(source))),
                    None => None,
                };
                JobMountKind::Cache {
                    // A digest, so that no name can be a path.
                    id: Digest::of(format!("{namespace}{name}").as_bytes()).hex(),
                    name,
                    sharing: *sharing,
                    seed,
                    owner: ownership(*owner, 0o755),
                }
            }
            MountKind::Bind { from, source } => {
                let (layers, facts) = match from {
                    Some(from) => self.layers_of(from, step, place, source)?,
                    None => self.context_as_layer(&self.context(None)?, source)?,
                };
                files = facts;
                JobMountKind::Bind { layers, source: rooted(source) }
            }
            MountKind::Secret { id, variable: Some(name), required, .. } => {
                let name = if name.is_empty() { id.clone() } else { name.clone() };
                around.secrets.push(SecretVariable { name, id: id.clone(), required: *required });
                if mount.target.is_empty() {
                    return Ok(());
                }
                JobMountKind::Secret {
                    id: id.clone(),
                    required: *required,
                    owner: ownership(FileOwner::default(), 0o400),
                }
            }
            MountKind::Secret { id, required, owner, .. } => {
                if target.is_empty() {
                    let name = id.rsplit('/').next().unwrap_or(id);
                    target = format!("{SECRETS}/{name}");
                }
                JobMountKind::Secret { id: id.clone(), required: *required, owner: ownership(*owner, 0o400) }
            }
            MountKind::Ssh { id, required, owner } => {
                if target.is_empty() {
                    target = format!("{AGENT}.{agents}");
                }
                if *agents == 0 {
                    around.environment.push(format!("SSH_AUTH_SOCK={target}"));
                }
                *agents += 1;
                let id = id.clone().unwrap_or_else(|| "default".to_owned());
                JobMountKind::Ssh { id, required: *required, owner: ownership(*owner, 0o600) }
            }
        };
        let target = clean_path(&state.absolute(&target));
        if target == "/" {
            return Err(BuildError::MountTarget(target));
        }
        let mount = JobMount { target, read_only: mount.read_only, kind };
        match files {
            // The layer of a context's files has their times in it, which decide about nothing.
            Some(files) => {
                around.facts.push(format!("{:?} {} {files}", mount.target, mount.read_only));
                around.mounts.push(mount);
            }
            None => around.add(mount),
        }
        Ok(())
    }

    fn layers_of(&self, from: &str, step: StepId, place: &Place, source: &str) -> Result<Mountable, BuildError> {
        match self.files_of(from, step, place)? {
            Files::Layers(layers) => Ok((layers, None)),
            Files::Context(context) => self.context_as_layer(&context, source),
        }
    }

    /// Files of a context as a layer, which can be mounted as any other.
    pub(crate) fn context_as_layer(
        &self,
        context: &std::sync::Arc<Context>,
        source: &str,
    ) -> Result<Mountable, BuildError> {
        let whole = clean_path(&format!("/{source}"));
        let destination = whole.rsplit_once('/').map_or("/", |(above, _)| above).to_owned() + "/";
        let sources =
            dockerfile::Sources { paths: vec![whole.clone()], files: Vec::new(), destination: destination.clone() };
        let mut found = FoundSources::new(crate::copy::CopyRequest {
            instruction: "RUN --mount=type=bind",
            sources,
            exclude: dockerfile::ignore::Ignore::default(),
            keep_parents: true,
            dialect: self.request.dialect,
        });
        found.add(context, whole.trim_start_matches('/'))?;
        found.settle(self.dir, |_| false)?;
        let facts = found.facts()?;
        let mut inputs = Inputs::new("context", &[]);
        inputs.add_files(facts.digest, Vec::new());
        let key = inputs.key();
        let Some(_making) = self.cache.hold(&key, || self.stopped()) else { return Err(BuildError::Stopped) };
        if let Some(layer) = self.cache.find(&key, self.snapshotter).and_then(|entry| entry.layer) {
            return Ok((vec![layer], Some(facts.digest)));
        }
        let root = self.root(&[])?;
        let placement = Placement { destination: "/", owner: None, mode: None, clock: self.clock };
        let (layer, size_bytes) = found.place(&root, &placement)?.write(self.snapshotter)?;
        self.keep(&key, layer, size_bytes, format!("[context] {whole}"))?;
        Ok((vec![layer], Some(facts.digest)))
    }

    fn keep(&self, key: &Digest, layer: DiffId, size_bytes: u64, description: String) -> Result<(), BuildError> {
        let now = jiff::Timestamp::now().as_second();
        let entry = crate::cache::CacheEntry {
            layer: Some(layer),
            size_bytes,
            kind: CacheKind::Context,
            description,
            created_s: now,
            last_used_s: now,
            uses: 0,
        };
        Ok(self.cache.store(key, entry)?)
    }

    /// A script as an executable file that only its command sees.
    fn script_mount(&self, script: &str, arguments: &[String]) -> Result<JobMount, BuildError> {
        let root = self.root(&[])?;
        let mut output = Output::new(&root);
        let metadata = |mode| archive::tar::Metadata { mode, ..Default::default() };
        output.directory("/", &|_| metadata(0o755))?;
        output.file("/script", metadata(0o755), crate::output::Payload::Inline(script))?;
        let (layer, size_bytes) = output.write(self.snapshotter)?;
        self.keep(layer.digest(), layer, size_bytes, "[script]".to_owned())?;
        let kind = JobMountKind::Bind { layers: vec![layer], source: "/script".to_owned() };
        let target = arguments.first().cloned().unwrap_or_default();
        Ok(JobMount { target, read_only: true, kind })
    }
}

fn rooted(source: &str) -> String {
    clean_path(&format!("/{source}"))
}

fn ownership(owner: FileOwner, mode: u32) -> Ownership {
    Ownership { mode: owner.mode.unwrap_or(mode), uid: owner.uid.unwrap_or(0), gid: owner.gid.unwrap_or(0) }
}

/// What is executed.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    arguments: Vec<String>,
    /// What the history shows.
    shown: Vec<String>,
    /// A file that the command is.
    script: Option<String>,
}

/// Program and arguments. A heredoc that stands alone is a script for the shell, or for the interpreter that it names; others are put
/// back behind their command.
fn command(run: &Run, state: &State) -> Command {
    let shell = state.shell();
    let plain = |arguments: Vec<String>| Command { shown: arguments.clone(), arguments, script: None };
    let dockerfile::CommandLine::Shell(line) = &run.command else { return plain(run.command.arguments(&shell)) };
    let [first, ..] = run.heredocs.as_slice() else { return plain(run.command.arguments(&shell)) };
    let alone = line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("<<") && !line.trim().contains(' ');
    if alone {
        let script = first.text();
        if script.starts_with("#!") {
            // A name is no path.
            let path = format!("{SCRIPT_DIR}/{}", first.name.replace(['/', '.'], "_"));
            let shown = shell.into_iter().chain([path.clone()]).collect();
            return Command { arguments: vec![path], shown, script: Some(script) };
        }
        let arguments: Vec<String> = shell.into_iter().chain([script]).collect();
        return plain(arguments);
    }
    let mut text = line.clone();
    for heredoc in &run.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    plain(shell.into_iter().chain([text]).collect())
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
