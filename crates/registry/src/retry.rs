//! What is tried again, and when.

use std::time::Duration;

use http::StatusCode;

use crate::error::{ConnectError, Error};

/// How often and how patiently a request that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// The pause before the second; each further one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer. A server that wants more patience is taken at its word: the request fails.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 6, first_pause: Duration::from_millis(300), longest_pause: Duration::from_secs(60) }
    }
}

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    retry: Retry,
    failed: u32,
}

impl Retry {
    pub(crate) fn attempts(self) -> Attempts {
        Attempts { retry: self, failed: 0 }
    }
}

impl Attempts {
    /// Waits until it is time to try again; gives the error back where that would not help.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failed += 1;
        match self.pause_after(&error) {
            None => Err(error),
            Some(pause) => {
                tracing::debug!("trying again in {pause:?}: {error}");
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    /// Something went right: failures before it do not count any more.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    fn pause_after(&self, error: &Error) -> Option<Duration> {
        if self.failed >= self.retry.attempts || !is_transient(error) {
            return None;
        }
        let doubled = self.retry.first_pause.saturating_mul(1 << (self.failed - 1).min(16));
        let pause = match error.refusal().and_then(|refusal| refusal.retry_after) {
            Some(wanted) if wanted > self.retry.longest_pause => return None,
            Some(wanted) => wanted.max(doubled),
            None => doubled,
        };
        Some(pause.min(self.retry.longest_pause))
    }
}

/// Whether the same request may succeed a moment later.
pub(crate) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Broken { .. } | Error::Stalled { .. } => true,
        Error::Connect { source, .. } => {
            matches!(source, ConnectError::Dial { .. } | ConnectError::Timeout { .. } | ConnectError::Resolve { .. })
        }
        Error::Refused(refusal) => is_transient_status(refusal.status),
        Error::Token(error) => is_transient(error),
        _ => false,
    }
}

/// Whether a status means that the server has trouble, not that the request is wrong.
pub(crate) fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Asked, Refusal};
    use crate::url::Url;

    fn refused(status: u16, retry_after: Option<u64>) -> Error {
        let asked = Asked::new(&http::Method::GET, &Url::parse("http://h").unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Refused(Box::new(Refusal { asked, status, reasons: Vec::new(), retry_after }))
    }

    #[test]
    fn pauses_grow_and_servers_are_heard() {
        let retry = Retry { attempts: 4, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(3) };
        let pause = |failed, error| Attempts { retry, failed }.pause_after(&error).map(|pause| pause.as_secs());
        assert_eq!(pause(1, refused(503, None)), Some(1));
        assert_eq!(pause(2, refused(503, None)), Some(2));
        assert_eq!(pause(3, refused(503, None)), Some(3));
        assert_eq!(pause(4, refused(503, None)), None);
        assert_eq!(pause(1, refused(429, Some(2))), Some(2));
        assert_eq!(pause(1, refused(429, Some(4))), None);
        assert_eq!(pause(1, refused(404, None)), None);
        assert_eq!(pause(1, refused(403, Some(1))), None);
    }
}
