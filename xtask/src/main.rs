//! What a developer repeats, one file a task. `./x help` lists the tasks.

mod bench;
mod compat;
mod conformance;
mod corpus;
mod lint;
mod packages;
mod process;
mod programs;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

const HELP: &str = "\
usage: ./x TASK [ARGUMENTS]

  setup              install what is missing, build, and run a first container
  build [--release]  build conex and its static runtime into target/conex/PROFILE
  test [FILTER...]   build, then run the lints and every test, those of vm-test too
  vm-test [FILTER...] run tests in virtual machines: cgroup v2 alone and all of v1, AppArmor, systemd
  bench KIND [--rounds N] [--only TEXT] [--peers DIR] [--programs DIR | --peers-only]
                     measure start, exec, memory, load, images, pull, build, network, scale, runtime or cost beside the floor and the peers that are found
  conformance --tools DIR [--peers DIR]
                     run the OCI project's validation programs, built in DIR, on our runtime, crun and runc
  compat [--docker-py DIR] [--bollard DIR] [--only TEXT] [--programs DIR | --on-docker]
                     run the integration suites of Docker's clients, checked out in DIR, against a fresh engine
  corpus --record    write down what Docker makes of the Dockerfiles of tests/compat, and compare with what we make of them
  peers              make a Debian root with the peers in target/peers
  lint               rustfmt, clippy with warnings as errors, cargo-deny, tidy
  tidy [--sizes]     dependency direction, unsafe code, loose ends; the longest functions and files
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    std::env::set_current_dir(process::workspace())?;
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("setup") => setup::run_all(),
        Some("build") => programs::build(programs::Profile::parse(rest)?).map(drop),
        Some("test") => test::run_all(rest),
        Some("vm-test") => vm::run_tests(rest),
        Some("conformance") => conformance::run_all(rest),
        Some("compat") => compat::run_all(rest),
        Some("corpus") => corpus::run_all(rest),
        Some("lint") => lint::run_all(),
        Some("tidy") => tidy::run(rest),
        Some("bench") => bench::run(rest),
        Some("peers") => bench::peers::make(),
        Some(bench::inside::TASK) => bench::inside::run(rest),
        None | Some("help" | "-h" | "--help") => {
            process::say(HELP);
            Ok(())
        }
        Some(other) => anyhow::bail!("unknown task {other:?}\n{HELP}"),
    }
}
