//! Cache and memory bandwidth allocation through resctrl.

use std::path::{Path, PathBuf};

use oci::runtime::LinuxIntelRdt;
use rustix::process::Pid;

use crate::error::{Context, Error, Result, Stage};

const RESCTRL: &str = "/sys/fs/resctrl";

/// Whether resctrl is mounted where everybody expects it.
pub fn has_resctrl() -> bool {
    Path::new(RESCTRL).join("schemata").exists()
}

/// Puts a process into the class of service that the configuration names, making it where it is missing.
pub(crate) fn apply(rdt: &LinuxIntelRdt, id: &str, pid: Pid) -> Result<()> {
    if !has_resctrl() {
        return Err(Error::new(
            Stage::Properties,
            "intelRdt is specified in config, but resctrl is not mounted on this host",
        ));
    }
    let class = class_directory(rdt, id)?;
    make_directory(&class)?;
    let old_forms = [&rdt.l3_cache_schema, &rdt.mem_bw_schema];
    for line in old_forms.into_iter().filter(|line| !line.is_empty()).chain(&rdt.schemata) {
        write(&class.join("schemata"), &format!("{line}\n"))?;
    }
    write(&class.join("tasks"), &pid.as_raw_nonzero().to_string())?;
    if rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm {
        let group = class.join("mon_groups").join(id);
        make_directory(&group)?;
        write(&group.join("tasks"), &pid.as_raw_nonzero().to_string())?;
    }
    Ok(())
}

/// Removes what [`apply`] made for this container alone.
pub(crate) fn remove(rdt: &LinuxIntelRdt, id: &str) {
    let Ok(class) = class_directory(rdt, id) else { return };
    // Neither may be there, and a class with a name of its own is its administrator's.
    let _may_be_missing = std::fs::remove_dir(class.join("mon_groups").join(id));
    if rdt.clos_id.is_empty() {
        let _may_be_missing = std::fs::remove_dir(class);
    }
}

fn class_directory(rdt: &LinuxIntelRdt, id: &str) -> Result<PathBuf> {
    match rdt.clos_id.as_str() {
        "" => Ok(Path::new(RESCTRL).join(id)),
        // The root is the default class.
        "/" => Ok(PathBuf::from(RESCTRL)),
        "." | ".." => Err(Error::new(Stage::Spec, format!("invalid intelRdt.closID {:?}", rdt.clos_id))),
        name if name.contains('/') => Err(Error::new(Stage::Spec, format!("invalid intelRdt.closID {name:?}"))),
        name => Ok(Path::new(RESCTRL).join(name)),
    }
}

fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(Stage::Properties, || format!("cannot create {}", path.display())),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).context(Stage::Properties, || format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_cannot_leave_resctrl() {
        for name in ["..", ".", "a/b", "../x"] {
            let rdt = LinuxIntelRdt { clos_id: name.to_owned(), ..LinuxIntelRdt::default() };
            assert!(class_directory(&rdt, "id").is_err(), "{name}");
        }
    }
}
