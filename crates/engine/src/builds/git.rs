//! Repositories, fetched by Debian's git as a helper program: as nobody, with a clean environment, no configuration of this machine, no
//! hooks, no prompts, and only protocols that reach servers. Addresses and references come after `--`, and were checked before. Servers of
//! the web are told who asks by what the client has under BuildKit's names for that.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use archive::pipe;
use base64::Engine as _;
use builder::{Context, HostError, Repository};
use dockerfile::ignore::Ignore;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::scratch::Scratch;
use super::sources::Answers;

/// Who runs git.
const NOBODY: u32 = 65534;
/// How often a running git is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What git may say at most.
const WORDS_MAX: usize = 4096;

/// Whether `.git` is part of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metadata {
    Kept,
    Dropped,
}

/// For whom repositories are fetched.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// Where contexts are kept.
    pub(super) contexts: &'a Path,
    pub(super) answers: &'a Answers,
    /// Whether nobody wants it any more.
    pub(super) stopped: &'a dyn Fn() -> bool,
}

/// The files of a repository; a folder of it where the address names one.
pub(super) fn clone(address: &str, asking: Asking<'_>, metadata: Metadata) -> Result<Context, HostError> {
    let Asking { contexts, answers, stopped } = asking;
    let repository = Repository::parse(address).map_err(failed)?;
    // In the machine's own folder for such things: nobody may not enter the engine's.
    let folder = Scratch::create(&std::env::temp_dir(), &prefix(contexts)).map_err(failed)?;
    folder.give_to(NOBODY).map_err(failed)?;
    let authorization = authorization(&repository.url, &|id| answers.secret(id))?;
    let git = Git { folder: folder.path(), authorization, stopped };
    git.run(&["init", "--quiet", "--template=", "."])?;
    let reference = repository.reference.as_deref().unwrap_or("HEAD");
    let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", &repository.url, reference];
    if git.run(&shallow).is_err() {
        // A server that gives no single commits gives everything.
        let branches = ["+HEAD:refs/remotes/origin/HEAD", "+refs/heads/*:refs/remotes/origin/*"];
        git.run(&[&["fetch", "--quiet", "--tags", "--", &repository.url], &branches[..]].concat())?;
        let commit =
            git.output(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{reference}^{{commit}}")]);
        let commit = commit.or_else(|_| {
            git.output(&["rev-parse", "--verify", "--end-of-options", &format!("origin/{reference}^{{commit}}")])
        })?;
        git.run(&["checkout", "--quiet", "--detach", commit.trim()])?;
    } else {
        git.run(&["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
    }
    git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
    read(folder.path(), &repository, contexts, metadata)
}

fn read(folder: &Path, repository: &Repository, contexts: &Path, metadata: Metadata) -> Result<Context, HostError> {
    let root = open(rustix::fs::CWD, folder).map_err(failed)?;
    let root = match &repository.subdirectory {
        None => root,
        // A symbolic link in it would lead out of the repository.
        Some(below) => {
            open(&root, Path::new(below)).map_err(|error| HostError(format!("git subdirectory {below:?}: {error}")))?
        }
    };
    let tar = pipe::produce("git-context", move |output| {
        use std::os::fd::AsFd;
        archive::export::tree(root.as_fd(), &archive::ids::Ids::default(), output)
    });
    let mut context = Context::read(Box::new(tar.map_err(failed)?), contexts).map_err(failed)?;
    if metadata == Metadata::Dropped {
        context.ignore(&Ignore::of([".git"]).map_err(failed)?);
    }
    Ok(context)
}

fn open(at: impl std::os::fd::AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve =
        if path.is_absolute() { ResolveFlags::empty() } else { ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS };
    rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
}

/// What the names of an engine's folders begin with: several engines share the machine's folder.
fn prefix(contexts: &Path) -> String {
    let own = oci::Digest::of(contexts.as_os_str().as_encoded_bytes()).hex();
    format!("conex-git-{}-", &own[..12])
}

/// Removes what an engine with these contexts left when it died.
pub(super) fn sweep(contexts: &Path) {
    let prefix = prefix(contexts);
    for file in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_dir_all(file.path());
        }
    }
}

/// What a server of the web is told about who asks: a setting of git's for its addresses, from the secret `GIT_AUTH_HEADER` or
/// `GIT_AUTH_TOKEN`; one that has the server behind its name comes before one for all servers.
fn authorization(url: &str, secret: &Secret<'_>) -> Result<Option<Setting>, HostError> {
    let Some((_, rest)) = url.split_once("://").filter(|_| builder::is_web(url)) else { return Ok(None) };
    let place = rest.split('/').next().unwrap_or_default();
    let server = place.rsplit_once('@').map_or(place, |(_, server)| server);
    for name in [format!("{HEADER}.{server}"), format!("{TOKEN}.{server}"), HEADER.to_owned(), TOKEN.to_owned()] {
        let Some(bytes) = secret(&name)? else { continue };
        let said = if name.starts_with(TOKEN) {
            format!(
                "basic {}",
                base64::engine::general_purpose::STANDARD.encode([TOKEN_USER, bytes.trim_ascii()].concat())
            )
        } else {
            String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
        };
        if said.is_empty() || said.contains(char::is_control) {
            return Err(HostError(format!("secret {name} is nothing that a server can be told")));
        }
        // One of GitHub's is for all that is there, submodules too, as with BuildKit.
        let scope = if server == GITHUB { format!("https://{GITHUB}/") } else { url.to_owned() };
        return Ok(Some((format!("http.{scope}.extraheader"), format!("Authorization: {said}"))));
    }
    Ok(None)
}

/// What is known under a name.
type Secret<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, HostError> + 'a;

/// A setting of git's and its value.
type Setting = (String, String);

const HEADER: &str = "GIT_AUTH_HEADER";
const TOKEN: &str = "GIT_AUTH_TOKEN";
/// Who it is whose password is a token.
const TOKEN_USER: &[u8] = b"x-access-token:";
const GITHUB: &str = "github.com";

struct Git<'a> {
    folder: &'a Path,
    authorization: Option<Setting>,
    stopped: &'a dyn Fn() -> bool,
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<(), HostError> {
        self.output(arguments).map(drop)
    }

    fn output(&self, arguments: &[&str]) -> Result<String, HostError> {
        let mut command = Command::new("git");
        let settings = ["core.hooksPath=/dev/null", "protocol.file.allow=never", "core.fsmonitor=false"];
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.args(arguments).current_dir(self.folder).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.folder);
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git");
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes").env("LC_ALL", "C");
        for name in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some((name, value)) = &self.authorization {
            // Not among the arguments, which everybody may read.
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", name).env("GIT_CONFIG_VALUE_0", value);
        }
        command.uid(NOBODY).gid(NOBODY).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                HostError("building from a repository needs the program git, which is not installed here".to_owned())
            }
            _ => HostError(format!("cannot start git: {error}")),
        })?;
        self.wait(child, arguments[0])
    }

    fn wait(&self, mut child: Child, what: &str) -> Result<String, HostError> {
        let (output, words) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if (self.stopped)() {
                if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                return Err(HostError("build cancelled".to_owned()));
            }
            std::thread::sleep(LOOK);
        };
        let words = words.join().unwrap_or_default();
        if !status.success() {
            return Err(HostError(format!("git {what} failed: {}", words.trim())));
        }
        Ok(output.join().unwrap_or_default())
    }
}

/// Reads a stream to its end and keeps its beginning.
fn drain(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
        let Some(mut stream) = stream else { return String::new() };
        while let Ok(length) = std::io::Read::read(&mut stream, &mut piece) {
            if length == 0 {
                break;
            }
            kept.extend_from_slice(&piece[..length.min(WORDS_MAX.saturating_sub(kept.len()))]);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_engine_left_goes_and_what_others_have_stays() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let left = |contexts: &Path| std::env::temp_dir().join(format!("{}left", prefix(contexts)));
        for contexts in [own.path(), other.path()] {
            std::fs::create_dir_all(left(contexts).join(".git")).unwrap();
        }
        sweep(own.path());
        let is_there = [own.path(), other.path()].map(|contexts| left(contexts).exists());
        sweep(other.path());
        assert_eq!(is_there, [false, true]);
    }

    #[test]
    fn servers_are_told_what_is_for_them() {
        let told = |url: &str, known: &[(&str, &str)]| {
            let find =
                |id: &str| Ok(known.iter().find(|(name, _)| *name == id).map(|(_, text)| text.as_bytes().to_vec()));
            authorization(url, &find)
        };
        let setting =
            |scope: &str, said: &str| Ok(Some((format!("http.{scope}.extraheader"), format!("Authorization: {said}"))));
        let (url, both) = ("http://h:80/a.git", [(HEADER, "bearer x\n"), ("GIT_AUTH_TOKEN.h:80", "t")]);
        assert_eq!(told(url, &both), setting(url, "basic eC1hY2Nlc3MtdG9rZW46dA=="));
        assert_eq!(told("https://u@other/a.git", &both), setting("https://u@other/a.git", "bearer x"));
        assert_eq!(told("https://github.com/a/b.git", &both), setting("https://github.com/", "bearer x"));
        assert_eq!(told("git://h:80/a", &both), Ok(None));
        assert_eq!(told(url, &[]), Ok(None));
        assert!(told(url, &[(HEADER, "a\nHost: b")]).is_err());
    }
}
