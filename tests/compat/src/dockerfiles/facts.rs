//! What came of a build, as lines that people can read: the configuration, the history, and every file that the base does not have so.
//!
//! ```text
//! {"architecture":"amd64", …}                           the configuration
//! history "COPY a /b # buildkit" layer                  one line a step
//! file /b 0644 0:0 1700000000 "text\n"                  kind, path, mode, owner, time, contents
//! gone /home                                            a file of the base that is no more
//! ```
//!
//! What was made just now has the time `now`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use archive::tar::{Entry, EntryKind, Metadata, Reader};
use oci::Digest;
use serde_json::Value;

/// So many bytes of a text are shown; of more, its digest.
const SHOWN_BYTES_MAX: usize = 100;
/// What is younger than this was made by the build.
const JUST_NOW_SECONDS: i64 = 3600;

/// What came of a build.
#[derive(Debug)]
pub(super) struct Facts {
    /// Configuration and history, or how it failed.
    head: Vec<String>,
    /// Every file by its path.
    files: BTreeMap<String, String>,
    /// Those that are not as they were in the base, or not there any more.
    changed: BTreeSet<String>,
}

impl Facts {
    /// Facts of a failed build, from what the client wrote.
    pub(super) fn of_failure(errors: &str) -> Facts {
        let line = errors.lines().rev().find_map(|line| line.strip_prefix("ERROR: ")).unwrap_or(errors);
        Facts {
            head: vec![format!("fails {}", without_numbers(line))],
            files: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Facts of an image without layers.
    pub(super) fn of_nothing() -> Facts {
        Facts { head: vec!["no layers".to_owned()], files: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// Facts of an image that was saved and unpacked to a folder; `base` is a layer that is not told of.
    pub(super) fn of_image(folder: &Path, base: Digest) -> Facts {
        let json =
            |path: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap() };
        let manifest = json("manifest.json");
        let mut config = json(manifest[0]["Config"].as_str().unwrap());
        let layers = manifest[0]["Layers"].as_array().unwrap().clone();
        let ids = config["rootfs"]["diff_ids"].as_array().unwrap().clone();
        let (mut tree, mut before) = (Tree::default(), BTreeMap::new());
        for (layer, id) in layers.iter().zip(&ids) {
            tree.apply(File::open(folder.join(layer.as_str().unwrap())).unwrap());
            if *id == base.to_string() {
                before = tree.lines();
            }
        }
        let mut files = tree.lines();
        // Docker's layers say nothing of the root itself, so that its time is nobody's.
        for all in [&mut files, &mut before] {
            let root = all.remove("/").unwrap_or_else(|| "directory / 0755 0:0 0".to_owned());
            all.insert("/".to_owned(), without_time(&root));
        }
        let differs = |path: &&String| files.get(*path) != before.get(*path);
        let changed = files.keys().chain(before.keys()).filter(differs).cloned().collect();
        let history = config.as_object_mut().unwrap().remove("history").unwrap();
        config["rootfs"] = ids.len().into();
        config["created"] = time_of_text(&config["created"]).into();
        let head = std::iter::once(config.to_string()).chain(history.as_array().unwrap().iter().map(step)).collect();
        Facts { head, files, changed }
    }

    /// As it is recorded.
    pub(super) fn text(&self) -> String {
        let file = |path: &String| self.files.get(path).cloned().unwrap_or_else(|| format!("gone {path}"));
        self.head.iter().cloned().chain(self.changed.iter().map(file)).map(|line| line + "\n").collect()
    }

    /// What is not as it was recorded.
    ///
    /// A time that was `now` is free: which folders Docker's copying touches on its way is nothing that anybody could rely on.
    pub(super) fn differences(&self, recorded: &str) -> Vec<String> {
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        let is_file =
            |line: &&str| KINDS.iter().any(|kind| line.strip_prefix(kind).is_some_and(|rest| rest.starts_with(" /")));
        let head: Vec<&str> = recorded.lines().filter(|line| !is_file(line)).collect();
        let lines = head.len().max(self.head.len());
        for at in 0..lines {
            let (theirs, ours) = (head.get(at).copied(), self.head.get(at).map(String::as_str));
            // Both refuse it: in which words is said elsewhere.
            let refused = |line: Option<&str>| line.is_some_and(|line| line.starts_with("fails "));
            if theirs != ours && !(refused(theirs) && refused(ours)) {
                found.push(format!("\n  wanted {}\n  found  {}", theirs.unwrap_or("-"), ours.unwrap_or("-")));
            }
        }
        for line in recorded.lines().filter(is_file) {
            let (kind, rest) = line.split_once(' ').unwrap();
            let path = if kind == "gone" { rest } else { rest.split(' ').next().unwrap() };
            known.insert(path.to_owned());
            let ours = self.files.get(path).cloned().unwrap_or_else(|| format!("gone {path}"));
            if ours != line && !(line.split(' ').nth(4) == Some("now") && without_time(&ours) == without_time(line)) {
                found.push(format!("\n  wanted {line}\n  found  {ours}"));
            }
        }
        for path in self.changed.difference(&known) {
            let ours = self.files.get(path).cloned().unwrap_or_else(|| format!("gone {path}"));
            found.push(format!("\n  wanted nothing\n  found  {ours}"));
        }
        found
    }
}

/// What a line about a file begins with.
const KINDS: [&str; 7] = ["directory", "file", "link", "pipe", "character", "block", "gone"];

fn without_time(line: &str) -> String {
    line.split(' ').enumerate().filter(|(at, _)| *at != 4).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

/// The facts of one Dockerfile among those of a case.
pub(super) fn section(text: &str, dockerfile: &str) -> String {
    let text = format!("\n{text}");
    let found = text.split("\n== ").find_map(|section| section.strip_prefix(&format!("{dockerfile}\n")));
    found.unwrap_or_default().to_owned()
}

/// Takes out what is different each time.
fn without_numbers(line: &str) -> String {
    match line.split_once(" of ref ") {
        Some((before, after)) => {
            let rest = after.split_once(": ").map_or("", |(_, rest)| rest);
            format!("{before}: {rest}")
        }
        None => line.to_owned(),
    }
}

fn step(step: &Value) -> String {
    let kind = if step["empty_layer"] == true { "configuration" } else { "layer" };
    let mut line = format!("history {} {kind} {}", step["created_by"], time_of_text(&step["created"]));
    for field in ["comment", "author"] {
        if let Some(text) = step[field].as_str() {
            line += &format!(" {field}={text:?}");
        }
    }
    line
}

/// A time of a configuration: as it is, or `now`.
fn time_of_text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    // The date is enough: nothing fixed is of these days.
    let days = [now, now - JUST_NOW_SECONDS].map(date);
    if days.iter().any(|day| text.starts_with(day.as_str())) { "now".to_owned() } else { text.to_owned() }
}

/// The date of a time, `2023-11-14`, by the days of the civil calendar.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The files of some layers, one on the other.
#[derive(Default)]
struct Tree {
    names: BTreeMap<String, usize>,
    files: Vec<(Metadata, String, String)>,
}

impl Tree {
    fn apply(&mut self, layer: File) {
        let mut reader = Reader::new(layer);
        let mut fresh = BTreeSet::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            self.apply_entry(entry, &mut reader, &mut fresh);
        }
    }

    fn apply_entry(&mut self, entry: Entry, reader: &mut Reader<File>, fresh: &mut BTreeSet<String>) {
        let path = format!("/{}", shown(&entry.path));
        let (above, name) = path.rsplit_once('/').unwrap();
        if name == ".wh..wh..opq" {
            self.remove(&format!("{above}/"), fresh);
            return;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            self.remove(&format!("{above}/{hidden}"), fresh);
            return;
        }
        let is_directory = entry.kind == EntryKind::Directory;
        let was_directory = self.names.get(&path).is_some_and(|index| self.files[*index].1 == "directory");
        if !(is_directory && was_directory) {
            self.remove(&path, &BTreeSet::new());
        }
        fresh.insert(path.clone());
        let text = |bytes: &[u8]| shown(bytes);
        let (kind, contents) = match &entry.kind {
            EntryKind::HardLink { target } => {
                let first = self.names[&format!("/{}", text(target))];
                self.names.insert(path, first);
                return;
            }
            EntryKind::Directory => ("directory", String::new()),
            EntryKind::Symlink { target } => ("link", format!(" -> {}", text(target))),
            EntryKind::Fifo => ("pipe", String::new()),
            EntryKind::CharDevice(device) => ("character", format!(" {}:{}", device.major, device.minor)),
            EntryKind::BlockDevice(device) => ("block", format!(" {}:{}", device.major, device.minor)),
            EntryKind::File { .. } => {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).unwrap();
                ("file", contents(&bytes))
            }
        };
        self.names.insert(path, self.files.len());
        self.files.push((entry.metadata, kind.to_owned(), contents));
    }

    /// Removes what is at a path and below it, but what the layer itself brought. With a slash at its end only what is below.
    fn remove(&mut self, path: &str, but: &BTreeSet<String>) {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.names.retain(|name, _| but.contains(name) || !(name == path || name.starts_with(&below)));
    }

    fn lines(&self) -> BTreeMap<String, String> {
        let mut first: BTreeMap<usize, &str> = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for (path, index) in &self.names {
            let (metadata, kind, contents) = &self.files[*index];
            let time = time(metadata.mtime.seconds);
            let Metadata { mode, uid, gid, xattrs, .. } = metadata;
            let mut line = format!("{kind} {path} {mode:04o} {uid}:{gid} {time}{contents}");
            for xattr in xattrs {
                let value: String = xattr.value.iter().map(|byte| format!("{byte:02x}")).collect();
                line += &format!(" {}={value}", shown(&xattr.name));
            }
            match first.get(index) {
                Some(name) if kind != "directory" => line += &format!(" same as {name}"),
                _ => drop(first.insert(*index, path)),
            }
            lines.insert(path.clone(), line);
        }
        lines
    }
}

/// A time of a file in seconds, or `now`.
fn time(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    if (now - JUST_NOW_SECONDS..=now + 60).contains(&seconds) { "now".to_owned() } else { seconds.to_string() }
}

fn contents(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= SHOWN_BYTES_MAX => format!(" {text:?}"),
        _ => format!(" {} bytes, {}", bytes.len(), Digest::of(bytes)),
    }
}

/// A name without blanks and control characters.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace(' ', "\\s").replace('\n', "\\n")
}

#[test]
fn dates_are_those_of_the_calendar() {
    assert_eq!([0, 951_782_400, 1_700_000_000].map(date), ["1970-01-01", "2000-02-29", "2023-11-14"]);
}
