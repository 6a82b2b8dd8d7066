//! What shells and other programs need of this command: completions, the manual, a tunnel.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use clap::ArgMatches;
use clap_complete::Shell;

use super::{After, Detail, Entry, exactly, operands, tree};
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) const COMPLETION: Entry = Entry {
    name: "completion",
    about: "Print a completion script for bash, elvish, fish, powershell or zsh",
    operands: "SHELL",
    after: After::Options,
    flags: &[],
    run: |_, matches| {
        let [name] = exactly(matches)?;
        let shell: Shell = name.parse().map_err(|_| {
            Failure::usage(format!(
                "{name:?} is no shell that completions exist for: bash, elvish, fish, powershell, zsh"
            ))
        })?;
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut tree(Detail::All), "conex", &mut script);
        io::stdout().write_all(&script)?;
        Ok(0)
    },
};

pub(super) const MAN: Entry = Entry {
    name: "man",
    about: "Print the manual page of conex or of one of its commands, or write all into a folder",
    operands: "[COMMAND|FOLDER/]",
    after: After::Options,
    flags: &[],
    run: man,
};

fn man(_: &Context, matches: &ArgMatches) -> Outcome {
    let root = tree(Detail::All);
    match operands(matches, 0)?.first() {
        Some(folder) if folder.contains('/') => {
            let failed = |error: io::Error| Failure::usage(format!("cannot write manual pages to {folder}: {error}"));
            std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(root, folder)).map_err(failed)?;
        }
        Some(name) => {
            let missing = || Failure::usage(format!("there is no command {name:?}"));
            let command = root.find_subcommand(name).ok_or_else(missing)?.clone();
            clap_mangen::Man::new(command).render(&mut io::stdout().lock())?;
        }
        None => clap_mangen::Man::new(root).render(&mut io::stdout().lock())?,
    }
    Ok(0)
}

pub(super) const DIAL_STDIO: Entry = Entry {
    name: "dial-stdio",
    about: "Join standard input and output to the engine's socket, for ssh:// addresses",
    operands: "",
    after: After::Options,
    flags: &[],
    run: dial_stdio,
};

fn dial_stdio(context: &Context, _: &ArgMatches) -> Outcome {
    let stream = UnixStream::connect(context.socket()?)?;
    let mut upstream = stream.try_clone()?;
    // This thread ends with the process: a read of standard input cannot be interrupted.
    std::thread::spawn(move || {
        let _ = copy(&mut io::stdin(), &mut upstream);
        let _ = upstream.shutdown(std::net::Shutdown::Write);
    });
    copy(&mut &stream, &mut io::stdout())?;
    Ok(0)
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
        }
    }
}
