//! What clients are told that can be done. What is not here they do not ask for, or ask for in an older way.

use crate::messages::gateway::Cap;

const FRONTEND: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "statfile",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "source.metaresolver",
];

/// Operations that the Dockerfile frontend would make; ours makes none, but clients check them.
const OPERATIONS: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "source.http.uidgid",
    "exec.meta.base",
    "exec.meta.proxyenv",
    "exec.meta.network",
    "exec.meta.ulimit",
    "exec.meta.setsdefaultpath",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.cgroup.parent",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.rm.nofollowsymlink",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "exporter.multiple",
    "exporter.image.attestations",
    // Clients leave out by themselves what is not named here; what they ask for is refused by name.
    "cache.gha",
    "cache.s3",
    "cache.azblob",
];

fn caps(names: &[&str]) -> Vec<Cap> {
    names.iter().map(|name| Cap { id: (*name).to_owned(), enabled: true }).collect()
}

pub(crate) fn frontend() -> Vec<Cap> {
    caps(FRONTEND)
}

pub(crate) fn operations() -> Vec<Cap> {
    caps(OPERATIONS)
}
