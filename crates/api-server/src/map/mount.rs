//! `HostConfig.Mounts`.

use docker_api::ApiVersion;
use docker_api::mount::{BindOptions, Driver, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
use engine::model::{Access, BindRecursion, CopyUp, EngineError, MountKind, MountSpec, Propagation};

use crate::error::{ApiError, ApiResult};

/// Reads one mount.
pub(crate) fn parse(mount: Mount, version: ApiVersion) -> ApiResult<MountSpec> {
    let mount = for_version(mount, version)?;
    check_options_fit(&mount)?;
    let access = if mount.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let kind = match mount.r#type.as_str() {
        "bind" => bind(mount.source, mount.bind_options.unwrap_or_default(), access, version)?,
        "volume" => volume(mount.source, mount.volume_options.unwrap_or_default()),
        "tmpfs" => tmpfs(&mount.source, mount.tmpfs_options.unwrap_or_default())?,
        "image" => MountKind::Image {
            source: mount.source,
            subpath: mount.image_options.map(|options| options.subpath).filter(|path| !path.is_empty()),
        },
        other => {
            return Err(ApiError::bad_request(format!("invalid mount config for type {other:?}: mount type unknown")));
        }
    };
    let consistency = Some(mount.consistency).filter(|word| !word.is_empty());
    let spec = MountSpec { kind, target: mount.target, access, consistency };
    spec.validate()?;
    Ok(spec)
}

/// Forgets or refuses what the version does not have.
fn for_version(mut mount: Mount, version: ApiVersion) -> ApiResult<Mount> {
    if let Some(options) = &mut mount.bind_options {
        options.non_recursive &= version.at_least(40);
        options.create_mountpoint &= version.at_least(42);
        if version.before(44) && options.read_only_force_recursive {
            return Err(ApiError::bad_request("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
        }
    }
    if version.before(42) {
        // These were not looked at then.
        mount.volume_options = mount.volume_options.filter(|_| mount.r#type == "volume");
        mount.tmpfs_options = mount.tmpfs_options.filter(|_| mount.r#type == "tmpfs");
        mount.bind_options = mount.bind_options.filter(|_| mount.r#type == "bind");
    }
    if version.before(45) && mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty()) {
        return Err(ApiError::bad_request("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    if version.before(48) && mount.r#type == "image" {
        return Err(ApiError::bad_request("Mount type \"Image\" needs API v1.48 or newer"));
    }
    Ok(mount)
}

fn check_options_fit(mount: &Mount) -> ApiResult<()> {
    let options = [
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
    ];
    for (name, present, wanted) in options {
        if present && mount.r#type != wanted {
            let kind = &mount.r#type;
            return Err(ApiError::bad_request(format!("{name} must not be specified on mount type {kind:?}")));
        }
    }
    Ok(())
}

fn bind(source: String, options: BindOptions, access: Access, version: ApiVersion) -> Result<MountKind, EngineError> {
    let wrong = |why: &str| EngineError::invalid(format!("invalid mount config for type \"bind\": {why}"));
    let propagation = match options.propagation.as_str() {
        "" => None,
        text => Some(Propagation::parse(text)?),
    };
    let read_only = access == Access::ReadOnly;
    let recursion = match (options.read_only_non_recursive, options.read_only_force_recursive) {
        (true, true) => return Err(wrong("ReadOnlyForceRecursive conflicts with ReadOnlyNonRecursive")),
        (true, false) if !read_only => return Err(wrong("mount is ReadOnlyNonRecursive, but not ReadOnly")),
        (false, true) if !read_only => return Err(wrong("mount is ReadOnlyForceRecursive, but not ReadOnly")),
        (false, true) if options.non_recursive => {
            return Err(wrong("ReadOnlyForceRecursive conflicts with NonRecursive"));
        }
        (false, true) => BindRecursion::ForceReadOnly,
        (true, false) if !options.non_recursive => BindRecursion::ReadOnlyTop,
        (_, false) if options.non_recursive => BindRecursion::NonRecursive,
        // Until 1.44 read-only did not reach what is mounted below.
        _ if read_only && version.before(44) => BindRecursion::ReadOnlyTop,
        _ => BindRecursion::Recursive,
    };
    Ok(MountKind::Bind { source, propagation, recursion, create_source: options.create_mountpoint })
}

fn volume(source: String, options: VolumeOptions) -> MountKind {
    let driver = options.driver_config.unwrap_or_default();
    MountKind::Volume {
        name: Some(source).filter(|name| !name.is_empty()),
        copy_up: if options.no_copy { CopyUp::Never } else { CopyUp::WhenEmpty },
        labels: options.labels,
        driver: driver.name,
        driver_options: driver.options,
        subpath: Some(options.subpath).filter(|path| !path.is_empty()),
    }
}

fn tmpfs(source: &str, options: TmpfsOptions) -> ApiResult<MountKind> {
    let wrong = |why: &str| ApiError::bad_request(format!("invalid mount config for type \"tmpfs\": {why}"));
    if !source.is_empty() {
        return Err(wrong("field Source must not be specified"));
    }
    let size_bytes = u64::try_from(options.size_bytes).map_err(|_| wrong("size must not be negative"))?;
    Ok(MountKind::Tmpfs {
        size_bytes: Some(size_bytes).filter(|size| *size > 0),
        mode: Some(options.mode & 0o7777).filter(|mode| *mode > 0),
        options: options.options.iter().map(|words| words.join("=")).collect(),
    })
}

/// Writes one mount as inspect shows it.
pub(crate) fn show(spec: &MountSpec) -> Mount {
    let mut mount = Mount {
        r#type: spec.kind_name().to_owned(),
        target: spec.target.clone(),
        read_only: spec.access == Access::ReadOnly,
        consistency: spec.consistency.clone().unwrap_or_default(),
        ..Mount::default()
    };
    match &spec.kind {
        MountKind::Bind { source, propagation, recursion, create_source } => {
            mount.source.clone_from(source);
            mount.bind_options = shown_bind(*propagation, *recursion, *create_source);
        }
        MountKind::Volume { name, copy_up, labels, driver, driver_options, subpath } => {
            mount.source = name.clone().unwrap_or_default();
            let config = Driver { name: driver.clone(), options: driver_options.clone() };
            let options = VolumeOptions {
                no_copy: *copy_up == CopyUp::Never,
                labels: labels.clone(),
                subpath: subpath.clone().unwrap_or_default(),
                driver_config: Some(config).filter(|config| *config != Driver::default()),
            };
            mount.volume_options = Some(options).filter(|options| *options != VolumeOptions::default());
        }
        MountKind::Tmpfs { size_bytes, mode, options } => {
            let shown = TmpfsOptions {
                size_bytes: size_bytes.and_then(|size| i64::try_from(size).ok()).unwrap_or_default(),
                mode: mode.unwrap_or_default(),
                options: options.iter().map(|option| option.splitn(2, '=').map(str::to_owned).collect()).collect(),
            };
            mount.tmpfs_options = Some(shown).filter(|shown| *shown != TmpfsOptions::default());
        }
        MountKind::Image { source, subpath } => {
            mount.source.clone_from(source);
            mount.image_options = subpath.clone().map(|subpath| ImageOptions { subpath });
        }
    }
    mount
}

fn shown_bind(propagation: Option<Propagation>, recursion: BindRecursion, create_source: bool) -> Option<BindOptions> {
    let options = BindOptions {
        propagation: propagation.map(|propagation| propagation.as_str().to_owned()).unwrap_or_default(),
        non_recursive: recursion == BindRecursion::NonRecursive,
        create_mountpoint: create_source,
        read_only_non_recursive: recursion == BindRecursion::ReadOnlyTop,
        read_only_force_recursive: recursion == BindRecursion::ForceReadOnly,
    };
    Some(options).filter(|options| *options != BindOptions::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Mount {
        docker_api::json::from_slice(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_read_is_shown_again() {
        for json in [
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave","CreateMountpoint":true,"ReadOnlyNonRecursive":true}}"#,
            r#"{"Type":"volume","Source":"data","Target":"/b","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"Subpath":"x","DriverConfig":{"Name":"local","Options":{"o":"p"}}}}"#,
            r#"{"Type":"volume","Target":"/b","Consistency":"cached"}"#,
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1024,"Mode":493,"Options":[["exec"],["uid","1"]]}}"#,
        ] {
            let spec = parse(mount(json), ApiVersion::NEWEST).unwrap();
            assert_eq!(serde_json::to_string(&show(&spec)).unwrap(), json);
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let refusal = |json, version| parse(mount(json), version).unwrap_err().message;
        let new = ApiVersion::NEWEST;
        assert_eq!(
            refusal(r#"{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}"#, new),
            "VolumeOptions must not be specified on mount type \"bind\""
        );
        assert_eq!(
            refusal(r#"{"Type":"what","Target":"/b"}"#, new),
            "invalid mount config for type \"what\": mount type unknown"
        );
        assert!(refusal(r#"{"Type":"npipe","Target":"/b"}"#, new).contains("mount type unknown"));
        assert!(refusal(r#"{"Type":"image","Source":"a","Target":"/b"}"#, ApiVersion::new(1, 47)).contains("v1.48"));
        assert!(refusal(r#"{"Type":"tmpfs","Source":"a","Target":"/b"}"#, new).contains("Source must not"));
        assert!(
            refusal(
                r#"{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"ReadOnlyForceRecursive":true}}"#,
                new
            )
            .contains("not ReadOnly")
        );
    }

    #[test]
    fn older_clients_get_what_they_knew() {
        let json = r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"VolumeOptions":{}}"#;
        let spec = parse(mount(json), ApiVersion::new(1, 41)).unwrap();
        assert!(matches!(spec.kind, MountKind::Bind { recursion: BindRecursion::ReadOnlyTop, .. }));
    }
}
