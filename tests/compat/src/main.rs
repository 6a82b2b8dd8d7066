//! What a Docker user sees, tested through the real docker command line on a real engine.
//!
//! One file a topic. Every test has its own engine in its own namespaces ([`harness::Engine`]) and ends with
//! `finish`, which fails if anything is left behind.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

mod api;
mod artifacts;
mod attacks;
mod build;
mod build_attacks;
mod build_foreign;
mod build_results;
mod build_sources;
mod build_view;
mod buildx;
mod buildx_caches;
mod buildx_indexes;
mod cli;
mod compose;
mod configuration;
mod contexts;
mod copy;
#[path = "../../../crates/snapshots/tests/it/corpus.rs"]
#[allow(dead_code, reason = "what is in a layer the tests of the store look at")]
mod corpus;
mod crashes;
mod devices;
mod dockerfiles;
mod drivers;
mod exec;
mod fake_server;
mod faults;
mod health;
mod hostile_layers;
mod hostile_registries;
mod image_copy;
mod images;
mod ipv6;
mod lifecycle;
mod limits;
mod links;
mod log_drivers;
mod matrix;
mod metrics;
mod names;
mod network;
mod peers;
mod picture;
mod ports;
mod pulls;
mod quotas;
#[path = "../../../crates/snapshots/tests/it/raw_tar.rs"]
#[allow(dead_code, reason = "not every field is bent here")]
mod raw_tar;
mod refusals;
mod registries;
mod registry_server;
mod run;
mod runtimes;
mod scoped_sockets;
mod security;
mod shapes;
mod shop;
mod space;
mod streams;
mod stuck;
mod survival;
mod system;
mod trust;
mod user_networks;
mod userns;
mod volumes;
mod waits;
