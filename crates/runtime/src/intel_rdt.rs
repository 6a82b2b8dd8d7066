//! Cache and memory bandwidth allocation through resctrl.
//!
//! A class of service is a directory of resctrl: the container's own, named after it and removed with it, or one that the configuration
//! names, which is its administrator's.

use std::path::{Path, PathBuf};

use oci::runtime::LinuxIntelRdt;
use rustix::process::Pid;

use crate::error::{Context, Error, Result, Stage};

const RESCTRL: &str = "/sys/fs/resctrl";
const SCHEMATA: &str = "schemata";
const TASKS: &str = "tasks";
const MONITORING_GROUPS: &str = "mon_groups";

/// Whether resctrl is mounted where everybody expects it.
pub fn has_resctrl() -> bool {
    Path::new(RESCTRL).join(SCHEMATA).exists()
}

/// Puts a container's first process into its class of service, making what is to be made.
pub(crate) fn apply(rdt: &LinuxIntelRdt, id: &str, pid: Pid) -> Result<()> {
    if !has_resctrl() {
        return Err(Error::new(
            Stage::Properties,
            "intelRdt is specified in config, but resctrl is not mounted on this host",
        ));
    }
    apply_below(Path::new(RESCTRL), rdt, id)?;
    join(rdt, id, pid)
}

/// Puts a process into the class of service and the monitoring group of its container.
pub(crate) fn join(rdt: &LinuxIntelRdt, id: &str, pid: Pid) -> Result<()> {
    join_below(Path::new(RESCTRL), rdt, id, pid)
}

/// Writes lines of the container's class of service anew; empty ones stay as they are.
pub(crate) fn update(rdt: &LinuxIntelRdt, id: &str, lines: [&str; 2]) -> Result<()> {
    let class = class_directory(Path::new(RESCTRL), rdt, id)?;
    write_lines(&class, lines.into_iter().filter(|line| !line.is_empty()))
}

/// Removes what [`apply`] made for this container alone.
pub(crate) fn remove(rdt: &LinuxIntelRdt, id: &str) {
    let Ok(class) = class_directory(Path::new(RESCTRL), rdt, id) else { return };
    // Neither may be there, and a class with a name of its own is its administrator's.
    let _may_be_missing = std::fs::remove_dir(class.join(MONITORING_GROUPS).join(id));
    if rdt.clos_id.is_empty() {
        let _may_be_missing = std::fs::remove_dir(class);
    }
}

fn apply_below(resctrl: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<()> {
    let class = class_directory(resctrl, rdt, id)?;
    let lines = lines_of(rdt)?;
    let is_new = match (rdt.clos_id.is_empty(), lines.is_empty()) {
        // A class that is named without saying what is in it must have been made by somebody who knows.
        (false, true) if !class.exists() => {
            return Err(Error::new(Stage::Properties, format!("the intelRdt class {:?} does not exist", rdt.clos_id)));
        }
        (false, true) => false,
        _ => make_directory(&class)?,
    };
    if rdt.clos_id.is_empty() || is_new {
        write_lines(&class, lines.iter().copied())?;
    } else {
        check_lines(&class, &lines)?;
    }
    if monitors(rdt) {
        make_directory(&class.join(MONITORING_GROUPS).join(id))?;
    }
    Ok(())
}

fn join_below(resctrl: &Path, rdt: &LinuxIntelRdt, id: &str, pid: Pid) -> Result<()> {
    let class = class_directory(resctrl, rdt, id)?;
    let pid = pid.as_raw_nonzero().to_string();
    write(&class.join(TASKS), &pid)?;
    if monitors(rdt) {
        write(&class.join(MONITORING_GROUPS).join(id).join(TASKS), &pid)?;
    }
    Ok(())
}

fn monitors(rdt: &LinuxIntelRdt) -> bool {
    rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm
}

/// The lines for `schemata`, in the order in which the specification wants them written.
fn lines_of(rdt: &LinuxIntelRdt) -> Result<Vec<&str>> {
    let old_forms = [rdt.l3_cache_schema.as_str(), rdt.mem_bw_schema.as_str()];
    let new_form = rdt.schemata.iter().map(String::as_str);
    let lines: Vec<&str> = old_forms.into_iter().filter(|line| !line.is_empty()).chain(new_form).collect();
    match lines.iter().find(|line| line.contains('\n')) {
        Some(line) => Err(Error::new(Stage::Spec, format!("intelRdt line {line:?} has a line break in it"))),
        None => Ok(lines),
    }
}

/// A class that others use is not changed behind their back: it must be as asked for already.
fn check_lines(class: &Path, wanted: &[&str]) -> Result<()> {
    let path = class.join(SCHEMATA);
    let text =
        std::fs::read_to_string(&path).context(Stage::Properties, || format!("cannot read {}", path.display()))?;
    let present: Vec<String> = text.lines().map(normalized).collect();
    match wanted.iter().find(|line| !holds(&present, line)) {
        None => Ok(()),
        Some(line) => {
            let message = format!("the class of {} exists and has not the line {line:?}", path.display());
            Err(Error::new(Stage::Properties, message))
        }
    }
}

/// Whether every domain of a line (`L3:0=f;1=f0`) is so in the lines that are there, which list all domains.
fn holds(present: &[String], line: &str) -> bool {
    let line = normalized(line);
    let Some((resource, domains)) = line.split_once(':') else { return false };
    let found = present.iter().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == resource);
    found.is_some_and(|(_, all)| domains.split(';').all(|domain| all.split(';').any(|one| one == domain)))
}

/// A line without the spaces and leading zeros that the kernel writes.
fn normalized(line: &str) -> String {
    let (resource, domains) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
    let domain = |domain: &str| match domain.trim().split_once('=') {
        Some((number, value)) => {
            let trimmed = value.trim().trim_start_matches('0');
            format!("{}={}", number.trim(), if trimmed.is_empty() { "0" } else { trimmed })
        }
        None => domain.trim().to_owned(),
    };
    let domains: Vec<String> = domains.split(';').map(domain).collect();
    format!("{}:{}", resource.trim(), domains.join(";"))
}

fn class_directory(resctrl: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<PathBuf> {
    match rdt.clos_id.as_str() {
        "" => Ok(resctrl.join(id)),
        // The root is the default class.
        "/" => Ok(resctrl.to_owned()),
        "." | ".." => Err(Error::new(Stage::Spec, format!("invalid intelRdt.closID {:?}", rdt.clos_id))),
        name if name.contains('/') => Err(Error::new(Stage::Spec, format!("invalid intelRdt.closID {name:?}"))),
        name => Ok(resctrl.join(name)),
    }
}

/// Makes a directory; says whether it is new.
fn make_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).context(Stage::Properties, || format!("cannot create {}", path.display())),
    }
}

/// Each line in a write of its own: the kernel refuses all of several for one that it does not take.
fn write_lines<'a>(class: &Path, lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
    lines.into_iter().try_for_each(|line| write(&class.join(SCHEMATA), &format!("{line}\n")))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).context(Stage::Properties, || format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(clos_id: &str) -> LinuxIntelRdt {
        LinuxIntelRdt { clos_id: clos_id.to_owned(), ..LinuxIntelRdt::default() }
    }

    #[test]
    fn a_class_cannot_leave_resctrl() {
        for name in ["..", ".", "a/b", "../x"] {
            assert!(class_directory(Path::new(RESCTRL), &named(name), "id").is_err(), "{name}");
        }
    }

    #[test]
    fn a_class_of_its_own_is_made_and_written() {
        let resctrl = tempfile::tempdir().unwrap();
        let rdt = LinuxIntelRdt { l3_cache_schema: "L3:0=f".to_owned(), ..named("") };
        apply_below(resctrl.path(), &rdt, "id").unwrap();
        assert_eq!(std::fs::read_to_string(resctrl.path().join("id/schemata")).unwrap(), "L3:0=f\n");
        join_below(resctrl.path(), &rdt, "id", rustix::process::getpid()).unwrap();
        let pid = rustix::process::getpid().as_raw_nonzero().to_string();
        assert_eq!(std::fs::read_to_string(resctrl.path().join("id/tasks")).unwrap(), pid);
    }

    #[test]
    fn a_named_class_must_exist_or_be_described_and_is_not_changed() {
        let resctrl = tempfile::tempdir().unwrap();
        assert!(apply_below(resctrl.path(), &named("gold"), "id").is_err(), "nobody has made it");
        let class = resctrl.path().join("gold");
        std::fs::create_dir_all(class.join(MONITORING_GROUPS)).unwrap();
        std::fs::write(class.join(SCHEMATA), "    L3:0=00ff;1=0ff0\n    MB:0= 70;1=100\n").unwrap();
        apply_below(resctrl.path(), &named("gold"), "id").unwrap();
        let described =
            |line: &str| LinuxIntelRdt { schemata: vec![line.to_owned()], enable_monitoring: true, ..named("gold") };
        apply_below(resctrl.path(), &described("L3:1=ff0"), "id").unwrap();
        assert!(class.join("mon_groups/id").is_dir());
        for other in ["L3:0=f", "L2:0=ff", "MB:0=60", "L3"] {
            assert!(apply_below(resctrl.path(), &described(other), "id").is_err(), "{other}");
        }
        assert!(std::fs::read_to_string(class.join(SCHEMATA)).unwrap().contains("00ff"), "it was changed");
        assert!(apply_below(resctrl.path(), &described("L3:0=1\nMB:0=1"), "id").is_err());
    }
}
