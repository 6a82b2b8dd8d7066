//! Addresses of repositories.

/// An address of a repository, with what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What git is given.
    pub url: String,
    /// A branch, tag or commit; the remote's own choice when there is none.
    pub reference: Option<String>,
    /// A folder in it.
    pub subdirectory: Option<String>,
}

/// An address that no repository has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// git would take it for an option, or for a program to run.
    #[error("invalid git address {0:?}")]
    Address(String),
    /// A reference that git would take for something else.
    #[error("invalid git reference {0:?}")]
    Reference(String),
    /// A folder outside of the repository.
    #[error("invalid git subdirectory {0:?}")]
    Subdirectory(String),
}

/// How repositories may be reached. Others would run programs (`ext::`) or read this machine (`file`).
const SCHEMES: &[&str] = &["https://", "http://", "ssh://", "git://"];

/// Whether an address is of a repository, as Docker tells it from a file's.
pub fn is_repository(url: &str) -> bool {
    let address = url.split_once('#').map_or(url, |(address, _)| address);
    let address = address.split_once('?').map_or(address, |(address, _)| address);
    url.starts_with("git@")
        || url.starts_with("git://")
        || url.starts_with("ssh://")
        || (is_web(url) && address.trim_end_matches('/').ends_with(".git"))
}

/// Whether an address is of the web.
pub fn is_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

impl Repository {
    /// Reads `URL[#reference[:folder]]`.
    pub fn parse(text: &str) -> Result<Repository, RepositoryError> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let known = SCHEMES.iter().any(|scheme| url.starts_with(scheme)) || is_scp(url);
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if !known || host.starts_with('-') || host.is_empty() || url.contains(char::is_whitespace) {
            return Err(RepositoryError::Address(url.to_owned()));
        }
        let odd =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '^' | '~' | '?' | '*' | '[' | '\\');
        if reference.starts_with('-') || reference.contains(odd) || reference.contains("..") {
            return Err(RepositoryError::Reference(reference.to_owned()));
        }
        if folder.split('/').any(|part| part == "..") || folder.contains('\0') {
            return Err(RepositoryError::Subdirectory(folder.to_owned()));
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Repository { url: url.to_owned(), reference: some(reference), subdirectory: some(folder.trim_matches('/')) })
    }
}

/// `git@host:path`.
fn is_scp(url: &str) -> bool {
    let Some((user, rest)) = url.split_once('@') else { return false };
    !user.is_empty()
        && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        && rest.split_once(':').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty() && !host.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for url in ["https://h/a.git", "https://h/a.git#main:sub", "git@h:a/b", "git://h/a", "ssh://git@h/a"] {
            assert!(is_repository(url), "{url}");
            assert!(Repository::parse(url).is_ok(), "{url}");
        }
        for url in ["https://h/a.tar.gz", "http://h/", "a.git", "https://h/a.github"] {
            assert!(!is_repository(url), "{url}");
        }
        let repository = Repository::parse("https://h/a.git#v1:x/y/").unwrap();
        assert_eq!(repository.reference.as_deref(), Some("v1"));
        assert_eq!(repository.subdirectory.as_deref(), Some("x/y"));
    }

    #[test]
    fn what_git_would_take_for_something_else_is_refused() {
        for url in [
            "https://h/a.git#--upload-pack=touch",
            "https://h/a.git#main:../..",
            "https://h/a.git#a..b",
            "ssh://-oProxyCommand=x/a.git",
            "ext::sh -c x",
            "file:///etc",
            "git@-h:x#-b",
            "-x@h:y",
            "/etc/passwd",
        ] {
            assert!(Repository::parse(url).is_err(), "{url}");
        }
    }
}
