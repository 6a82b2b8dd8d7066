//! `checkpoint` and `restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use oci::runtime::Status;
use runtime::{CriuOptions, RestoreRequest, Saved, StateDirectory};

use super::arguments::{Arguments, UsageError, only_id, required_id};
use super::container::{find, parse_id, write_pid_file};
use super::create::read_config;
use super::foreground::{Signals, Watched, stay};
use super::{CommandError, Global};

/// Switches of CRIU's that both commands have under its own names.
const SWITCHES: [&str; 8] = [
    "--tcp-established",
    "--tcp-skip-in-flight",
    "--tcp-close",
    "--ext-unix-sk",
    "--shell-job",
    "--file-locks",
    "--link-remap",
    "--auto-dedup",
];

/// The options of both commands.
#[derive(Debug, Default)]
struct Options {
    id: String,
    criu: CriuOptions,
    bundle: PathBuf,
    pid_file: Option<String>,
    detach: bool,
}

impl Options {
    fn parse(mut arguments: Arguments) -> Result<Options, UsageError> {
        let mut options = Options { bundle: PathBuf::from("."), ..Options::default() };
        options.criu.image_path = PathBuf::from("checkpoint");
        let mut id = None;
        while let Some(word) = arguments.next()? {
            match word.as_str() {
                "--image-path" => options.criu.image_path = arguments.value()?.into(),
                "--work-path" => options.criu.work_path = arguments.value()?.into(),
                "--parent-path" => options.criu.parent_path = Some(arguments.value()?.into()),
                "--leave-running" => options.criu.leave_running = arguments.switch()?,
                "--pre-dump" => options.criu.pre_dump = arguments.switch()?,
                "--manage-cgroups-mode" => options.criu.manage_cgroups = Some(cgroup_mode(&arguments.value()?)?),
                "--empty-ns" => options.criu.switches.push(empty_namespace(&arguments.value()?)?),
                "--bundle" | "-b" => options.bundle = arguments.value()?.into(),
                "--pid-file" => options.pid_file = Some(arguments.value()?),
                "--detach" | "-d" => options.detach = arguments.switch()?,
                option @ ("--lazy-pages"
                | "--page-server"
                | "--status-fd"
                | "--lsm-profile"
                | "--lsm-mount-context") => {
                    return Err(UsageError::new(format!("{option} is not supported")));
                }
                option if SWITCHES.contains(&option) => {
                    if arguments.switch()? {
                        options.criu.switches.push(option.to_owned());
                    }
                }
                option if option.starts_with('-') => return Err(arguments.unknown(option)),
                argument => only_id(&mut id, argument)?,
            }
        }
        options.id = required_id(id)?;
        Ok(options)
    }
}

fn cgroup_mode(text: &str) -> Result<String, UsageError> {
    match text {
        "soft" | "full" | "strict" | "ignore" => Ok(text.to_owned()),
        _ => Err(UsageError::new(format!("invalid manage-cgroups-mode: {text:?}"))),
    }
}

fn empty_namespace(text: &str) -> Result<String, UsageError> {
    match text {
        "network" => Ok("--empty-ns=net".to_owned()),
        _ => Err(UsageError::new(format!("namespace {text:?} is not supported by --empty-ns"))),
    }
}

/// `checkpoint`: writes a container to images.
pub(super) fn checkpoint(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let options = Options::parse(arguments)?;
    let found = find(global, &options.id)?;
    if !matches!(found.status, Status::Running | Status::Paused) {
        return Err(CommandError::Refused("container not running".to_owned()));
    }
    runtime::checkpoint(&found.saved, &options.criu)?;
    if !options.criu.leave_running && !options.criu.pre_dump {
        super::operate::remove(global, &found, &options.id, true)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `restore`: makes a container again from images.
pub(super) fn restore(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let options = Options::parse(arguments)?;
    let bundle = options.bundle.canonicalize().map_err(CommandError::file(options.bundle.display().to_string()))?;
    let spec = read_config(&bundle.join("config.json"))?;
    let Some(root) = &spec.root else { return Err(CommandError::Refused("root must be specified".to_owned())) };
    let rootfs = bundle.join(&root.path);
    let rootfs = rootfs.canonicalize().map_err(CommandError::file(format!("invalid rootfs {}", rootfs.display())))?;
    let signals = if options.detach { None } else { Some(Signals::take()?) };
    if !options.detach {
        linux::credentials::become_subreaper().map_err(CommandError::system("prctl"))?;
    }
    let directory = StateDirectory::claim(&global.root, &parse_id(&options.id)?)?;
    let request = RestoreRequest {
        id: &options.id,
        spec: &spec,
        rootfs: &rootfs,
        cgroup: global.cgroups,
        options: &options.criu,
    };
    let running = runtime::restore(&request).inspect_err(|_| {
        let _the_first_error_is_told = directory.remove();
    })?;
    let saved = Saved::of(&running, &spec, &bundle, &rootfs);
    directory.save(&saved)?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, saved.pid)?;
    }
    directory.run_poststart(&saved)?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let code = stay(Watched { pid: running.pid, pidfd: &running.pidfd, console: None, notify: None }, &signals)?;
    super::create::tell(global, directory.delete(&saved)?);
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, UsageError> {
        Options::parse(Arguments::new(words.iter().map(Into::into).collect()))
    }

    #[test]
    fn switches_are_handed_to_criu_and_what_is_not_supported_is_named() {
        let options = parse(&["--tcp-established", "--file-locks=false", "id", "--image-path", "/i"]).unwrap();
        assert_eq!(options.criu.switches, ["--tcp-established"]);
        assert_eq!((options.id.as_str(), options.criu.image_path.to_str()), ("id", Some("/i")));
        assert!(parse(&["--lazy-pages", "id"]).unwrap_err().to_string().contains("--lazy-pages is not supported"));
        assert!(parse(&["--manage-cgroups-mode", "x", "id"]).is_err());
    }
}
