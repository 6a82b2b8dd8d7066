//! The files of builds as they leave the engine: a tree for each platform, and beside its files what is attested about them.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use archive::export::Part;
use archive::trail::Trail;
use oci::{Digest, Digester};
use rustix::fs::{Dir, FileType, Mode, OFlags};

use super::export::BuiltFiles;
use super::{Attested, BuildResult};
use crate::engine::Engine;
use crate::model::EngineError;

/// How files are put out, in the words of BuildKit's exporters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// What the names of statements begin with.
    pub attestation_prefix: String,
    /// Whether each platform has a folder of its own; where nothing is said, if there are several. Else their files must not meet.
    pub platform_split: Option<bool>,
}

/// What was built for one platform.
#[derive(Debug)]
pub struct BuiltTree {
    folder: String,
    files: BuiltFiles,
    statements: Vec<(String, Vec<u8>)>,
}

impl BuiltTree {
    /// The folder that it is put into; empty where it is the top.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.files.root()
    }

    fn as_part(&self) -> Part<'_> {
        Part { folder: self.folder.as_bytes(), root: self.root(), files: &self.statements }
    }

    /// Files beside what is in the root, by their names there.
    pub fn statements(&self) -> &[(String, Vec<u8>)] {
        &self.statements
    }
}

impl Engine {
    /// The files of what was built, with what is attested about them; blocks.
    pub fn built_trees(
        &self,
        results: &[Arc<BuildResult>],
        options: &TreeOptions,
    ) -> Result<Vec<BuiltTree>, EngineError> {
        let several = results.len() > 1;
        let is_split = options.platform_split.unwrap_or(several);
        let tree = |result: &Arc<BuildResult>| {
            let platform = result.platform().replace('/', "_");
            let files = self.built_files(result)?;
            let mark = if several && !is_split { format!(".{platform}") } else { String::new() };
            let names = StatementNames { prefix: &options.attestation_prefix, mark: &mark };
            let statements = statements(files.root(), &result.attested, names)?;
            Ok(BuiltTree { folder: if is_split { platform } else { String::new() }, files, statements })
        };
        let trees = results.iter().map(tree).collect::<Result<Vec<_>, EngineError>>()?;
        if several && !is_split {
            let mut taken = Taken::default();
            for (result, tree) in results.iter().zip(&trees) {
                taken.add(&result.platform(), tree)?;
            }
        }
        Ok(trees)
    }
}

/// The paths that trees have which are put into one folder.
#[derive(Debug, Default)]
struct Taken {
    /// Whose each is, and whether it is a directory, which several may have.
    paths: HashMap<String, (String, bool)>,
}

impl Taken {
    fn add(&mut self, platform: &str, tree: &BuiltTree) -> Result<(), EngineError> {
        let root = open(tree.root(), ".", OFlags::DIRECTORY).map_err(unreadable)?;
        let mut met = None;
        let mut take = |path: String, is_directory: bool| {
            if met.is_none() {
                met = self.take(platform, path, is_directory);
            }
        };
        walk(root, &mut |file| {
            take(file.path, file.kind == FileType::Directory);
            Ok(())
        })
        .map_err(unreadable)?;
        tree.statements.iter().for_each(|(name, _)| take(name.clone(), false));
        match met {
            None => Ok(()),
            // In BuildKit's words.
            Some((path, other)) => Err(EngineError::invalid(format!(
                "cannot overwrite {path} from {other} with {platform} when split option is disabled"
            ))),
        }
    }

    /// Takes a path; gives it back, with whose it is, where another platform's file is there.
    fn take(&mut self, platform: &str, path: String, is_directory: bool) -> Option<(String, String)> {
        match self.paths.get(&path) {
            Some((_, true)) if is_directory => None,
            Some((other, _)) => Some((path, other.clone())),
            None => {
                self.paths.insert(path, (platform.to_owned(), is_directory));
                None
            }
        }
    }
}

/// Writes trees as a tar, in which the root has no entry, as BuildKit has it.
pub fn write_trees(trees: &[BuiltTree], output: &mut dyn Write) -> io::Result<()> {
    let parts = trees.iter().map(BuiltTree::as_part).collect::<Vec<_>>();
    archive::export::parts(&parts, &archive::ids::Ids::default(), output)
}

/// What the names of statements are made of besides that of what they say.
#[derive(Debug, Clone, Copy)]
struct StatementNames<'a> {
    prefix: &'a str,
    /// Stands before their extension.
    mark: &'a str,
}

impl StatementNames<'_> {
    fn of(&self, file: &str) -> String {
        let StatementNames { prefix, mark } = self;
        match file.rsplit_once('.') {
            Some((stem, extension)) => format!("{prefix}{stem}{mark}.{extension}"),
            None => format!("{prefix}{file}{mark}"),
        }
    }
}

/// What is attested, as statements about all files below `root`.
fn statements(
    root: BorrowedFd<'_>,
    attested: &[Attested],
    names: StatementNames<'_>,
) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
    if attested.is_empty() {
        return Ok(Vec::new());
    }
    let prefix = names.prefix;
    if prefix.contains('/') {
        return Err(EngineError::invalid(format!(
            "invalid attestation-prefix {prefix:?}: it is part of a file's name"
        )));
    }
    // A root that only names its directory cannot be listed.
    let subjects = open(root, ".", OFlags::DIRECTORY).and_then(subjects_below).map_err(unreadable)?;
    let mut statements: Vec<(String, Vec<u8>)> = Vec::new();
    for Attested { file, predicate } in attested {
        let name = names.of(file);
        let is_taken = rustix::fs::statat(root, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if is_taken || statements.iter().any(|(known, _)| *known == name) {
            return Err(EngineError::invalid(format!("duplicate attestation path name {name}")));
        }
        let statement = images::statement_about(&subjects, predicate);
        let text = serde_json::to_vec_pretty(&statement).map_err(|error| unreadable(error.into()))?;
        statements.push((name, text));
    }
    Ok(statements)
}

fn unreadable(error: io::Error) -> EngineError {
    EngineError::system("cannot read what was built", error)
}

/// Every file below a directory with its digest, in the order of the names.
fn subjects_below(root: OwnedFd) -> io::Result<Vec<(String, Digest)>> {
    let mut subjects = Vec::new();
    walk(root, &mut |file| {
        if file.kind == FileType::RegularFile {
            let mut digester = Digester::new();
            let bytes = open(file.directory, file.name, OFlags::NONBLOCK)?;
            io::copy(&mut std::fs::File::from(bytes), &mut digester)?;
            subjects.push((file.path, digester.finish()));
        }
        Ok(())
    })?;
    Ok(subjects)
}

/// A file that is walked by.
struct Passed<'a> {
    directory: BorrowedFd<'a>,
    name: &'a CStr,
    kind: FileType,
    /// As text, which is all that JSON has; names may be any bytes.
    path: String,
}

/// Goes through everything below a directory, in the order of the names.
fn walk(root: OwnedFd, visit: &mut dyn FnMut(Passed<'_>) -> io::Result<()>) -> io::Result<()> {
    let names = sorted_names(root.as_fd())?;
    let mut trail = Trail::new(root, (names, String::new()));
    while let Some((directory, (names, above))) = trail.lowest() {
        let Some((name, kind)) = names.next() else {
            trail.leave()?;
            continue;
        };
        let text = name.to_string_lossy();
        let path = if above.is_empty() { text.into_owned() } else { format!("{above}/{text}") };
        visit(Passed { directory, name: &name, kind, path: path.clone() })?;
        if kind == FileType::Directory {
            let below = open(directory, &name, OFlags::DIRECTORY)?;
            let names = sorted_names(below.as_fd())?;
            trail.enter(below, (names, path))?;
        }
    }
    Ok(())
}

/// What is in a directory, by name.
fn sorted_names(directory: BorrowedFd<'_>) -> io::Result<std::vec::IntoIter<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(names.into_iter())
}

fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn statements_are_about_every_file_and_hide_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for (path, text) in [("b/c", "1"), ("a", "2")] {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"d\xff");
        std::fs::write(folder.path().join(odd), "3").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let root = std::fs::File::open(folder.path()).unwrap();
        let predicate = images::Predicate { kind: "kind".to_owned(), value: json!({ "said": 1 }) };
        let attested = [Attested { file: "x.json".to_owned(), predicate }];
        let names = |prefix| StatementNames { prefix, mark: "" };
        let made = statements(root.as_fd(), &attested, names("p-")).unwrap();
        assert_eq!(made.len(), 1);
        let (name, text) = &made[0];
        let statement: Value = serde_json::from_slice(text).unwrap();
        let subject =
            |name: &str, text: &str| json!({ "name": name, "digest": { "sha256": Digest::of(text.as_bytes()).hex() } });
        assert_eq!((name.as_str(), &statement["predicateType"]), ("p-x.json", &json!("kind")));
        assert_eq!(statement["subject"], json!([subject("a", "2"), subject("b/c", "1"), subject("d\u{fffd}", "3")]));
        std::fs::write(folder.path().join("x.json"), "").unwrap();
        assert!(statements(root.as_fd(), &attested, names("")).unwrap_err().message().contains("x.json"));
        assert!(statements(root.as_fd(), &attested, names("../")).is_err());
    }

    #[test]
    fn files_of_platforms_in_one_folder_must_not_meet() {
        let mut taken = Taken::default();
        let mut take = |platform: &str, path: &str, is_directory| taken.take(platform, path.to_owned(), is_directory);
        assert_eq!((take("a", "bin", true), take("a", "bin/x", false)), (None, None));
        assert_eq!((take("b", "bin", true), take("b", "bin/y", false)), (None, None));
        let met = |path: &str| Some((path.to_owned(), "a".to_owned()));
        assert_eq!((take("b", "bin/x", false), take("b", "bin", false)), (met("bin/x"), met("bin")));
        assert_eq!(take("b", "bin/x", true), met("bin/x"));
        let names = StatementNames { prefix: "p-", mark: ".linux_386" };
        assert_eq!(names.of("sbom.spdx.json"), "p-sbom.spdx.linux_386.json");
    }
}
