//! Paths made shortest, as Go's `path.Clean` does.

/// The shortest path that means the same without looking at any file: `.` and empty parts are dropped, `..` takes one part away.
/// The empty path is `.`.
pub fn clean_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let cases = [
            ("", "."),
            ("a/b", "a/b"),
            ("/", "/"),
            ("/..", "/"),
            ("a//b/./c/..", "a/b"),
            ("../../a", "../../a"),
            ("a/../..", ".."),
            ("/a/../../b/", "/b"),
            ("./", "."),
        ];
        for (path, expected) in cases {
            assert_eq!(clean_path(path), expected, "{path}");
        }
    }
}
