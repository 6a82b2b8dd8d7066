//! The files of builds as they leave the engine: a tree for each platform, and beside its files what is attested about them.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use archive::export::Part;
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
    /// Whether each platform has a folder of its own; where nothing is said, if there are several.
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
        let is_split = options.platform_split.unwrap_or(results.len() > 1);
        if results.len() > 1 && !is_split {
            return Err(EngineError::not_implemented("platform-split=false of several platforms is not supported"));
        }
        let tree = |result: &Arc<BuildResult>| {
            let folder = if is_split { result.platform().replace('/', "_") } else { String::new() };
            let files = self.built_files(result)?;
            let statements = statements(files.root(), &result.attested, &options.attestation_prefix)?;
            Ok(BuiltTree { folder, files, statements })
        };
        results.iter().map(tree).collect()
    }
}

/// Writes trees as a tar, in which the root has no entry, as BuildKit has it.
pub fn write_trees(trees: &[BuiltTree], output: &mut dyn Write) -> io::Result<()> {
    let parts = trees.iter().map(BuiltTree::as_part).collect::<Vec<_>>();
    archive::export::parts(&parts, &archive::ids::Ids::default(), output)
}

/// What is attested, as statements about all files below `root`.
fn statements(
    root: BorrowedFd<'_>,
    attested: &[Attested],
    prefix: &str,
) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
    if attested.is_empty() {
        return Ok(Vec::new());
    }
    if prefix.contains('/') {
        return Err(EngineError::invalid(format!(
            "invalid attestation-prefix {prefix:?}: it is part of a file's name"
        )));
    }
    let failed = |error: io::Error| EngineError::system("cannot read what was built", error);
    let mut subjects = Vec::new();
    // A root that only names its directory cannot be listed.
    subjects_below(&open(root, ".", OFlags::DIRECTORY).map_err(failed)?, "", &mut subjects).map_err(failed)?;
    let mut statements: Vec<(String, Vec<u8>)> = Vec::new();
    for Attested { file, predicate } in attested {
        let name = format!("{prefix}{file}");
        let is_taken = rustix::fs::statat(root, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if is_taken || statements.iter().any(|(known, _)| *known == name) {
            return Err(EngineError::invalid(format!("duplicate attestation path name {name}")));
        }
        let statement = images::statement_about(&subjects, predicate);
        let text = serde_json::to_vec_pretty(&statement).map_err(|error| failed(error.into()))?;
        statements.push((name, text));
    }
    Ok(statements)
}

/// Every file in a directory with its digest.
fn subjects_below(directory: &OwnedFd, above: &str, subjects: &mut Vec<(String, Digest)>) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        names.push((entry.file_name().to_owned(), entry.file_type()));
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, kind) in names {
        // JSON has no names but text; files may have any.
        let text = name.to_string_lossy();
        let path = if above.is_empty() { text.clone().into_owned() } else { format!("{above}/{text}") };
        match kind {
            _ if text == "." || text == ".." => {}
            FileType::Directory => {
                let below = open(directory.as_fd(), &name, OFlags::DIRECTORY)?;
                subjects_below(&below, &path, subjects)?;
            }
            FileType::RegularFile => {
                let mut digester = Digester::new();
                let file = open(directory.as_fd(), &name, OFlags::NONBLOCK)?;
                io::copy(&mut std::fs::File::from(file), &mut digester)?;
                subjects.push((path, digester.finish()));
            }
            _ => {}
        }
    }
    Ok(())
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
        let made = statements(root.as_fd(), &attested, "p-").unwrap();
        assert_eq!(made.len(), 1);
        let (name, text) = &made[0];
        let statement: Value = serde_json::from_slice(text).unwrap();
        let subject =
            |name: &str, text: &str| json!({ "name": name, "digest": { "sha256": Digest::of(text.as_bytes()).hex() } });
        assert_eq!((name.as_str(), &statement["predicateType"]), ("p-x.json", &json!("kind")));
        assert_eq!(statement["subject"], json!([subject("a", "2"), subject("b/c", "1"), subject("d\u{fffd}", "3")]));
        std::fs::write(folder.path().join("x.json"), "").unwrap();
        assert!(statements(root.as_fd(), &attested, "").unwrap_err().message().contains("x.json"));
        assert!(statements(root.as_fd(), &attested, "../").is_err());
    }
}
