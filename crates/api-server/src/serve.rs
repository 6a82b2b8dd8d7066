//! Accepting clients until the daemon stops.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::audit::AuditLog;
use crate::connection::{Handler, serve_connection};
use crate::dispatch::{Door, dispatch, dispatch_metrics};
use crate::gone::Peer;
use crate::listener::{Listener, TcpSecurity};
use crate::scope::Scope;

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
    /// Where every request is written down.
    pub audit: Option<Arc<AuditLog>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { max_connections: 8192, grace: Duration::from_secs(2), audit: None }
    }
}

/// What is served on a listener.
#[derive(Debug, Clone)]
pub enum Face {
    /// Docker's API, all of it.
    Api,
    /// Docker's API, as far as the socket's rights go.
    Scoped(Arc<Scope>),
    /// `GET /metrics` and nothing else.
    Metrics,
}

/// A listener and what is served on it.
#[derive(Debug)]
pub struct Front {
    /// Where clients come from.
    pub listener: Listener,
    /// What they find.
    pub face: Face,
}

/// Serves clients on all fronts until `shutdown` completes. Hijacked connections belong to their containers and go on.
pub async fn serve(engine: Engine, fronts: Vec<Front>, options: ServerOptions, shutdown: impl Future<Output = ()>) {
    let kit = buildkit::BuildKit::new(engine.clone());
    let audit = &options.audit;
    let handler = |front: &Front| handler((engine.clone(), kit.clone()), front, audit.clone());
    let served = fronts.into_iter().map(|front| (handler(&front), front.listener)).collect();
    serve_with(served, options, shutdown).await;
}

fn handler((engine, kit): (Engine, buildkit::BuildKit), front: &Front, audit: Option<Arc<AuditLog>>) -> Handler {
    let scope = match &front.face {
        Face::Api => None,
        Face::Scoped(scope) => Some(Arc::clone(scope)),
        Face::Metrics => return Arc::new(move |request, _, _| Box::pin(dispatch_metrics(engine.clone(), request))),
    };
    let door = Arc::new(Door { engine, kit, scope, audit, address: front.listener.address() });
    Arc::new(move |request, peer, slot| Box::pin(dispatch(Arc::clone(&door), request, peer, slot)))
}

async fn serve_with(listeners: Vec<(Handler, Listener)>, options: ServerOptions, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let limit = Arc::new(Semaphore::new(options.max_connections));
    let mut accepting = JoinSet::new();
    for (handler, listener) in listeners {
        let front = Acceptor { handler, stopping: stopping.clone(), limit: Arc::clone(&limit) };
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
struct Acceptor {
    handler: Handler,
    stopping: watch::Receiver<bool>,
    limit: Arc<Semaphore>,
}

impl Acceptor {
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
        Ok(Ok(stream)) => {
            let peer = peer.with_certificate(stream.client());
            serve_connection(stream, peer, handler, stopping).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a client was refused"),
        Err(_) => tracing::debug!("a client was too slow to shake hands"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;
    use std::path::{Path, PathBuf};

    use tokio::sync::oneshot;

    use super::*;
    use crate::listener::SocketGroup;

    /// The certificates of crate `tls`.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tls/testdata").join(name)
    }

    /// Serves on a thread of its own until the returned sender is used or dropped.
    fn start(listener: impl Future<Output = Listener> + Send + 'static) -> (Option<std::net::SocketAddr>, Running) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = listener.await;
                ready.send(listener.tcp_address()).unwrap();
                let options = ServerOptions { grace: Duration::from_millis(200), ..ServerOptions::default() };
                let handler: Handler = Arc::new(crate::fuzzing::echo);
                serve_with(vec![(handler, listener)], options, async { drop(stopped.await) }).await;
            });
        });
        (is_ready.recv().unwrap(), Running { stop: Some(stop), thread: Some(thread) })
    }

    struct Running {
        stop: Option<oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn a_connection_over_tls_is_taken_over_with_its_early_input() {
        let (certificate, key, authority) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let acceptor = tls::Acceptor::load(tls::ServerFiles {
            certificate: &certificate,
            key: &key,
            client_authority: Some(&authority),
        })
        .unwrap();
        let (address, _running) =
            start(async { Listener::tcp("127.0.0.1:0", TcpSecurity::Tls(acceptor)).await.unwrap() });
        let (chain, client_key) = (file("client.pem"), file("client.key"));
        let connector = tls::Connector::load(tls::ClientFiles {
            verification: tls::Verification::Authority(&authority),
            identity: Some((&chain, &client_key)),
        })
        .unwrap();
        let stream = std::net::TcpStream::connect(address.unwrap()).unwrap();
        let mut stream = connector.connect(stream, "127.0.0.1").unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nearly ").unwrap();
        stream.write_all(b"late").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "early late");
    }

    #[test]
    fn the_end_removes_the_socket_and_leaves_idle_clients_alone() {
        let path = std::env::temp_dir().join(format!("conex-serve-{}.sock", std::process::id()));
        let own = path.clone();
        let (_, running) = start(async move { Listener::unix(&own, &SocketGroup::Usual).await.unwrap() });
        let _idle = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(path.exists());
        drop(running);
        assert!(!path.exists());
    }
}
