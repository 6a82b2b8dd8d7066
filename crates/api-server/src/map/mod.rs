//! Docker's JSON and the engine's types, into each other; no I/O.

pub(crate) mod create;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod resources;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod summary;
pub(crate) mod system;
pub(crate) mod time;
pub(crate) mod volume;

use std::collections::BTreeMap;

use docker_api::container::Words;

/// Nothing is written as `null`.
pub(crate) fn null_if_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

pub(crate) fn words(list: Option<Words>) -> Option<Vec<String>> {
    list.map(|Words(words)| words)
}

pub(crate) fn null_map_if_empty(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}
