//! A private engine, namespace and folder for every end-to-end test.
//!
//! [`Host`] moves the calling thread into its own mount and network namespace; every program that the thread starts
//! lives there too. [`Engine`] is a real `conex daemon` in that host with its own `--root`, `--run` and `--name`.
//! [`Engine::finish`] stops it and fails the test if a process, mount, cgroup, interface, nftables rule or file is left.
//!
//! ```text
//! <scratch>/root   the engine's --root        <scratch>/home    HOME and the clients' configuration
//! <scratch>/run    the engine's --run         <scratch>/files   whatever the test writes
//! ```

mod docker;
mod engine;
mod host;
mod image;
mod leftovers;
mod program;
mod terminal;

pub use docker::Docker;
pub use engine::{Engine, EngineOptions};
pub use host::Host;
pub use image::busybox_tar;
pub use leftovers::Leftovers;
pub use program::{Output, Program, unpacked};
pub use terminal::Terminal;
