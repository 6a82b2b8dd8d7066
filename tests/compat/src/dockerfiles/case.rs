//! A case as it is written down.
//!
//! ```text
//! # What it shows.
//! build: ARGUMENTS of `docker build`; {context} stands for the folder
//! reason: why Docker 26 cannot tell, where it cannot
//! conex [DOCKERFILE] (WHY): a LINE that is true of Conex instead of Docker's about the same file, or `fails`
//! == PATH [MODE] [ATTRIBUTE=HEXADECIMAL]
//! the file's text
//! == prepare
//! a script for the shell, run in the context: links, pipes, archives
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::Host;

/// One or several Dockerfiles with their context.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) arguments: Vec<String>,
    pub(super) reason: Option<String>,
    /// Of which Dockerfile, and what is true of Conex.
    different: Vec<(String, String)>,
    files: Vec<File>,
    prepare: String,
}

#[derive(Debug)]
struct File {
    path: String,
    mode: u32,
    attribute: Option<(String, Vec<u8>)>,
    text: String,
}

impl Case {
    /// Reads a case; what is wrong with it fails the test.
    pub(super) fn parse(text: &str) -> Case {
        let mut case = Case::default();
        let mut sections = format!("\n{text}").split("\n== ").map(str::to_owned).collect::<Vec<_>>().into_iter();
        for line in sections.next().unwrap_or_default().lines().filter(|line| !line.is_empty()) {
            match line.split_once(": ") {
                _ if line.starts_with('#') => {}
                Some(("build", words)) => case.arguments = words.split_whitespace().map(str::to_owned).collect(),
                Some(("reason", reason)) => case.reason = Some(reason.to_owned()),
                Some((head, fact)) if head.starts_with("conex ") && head.ends_with(')') => {
                    let named = head.split(' ').nth(1).filter(|word| !word.starts_with('('));
                    case.different.push((named.unwrap_or("Dockerfile").to_owned(), fact.to_owned()));
                }
                _ => panic!("a case has no line {line:?}"),
            }
        }
        for section in sections {
            let (head, body) = section.split_once('\n').unwrap_or((&section, ""));
            let body = if body.is_empty() || body.ends_with('\n') { body.to_owned() } else { format!("{body}\n") };
            match head {
                "prepare" => case.prepare = body,
                _ => case.files.push(File::parse(head, body)),
            }
        }
        case
    }

    /// The Dockerfiles, each of which is built.
    pub(super) fn dockerfiles(&self) -> Vec<String> {
        let several = self.files.iter().map(|file| &file.path).filter(|path| path.starts_with("Dockerfile."));
        let several: Vec<String> = several.cloned().collect();
        if several.is_empty() { vec!["Dockerfile".to_owned()] } else { several }
    }

    /// What is to come of a Dockerfile on Conex, where that is deliberately not what comes of it on Docker.
    pub(super) fn on_conex(&self, dockerfile: &str, docker: &str) -> String {
        let mut lines: Vec<String> = docker.lines().map(str::to_owned).collect();
        for (_, fact) in self.different.iter().filter(|(name, _)| name == dockerfile) {
            if fact == "fails" {
                lines = vec!["fails deliberately".to_owned()];
                continue;
            }
            let path = fact.split(' ').nth(1);
            let known = lines.iter_mut().find(|line| line.split(' ').nth(1) == path && !line.starts_with("history "));
            match known {
                Some(line) => line.clone_from(fact),
                None => lines.push(fact.clone()),
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Writes the context; what is in it has one time unless the script gave it another.
    pub(super) fn write(&self, host: &Host, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for file in &self.files {
            file.write(folder);
        }
        let times = "find . -newermt 2024-01-01 -print0 | xargs -0 -r touch -h -d @1700000000";
        let script = format!("set -e; umask 022; cd \"$0\"\n{}\n{times}", self.prepare);
        host.program("bash").args(["-c", &script]).arg(folder).ok();
    }
}

impl File {
    /// A head names the path, perhaps with blanks in it, and what else is known.
    fn parse(head: &str, text: String) -> File {
        let mut file = File { path: head.to_owned(), mode: 0o644, attribute: None, text };
        if let Some((rest, word)) = file.path.rsplit_once(' ')
            && let Some((name, value)) = word.split_once('=')
        {
            let byte = |at: usize| u8::from_str_radix(&value[at..at + 2], 16).unwrap();
            file.attribute = Some((name.to_owned(), (0..value.len()).step_by(2).map(byte).collect()));
            file.path = rest.to_owned();
        }
        if let Some((rest, word)) = file.path.rsplit_once(' ')
            && word.len() == 4
            && let Ok(mode) = u32::from_str_radix(word, 8)
        {
            (file.mode, file.path) = (mode, rest.to_owned());
        }
        file
    }

    fn write(&self, folder: &Path) {
        let path = folder.join(&self.path);
        let mut above = path.parent().unwrap();
        std::fs::create_dir_all(above).unwrap();
        while above != folder {
            std::fs::set_permissions(above, PermissionsExt::from_mode(0o755)).unwrap();
            above = above.parent().unwrap();
        }
        std::fs::write(&path, &self.text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(self.mode)).unwrap();
        if let Some((name, value)) = &self.attribute {
            rustix::fs::setxattr(&path, name.as_str(), value, rustix::fs::XattrFlags::empty()).unwrap();
        }
    }
}
