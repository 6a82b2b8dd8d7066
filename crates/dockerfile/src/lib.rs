//! The Dockerfile language: text in, typed instructions out. Nothing here touches a file, a network or a clock.
//!
//! ```text
//! text ─▶ lines (directives, continuation, comments, heredocs) ─▶ instruction (typed, unexpanded) ─▶ stages
//!                                                                        │
//!                                     expand (quotes, $NAME, modifiers) ◀┘  when the builder knows the variables
//! ```
//!
//! - [`parse`] reads a whole Dockerfile; errors name the line, in BuildKit's words.
//! - [`Instruction::expand`] says what variables turn an instruction into.
//! - [`arguments`] says which build arguments are visible where.
//! - [`ignore`] is `.dockerignore`.
//! - [`lint`] holds the rules of `docker build --check`.
//!
//! What must not be known here: images, layers, how anything is run.

pub mod arguments;
pub mod expand;
pub mod ignore;
pub mod lint;
pub mod mount;

mod clean;
mod duration;
mod environment;
mod error;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod parse;
mod pattern;
mod ports;
mod stages;
mod statement;
mod suggest;
mod wildcard;
mod words;

pub use clean::clean_path;
pub use environment::Environment;
pub use error::{ParseError, SyntaxError};
pub use heredoc::Heredoc;
pub use instruction::{
    Add, Argument, CommandLine, Copy, Healthcheck, HealthcheckTest, InlineFile, Instruction, Network, Pair, PairForm,
    Run, Security, Seen, Sources,
};
pub use lines::{Directives, Escape, LineRange};
pub use parse::parse_trigger;
pub use ports::{Port, PortError, PortForm, parse_ports};
pub use stages::{Dockerfile, Stage, Step, parse};
pub use suggest::suggest;
pub use wildcard::Wildcard;
