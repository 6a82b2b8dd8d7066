//! Paths of cgroups that cannot leave their hierarchy.

/// A cgroup's path as `linux.cgroupsPath` gives it: components joined by `/`, none of them `.` or `..`.
///
/// An absolute path starts at the root of each hierarchy as it is mounted. A relative one starts at the runtime's own cgroup; in v2 at
/// that cgroup's parent, because a cgroup that holds processes cannot give controllers to its children.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgroupPath {
    components: String,
    anchor: Anchor,
}

/// Where a path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Anchor {
    Root,
    Own,
}

/// Why a text is not a cgroup's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathParseError {
    /// There is no component at all: that would be the root.
    #[error("invalid cgroup path {0:?}: it names the root of the hierarchy")]
    Empty(String),
    /// A component is `..`.
    #[error("invalid cgroup path {0:?}: `..` is not allowed")]
    Parent(String),
    /// A component is too long or holds a byte that no cgroup's name can.
    #[error("invalid cgroup path {0:?}: bad component {1:?}")]
    Component(String, String),
}

const COMPONENT_LENGTH_MAX: usize = 255;

impl CgroupPath {
    /// Parses a path; repeated slashes and `.` are dropped.
    pub fn parse(text: &str) -> Result<Self, PathParseError> {
        let mut components = String::with_capacity(text.len());
        for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
            check_component(text, component)?;
            if !components.is_empty() {
                components.push('/');
            }
            components.push_str(component);
        }
        if components.is_empty() {
            return Err(PathParseError::Empty(text.to_owned()));
        }
        let anchor = if text.starts_with('/') { Anchor::Root } else { Anchor::Own };
        Ok(Self { components, anchor })
    }

    /// The components, without a leading slash.
    pub(crate) fn components(&self) -> &str {
        &self.components
    }

    pub(crate) fn anchor(&self) -> Anchor {
        self.anchor
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.anchor {
            Anchor::Root => write!(formatter, "/{}", self.components),
            Anchor::Own => formatter.write_str(&self.components),
        }
    }
}

fn check_component(text: &str, component: &str) -> Result<(), PathParseError> {
    if component == ".." {
        return Err(PathParseError::Parent(text.to_owned()));
    }
    // The kernel refuses newlines because they would break /proc/PID/cgroup.
    if component.len() > COMPONENT_LENGTH_MAX || component.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(PathParseError::Component(text.to_owned(), component.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_cleaned() {
        for (text, clean) in
            [("/a/b", "/a/b"), ("//a/./b/", "/a/b"), ("a", "a"), ("./a//b", "a/b"), ("/docker/..x", "/docker/..x")]
        {
            assert_eq!(CgroupPath::parse(text).unwrap().to_string(), clean, "{text}");
        }
    }

    #[test]
    fn nothing_leaves_the_hierarchy() {
        for text in ["", "/", ".", "//.", "..", "/..", "a/../b", "/a/..", "a\nb", "a\0b", &"x".repeat(256)] {
            assert!(CgroupPath::parse(text).is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_has_only_plain_components(text in "[a./\\n-]{0,12}") {
            if let Ok(path) = CgroupPath::parse(&text) {
                prop_assert!(path.components().split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\n')));
            }
        }
    }
}
