//! Where a build's files come from, and who answers its questions.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use builder::{Context, DockerfileText, Event, HostError, NamedContext, Progress, Sink, StepId, Wanted};
use dockerfile::ignore::Ignore;

use super::Builds;
use super::web::Web;
use crate::images::Incoming;
use crate::model::build::FolderWanted;
use crate::model::{BuildClient, BuildFolder, BuildSource, Secrets};

/// The name under which a Dockerfile from elsewhere is found.
const DOCKERFILE: &str = "Dockerfile";

/// Who knows secrets and agents.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) secrets: Secrets,
    pub(super) agents: BTreeMap<String, PathBuf>,
    pub(super) client: Option<Arc<dyn BuildClient>>,
}

impl Answers {
    pub(super) fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, HostError> {
        match (self.secrets.0.get(id), &self.client) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(client)) => client.secret(id),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn has_agent(&self, id: &str) -> Result<bool, HostError> {
        match &self.client {
            _ if self.agents.contains_key(id) => Ok(true),
            Some(client) => client.has_agent(id),
            None => Ok(false),
        }
    }

    /// Connects a command's socket with the agent.
    pub(super) fn forward_agent(&self, id: &str, socket: UnixStream) -> Result<(), HostError> {
        if let Some(path) = self.agents.get(id) {
            let agent = UnixStream::connect(path)
                .map_err(|error| HostError(format!("cannot reach the SSH agent at {}: {error}", path.display())))?;
            return join(socket, agent);
        }
        match &self.client {
            Some(client) => client.forward_agent(id, socket),
            None => Ok(()),
        }
    }
}

/// Copies both ways between two sockets until both are closed.
fn join(one: UnixStream, other: UnixStream) -> Result<(), HostError> {
    let failed = |error: std::io::Error| HostError(format!("cannot join sockets: {error}"));
    let back = (one.try_clone().map_err(failed)?, other.try_clone().map_err(failed)?);
    for (from, to) in [(one, other), (back.1, back.0)] {
        std::thread::spawn(move || {
            let (mut from, mut to) = (from, to);
            // Either side may leave at any time.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    Ok(())
}

/// The files of one build.
#[derive(Debug)]
pub(super) struct Sources {
    origin: Origin,
    /// Who lets us into repositories.
    answers: Answers,
    /// The context as it came, until the build takes it.
    came: Mutex<Option<Context>>,
}

#[derive(Debug)]
enum Origin {
    /// All of it is here.
    Here,
    Folder(BuildFolder),
    Client(Arc<dyn BuildClient>),
}

impl Sources {
    /// Reads what comes as a whole; folders and clients are asked later.
    pub(super) fn open(
        source: BuildSource,
        builds: &Builds,
        web: &Web<'_>,
        answers: Answers,
    ) -> Result<Sources, builder::BuildError> {
        let contexts = builds.dir.join("contexts");
        let (origin, came) = match source {
            BuildSource::Tar(input) => (Origin::Here, Some(Context::read(Box::new(Incoming::new(input)), &contexts)?)),
            BuildSource::Remote { url, .. } => (Origin::Here, Some(remote(&url, &contexts, web, &answers)?)),
            BuildSource::Folder(folder) => {
                check_folder(&folder)?;
                (Origin::Folder(folder), None)
            }
            BuildSource::Client(client) => (Origin::Client(client), None),
        };
        Ok(Sources { origin, answers, came: Mutex::new(came) })
    }

    /// What the build is compared with when its steps are explained.
    pub(super) fn identity(&self) -> String {
        match &self.origin {
            Origin::Here => String::new(),
            Origin::Folder(folder) => folder.path.display().to_string(),
            Origin::Client(client) => client.shared_key(),
        }
    }

    pub(super) fn dockerfile(&self, path: &str) -> Result<Option<DockerfileText>, HostError> {
        match &self.origin {
            Origin::Here => {
                let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(context) = came.as_ref() else { return Ok(None) };
                Ok(text_and_ignore(path, |path| context.text(path)))
            }
            Origin::Folder(folder) => {
                if let Some(given) = &folder.dockerfile {
                    let ignore = given.ignore.clone().or_else(|| text_in(&folder.path, ".dockerignore"));
                    return Ok(Some(DockerfileText { text: given.text.clone(), ignore }));
                }
                Ok(text_and_ignore(path, |path| text_in(&folder.path, path)))
            }
            Origin::Client(client) => client.dockerfile(path),
        }
    }

    pub(super) fn context(
        &self,
        wanted: &Wanted<'_>,
        builds: &Builds,
        web: &Web<'_>,
        (step, events): (StepId, Sink<'_>),
    ) -> Result<Arc<Context>, HostError> {
        let ignore = Ignore::parse(wanted.ignore).map_err(failed)?;
        let context = match (&self.origin, wanted.name) {
            (_, Some(NamedContext::Remote(url))) => {
                remote(url, &builds.dir.join("contexts"), web, &self.answers).map_err(failed)?
            }
            (_, Some(NamedContext::Image(name))) => return Err(HostError(format!("image {name} is no folder"))),
            (Origin::Client(client), name) => {
                let name = match name {
                    Some(NamedContext::Client(name)) => name.as_str(),
                    _ => "context",
                };
                receive(client.as_ref(), name, wanted, builds, (step, events))?
            }
            (_, Some(NamedContext::Client(name))) => {
                Context::of_folder(Path::new(name), &ignore, &builds.known).map_err(failed)?
            }
            (Origin::Folder(folder), None) => {
                check_folder(folder)?;
                Context::of_folder(&folder.path, &ignore, &builds.known).map_err(failed)?
            }
            (Origin::Here, None) => {
                let came = self.came.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut context = came.ok_or_else(|| HostError("the build context was taken already".to_owned()))?;
                context.ignore(&ignore);
                context
            }
        };
        Ok(Arc::new(context))
    }
}

fn text_and_ignore(path: &str, text: impl Fn(&str) -> Option<String>) -> Option<DockerfileText> {
    let ignore = text(&format!("{path}.dockerignore")).or_else(|| text(".dockerignore"));
    Some(DockerfileText { text: text(path)?, ignore })
}

/// A small text in a folder; names never lead out of it.
fn text_in(folder: &Path, path: &str) -> Option<String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    use std::io::Read;
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, path.trim_start_matches('/'), flags, Mode::empty(), resolve).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(file).take(TEXT_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// A Dockerfile or an ignore file is not larger.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// The client and the engine must mean the same folder: one of them may live in another mount namespace, or on another machine.
fn check_folder(folder: &BuildFolder) -> Result<(), HostError> {
    let unknown =
        || HostError(format!("{} is not a folder that the client and the engine share", folder.path.display()));
    let found = std::fs::symlink_metadata(&folder.path).map_err(|_| unknown())?;
    let same = found.is_dir() && found.dev() == folder.device && found.ino() == folder.inode;
    if same && folder.path.is_absolute() { Ok(()) } else { Err(unknown()) }
}

/// Asks a client for what changed in a folder of its own.
fn receive(
    client: &dyn BuildClient,
    name: &str,
    wanted: &Wanted<'_>,
    builds: &Builds,
    (step, events): (StepId, Sink<'_>),
) -> Result<Context, HostError> {
    let key = client.shared_key();
    let key = if key.is_empty() { key } else { format!("{key}\n{name}") };
    let mut receiver = builds.synced.receive(&key).map_err(failed)?;
    let excluded = Ignore::parse(wanted.ignore).map_err(failed)?.plain_patterns();
    let progress = |current: u64, done: bool| {
        let progress = Progress { name: format!("transferring {name}:"), current, total: None, done };
        events(Event::Progress(step, progress));
    };
    let wanted = FolderWanted { name, excluded: &excluded, paths: wanted.paths };
    client.send_folder(&wanted, &mut receiver, &mut |bytes| progress(bytes, false))?;
    progress(receiver.received_bytes(), true);
    receiver.finish().map_err(failed)
}

/// A repository, an archive, or a Dockerfile.
fn remote(url: &str, contexts: &Path, web: &Web<'_>, answers: &Answers) -> Result<Context, builder::BuildError> {
    if builder::is_repository(url) {
        let asking = super::git::Asking { contexts, answers, stopped: &|| web.cancelled() };
        return Ok(super::git::clone(url, asking, super::git::Metadata::Dropped)?);
    }
    if !builder::is_web(url) {
        return Err(HostError(format!("unsupported remote context {url:?}: http, https and git are supported")).into());
    }
    let (file, _) = web.fetch(url, &|_, _| {})?;
    match Context::read(Box::new(file.open()?), contexts) {
        Ok(context) => Ok(context),
        // No archive: then it is a Dockerfile alone.
        Err(_) => Ok(Context::of_file(DOCKERFILE, &file.text()?, contexts)?),
    }
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}
