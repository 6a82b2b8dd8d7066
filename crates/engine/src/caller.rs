//! Who asks the engine for something: told by the face beside the call, and looked at only where it is written down.

use std::future::Future;
use std::sync::Arc;

/// Finds out who asks, as text for people.
pub type Caller = Arc<dyn Fn() -> String + Send + Sync>;

tokio::task_local! {
    static CALLER: Caller;
}

/// Does something in the name of a caller.
pub async fn as_caller<F: Future>(caller: Caller, work: F) -> F::Output {
    CALLER.scope(caller, work).await
}

/// Who asks now; the engine itself where nobody does.
pub(crate) fn current() -> String {
    CALLER.try_with(|caller| caller()).unwrap_or_else(|_| "the engine".to_owned())
}
