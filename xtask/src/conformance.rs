//! The validation programs of the specification's own project, which this repository does not contain, on our runtime, crun and runc.
//!
//! They are built elsewhere (`go build` of each program below `validation/` to `NAME.t`, and of `cmd/runtimetest`). Each runs in the
//! peers' root, entered by pivot_root, as crun and runc live there; what they print is TAP. What comes out is told in
//! `docs/conformance.md`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::bench::{inside, peers};
use crate::process::{run, say, workspace};
use crate::programs::{self, Profile};

const RUNTIMES: [(&str, &str); 3] =
    [("conex-runtime", "/state/bin/conex-runtime"), ("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")];

/// What one program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Green,
    Red,
}

/// `conformance --tools DIR [--peers DIR]`.
pub(crate) fn run_all(arguments: &[String]) -> Result<()> {
    let mut parser = lexopt::Parser::from_args(arguments.iter().cloned());
    let (mut tools, mut root) = (None, peers::ready());
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("tools") => tools = Some(PathBuf::from(parser.value()?).canonicalize()?),
            lexopt::Arg::Long("peers") => root = Some(PathBuf::from(parser.value()?).canonicalize()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let tools =
        tools.context("conformance needs --tools DIR: a checkout in which the validation programs are built")?;
    let root = root.context("no peers: ./x peers makes a root for them, or --peers DIR names one")?;
    let programs = programs::build(Profile::Debug)?;
    let state = workspace().join("target/conformance");
    let names = gather(&tools, &programs, &state)?;
    let mut table = vec![Vec::new(); names.len()];
    for (name, program) in RUNTIMES {
        say(&format!("running {} programs on {name}", names.len()));
        let script = format!(
            "cd /state && mkdir {name} && export RUNTIME={program} && for t in {}; do timeout 90 ./$t.t > {name}/$t 2> {name}/$t.err < /dev/null; echo $? > {name}/$t.code; done",
            names.join(" ")
        );
        run(&mut inside::command(&root, &state, ["sh", "-c", &script])?)?;
        for (test, row) in names.iter().zip(&mut table) {
            row.push(read_verdict(&state.join(name), test)?);
        }
    }
    print(&names, &table)?;
    say(&format!("what each program said is in {}", state.display()));
    Ok(())
}

/// Links or copies everything that the programs need into one folder; returns the programs' names.
fn gather(tools: &Path, programs: &Path, state: &Path) -> Result<Vec<String>> {
    if state.exists() {
        fs::remove_dir_all(state)?;
    }
    fs::create_dir_all(state.join("bin"))?;
    fs::copy(programs.join("conex-runtime"), state.join("bin/conex-runtime"))?;
    let mut names = Vec::new();
    for folder in fs::read_dir(tools.join("validation"))? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        let program = folder.path().join(format!("{name}.t"));
        if program.exists() {
            place(&program, &state.join(format!("{name}.t")))?;
            names.push(name);
        }
    }
    ensure!(!names.is_empty(), "no program is built below {}/validation", tools.display());
    names.sort();
    for file in fs::read_dir(tools)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name == "runtimetest" || name.starts_with("rootfs-") {
            place(&file.path(), &state.join(name))?;
        }
    }
    Ok(names)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn read_verdict(out: &Path, name: &str) -> Result<Verdict> {
    let code = fs::read_to_string(out.join(format!("{name}.code")))?;
    Ok(verdict(&fs::read_to_string(out.join(name))?, code.trim()))
}

/// Green is an exit code of 0, no `not ok`, and, for programs that print no result but only what went wrong, nothing of that.
fn verdict(tap: &str, code: &str) -> Verdict {
    let has_results = tap.lines().any(|line| line.starts_with("ok ") || line.starts_with("not ok "));
    let failed = tap.lines().any(|line| line.trim_start().starts_with("not ok"));
    let complains = !has_results && tap.contains("\"error\"");
    if code == "0" && !failed && !complains { Verdict::Green } else { Verdict::Red }
}

fn print(names: &[String], table: &[Vec<Verdict>]) -> Result<()> {
    use std::io::Write;
    let mut output = std::io::stdout();
    for (name, row) in names.iter().zip(table).filter(|(_, row)| row.contains(&Verdict::Red)) {
        let words: Vec<String> =
            RUNTIMES.iter().zip(row).map(|((runtime, _), verdict)| format!("{runtime} {verdict:?}")).collect();
        writeln!(output, "{name:<34} {}", words.join(", "))?;
    }
    for (index, (runtime, _)) in RUNTIMES.iter().enumerate() {
        let green = table.iter().filter(|row| row[index] == Verdict::Green).count();
        writeln!(output, "{runtime}: {green} of {} green", names.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_without_results_are_judged_by_their_complaints() {
        assert_eq!(verdict("TAP version 13\nok 1 - x\n  \"error\": \"told\"\n1..1\n", "0"), Verdict::Green);
        assert_eq!(verdict("ok 1\nnot ok 2\n1..2\n", "0"), Verdict::Red);
        assert_eq!(verdict("TAP version 13\n  \"error\": \"wrong order\"\n1..0\n", "0"), Verdict::Red);
        assert_eq!(verdict("TAP version 13\n1..0\n", "0"), Verdict::Green);
        assert_eq!(verdict("ok 1\n1..1\n", "1"), Verdict::Red);
    }
}
