//! What a Docker user sees, tested through the real docker command line on a real engine.
//!
//! One file a topic. Every test has its own engine in its own namespaces ([`harness::Engine`]) and ends with
//! `finish`, which fails if anything is left behind.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

mod attacks;
mod build;
mod buildx;
mod cli;
mod compose;
mod copy;
mod exec;
mod fake_server;
mod hostile_registries;
mod images;
mod lifecycle;
mod limits;
mod names;
mod network;
mod ports;
mod registries;
mod registry_server;
mod run;
mod runtimes;
mod security;
mod streams;
mod survival;
mod system;
mod user_networks;
mod userns;
mod volumes;
