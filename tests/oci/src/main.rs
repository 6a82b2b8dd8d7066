//! The runtime alone, by its command line, against the OCI specification and against other runtimes.
//!
//! ```text
//! cargo nextest run -p oci-conformance                                 conex-runtime
//! CONEX_OCI_RUNTIME=/usr/bin/runc cargo nextest run -p oci-conformance the same tests on another runtime
//! CONEX_OCI_PEERS=/usr/bin/runc:/usr/bin/crun …                        who `peers` compares with, beside those in PATH
//! ```
//!
//! They need root, busybox-static and tar. Each test has its own mount and network namespace, folder and cgroups, and leaves nothing.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]

mod apparmor;
mod attacks;
mod checkpoint;
mod commands;
mod engines;
mod exec;
mod filesystem;
mod hooks;
mod lifecycle;
mod namespaces;
mod peers;
mod process;
mod resources;
mod rootless;
mod support;
mod systemd;
