//! Seccomp profiles compiled to BPF programs.
//!
//! ```text
//! Docker's profile (JSON, conditions on capabilities, architecture, kernel)
//!    │ Profile::resolve
//!    ▼
//! oci::runtime::LinuxSeccomp (a container's configuration)
//!    │ compile
//!    ▼
//! Filter: classic BPF for seccomp(2), and its flags
//! ```
//!
//! The crate is pure: it reads no file and makes no system call, so a filter can be compiled once and kept. The compiler does what
//! runc with libseccomp does, without either: several architectures in one filter, conditions on 64-bit arguments, `ENOSYS` for calls
//! that are newer than the profile. It differs in shape: a balanced tree over ranges of numbers, about ten instructions deep.
//!
//! | file | what is in it |
//! |---|---|
//! | `profile.rs`, `default.json` | Docker's format; Docker's default profile |
//! | `arch.rs`, `table.rs` | architectures and their system call numbers (generated) |
//! | `rules.rs` | configuration → for each architecture, number → decision |
//! | `program.rs` | decisions → instructions |

mod arch;
mod filter;
#[cfg(test)]
mod interpreter;
mod profile;
mod program;
mod rules;
mod table;
#[cfg(test)]
mod tests;

pub use arch::{architectures, native, number};
pub use filter::{CompileError, Filter, compile, compile_for};
pub use profile::{Conditions, KernelVersion, Profile, ProfileError};
