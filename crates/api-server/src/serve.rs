//! Accepting clients until the daemon stops.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::connection::{Handler, serve_connection};
use crate::dispatch::dispatch;
use crate::gone::Peer;
use crate::listener::{Listener, TcpSecurity};

/// How long to wait after `accept` failed, so that a full table of files does not make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a TLS client may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// How many clients are served at the same time; more wait to be accepted.
    pub max_connections: usize,
    /// How long answers may go on once the daemon stops.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { max_connections: 8192, grace: Duration::from_secs(2) }
    }
}

/// Serves clients on all listeners until `shutdown` completes. Hijacked connections belong to their containers and go on.
pub async fn serve(
    engine: Engine,
    listeners: Vec<Listener>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) {
    let handler: Handler = Arc::new(move |request, peer, slot| Box::pin(dispatch(engine.clone(), request, peer, slot)));
    let (stop, stopping) = watch::channel(false);
    let limit = Arc::new(Semaphore::new(options.max_connections));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let front = Front { handler: Arc::clone(&handler), stopping: stopping.clone(), limit: Arc::clone(&limit) };
        accepting.spawn(front.accept(listener));
    }
    shutdown.await;
    // Nobody listens only if every listener has ended by itself, which none does.
    let _ = stop.send(true);
    let all_served = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(options.grace, all_served).await.is_err() {
        tracing::debug!("answers were still going on when the daemon stopped");
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Front {
    handler: Handler,
    stopping: watch::Receiver<bool>,
    limit: Arc<Semaphore>,
}

impl Front {
    /// Accepts until the daemon stops, then waits for the clients that are being served.
    async fn accept(mut self, listener: Listener) {
        let mut clients = JoinSet::new();
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        tokio::select! {
            () = stopped => {}
            () = self.accept_for_ever(&listener, &mut clients) => {}
        }
        if let Listener::Unix(_, path) = &listener {
            let _ = std::fs::remove_file(path);
        }
        drop(listener);
        while clients.join_next().await.is_some() {}
    }

    async fn accept_for_ever(&mut self, listener: &Listener, clients: &mut JoinSet<()>) {
        loop {
            let Ok(permit) = Arc::clone(&self.limit).acquire_owned().await else {
                return;
            };
            while clients.try_join_next().is_some() {}
            if let Err(error) = self.accept_one(listener, permit, clients).await {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept_one(
        &self,
        listener: &Listener,
        permit: OwnedSemaphorePermit,
        clients: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let (handler, stopping) = (Arc::clone(&self.handler), self.stopping.clone());
        match listener {
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::new(rustix::io::fcntl_dupfd_cloexec(&stream, 0)?);
                clients.spawn(async move {
                    serve_connection(stream, peer, handler, stopping).await;
                    drop(permit);
                });
            }
            Listener::Tcp(listener, security) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer::new(rustix::io::fcntl_dupfd_cloexec(&stream, 0)?);
                let security = security.clone();
                clients.spawn(async move {
                    serve_tcp(stream, peer, security, handler, stopping).await;
                    drop(permit);
                });
            }
        }
        Ok(())
    }
}

async fn serve_tcp(
    stream: TcpStream,
    peer: Peer,
    security: TcpSecurity,
    handler: Handler,
    stopping: watch::Receiver<bool>,
) {
    let acceptor = match security {
        TcpSecurity::Insecure => return serve_connection(stream, peer, handler, stopping).await,
        TcpSecurity::Tls(acceptor) => acceptor,
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, peer, handler, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "a client was refused"),
        Err(_) => tracing::debug!("a client was too slow to shake hands"),
    }
}
