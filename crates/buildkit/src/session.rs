//! Sessions: connections on which clients answer questions of their builds.
//!
//! Each has a thread of its own, so that a large context is not read on the engine's.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::Credentials;
use engine::model::build::{DockerfileText, FolderWanted, HostError, Receiver};
use engine::model::{AttachTarget, BuildClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::early::Early;
use crate::grpc::{Channel, Code, Status};
use crate::messages::BytesMessage;
use crate::messages::session::{CredentialsRequest, CredentialsResponse, SecretRequest, SecretResponse};

/// How long a build waits for the session that it names.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an agent's answer that are passed on at once.
const AGENT_PIECE: usize = 32 << 10;

/// What a client says about its session.
#[derive(Debug, Clone, Default)]
pub struct SessionHead {
    /// Its name for the engine.
    pub id: String,
    /// What it calls the folder that it builds.
    pub shared_key: String,
    /// The calls that it answers.
    pub methods: Vec<String>,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    changed: watch::Sender<u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions { open: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) head: SessionHead,
    methods: HashSet<String>,
    channel: Channel,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Sessions {
    /// Serves a session on a thread of its own until it ends.
    pub(crate) fn serve(self: &Arc<Self>, head: SessionHead, target: AttachTarget) {
        let sessions = Arc::clone(self);
        let name = format!("session {}", head.id);
        let spawned = std::thread::Builder::new().name("build-session".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime
                .map_err(|error| error.to_string())
                .and_then(|runtime| runtime.block_on(sessions.run(head, target)).map_err(|error| error.to_string()));
            if let Err(error) = served {
                tracing::debug!("{name}: {error}");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("cannot serve a build's session: {error}");
        }
    }

    async fn run(&self, head: SessionHead, target: AttachTarget) -> Result<(), Box<dyn std::error::Error>> {
        let stream = stream_of(target.socket, target.early_input)?;
        let (channel, ended) = Channel::open(stream).await?;
        let methods = head.methods.iter().map(|method| method.to_lowercase()).collect();
        let id = head.id.clone();
        let session = Arc::new(Session { head, methods, channel, runtime: tokio::runtime::Handle::current() });
        self.open().insert(id.clone(), session);
        self.changed.send_modify(|count| *count += 1);
        ended.await;
        self.open().remove(&id);
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of this name, as soon as it is there.
    pub(crate) async fn find(&self, id: &str) -> Result<Arc<Session>, Status> {
        let mut changed = self.changed.subscribe();
        let found = tokio::time::timeout(SESSION_TIMEOUT, async {
            loop {
                changed.borrow_and_update();
                if let Some(session) = self.open().get(id) {
                    return Some(Arc::clone(session));
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        });
        found.await.ok().flatten().ok_or_else(|| Status::new(Code::NotFound, format!("no active session for {id}")))
    }
}

/// A socket as tokio reads it; whatever kind it is, only bytes are read and written.
pub(crate) fn stream_of(socket: OwnedFd, early: Bytes) -> std::io::Result<Early<UnixStream>> {
    let socket = StdUnixStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(Early::new(UnixStream::from_std(socket)?, early))
}

impl Session {
    pub(crate) fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn agent(channel: Channel, id: String, socket: StdUnixStream) -> Result<(), Box<dyn std::error::Error>> {
        socket.set_nonblocking(true)?;
        let (mut from, mut to) = UnixStream::from_std(socket)?.into_split();
        let (sender, mut reader) = channel.stream("/moby.sshforward.v1.SSH/ForwardAgent", &[(AGENT_ID, id)])?;
        let ours = async move {
            let mut piece = vec![0; AGENT_PIECE];
            loop {
                match from.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => {
                        let message = BytesMessage { data: Bytes::copy_from_slice(&piece[..length]) };
                        if !sender.send(&message).await {
                            return;
                        }
                    }
                }
            }
        };
        let theirs = async move {
            while let Ok(Some(message)) = reader.next::<BytesMessage>().await {
                if to.write_all(&message.data).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(ours, theirs);
        Ok(())
    }
}

/// The header that names an agent.
const AGENT_ID: &str = "buildkit.ssh.id";

fn told(status: Status) -> HostError {
    HostError(status.message)
}

impl BuildClient for Session {
    fn shared_key(&self) -> String {
        self.head.shared_key.clone()
    }

    fn dockerfile(&self, path: &str) -> Result<Option<DockerfileText>, HostError> {
        crate::filesync::dockerfile(self, path)
    }

    fn send_folder(
        &self,
        wanted: &FolderWanted<'_>,
        receiver: &mut Receiver<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), HostError> {
        crate::filesync::receive(self, wanted, receiver, tell)
    }

    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, HostError> {
        const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
        if !self.supports(METHOD) {
            return Ok(None);
        }
        let request = SecretRequest { id: id.to_owned() };
        match self.runtime.block_on(self.channel.unary::<SecretResponse>(METHOD, &request)) {
            Ok(response) => Ok(Some(response.data)),
            Err(status) if status.code == Code::NotFound => Ok(None),
            Err(status) => Err(told(status)),
        }
    }

    fn has_agent(&self, id: &str) -> Result<bool, HostError> {
        const METHOD: &str = "/moby.sshforward.v1.SSH/CheckAgent";
        if !self.supports(METHOD) {
            return Ok(false);
        }
        let request = SecretRequest { id: id.to_owned() };
        Ok(self.runtime.block_on(self.channel.unary::<SecretResponse>(METHOD, &request)).is_ok())
    }

    fn forward_agent(&self, id: &str, socket: StdUnixStream) -> Result<(), HostError> {
        let (channel, id) = (self.channel.clone(), id.to_owned());
        self.runtime.spawn(async move {
            let forwarded = Session::agent(channel, id, socket).await;
            forwarded.unwrap_or_else(|error| tracing::debug!("an SSH agent's connection: {error}"));
        });
        Ok(())
    }

    fn credentials(&self, registry: &str) -> Credentials {
        const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
        if !self.supports(METHOD) {
            return Credentials::Anonymous;
        }
        let request = CredentialsRequest { host: registry.to_owned() };
        match self.runtime.block_on(self.channel.unary::<CredentialsResponse>(METHOD, &request)) {
            Ok(CredentialsResponse { username, secret }) if !secret.is_empty() => match username.as_str() {
                "" | "<token>" => Credentials::IdentityToken(secret),
                _ => Credentials::Password { username, password: secret },
            },
            _ => Credentials::Anonymous,
        }
    }
}
