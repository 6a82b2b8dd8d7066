//! The Container Device Interface: devices of vendors, described in files, put into a container's specification.
//!
//! Files are read when a container starts: they come and go with drivers, and there are few. A later folder goes before an earlier one,
//! so that `/run/cdi` may correct `/etc/cdi`; a name that comes twice in one folder names nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use oci::runtime::{Hook, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupType, LinuxDeviceType, Mount, Spec};
use serde::Deserialize;

use crate::model::{DeviceRequest, EngineError, ErrorKind};

/// The kind of NVIDIA's GPUs, which `--gpus` means.
const NVIDIA_GPU: &str = "nvidia.com/gpu";
/// No description is longer.
const MAX_FILE: u64 = 16 << 20;

/// What is read from the folders.
#[derive(Debug, Default)]
struct Registry {
    /// By `vendor.com/class=name`; `None` where two files of one folder disagree.
    devices: BTreeMap<String, Option<Found>>,
    files: Vec<File>,
}

#[derive(Debug, Clone)]
struct Found {
    folder: usize,
    file: usize,
    edits: Edits,
}

/// One description.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<EditMount>,
    hooks: Vec<EditHook>,
    #[serde(rename = "additionalGIDs", alias = "additionalGids")]
    additional_gids: Vec<u32>,
    net_devices: Vec<serde_json::Value>,
    intel_rdt: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
    r#type: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EditMount {
    host_path: String,
    container_path: String,
    r#type: String,
    options: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EditHook {
    hook_name: String,
    #[serde(flatten)]
    hook: Hook,
}

/// Puts the devices that were asked for into a specification.
pub(crate) fn inject(requests: &[DeviceRequest], folders: &[PathBuf], spec: &mut Spec) -> Result<(), EngineError> {
    if requests.is_empty() {
        return Ok(());
    }
    let registry = Registry::read(folders);
    let names = names(requests, &registry)?;
    let unresolvable: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| registry.find(name).is_none()).collect();
    if !unresolvable.is_empty() {
        return Err(failure(&format!("unresolvable CDI devices {}", unresolvable.join(", "))));
    }
    let mut files = Vec::new();
    for found in names.iter().filter_map(|name| registry.find(name)) {
        if !files.contains(&found.file) {
            files.push(found.file);
            registry.files[found.file].container_edits.apply(spec)?;
        }
        found.edits.apply(spec)?;
    }
    Ok(())
}

fn failure(what: &str) -> EngineError {
    EngineError::new(ErrorKind::System, format!("CDI device injection failed: {what}"))
}

/// The full names of the devices; GPUs become NVIDIA's where those are described, as Docker has it.
fn names(requests: &[DeviceRequest], registry: &Registry) -> Result<Vec<String>, EngineError> {
    let mut names = Vec::new();
    for request in requests {
        if request.driver == "cdi" {
            names.extend(request.device_ids.iter().cloned());
        } else {
            names.extend(gpus(request, registry).ok_or_else(|| no_driver(request))?);
        }
    }
    Ok(names)
}

fn gpus(request: &DeviceRequest, registry: &Registry) -> Option<Vec<String>> {
    let is_gpu = request.capabilities.iter().any(|all| all.iter().any(|one| one == "gpu"));
    let is_nvidia = matches!(request.driver.as_str(), "" | "nvidia") && (is_gpu || request.driver == "nvidia");
    let prefix = format!("{NVIDIA_GPU}=");
    if !is_nvidia || !registry.devices.keys().any(|name| name.starts_with(&prefix)) {
        return None;
    }
    let full = |id: &str| if id.starts_with(&prefix) { id.to_owned() } else { format!("{prefix}{id}") };
    Some(match request.count {
        _ if !request.device_ids.is_empty() => request.device_ids.iter().map(|id| full(id)).collect(),
        0.. => (0..request.count).map(|number| full(&number.to_string())).collect(),
        _ => vec![full("all")],
    })
}

/// Docker's words, with the lists in Go's form.
fn no_driver(request: &DeviceRequest) -> EngineError {
    let lists: Vec<String> = request.capabilities.iter().map(|list| format!("[{}]", list.join(" "))).collect();
    EngineError::new(
        ErrorKind::System,
        format!("could not select device driver \"{}\" with capabilities: [{}]", request.driver, lists.join(" ")),
    )
}

impl Registry {
    /// Reads all files of the folders that are there; those that cannot be read are told, and name nothing.
    fn read(folders: &[PathBuf]) -> Registry {
        let mut registry = Registry::default();
        for (number, folder) in folders.iter().enumerate() {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| entry.path()).filter(|path| is_description(path)).collect();
            paths.sort();
            for path in paths {
                match read_file(&path) {
                    Ok(file) => registry.add(number, file),
                    Err(reason) => tracing::warn!("cannot use the CDI file {}: {reason}", path.display()),
                }
            }
        }
        registry
    }

    fn add(&mut self, folder: usize, file: File) {
        let index = self.files.len();
        for device in &file.devices {
            let name = format!("{}={}", file.kind, device.name);
            let found = Found { folder, file: index, edits: device.container_edits.clone() };
            let is_conflict = self.devices.get(&name).is_some_and(|before| match before {
                Some(before) => before.folder == folder,
                None => false,
            });
            self.devices.insert(name, (!is_conflict).then_some(found));
        }
        self.files.push(file);
    }

    fn find(&self, name: &str) -> Option<&Found> {
        self.devices.get(name)?.as_ref()
    }
}

fn is_description(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known))
}

fn read_file(path: &Path) -> Result<File, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML, but for tabs.
    let file: File = match path.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?,
    };
    let is_kind = file.kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
    if is_kind { Ok(file) } else { Err(format!("its kind {:?} is not of the form vendor/class", file.kind)) }
}

impl Edits {
    fn apply(&self, spec: &mut Spec) -> Result<(), EngineError> {
        if !self.net_devices.is_empty() || self.intel_rdt.is_some() {
            return Err(failure("netDevices and intelRdt of CDI files are not built"));
        }
        if let Some(process) = &mut spec.process {
            for entry in &self.env {
                let key = entry.split('=').next().unwrap_or_default();
                process.env.retain(|known| known.split('=').next() != Some(key));
                process.env.push(entry.clone());
            }
            let gids = &mut process.user.additional_gids;
            gids.extend(self.additional_gids.iter().filter(|gid| **gid != 0));
        }
        for node in &self.device_nodes {
            node.apply(spec)?;
        }
        spec.mounts.extend(self.mounts.iter().map(EditMount::to_mount));
        self.hooks.iter().try_for_each(|hook| hook.apply(spec))
    }
}

impl Node {
    fn apply(&self, spec: &mut Spec) -> Result<(), EngineError> {
        let device = self.resolve()?;
        let kind = match device.kind {
            LinuxDeviceType::Character => Some(LinuxDeviceCgroupType::Character),
            LinuxDeviceType::Block => Some(LinuxDeviceCgroupType::Block),
            LinuxDeviceType::Fifo => None,
        };
        let linux = spec.linux.get_or_insert_default();
        if let Some(kind) = kind {
            let access = self.permissions.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| "rwm".to_owned());
            linux.resources.get_or_insert_default().devices.push(LinuxDeviceCgroup {
                allow: true,
                kind,
                major: Some(device.major),
                minor: Some(device.minor),
                access,
            });
        }
        linux.devices.retain(|known| known.path != device.path);
        linux.devices.push(device);
        Ok(())
    }

    /// What the file does not say, the host's node does.
    fn resolve(&self) -> Result<LinuxDevice, EngineError> {
        let host = self.host_path.as_ref().filter(|path| !path.is_empty()).unwrap_or(&self.path);
        let wrong = |reason: &str| failure(&format!("device node {host}: {reason}"));
        let said = match self.r#type.as_deref() {
            None | Some("") => None,
            Some("c" | "u") => Some(LinuxDeviceType::Character),
            Some("b") => Some(LinuxDeviceType::Block),
            Some("p") => Some(LinuxDeviceType::Fifo),
            Some(_) => return Err(wrong("unknown type")),
        };
        let (kind, major, minor) = match (said, self.major) {
            (Some(LinuxDeviceType::Fifo), _) => (LinuxDeviceType::Fifo, 0, 0),
            (Some(kind), Some(major)) if major != 0 => (kind, major, self.minor.unwrap_or(0)),
            _ => {
                let found = std::fs::metadata(host).map_err(|error| wrong(&error.to_string()))?;
                let kind = match found.file_type() {
                    kind if kind.is_char_device() => LinuxDeviceType::Character,
                    kind if kind.is_block_device() => LinuxDeviceType::Block,
                    _ => return Err(wrong("not a device node")),
                };
                if said.is_some_and(|said| said != kind) {
                    return Err(wrong("the host's node is of another type"));
                }
                (kind, rustix::fs::major(found.rdev()).into(), rustix::fs::minor(found.rdev()).into())
            }
        };
        let file_mode = self.file_mode.or_else(|| std::fs::metadata(host).ok().map(|found| found.mode() & 0o7777));
        Ok(LinuxDevice { path: self.path.clone(), kind, major, minor, file_mode, uid: self.uid, gid: self.gid })
    }
}

impl EditMount {
    fn to_mount(&self) -> Mount {
        let is_bind = matches!(self.r#type.as_str(), "" | "bind" | "none");
        let mut options = self.options.clone();
        if is_bind && !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".into());
        }
        Mount {
            destination: self.container_path.clone(),
            kind: if is_bind { "bind".into() } else { self.r#type.clone() },
            source: self.host_path.clone(),
            options,
            ..Mount::default()
        }
    }
}

impl EditHook {
    fn apply(&self, spec: &mut Spec) -> Result<(), EngineError> {
        let hooks = spec.hooks.get_or_insert_default();
        let place = match self.hook_name.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => return Err(failure(&format!("unknown hook name {other:?}"))),
        };
        place.push(self.hook.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(driver: &str, ids: &[&str]) -> DeviceRequest {
        DeviceRequest {
            driver: driver.into(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..DeviceRequest::default()
        }
    }

    fn gpu(count: i64, ids: &[&str]) -> DeviceRequest {
        DeviceRequest { count, capabilities: vec![vec!["gpu".into()]], ..request("", ids) }
    }

    const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: example.com/toy
containerEdits:
  env: [ALL=1]
devices:
- name: zero
  containerEdits:
    env: [WHICH=zero]
    deviceNodes:
    - path: /dev/toy
      hostPath: /dev/zero
      permissions: rw
    mounts:
    - {hostPath: /usr/lib/toy, containerPath: /lib/toy, options: [ro, nosuid]}
    hooks:
    - {hookName: createContainer, path: /bin/hook, args: [hook, x], env: [A=b], timeout: 3}
"#;

    #[test]
    fn edits_come_into_the_specification() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("toy.yaml"), YAML).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no description").unwrap();
        let mut spec = Spec { process: Some(oci::runtime::Process::default()), ..Spec::default() };
        spec.process.as_mut().unwrap().env = vec!["WHICH=none".into(), "OTHER=1".into()];
        let folders = [folder.path().to_owned()];
        inject(&[request("cdi", &["example.com/toy=zero"])], &folders, &mut spec).unwrap();
        assert_eq!(spec.process.unwrap().env, ["OTHER=1", "ALL=1", "WHICH=zero"]);
        let linux = spec.linux.unwrap();
        let device = &linux.devices[0];
        assert_eq!((device.path.as_str(), device.major, device.minor), ("/dev/toy", 1, 5));
        assert_eq!(linux.resources.unwrap().devices[0].access, "rw");
        let mount = &spec.mounts[0];
        assert_eq!((mount.kind.as_str(), mount.options.join(",").as_str()), ("bind", "ro,nosuid,rbind"));
        let hook = &spec.hooks.unwrap().create_container[0];
        assert_eq!((hook.path.as_str(), hook.timeout), ("/bin/hook", Some(3)));
        let refused = inject(&[request("cdi", &["example.com/toy=one"])], &folders, &mut Spec::default()).unwrap_err();
        let message = "CDI device injection failed: unresolvable CDI devices example.com/toy=one";
        assert_eq!(refused.message(), message);
    }

    #[test]
    fn later_folders_go_before_and_a_folder_may_not_contradict_itself() {
        let [etc, run] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let write = |folder: &Path, file: &str, value: &str| {
            let edits = format!(r#"{{"env":["V={value}"]}}"#);
            let text = format!(r#"{{"kind":"a.b/c","devices":[{{"name":"d","containerEdits":{edits}}}]}}"#);
            std::fs::write(folder.join(file), text).unwrap();
        };
        let folders = [etc.path().to_owned(), run.path().to_owned()];
        let value = || Registry::read(&folders).find("a.b/c=d").map(|found| found.edits.env[0].clone());
        write(etc.path(), "a.json", "etc");
        assert_eq!(value().as_deref(), Some("V=etc"));
        write(run.path(), "z.json", "run");
        assert_eq!(value().as_deref(), Some("V=run"));
        write(run.path(), "b.json", "other");
        assert_eq!(value(), None);
    }

    #[test]
    fn gpus_are_nvidias_or_there_is_no_driver() {
        let mut registry = Registry::default();
        let shown = |registry: &Registry, request: DeviceRequest| {
            names(&[request], registry).map_err(|error| error.message().to_owned())
        };
        let refused = shown(&registry, gpu(-1, &[])).unwrap_err();
        assert_eq!(refused, "could not select device driver \"\" with capabilities: [[gpu]]");
        registry.devices.insert("nvidia.com/gpu=all".into(), None);
        assert_eq!(shown(&registry, gpu(-1, &[])).unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(shown(&registry, gpu(2, &[])).unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(shown(&registry, gpu(0, &["GPU-1"])).unwrap(), ["nvidia.com/gpu=GPU-1"]);
        assert!(shown(&registry, request("amd", &[])).unwrap_err().contains("driver \"amd\" with capabilities: []"));
    }
}
