//! Builds that clients run: each known by the reference that its client gave it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{BuildControl, BuildResult};
use tokio::sync::watch;

use crate::grpc::{Code, Status};
use crate::messages::Timestamp;
use crate::messages::control::{BuildHistoryRecord, SolveRequest};
use crate::status::Story;

/// How long a call waits for the build that it belongs to: they come on one connection, in any order.
const JOB_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a story can be read after its build.
const STORY_KEPT: Duration = Duration::from_secs(10);
/// So many builds are remembered.
const HISTORY_MAX: usize = 100;

/// All builds.
#[derive(Debug)]
pub(crate) struct Jobs {
    running: Arc<Mutex<HashMap<String, Arc<Job>>>>,
    changed: watch::Sender<u64>,
    history: Mutex<Vec<BuildHistoryRecord>>,
}

/// One build.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) reference: String,
    pub(crate) session: String,
    pub(crate) entitlements: Vec<String>,
    /// Whether the image tells of its steps.
    pub(crate) inline_cache: bool,
    pub(crate) story: Story,
    pub(crate) control: BuildControl,
    results: Mutex<HashMap<String, Arc<BuildResult>>>,
    /// What the client's frontend gave back: nothing yet, or the results' names, or why there are none.
    returned: watch::Sender<Option<Result<Vec<String>, String>>>,
    record: Mutex<BuildHistoryRecord>,
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs { running: Arc::default(), changed: watch::Sender::new(0), history: Mutex::default() }
    }
}

/// A build that is listed as long as this lives. A client that goes away ends its build.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    jobs: &'a Jobs,
    pub(crate) job: Arc<Job>,
    is_recorded: bool,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.job.control.cancel();
        self.job.story.end();
        self.job.results.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.is_recorded {
            self.jobs.record(&self.job);
        }
        // A short build is over before its client asks how it goes.
        let (running, reference) = (Arc::clone(&self.jobs.running), self.job.reference.clone());
        let forget = move || running.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(STORY_KEPT).await;
                forget();
            })),
            Err(_) => drop(forget()),
        }
    }
}

impl Jobs {
    fn running(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a new build.
    pub(crate) fn begin(&self, request: &SolveRequest) -> Result<Listed<'_>, Status> {
        let job = Arc::new(Job {
            reference: request.reference.clone(),
            session: request.session.clone(),
            entitlements: request.entitlements.clone(),
            inline_cache: crate::caches::is_inline(request.cache.as_ref()),
            story: Story::new(&request.reference),
            control: BuildControl::default(),
            results: Mutex::default(),
            returned: watch::Sender::new(None),
            record: Mutex::new(BuildHistoryRecord {
                reference: request.reference.clone(),
                frontend: request.frontend.clone(),
                frontend_attrs: request.frontend_attrs.clone(),
                exporters: request.exporters.clone(),
                created_at: Some(Timestamp::now()),
                ..BuildHistoryRecord::default()
            }),
        });
        let mut running = self.running();
        if running.contains_key(&job.reference) {
            return Err(Status::new(Code::InvalidArgument, format!("build {} is running already", job.reference)));
        }
        running.insert(job.reference.clone(), Arc::clone(&job));
        drop(running);
        self.changed.send_modify(|count| *count += 1);
        Ok(Listed { jobs: self, job, is_recorded: !request.internal })
    }

    /// The build of this reference, as soon as it is there.
    pub(crate) async fn find(&self, reference: &str) -> Result<Arc<Job>, Status> {
        let mut changed = self.changed.subscribe();
        let found = tokio::time::timeout(JOB_TIMEOUT, async {
            loop {
                changed.borrow_and_update();
                if let Some(job) = self.running().get(reference) {
                    return Some(Arc::clone(job));
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        });
        found.await.ok().flatten().ok_or_else(|| Status::new(Code::NotFound, format!("no such job {reference}")))
    }

    /// A result of whichever build.
    pub(crate) fn result(&self, name: &str) -> Option<Arc<BuildResult>> {
        self.running().values().find_map(|job| job.result(name))
    }

    fn record(&self, job: &Job) {
        let mut record = job.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counts = job.story.counts();
        record.completed_at = Some(Timestamp::now());
        (record.total_steps, record.completed_steps, record.cached_steps) =
            (counts.total, counts.completed, counts.cached);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(record);
        let surplus = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..surplus);
    }

    /// Builds that are over, and those that run.
    pub(crate) fn history(&self) -> (Vec<BuildHistoryRecord>, Vec<BuildHistoryRecord>) {
        let over = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let record = |job: &Arc<Job>| job.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (over, self.running().values().filter(|job| !job.story.subscribe().borrow().ended).map(record).collect())
    }

    /// Forgets a build.
    pub(crate) fn forget(&self, reference: &str) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).retain(|record| record.reference != reference);
    }
}

impl Job {
    pub(crate) fn result(&self, name: &str) -> Option<Arc<BuildResult>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Keeps a result; gives the name by which the client asks for it.
    pub(crate) fn keep(&self, result: Arc<BuildResult>) -> String {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}-{}", self.reference, results.len());
        results.insert(name.clone(), result);
        name
    }

    /// The client's frontend is done, with these results.
    pub(crate) fn give_back(&self, outcome: Result<Vec<String>, String>) {
        self.returned.send_replace(Some(outcome));
    }

    /// Waits until the client's frontend is done.
    pub(crate) async fn given_back(&self) -> Result<Vec<String>, Status> {
        let mut returned = self.returned.subscribe();
        let outcome = returned.wait_for(Option::is_some).await;
        let outcome = outcome.map_err(|_| Status::new(Code::Cancelled, "the build ended"))?.clone();
        outcome.unwrap_or(Ok(Vec::new())).map_err(Status::unknown)
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut BuildHistoryRecord)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
