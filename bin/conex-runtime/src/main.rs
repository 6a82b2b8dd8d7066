//! One program, three roles: the OCI runtime's command line, the monitor of a container, and the init of one.
//!
//! The role is chosen before anything else, in a process that has one thread and keeps it: creating a container clones the caller.

mod cli;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The name under which the program is a container's init, where Docker's users look for it.
const INIT_NAME: &str = "docker-init";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == INIT_NAME) {
        return monitor::init::run(arguments);
    }
    let arguments: Vec<OsString> = arguments.collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("init") => monitor::init::run(arguments.into_iter().skip(1)),
        Some("monitor") => match runtime::protect_self() {
            Ok(()) => monitor::run(arguments.into_iter().skip(1)),
            Err(error) => cli::report(&error),
        },
        _ => cli::run(arguments),
    }
}
