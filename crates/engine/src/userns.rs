//! User namespaces: whose subordinate ids containers get (`--userns-remap`), and which containers get them; ids that no other container
//! has (`--userns=auto`).
//!
//! Nothing is stored with these ids: layers, containers' own layers and volumes are mounted with mapped ids, so that the same files serve
//! containers with and without a user namespace, and turning the mapping on or off changes no file.

use std::path::Path;

use archive::ids::Ids;
use network::{IdRange, Owner};
use oci::runtime::LinuxIdMapping;
use serde::{Deserialize, Serialize};

use crate::model::{ContainerSpec, EngineError, NetworkMode, PidMode, UsernsMode};

/// Docker's user for `--userns-remap=default`.
const DEFAULT_USER: &str = "dockremap";
/// Podman's user, from whose subordinate ids come those of `--userns=auto`.
const AUTO_USER: &str = "containers";

/// The users and groups of a container, and where they lie on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMappings {
    pub(crate) uids: Vec<LinuxIdMapping>,
    pub(crate) gids: Vec<LinuxIdMapping>,
}

/// The files that say who has which ids.
#[derive(Debug, Clone, Copy)]
struct Files<'a> {
    passwd: &'a str,
    subuid: &'a str,
    subgid: &'a str,
}

impl IdMappings {
    /// `size` ids of Podman's user that are in none of `taken`.
    pub(crate) fn fresh(size: u32, taken: &[IdMappings]) -> Result<IdMappings, EngineError> {
        let (subuid, subgid) = (read("/etc/subuid")?, read("/etc/subgid")?);
        let of = |kind: &str, text: &str, mappings: fn(&IdMappings) -> &[LinuxIdMapping]| {
            let names = [AUTO_USER.to_owned()];
            let pool = subordinates(kind, &names, text, AUTO_USER)?;
            let taken: Vec<_> =
                taken.iter().flat_map(mappings).map(|mapping| (mapping.host_id, mapping.size)).collect();
            let start = free_range(&pool, &taken, size).ok_or_else(|| {
                EngineError::conflict(format!(
                    "no {size} sub{kind}s of user {AUTO_USER:?} are left that no other container has: add ranges to /etc/sub{kind}, or ask for fewer (--userns=auto:size=N)"
                ))
            })?;
            Ok(vec![LinuxIdMapping { container_id: 0, host_id: start, size }])
        };
        Ok(IdMappings { uids: of("uid", &subuid, |of| &of.uids)?, gids: of("gid", &subgid, |of| &of.gids)? })
    }

    /// The mapping that `--userns-remap` means: `default`, or a user and perhaps a group, by name or number.
    pub(crate) fn of_option(text: &str) -> Result<IdMappings, EngineError> {
        let (passwd, subuid, subgid) = (read("/etc/passwd")?, read("/etc/subuid")?, read("/etc/subgid")?);
        parse(text, Files { passwd: &passwd, subuid: &subuid, subgid: &subgid })
    }

    /// The host's user and group that are root in the container.
    pub(crate) fn root(&self) -> (u32, u32) {
        let first = |mappings: &[LinuxIdMapping]| mappings.first().map_or(u32::MAX, |mapping| mapping.host_id);
        (first(&self.uids), first(&self.gids))
    }

    /// The same for files that are seen from outside.
    pub(crate) fn ids(&self) -> Ids {
        let ranges = |mappings: &[LinuxIdMapping]| {
            let range = |mapping: &LinuxIdMapping| archive::ids::IdRange {
                inside: mapping.container_id,
                outside: mapping.host_id,
                size: mapping.size,
            };
            mappings.iter().map(range).collect()
        };
        Ids { uids: ranges(&self.uids), gids: ranges(&self.gids) }
    }

    /// The same for network namespaces.
    pub(crate) fn owner(&self) -> Owner {
        let ranges = |mappings: &[LinuxIdMapping]| {
            let range = |mapping: &LinuxIdMapping| IdRange {
                inside: mapping.container_id,
                outside: mapping.host_id,
                size: mapping.size,
            };
            mappings.iter().map(range).collect()
        };
        Owner { uids: ranges(&self.uids), gids: ranges(&self.gids) }
    }
}

fn read(path: &str) -> Result<String, EngineError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| EngineError::system(&format!("cannot read {path}"), error)),
    }
}

/// The mapping of a container, given the engine's, and `fresh` ones for those that ask for them; what cannot be had in a user namespace
/// is refused in Docker's words.
pub(crate) fn of_container(
    remap: Option<&IdMappings>,
    spec: &ContainerSpec,
    fresh: impl FnOnce(u32) -> Result<IdMappings, EngineError>,
) -> Result<Option<IdMappings>, EngineError> {
    let mappings = match (spec.userns, remap) {
        (UsernsMode::Auto { size }, _) => return check_shared(spec).and_then(|()| fresh(size)).map(Some),
        (UsernsMode::Host, _) | (UsernsMode::Default, None) => return Ok(None),
        (UsernsMode::Private, None) => {
            return Err(EngineError::invalid("invalid USER mode: private needs an engine with --userns-remap"));
        }
        (UsernsMode::Default | UsernsMode::Private, Some(mappings)) => mappings,
    };
    check_shared(spec)?;
    Ok(Some(mappings.clone()))
}

fn check_shared(spec: &ContainerSpec) -> Result<(), EngineError> {
    if spec.privileged {
        return Err(EngineError::invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ));
    }
    if spec.network == NetworkMode::Host {
        return Err(EngineError::invalid("cannot share the host's network namespace when user namespaces are enabled"));
    }
    if spec.pid == PidMode::Host {
        return Err(EngineError::invalid("cannot share the host PID namespace when user namespaces are enabled"));
    }
    Ok(())
}

/// Gives a file of the engine to the container's root, who may change it as in Docker.
pub(crate) fn give(path: &Path, mappings: Option<&IdMappings>) -> std::io::Result<()> {
    match mappings.map(IdMappings::root) {
        None => Ok(()),
        Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
    }
}

fn parse(text: &str, files: Files<'_>) -> Result<IdMappings, EngineError> {
    let (user, group) = match text.split_once(':') {
        _ if text == "default" => (DEFAULT_USER, DEFAULT_USER),
        Some((user, group)) if !user.is_empty() && !group.is_empty() && !group.contains(':') => (user, group),
        None if !text.is_empty() => (text, text),
        _ => return Err(EngineError::invalid(format!("invalid argument for --userns-remap: {text:?}"))),
    };
    let names = names_of(user, files.passwd);
    let uids = ranges("uid", &names, files.subuid, user)?;
    let gids = match ranges("gid", &[group.to_owned()], files.subgid, group) {
        // Docker's documents have the user's name in both files.
        Err(_) => ranges("gid", &names, files.subgid, user)?,
        found => found?,
    };
    Ok(IdMappings { uids, gids })
}

/// The words under which a user may stand in the files: name and number.
fn names_of(user: &str, passwd: &str) -> Vec<String> {
    let mut names = vec![user.to_owned()];
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next()) {
            match (name == user, uid == user) {
                (true, _) => names.push(uid.to_owned()),
                (_, true) => names.push(name.to_owned()),
                _ => {}
            }
        }
    }
    names
}

/// All ranges of a user, the lowest first: start and size.
fn subordinates(kind: &str, names: &[String], text: &str, user: &str) -> Result<Vec<(u32, u32)>, EngineError> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, start, size] = fields[..] else { return Err(malformed(kind, line)) };
        if names.iter().any(|known| known == name) {
            let number = |text: &str| text.parse::<u32>().map_err(|_| malformed(kind, line));
            found.push((number(start)?, number(size)?));
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(EngineError::invalid(format!(
            "no sub{kind} ranges found for user {user:?} in /etc/sub{kind}: add a line as {user}:100000:65536"
        )));
    }
    Ok(found)
}

/// The lowest `size` numbers in a row that are in the pool and not taken.
fn free_range(pool: &[(u32, u32)], taken: &[(u32, u32)], size: u32) -> Option<u32> {
    let end = |(start, size): (u32, u32)| start.checked_add(size);
    // A free range begins where the pool does, or behind one that is taken.
    let starts = pool.iter().map(|range| range.0).chain(taken.iter().filter_map(|range| end(*range)));
    let is_free = |start: &u32| {
        let Some(last) = end((*start, size)) else { return false };
        let is_inside = |range: &(u32, u32)| range.0 <= *start && end(*range).is_some_and(|end| last <= end);
        let is_apart = |range: &(u32, u32)| last <= range.0 || end(*range).is_some_and(|end| end <= *start);
        *start > 0 && pool.iter().any(is_inside) && taken.iter().all(is_apart)
    };
    starts.filter(is_free).min()
}

/// All ranges of a user one after the other, the lowest first, as Docker maps them.
fn ranges(kind: &str, names: &[String], text: &str, user: &str) -> Result<Vec<LinuxIdMapping>, EngineError> {
    let found = subordinates(kind, names, text, user)?;
    let mut next = 0u32;
    let map = |(start, size): (u32, u32)| {
        let fits = start > 0 && size > 0 && start.checked_add(size).is_some();
        let mapping = LinuxIdMapping { container_id: next, host_id: start, size };
        next = next.checked_add(size).filter(|_| fits).ok_or_else(|| {
            EngineError::invalid(format!("the sub{kind} range {start}:{size} of {user:?} cannot be mapped"))
        })?;
        Ok(mapping)
    };
    found.into_iter().map(map).collect()
}

fn malformed(kind: &str, line: &str) -> EngineError {
    EngineError::invalid(format!("cannot parse /etc/sub{kind}: {line:?} is not user:start:count"))
}

#[cfg(test)]
mod tests {
    use oci::runtime::LinuxIdMapping;

    use super::{Files, IdMappings, of_container, parse};
    use crate::model::{ContainerSpec, NetworkMode, PidMode, UsernsMode};

    const FILES: Files<'_> = Files {
        passwd: "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
        subuid: "ann:300000:10\nann:200000:5\ndockremap:100000:65536\n1001:500:1\nevil:0:5\nlate:4294967295:5\n",
        subgid: "ann:400000:15\nclub:600000:7\ndockremap:100000:65536\n1001:500:1\nevil:9:5\nlate:9:5\n",
    };

    fn mapping(container_id: u32, host_id: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMapping { container_id, host_id, size }
    }

    #[test]
    fn ranges_follow_one_another() {
        let ann = parse("ann", FILES).unwrap();
        assert_eq!(ann.uids, [mapping(0, 200_000, 5), mapping(5, 300_000, 10)]);
        assert_eq!((ann.gids.as_slice(), ann.root()), ([mapping(0, 400_000, 15)].as_slice(), (200_000, 400_000)));
        assert_eq!(parse("1000", FILES).unwrap(), ann, "by number");
        assert_eq!(parse("ann:club", FILES).unwrap().gids, [mapping(0, 600_000, 7)]);
        assert_eq!(parse("default", FILES).unwrap().root(), (100_000, 100_000));
        assert_eq!(parse("1001:1001", FILES).unwrap().root(), (500, 500));
    }

    #[test]
    fn fresh_ranges_meet_nobody() {
        let pool = [(1000, 100), (5000, 50)];
        for (taken, size, expected) in [
            (&[][..], 100, Some(1000)),
            (&[], 101, None),
            (&[(1000, 60)], 40, Some(1060)),
            (&[(1000, 60)], 41, Some(5000)),
            (&[(1060, 10), (1000, 10)], 50, Some(1010)),
            (&[(900, 150), (5000, 1)], 50, Some(1050)),
            (&[(1000, 100), (5000, 50)], 1, None),
            (&[(4_294_967_290, 10)], 1, Some(1000)),
        ] {
            assert_eq!(super::free_range(&pool, taken, size), expected, "{taken:?} {size}");
        }
        assert_eq!(super::free_range(&[(0, 10)], &[], 5), None, "root of the host is in nobody's");
        assert_eq!(super::free_range(&[(4_294_967_290, 10)], &[], 5), None);
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let broken = Files { subuid: "ann:1\n", ..FILES };
        for (text, files, message) in [
            ("nobody", FILES, "no subuid ranges found for user \"nobody\""),
            ("", FILES, "invalid argument"),
            ("a:b:c", FILES, "invalid argument"),
            ("ann:", FILES, "invalid argument"),
            ("evil", FILES, "the subuid range 0:5"),
            ("late", FILES, "the subuid range 4294967295:5"),
            ("ann", broken, "cannot parse /etc/subuid"),
        ] {
            let error = parse(text, files).unwrap_err();
            assert!(error.message().starts_with(message), "{}", error.message());
        }
    }

    #[test]
    fn containers_share_no_namespace_of_the_host() {
        let remap: IdMappings = parse("default", FILES).unwrap();
        let spec = |userns| ContainerSpec { userns, ..ContainerSpec::default() };
        let other: IdMappings = parse("ann", FILES).unwrap();
        let of_container = |remap, spec: &ContainerSpec| of_container(remap, spec, |_| Ok(other.clone()));
        assert_eq!(of_container(Some(&remap), &spec(UsernsMode::Default)).unwrap().as_ref(), Some(&remap));
        assert_eq!(of_container(Some(&remap), &spec(UsernsMode::Host)).unwrap(), None);
        assert_eq!(of_container(None, &spec(UsernsMode::Default)).unwrap(), None);
        for remap in [None, Some(&remap)] {
            assert_eq!(of_container(remap, &spec(UsernsMode::Auto { size: 9 })).unwrap().as_ref(), Some(&other));
        }
        let refused = [
            ContainerSpec { privileged: true, ..ContainerSpec::default() },
            ContainerSpec { network: NetworkMode::Host, ..ContainerSpec::default() },
            ContainerSpec { pid: PidMode::Host, ..ContainerSpec::default() },
        ];
        for spec in refused {
            assert!(of_container(Some(&remap), &spec).is_err(), "{spec:?}");
            of_container(Some(&remap), &ContainerSpec { userns: UsernsMode::Host, ..spec }).unwrap();
        }
        assert!(of_container(None, &spec(UsernsMode::Private)).is_err());
    }
}
