//! Which containers a list shows.

use std::sync::Arc;

use crate::engine::Engine;
use crate::model::{ContainerFilters, ContainerQuery, ContainerView, EngineError, NetworkMode, Patterns, Status};

/// The containers of a query, newest first.
pub(super) fn list(engine: &Engine, query: &ContainerQuery) -> Result<Vec<Arc<ContainerView>>, EngineError> {
    let filters = &query.filters;
    let moment = |reference: &Option<String>| {
        reference
            .as_deref()
            .map(|reference| engine.inner.index.find(reference).map(|handle| handle.created))
            .transpose()
    };
    let (before, since) = (moment(&filters.before)?, moment(&filters.since)?);
    let ancestors = ancestors(engine, &filters.ancestor);
    // Docker: asking for a state, an exit code or a number of containers means all containers.
    let all = query.all || query.limit.is_some() || !filters.status.is_empty() || !filters.exited.is_empty();
    let (ids, names) = (Patterns::new(&filters.id), Patterns::new(&filters.name));
    let mut handles = engine.inner.index.all();
    handles.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
    let mut found = Vec::new();
    for handle in handles {
        let view = handle.view();
        let shown = (all || view.state.is_running())
            && before.is_none_or(|before| handle.created < before)
            && since.is_none_or(|since| handle.created > since)
            && ancestors.as_ref().is_none_or(|images| images.contains(&view.image_id))
            && ids.match_text(handle.id.as_str())
            && names.match_container(view.name.as_str())
            && matches(filters, &view);
        if shown {
            found.push(view);
        }
        if query.limit.is_some_and(|limit| found.len() >= limit) {
            break;
        }
    }
    Ok(found)
}

/// Images that are one of these or built upon one; none when nothing was asked. An unknown name matches nothing.
fn ancestors(engine: &Engine, names: &[String]) -> Option<Vec<oci::Digest>> {
    if names.is_empty() {
        return None;
    }
    let catalogue = engine.inner.images.catalogue();
    let wanted: Vec<_> = names.iter().filter_map(|name| catalogue.resolve(name).ok().cloned()).collect();
    let descends = |image: &images::Image| {
        wanted.iter().any(|ancestor| {
            image.layers.starts_with(&ancestor.layers)
                && (image.id == ancestor.id || has_ancestor(&catalogue, image, &ancestor.id))
        })
    };
    Some(catalogue.images().filter(|image| descends(image)).map(|image| *image.id.digest()).collect())
}

fn has_ancestor(catalogue: &images::Catalogue, image: &images::Image, ancestor: &images::ImageId) -> bool {
    let mut parent = image.parent;
    while let Some(id) = parent {
        if id == *ancestor {
            return true;
        }
        parent = catalogue.get(&id).and_then(|image| image.parent);
    }
    false
}

fn matches(filters: &ContainerFilters, view: &ContainerView) -> bool {
    fn any<T>(list: &[T], test: impl Fn(&T) -> bool) -> bool {
        list.is_empty() || list.iter().any(test)
    }
    let ran = view.state.finished_at.is_some() && !view.state.is_running();
    any(&filters.status, |status| *status == view.state.status)
        && any(&filters.exited, |code| ran && view.state.status == Status::Exited && *code == view.state.exit_code)
        && any(&filters.health, |health| *health == view.state.health.as_ref().map(|health| health.status))
        && any(&filters.network, |network| on_network(view, network))
        && any(&filters.expose, |port| {
            view.spec.exposed_ports.contains(*port) || view.networks.ports.of(*port).next().is_some()
        })
        && any(&filters.publish, |port| is_published(view, *port))
        && any(&filters.volume, |volume| uses_volume(view, volume))
        && filters.is_task != Some(true)
        && filters.label.iter().all(|label| label.matches(&view.spec.labels))
        && filters.annotation.iter().all(|annotation| annotation.matches(&view.spec.annotations))
}

/// Whether the host's port of this number leads to the container.
fn is_published(view: &ContainerView, port: crate::model::Port) -> bool {
    let mut published = view.networks.ports.iter();
    published.any(|(inside, place)| inside.protocol == port.protocol && place.number == port.number)
}

fn on_network(view: &ContainerView, network: &str) -> bool {
    let by_endpoint = view.networks.endpoints.iter().any(|(name, endpoint)| {
        name == network || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(network))
    });
    by_endpoint || matches!(&view.spec.network, NetworkMode::Container(id) if id == network)
}

fn uses_volume(view: &ContainerView, volume: &str) -> bool {
    view.mounts.iter().any(|mount| mount.name.as_deref() == Some(volume) || mount.target == volume)
}
