//! Networks.

use std::net::SocketAddr;

use docker_api::network::{
    ConnectRequest, CreateRequest, CreateResponse, DisconnectRequest, Network, PortExplanation, PruneReport,
};
use engine::model::EngineError;
use engine::{Engine, PortCaller, PortView, Reached};

use super::done;
use crate::error::ApiResult;
use crate::map::network::{Detail, parse, show};
use crate::map::{endpoint, filter};
use crate::reply::{self, Reply};
use crate::request::Request;

pub(crate) fn list(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut query = filter::networks(&request.filters()?)?;
    query.label.extend(request.scope_label());
    let list: Vec<Network> =
        engine.networks(&query)?.iter().map(|view| show(view, Detail::List, request.version)).collect();
    Ok(reply::document(&list))
}

pub(crate) fn inspect(engine: &Engine, name: &str, request: &Request) -> ApiResult<Reply> {
    let network = engine.network(name)?;
    let scope = request.query.get("scope");
    if !scope.is_empty() && scope != network.scope {
        return Err(EngineError::not_found(format!("network {name} not found")).into());
    }
    Ok(reply::document(&show(&network, Detail::Inspect, request.version)))
}

/// Who reaches which published port, of one container (`container`) or of all that run.
pub(crate) async fn explain_ports(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let all = engine.explain_ports(Some(request.query.get("container")).filter(|name| !name.is_empty())).await?;
    Ok(reply::document(&all.iter().map(show_explanation).collect::<Vec<_>>()))
}

fn show_explanation(view: &PortView) -> PortExplanation {
    PortExplanation {
        container: view.container.clone(),
        published: SocketAddr::new(view.explanation.port.address, view.explanation.port.port).to_string(),
        port: format!("{}/{}", view.explanation.port.container_port, view.explanation.port.transport),
        caller: match view.explanation.caller {
            PortCaller::Host => "this host",
            PortCaller::Neighbours => "other machines",
            PortCaller::Containers => "containers",
        }
        .to_owned(),
        reached: match view.explanation.reached {
            Reached::Yes => "yes",
            Reached::No => "no",
            Reached::Depends => "depends",
        }
        .to_owned(),
        because: view.explanation.because.clone(),
    }
}

pub(crate) async fn create(engine: &Engine, request: Request) -> ApiResult<Reply> {
    let scope = request.scope.clone();
    let body: CreateRequest = request.document().await?;
    let mut wanted = parse(body)?;
    if let Some(scope) = scope {
        scope.confine_network(&mut wanted)?;
    }
    let id = engine.create_network(wanted).await?;
    Ok(reply::created(&CreateResponse { id, warning: String::new() }))
}

pub(crate) async fn remove(engine: &Engine, name: &str) -> ApiResult<Reply> {
    engine.remove_network(name).await?;
    Ok(done())
}

pub(crate) async fn connect(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let scope = request.scope.clone();
    let mut body: ConnectRequest = request.document().await?;
    if let Some(scope) = scope {
        body.container = scope.check_container(engine, &body.container)?;
    }
    let endpoint = endpoint::parse(&body.endpoint_config.unwrap_or_default())?;
    engine.connect_network(name, &body.container, endpoint).await?;
    Ok(reply::empty(http::StatusCode::OK))
}

pub(crate) async fn disconnect(engine: &Engine, name: &str, request: Request) -> ApiResult<Reply> {
    let scope = request.scope.clone();
    let mut body: DisconnectRequest = request.document().await?;
    if let Some(scope) = scope {
        body.container = scope.check_container(engine, &body.container)?;
    }
    engine.disconnect_network(name, &body.container, body.force).await?;
    Ok(reply::empty(http::StatusCode::OK))
}

pub(crate) async fn prune(engine: &Engine, request: &Request) -> ApiResult<Reply> {
    let mut filters = filter::prune(&request.filters()?, filter::Prune::Networks)?;
    filters.label.extend(request.scope_label());
    let report = engine.prune_networks(filters).await?;
    let networks_deleted = Some(report.deleted).filter(|list| !list.is_empty());
    Ok(reply::document(&PruneReport { networks_deleted }))
}
