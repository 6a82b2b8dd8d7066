//! Which program runs a container: Conex's own runtime, or another one that follows the runtime specification.
//!
//! Docker's rules: `--add-runtime` gives a program a name, `--default-runtime` chooses one for containers that ask for none. Besides
//! those, `runc` and `crun` are known where they are installed, and a container may name any program by its path.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::model::{EngineError, RuntimeView};

/// The name of our own runtime.
pub(crate) const OWN: &str = "conex";
/// Other words for it: the program's.
const OWN_ALIASES: [&str; 2] = [OWN, "conex-runtime"];
/// Runtimes that are known by their names where they are installed.
const USUAL: [&str; 2] = ["runc", "crun"];
/// What Docker's daemons call runc in the containers that they describe; whoever recreates such a container brings the word along.
const DOCKERS_RUNC: &str = "io.containerd.runc.v2";

/// Runtimes that were configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeOptions {
    /// `--add-runtime`: names, and programs by path or by a name at the PATH.
    pub added: Vec<(String, PathBuf)>,
    /// `--default-runtime`
    pub default: Option<String>,
}

impl RuntimeOptions {
    /// Takes one `NAME=PATH`, by Docker's rules and in its words.
    pub fn add(&mut self, text: &str) -> Result<(), EngineError> {
        let invalid = || EngineError::invalid(format!("invalid runtime argument: {text}"));
        let (name, path) = text.split_once('=').ok_or_else(invalid)?;
        let (name, path) = (name.trim().to_ascii_lowercase(), path.trim());
        if name.is_empty() || path.is_empty() || name.contains('/') {
            return Err(invalid());
        }
        if OWN_ALIASES.contains(&name.as_str()) {
            return Err(EngineError::invalid(format!("runtime name '{name}' is reserved")));
        }
        if self.added.iter().any(|(known, _)| *known == name) {
            return Err(EngineError::invalid(format!("runtime '{name}' was already defined")));
        }
        self.added.push((name, path.into()));
        Ok(())
    }
}

/// Who runs a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// The monitor itself.
    Own,
    /// This program.
    Program(PathBuf),
}

/// All runtimes of an engine.
#[derive(Debug)]
pub(crate) struct Runtimes {
    own: PathBuf,
    programs: BTreeMap<String, PathBuf>,
    default: String,
}

impl Runtimes {
    /// Finds the usual ones at the PATH and adds those that were configured.
    pub(crate) fn new(own: &Path, options: &RuntimeOptions) -> Result<Runtimes, EngineError> {
        let usual = USUAL.iter().filter_map(|name| Some(((*name).to_owned(), find(Path::new(name))?)));
        let mut programs: BTreeMap<String, PathBuf> = usual.collect();
        for (name, path) in &options.added {
            // One that is not there may be installed later: only its use is an error, as in Docker.
            programs.insert(name.clone(), find(path).unwrap_or_else(|| path.clone()));
        }
        let mut runtimes = Runtimes { own: own.to_owned(), programs, default: OWN.to_owned() };
        if let Some(default) = &options.default {
            if runtimes.find(default).is_err() {
                return Err(EngineError::invalid(format!("specified default runtime '{default}' does not exist")));
            }
            runtimes.default.clone_from(default);
        }
        Ok(runtimes)
    }

    /// The runtime of this name; nothing means the default.
    pub(crate) fn find(&self, name: &str) -> Result<Runtime, EngineError> {
        let name = if name.is_empty() { self.default.as_str() } else { name };
        let name = if name == DOCKERS_RUNC { "runc" } else { name };
        if OWN_ALIASES.contains(&name) {
            return Ok(Runtime::Own);
        }
        match self.programs.get(name) {
            Some(path) => Ok(Runtime::Program(path.clone())),
            // Docker's default: a description that names it asks for nothing special.
            None if name == "runc" => Ok(Runtime::Own),
            None if Path::new(name).is_absolute() && is_program(Path::new(name)) => Ok(Runtime::Program(name.into())),
            None => Err(EngineError::invalid(format!("unknown or invalid runtime name: {name}"))),
        }
    }

    /// The name that a container's record keeps: what it asked for, checked, or the default's.
    pub(crate) fn name_for(&self, asked: String) -> Result<String, EngineError> {
        self.find(&asked)?;
        Ok(if asked.is_empty() { self.default.clone() } else { asked })
    }

    /// The name of the default.
    pub(crate) fn default_name(&self) -> &str {
        &self.default
    }

    /// All that have a name.
    pub(crate) fn views(&self) -> Vec<RuntimeView> {
        let view = |name: &str, path: &Path| RuntimeView { name: name.to_owned(), path: path.to_owned() };
        let others = self.programs.iter().map(|(name, path)| view(name, path));
        std::iter::once(view(OWN, &self.own)).chain(others).collect()
    }
}

/// A program by its path, or by its name at the PATH.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return is_program(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_absolute() && is_program(path))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{Runtime, RuntimeOptions, Runtimes};

    fn options(added: &[&str], default: Option<&str>) -> RuntimeOptions {
        let mut options = RuntimeOptions { default: default.map(str::to_owned), ..RuntimeOptions::default() };
        added.iter().for_each(|text| options.add(text).unwrap());
        options
    }

    #[test]
    fn names_are_found_and_others_refused() {
        let own = "/usr/lib/conex-runtime".as_ref();
        let runtimes = Runtimes::new(own, &options(&["Mine=/bin/sh", "gone=/no/such"], Some("mine"))).unwrap();
        for name in ["conex", "conex-runtime"] {
            assert_eq!(runtimes.find(name).unwrap(), Runtime::Own, "{name}");
        }
        for name in ["mine", "", "/bin/sh"] {
            assert_eq!(runtimes.find(name).unwrap(), Runtime::Program("/bin/sh".into()), "{name}");
        }
        assert_eq!(runtimes.find("gone").unwrap(), Runtime::Program("/no/such".into()), "only its use is an error");
        assert_eq!(runtimes.find("runc").unwrap(), runtimes.find("io.containerd.runc.v2").unwrap());
        for name in ["kata", "/no/such", "/etc", "bin/sh", "/etc/passwd"] {
            let error = runtimes.find(name).unwrap_err();
            assert_eq!(error.message(), format!("unknown or invalid runtime name: {name}"));
        }
        let names: Vec<String> = runtimes.views().into_iter().map(|view| view.name).collect();
        assert!(names.contains(&"conex".to_owned()) && names.contains(&"mine".to_owned()), "{names:?}");
    }

    #[test]
    fn senseless_configurations_are_refused_in_dockers_words() {
        let mut added = options(&["one=/x"], None);
        for (text, message) in [
            ("one", "invalid runtime argument: one"),
            ("=/x", "invalid runtime argument: =/x"),
            ("a/b=/x", "invalid runtime argument: a/b=/x"),
            ("conex=/x", "runtime name 'conex' is reserved"),
            ("one=/y", "runtime 'one' was already defined"),
        ] {
            assert_eq!(added.add(text).unwrap_err().message(), message);
        }
        let error = Runtimes::new("/own".as_ref(), &options(&[], Some("nosuch"))).unwrap_err();
        assert_eq!(error.message(), "specified default runtime 'nosuch' does not exist");
    }
}
