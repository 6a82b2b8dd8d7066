//! `--volume` and `--mount`.

use docker_api::mount::{BindOptions, Driver, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
use docker_api::{Empty, Set};

use super::body::Usage;
use crate::output::units::parse_size;

/// Splits `--volume` values into binds and anonymous volumes; relative host paths become absolute.
pub(crate) fn binds_and_volumes(values: &[String]) -> (Vec<String>, Set) {
    let mut binds = Vec::new();
    let mut volumes = Set::new();
    for value in values {
        match value.split_once(':') {
            Some((source, rest)) => binds.push(format!("{}:{rest}", absolute(source))),
            None => drop(volumes.insert(value.clone(), Empty {})),
        }
    }
    (binds, volumes)
}

/// The path as the daemon must see it: names of volumes stay, `./x`, `~`-less relative paths are made absolute.
fn absolute(source: &str) -> String {
    let relative = source == "." || source == ".." || source.starts_with("./") || source.starts_with("../");
    if !relative {
        return source.to_owned();
    }
    std::path::absolute(source).map_or_else(|_| source.to_owned(), |path| normal(&path))
}

/// Without `.` and `..`, by the text alone as Go's `filepath.Abs` does it.
fn normal(path: &std::path::Path) -> String {
    let mut out = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}

/// Reads one `--mount` value: `type=bind,source=/a,target=/b,readonly`.
pub(crate) fn parse(text: &str) -> Result<Mount, Usage> {
    let wrong = |why: String| format!("invalid argument {text:?} for \"--mount\" flag: {why}");
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    for field in fields(text) {
        set(&mut mount, &field).map_err(wrong)?;
    }
    if mount.target.is_empty() {
        return Err(wrong("target is required".to_owned()));
    }
    check_options(&mount).map_err(wrong)?;
    if mount.r#type == "bind" {
        mount.source = absolute(&mount.source);
    }
    Ok(mount)
}

/// The fields of one line of comma-separated values; double quotes protect commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("there is always one").push(c),
        }
    }
    fields
}

fn set(mount: &mut Mount, field: &str) -> Result<(), Usage> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), value.to_owned()),
        None => (field.to_ascii_lowercase(), "true".to_owned()),
    };
    let has_value = field.contains('=');
    if !has_value
        && !["readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"].contains(&key.as_str())
    {
        return Err(format!("invalid field '{field}' must be a key=value pair"));
    }
    match key.as_str() {
        "type" => mount.r#type = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = value,
        "target" | "dst" | "destination" => mount.target = value,
        "readonly" | "ro" => mount.read_only = boolean(&key, &value)?,
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        _ if key.starts_with("bind-") => set_bind(mount.bind_options.get_or_insert_default(), &key, value)?,
        _ if key.starts_with("volume-") => set_volume(mount.volume_options.get_or_insert_default(), &key, value)?,
        _ if key.starts_with("tmpfs-") => set_tmpfs(mount.tmpfs_options.get_or_insert_default(), &key, &value)?,
        "image-subpath" => mount.image_options = Some(ImageOptions { subpath: value }),
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn set_bind(options: &mut BindOptions, key: &str, value: String) -> Result<(), Usage> {
    match (key, value.as_str()) {
        ("bind-propagation", _) => options.propagation = value.to_ascii_lowercase(),
        ("bind-nonrecursive", _) => options.non_recursive = boolean(key, &value)?,
        ("bind-create-src", _) => options.create_mountpoint = boolean(key, &value)?,
        ("bind-recursive", "enabled") => {}
        ("bind-recursive", "disabled") => options.non_recursive = true,
        ("bind-recursive", "writable") => options.read_only_non_recursive = true,
        ("bind-recursive", "readonly") => options.read_only_force_recursive = true,
        ("bind-recursive", other) => return Err(format!("invalid value for bind-recursive: {other}")),
        _ => return Err(format!("unexpected key '{key}'")),
    }
    Ok(())
}

fn set_volume(options: &mut VolumeOptions, key: &str, value: String) -> Result<(), Usage> {
    let pair = |value: &str| {
        let (key, value) = value.split_once('=').unwrap_or((value, ""));
        (key.to_owned(), value.to_owned())
    };
    match key {
        "volume-nocopy" => options.no_copy = boolean(key, &value)?,
        "volume-subpath" => options.subpath = value,
        "volume-label" => options.labels.extend([pair(&value)]),
        "volume-driver" => options.driver_config.get_or_insert_with(Driver::default).name = value,
        "volume-opt" => options.driver_config.get_or_insert_with(Driver::default).options.extend([pair(&value)]),
        _ => return Err(format!("unexpected key '{key}'")),
    }
    Ok(())
}

fn set_tmpfs(options: &mut TmpfsOptions, key: &str, value: &str) -> Result<(), Usage> {
    match key {
        "tmpfs-size" => options.size_bytes = parse_size(value)?,
        "tmpfs-mode" => {
            options.mode = u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        _ => return Err(format!("unexpected key '{key}'")),
    }
    Ok(())
}

fn boolean(key: &str, value: &str) -> Result<bool, Usage> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    }
}

/// Options belong to one type of mount.
fn check_options(mount: &Mount) -> Result<(), Usage> {
    let given = [
        ("bind", mount.bind_options.is_some()),
        ("volume", mount.volume_options.is_some()),
        ("tmpfs", mount.tmpfs_options.is_some()),
        ("image", mount.image_options.is_some()),
    ];
    match given.into_iter().find(|(kind, given)| *given && *kind != mount.r#type) {
        Some((kind, _)) => Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.r#type)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_and_anonymous_volumes() {
        let (binds, volumes) = binds_and_volumes(&["/a:/b:ro".into(), "name:/c".into(), "/d".into(), "./x:/y".into()]);
        assert_eq!(binds[..2], ["/a:/b:ro", "name:/c"]);
        assert!(binds[2].starts_with('/') && binds[2].ends_with("/x:/y"));
        assert_eq!(volumes.into_keys().collect::<Vec<_>>(), ["/d"]);
    }

    #[test]
    fn mounts_of_each_type() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str(), mount.read_only), ("/a", "/b", true));
        assert_eq!(mount.bind_options.unwrap().propagation, "rslave");
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!(mount.tmpfs_options.map(|o| (o.size_bytes, o.mode)), Some((1 << 20, 0o1770)));
        assert_eq!(parse("source=v,target=/v").unwrap().r#type, "volume");
        assert_eq!(parse("\"target=/a,b\",source=v").unwrap().target, "/a,b");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("type=bind,source=/a", "target is required"),
            ("type=bind,target=/a,tmpfs-size=1", "cannot mix 'tmpfs-*' options"),
            ("target=/a,nonsense=1", "unexpected key 'nonsense'"),
            ("target=/a,nonsense", "must be a key=value pair"),
            ("target=/a,readonly=maybe", "invalid value for readonly"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
