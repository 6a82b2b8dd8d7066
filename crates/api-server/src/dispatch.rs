//! From a request to its handler.

use buildkit::BuildKit;
use std::sync::Arc;

use docker_api::{Route, RouteError, route};
use engine::{AbsentLayers, Engine, Pinning};
use hyper::body::Incoming;

use crate::audit::{Asked, AuditLog, Refusal};
use crate::error::{ApiError, ApiResult};
use crate::gone::Peer;
use crate::handlers::{
    archive, build, buildkit as kit_handlers, containers, execs, images, networks, registries, streams, system,
    unsupported, verify, volumes, websocket, why,
};
use crate::hijack::HijackSlot;
use crate::metrics;
use crate::reply::{self, Reply};
use crate::request::Request;
use crate::scope::Scope;

/// What is behind a socket.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) engine: Engine,
    pub(crate) kit: BuildKit,
    /// What its clients may do; none for everything.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) audit: Option<Arc<AuditLog>>,
    /// Where it is.
    pub(crate) address: String,
}

/// Answers one request; never fails.
pub(crate) async fn dispatch(
    door: Arc<Door>,
    request: http::Request<Incoming>,
    peer: Peer,
    hijack: HijackSlot,
) -> Reply {
    let started = std::time::Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asker = peer.clone();
    let reply = match route(method.as_str(), &path) {
        Ok((route, version)) => {
            let caller = peer.clone();
            let mut request = Request::new(request, version, peer, hijack);
            request.scope.clone_from(&door.scope);
            let caller: engine::Caller = std::sync::Arc::new(move || caller.who());
            let outcome = engine::as_caller(caller, handle((&door.engine, &door.kit), route, request)).await;
            reply::with_identity(outcome.unwrap_or_else(|error| refuse(&error, &path)))
        }
        // Docker's own router answers this before it knows who it is.
        Err(error @ RouteError::NotFound) => reply::refusal(&error.into()),
        Err(error @ RouteError::Version(_)) => reply::with_identity(reply::refusal(&error.into())),
    };
    tracing::debug!(%method, path, status = reply.status().as_u16(), elapsed = ?started.elapsed(), "request");
    if let Some(audit) = &door.audit {
        audit.write(&door.address, &asker, &Asked { method, path, query }, &reply, started.elapsed());
    }
    reply
}

/// Answers on an address that has numbers and nothing else, as Docker's `--metrics-addr`.
pub(crate) async fn dispatch_metrics(engine: Engine, request: http::Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&http::Method::GET, "/metrics") => metrics::metrics(&engine).await,
        _ => reply::refusal(&RouteError::NotFound.into()),
    }
}

fn refuse(error: &ApiError, path: &str) -> Reply {
    if error.status.is_server_error() {
        tracing::warn!(status = error.status.as_u16(), message = error.message, path, "request failed");
    }
    let mut reply = reply::refusal(error);
    reply.extensions_mut().insert(Refusal(error.message.clone()));
    reply
}

async fn handle((engine, kit): (&Engine, &BuildKit), route: Route, request: Request) -> ApiResult<Reply> {
    let route = match &request.scope {
        Some(scope) => match scope.admit(engine, route) {
            Ok(route) => route,
            Err(refusal) => {
                // Who still writes a document when the connection ends does not read why.
                let _the_refusal_is_told = request.without_body().await;
                return Err(refusal);
            }
        },
        None => route,
    };
    match route {
        Route::Ping => Ok(reply::ping(request.method())),
        Route::Options => Ok(reply::empty(http::StatusCode::OK)),
        Route::Version => Ok(system::version(engine)),
        Route::Metrics => Ok(metrics::metrics(engine).await),
        Route::Info => system::info(engine, &request),
        Route::Events => system::events(engine, request),
        Route::DiskUsage => system::disk_usage(engine, &request).await,
        Route::Build => build::build(engine, request).await,
        Route::Grpc => kit_handlers::grpc(kit, request).await,
        Route::Session => kit_handlers::session(kit, request).await,
        Route::BuildPrune => build::prune(engine, &request).await,
        Route::BuildCancel => build::cancel(engine, &request),
        Route::BuildResult => build::result(engine, &request).await,
        Route::ContainerList => containers::list(engine, &request).await,
        Route::ContainerCreate => containers::create(engine, request).await,
        Route::Commit => containers::commit(engine, request).await,
        Route::ContainerPrune => containers::prune(engine, &request).await,
        Route::ContainerInspect(name) => containers::inspect(engine, &name, &request).await,
        Route::ContainerTop(name) => containers::top(engine, &name, &request).await,
        Route::ContainerWhy(name) => why::why(engine, &name),
        Route::ContainerLogs(name) => streams::logs(engine, &name, request).await,
        Route::ContainerChanges(name) => containers::changes(engine, &name).await,
        Route::ContainerExport(name) => streams::export(engine, &name).await,
        Route::ContainerStats(name) => streams::stats(engine, &name, request).await,
        Route::ContainerResize(name) => containers::resize(engine, &name, &request).await,
        Route::ContainerStart(name) => containers::start(engine, &name, request).await,
        Route::ContainerStop(name) => containers::stop(engine, &name, &request).await,
        Route::ContainerRestart(name) => containers::restart(engine, &name, &request).await,
        Route::ContainerKill(name) => containers::kill(engine, &name, &request).await,
        Route::ContainerUpdate(name) => containers::update(engine, &name, request).await,
        Route::ContainerRename(name) => containers::rename(engine, &name, &request).await,
        Route::ContainerPause(name) => containers::pause(engine, &name).await,
        Route::ContainerUnpause(name) => containers::unpause(engine, &name).await,
        Route::ContainerAttach(name) => streams::attach(engine, &name, request).await,
        Route::ContainerAttachWebsocket(name) => websocket::attach(engine, &name, request).await,
        Route::ContainerWait(name) => streams::wait(engine, &name, request).await,
        Route::ContainerRemove(name) => containers::remove(engine, &name, &request).await,
        Route::ExecCreate(name) => execs::create(engine, &name, request).await,
        Route::ExecStart(id) => execs::start(engine, &id, request).await,
        Route::ExecResize(id) => execs::resize(engine, &id, &request).await,
        Route::ExecInspect(id) => execs::inspect(engine, &id),
        Route::ImageList => images::list(engine, &request),
        Route::ImageCreate => images::create(engine, request).await,
        Route::ImageLoad => images::load(engine, request, AbsentLayers::Missing),
        Route::ImageReceive => images::load(engine, request, AbsentLayers::Taken),
        Route::ImageSend => images::send(engine, request).await,
        Route::LayersMissing => images::missing_layers(engine, request).await,
        Route::PortsExplain => networks::explain_ports(engine, &request).await,
        Route::ImagePrune => images::prune(engine, &request).await,
        Route::ImageVerify => Ok(verify::images(engine, &request)),
        Route::ImageSave => {
            let names = request.query.all("names").map(str::to_owned).collect();
            images::save(engine, names, &request).await
        }
        Route::ImageSaveOne(name) => images::save(engine, vec![name], &request).await,
        Route::ImageInspect(name) => images::inspect(engine, &name, &request),
        Route::ImageHistory(name) => images::history(engine, &name, &request),
        Route::ImagePin(name) => images::pin(engine, &name, Pinning::On).await,
        Route::ImageUnpin(name) => images::pin(engine, &name, Pinning::Off).await,
        Route::ImageTag(name) => images::tag(engine, &name, &request).await,
        Route::ImagePush(name) => registries::push(engine, &name, request).await,
        Route::ImageSearch => registries::search(engine, &request).await,
        Route::Distribution(name) => registries::distribution(engine, &name, &request).await,
        Route::Auth => registries::login(engine, request).await,
        Route::ImageRemove(name) => images::remove(engine, &name, &request).await,
        Route::NetworkList => networks::list(engine, &request),
        Route::NetworkInspect(name) => networks::inspect(engine, &name, &request),
        Route::NetworkCreate => networks::create(engine, request).await,
        Route::NetworkRemove(name) => networks::remove(engine, &name).await,
        Route::NetworkConnect(name) => networks::connect(engine, &name, request).await,
        Route::NetworkDisconnect(name) => networks::disconnect(engine, &name, request).await,
        Route::NetworkPrune => networks::prune(engine, &request).await,
        Route::VolumeList => volumes::list(engine, &request),
        Route::VolumeCreate => volumes::create(engine, request).await,
        Route::VolumeInspect(name) => volumes::inspect(engine, &name),
        Route::VolumeRemove(name) => volumes::remove(engine, &name, &request).await,
        Route::VolumePrune => volumes::prune(engine, &request).await,
        Route::ArchiveStat(name) => archive::stat(engine, &name, &request).await,
        Route::ArchiveGet(name) => archive::get(engine, &name, &request).await,
        Route::ArchivePut(name) => archive::put(engine, &name, request).await,
        Route::PluginList => unsupported::no_plugins(&request),
        Route::Plugin(asked) => Err(unsupported::plugin(asked, request).await),
        Route::Swarm(asked) => Err(unsupported::swarm(asked, request).await),
        other => Err(unsupported::refusal(engine, &other)),
    }
}
