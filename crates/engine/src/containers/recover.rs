//! Taking containers up again: after a restart of the daemon, or when a monitor went away.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use monitor_protocol::record::{EXECS_DIR, EXIT_FILE, MONITOR_FILE};
use monitor_protocol::{ExecRecord, Exit, ExitRecord, Hello, KillScope, MonitorRecord, Phase as MonitorPhase, Request};
use oci::ContainerId;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::actor::{Actor, Command, Recovered, Remains};
use super::handle::{Handle, Progress};
use super::life::{Happening, Life, Phase};
use super::record::{ContainerRecord, LifeRecord, RECORD_VERSION};
use super::remove::{Size, remove_files};
use super::resolver::Survivor;
use super::{Containers, Index, view};
use crate::engine::{Engine, blocking};
use crate::model::{EndCause, EndMemory, EngineError};
use crate::monitors::Connection;
use crate::store::Contents;

/// The exit code of a container whose end nobody saw; Docker's.
const UNSEEN_EXIT_CODE: i32 = 255;
/// Monitors that are asked at once.
const SEARCHES: usize = 64;

/// A monitor, and what it says of its container.
type Found = Option<(Recovered, Box<Hello>)>;

/// What the database keeps of one container.
pub(crate) type Recorded = (ContainerRecord, LifeRecord);

impl Containers {
    /// What containers had of the networks that ran when the database was last written.
    pub(crate) fn recorded_places(contents: &Contents) -> Vec<network::Place> {
        let lives = contents.containers.iter().filter_map(|(_, _, life)| serde_json::from_str::<LifeRecord>(life).ok());
        lives.map(|record| record.place).collect()
    }

    /// The containers of the database, with their names reserved: what a container tells the name server may be about a later one.
    pub(crate) fn recorded(contents: &Contents, index: &Index) -> Result<Vec<Recorded>, EngineError> {
        let mut records = Vec::new();
        for (id, spec, life) in &contents.containers {
            match parse(id, spec, life) {
                Ok(record) => records.push(record),
                // Reported and left alone with its files: a newer program may read it, and the others must not suffer.
                Err(error) => tracing::error!("{error}"),
            }
        }
        for (record, _) in &records {
            index.reserve_name(&record.name, &record.id)?;
        }
        Ok(records)
    }

    /// Those of them whose first process is there, as their monitors left it written.
    pub(crate) fn survivors<'a>(records: &'a [Recorded], folder: &Path) -> Vec<Survivor<'a>> {
        let alive = |(record, life): &'a Recorded| {
            life.life.pid().filter(|_| !life.place.endpoints.is_empty())?;
            let monitor: MonitorRecord = read(&folder.join(record.id.as_str()).join(MONITOR_FILE))?;
            let is_there = start_ticks(monitor.pid) == Some(monitor.pid_start_ticks);
            is_there.then_some(Survivor { record, life, pid: monitor.pid })
        };
        records.iter().filter_map(alive).collect()
    }
}

impl Engine {
    /// Makes every container of the database known, connects to the monitors that live, and heals what was missed.
    pub(crate) async fn restore(&self, contents: Contents, records: Vec<Recorded>) -> Result<(), EngineError> {
        let known: HashSet<String> = contents.containers.iter().map(|(id, ..)| id.clone()).collect();
        self.restore_execs(&contents.execs);
        drop(contents);
        let mut searches = self.find_monitors(&records).into_iter();
        let (mut restarts, mut ready) = (Vec::new(), Vec::new());
        for (record, life) in records {
            let found = match searches.next() {
                Some(search) => search.await.unwrap_or_default(),
                None => None,
            };
            let due = life.life.starts_with_daemon(record.spec.restart);
            let (handle, actor) = self.restore_container(record, life, found).await?;
            restarts.extend(due.then_some(handle));
            ready.extend(actor);
        }
        // Those that are known go to work only now: what hundreds of them do at once would hold up the others.
        for (actor, queue) in ready {
            tokio::spawn(actor.run(queue));
        }
        self.inner.names.drop_reopened();
        self.end_strangers(&known).await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            sweep(&inner.containers_dir(), &known);
            super::trees::sweep_staged(&inner.staging_dir());
            crate::volumes::unmount_unused(&inner);
            let users = super::users::Users::new(&inner);
            inner
                .images
                .set_users(Arc::new(users))
                .map_err(|error| EngineError::system("cannot clean up layers", error))?;
            Ok(())
        })
        .await?;
        for handle in restarts {
            self.restart_with_daemon(&handle);
        }
        Ok(())
    }

    /// Looks for the monitors of all records, some at a time: each answers when it is its turn on a processor.
    fn find_monitors(&self, records: &[(ContainerRecord, LifeRecord)]) -> Vec<JoinHandle<Found>> {
        let permits = Arc::new(Semaphore::new(SEARCHES));
        let search = |(record, _): &(ContainerRecord, LifeRecord)| {
            let (engine, id, permits) = (self.clone(), record.id.clone(), Arc::clone(&permits));
            tokio::spawn(async move {
                let _permit = permits.acquire().await;
                engine.find_monitor(&id).await
            })
        };
        records.iter().map(search).collect()
    }

    async fn restore_container(
        &self,
        record: ContainerRecord,
        stored: LifeRecord,
        found: Found,
    ) -> Result<(Arc<Handle>, Option<(Actor, mpsc::Receiver<Command>)>), EngineError> {
        let mut life = stored.life;
        let missed = match &found {
            Some((_, hello)) => take_over(&mut life, hello),
            None => missed_exit(&self.inner.container_dir(&record.id), &mut life),
        };
        if let Some(missed) = &missed {
            self.tidy_up_after(missed, &record).await?;
        }
        let first = view::of(&self.inner, &record, &life, &stored.place, None);
        let running = life.pid().is_some();
        let progress = Progress { active: running, running, exit_code: life.exit_code, ..Progress::default() };
        let (handle, queue) = Handle::new(record, first, progress);
        self.inner.index.insert(Arc::clone(&handle));
        if let Err(error) = self.inner.forward_logs(&handle.record()) {
            tracing::warn!("container {}: {error}", handle.id);
        }
        let mut actor = Actor::new(self.clone(), Arc::clone(&handle), life, stored.place);
        if let Some((recovered, hello)) = found {
            self.take_over_execs(&handle, &hello.container.map(|container| container.execs).unwrap_or_default());
            actor.recover(recovered).await;
        } else {
            self.take_over_execs(&handle, &[]);
        }
        let remains = actor.catch_up(missed).await == Remains::There;
        Ok((handle, remains.then_some((actor, queue))))
    }

    /// What a monitor does at the end of its container, for one that was killed itself; before the container may start again.
    pub(super) async fn tidy_up_after(&self, end: &Happening, record: &ContainerRecord) -> Result<(), EngineError> {
        if !matches!(end, Happening::Exited { cause: EndCause { unseen: true, .. }, .. }) {
            return Ok(());
        }
        let path = crate::spec::cgroup_path(&self.inner.options.name, &record.spec, &record.id);
        blocking(move || {
            crate::engine::remove_cgroup(&path);
            Ok(())
        })
        .await
    }

    /// A monitor answers on its socket, or is gone.
    async fn find_monitor(&self, id: &ContainerId) -> Found {
        let socket = self.inner.monitor_socket(id);
        if !socket.exists() {
            return None;
        }
        match Connection::connect(&socket).await {
            Ok((connection, incoming, hello))
                if hello.container.as_ref().is_some_and(|found| found.id == id.as_str()) =>
            {
                Some((Recovered { connection, incoming }, hello))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!("container {id}: {}", crate::model::chain(&error));
                let _ = std::fs::remove_file(&socket);
                None
            }
        }
    }

    /// Containers that run without a record: their creation or removal was cut short by a crash.
    async fn end_strangers(&self, known: &HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(self.inner.monitors_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".sock") else { continue };
            if known.contains(id) {
                continue;
            }
            match Connection::connect(&entry.path()).await {
                Ok((connection, _, _)) => {
                    tracing::warn!("container {id} runs without a record and is ended");
                    let kill = Request::Kill { signal: monitor_protocol::Signal(9), scope: KillScope::All };
                    let _ = super::actor::limited(connection.request(kill, Vec::new())).await;
                }
                Err(_) => drop(std::fs::remove_file(entry.path())),
            }
        }
    }

    /// What a restart policy wants when the daemon starts.
    fn restart_with_daemon(&self, handle: &Arc<Handle>) {
        if handle.live().is_some() {
            return;
        }
        let (engine, handle) = (self.clone(), Arc::clone(handle));
        tokio::spawn(async move {
            if let Err(error) = engine.start_container(handle.id.as_str()).await
                && error.kind() != crate::model::ErrorKind::NotModified
            {
                tracing::warn!("container {}: cannot be started with the daemon: {error}", handle.id);
            }
        });
    }
}

/// How a run ended, as its monitor left it written; `started` is when that run began.
pub(super) fn find_exit(folder: &Path, started: Option<Timestamp>) -> Happening {
    // A monitor forgets the last run's record before it begins another, so this one is of the last run.
    let exit: Option<ExitRecord> = read(&folder.join(EXIT_FILE));
    let of_this_run =
        |exit: &ExitRecord| started.is_none_or(|started| crate::moment::from_monitor(exit.started_at) >= started);
    match exit.filter(of_this_run) {
        Some(exit) => exited(&exit.exit),
        None => {
            if let Some(monitor) = read(&folder.join(MONITOR_FILE)) {
                end_orphan(&monitor);
            }
            let cause = EndCause { unseen: true, ..EndCause::default() };
            Happening::Exited { exit_code: UNSEEN_EXIT_CODE, oom_killed: false, at: Timestamp::now(), cause }
        }
    }
}

/// An exit, in the words of a container's life.
pub(super) fn exited(exit: &Exit) -> Happening {
    let memory = exit.memory.map(|memory| EndMemory {
        limit_bytes: memory.limit_bytes,
        peak_bytes: memory.peak_bytes,
        kills: memory.kills,
    });
    Happening::Exited {
        exit_code: exit.code,
        oom_killed: exit.oom_killed,
        at: crate::moment::from_monitor(exit.at),
        cause: EndCause { signal: exit.signal.map(|signal| signal.0), memory, unseen: false },
    }
}

/// The exit code of an exec, as its monitor left it written.
pub(crate) fn find_exec_exit(folder: &Path, id: &str) -> Option<i32> {
    read::<ExecRecord>(&folder.join(EXECS_DIR).join(format!("{id}.json"))).map(|record| record.exit.code)
}

/// A container without a monitor has no log, no input and no exit code: it is ended rather than left behind unseen.
fn end_orphan(monitor: &MonitorRecord) {
    let (Some(pid), true) =
        (rustix::process::Pid::from_raw(monitor.pid), start_ticks(monitor.pid) == Some(monitor.pid_start_ticks))
    else {
        return;
    };
    // By descriptor, and the start time is looked at again: the number may mean another process by now.
    if let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        && start_ticks(monitor.pid) == Some(monitor.pid_start_ticks)
    {
        let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
    }
}

/// Field 22 of `/proc/<pid>/stat`.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn parse(id: &str, spec: &str, life: &str) -> Result<(ContainerRecord, LifeRecord), EngineError> {
    let wrong = |error| EngineError::system(&format!("cannot read the record of container {id}"), error);
    let record: ContainerRecord = serde_json::from_str(spec).map_err(wrong)?;
    let life: LifeRecord = serde_json::from_str(life).map_err(wrong)?;
    match record.version.max(life.version) {
        RECORD_VERSION => Ok((record, life)),
        newer => Err(EngineError::new(
            crate::model::ErrorKind::System,
            format!("the record of container {id} is of version {newer}, newer than this program knows"),
        )),
    }
}

/// The state of a container whose monitor lives; what happened meanwhile is returned.
fn take_over(life: &mut Life, hello: &Hello) -> Option<Happening> {
    let container = hello.container.as_ref()?;
    life.started_at = Some(crate::moment::from_monitor(container.started_at));
    life.oom_killed |= container.oom_killed;
    life.phase = match container.phase {
        MonitorPhase::Paused => Phase::Paused { pid: container.pid },
        MonitorPhase::Running | MonitorPhase::Exited(_) => Phase::Running { pid: container.pid },
    };
    match container.phase {
        MonitorPhase::Exited(exit) => Some(exited(&exit)),
        MonitorPhase::Running | MonitorPhase::Paused => None,
    }
}

/// A container that ran, without its monitor: it ended, and the record says how.
fn missed_exit(folder: &Path, life: &mut Life) -> Option<Happening> {
    match life.phase {
        Phase::Running { .. } | Phase::Paused { .. } => Some(find_exit(folder, life.started_at)),
        Phase::Starting => {
            life.phase = if life.started_at.is_some() { Phase::Exited } else { Phase::Created };
            None
        }
        Phase::Restarting => {
            life.phase = Phase::Exited;
            None
        }
        Phase::Removing => {
            life.phase = Phase::Dead;
            None
        }
        Phase::Created | Phase::Exited => unrecorded_run(folder, life),
        Phase::Dead => None,
    }
}

/// A whole run between the database's last write and now: the daemon was killed right after it had answered a start.
fn unrecorded_run(folder: &Path, life: &mut Life) -> Option<Happening> {
    let exit: ExitRecord = read(&folder.join(EXIT_FILE))?;
    let started = crate::moment::from_monitor(exit.started_at);
    if life.started_at.is_some_and(|known| started <= known) {
        return None;
    }
    (life.phase, life.started_at) = (Phase::Starting, Some(started));
    Some(find_exit(folder, Some(started)))
}

/// Folders of containers that are not known: what a crash or a failed `--rm` left.
fn sweep(folder: &Path, known: &HashSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !known.contains(&*entry.file_name().to_string_lossy())
            && let Err(error) = remove_files(&entry.path(), Size::Limited)
        {
            tracing::warn!("{error}");
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use monitor_protocol::record::{EXIT_FILE, RECORD_VERSION};
    use monitor_protocol::{Exit, ExitRecord, UnixNanos};

    use super::super::life::{Happening, Life, Phase};
    use super::missed_exit;

    fn record(started_at: i64) -> ExitRecord {
        let exit = Exit { code: 33, signal: None, oom_killed: false, memory: None, at: UnixNanos(started_at + 5) };
        ExitRecord { version: RECORD_VERSION, exit, started_at: UnixNanos(started_at) }
    }

    #[test]
    fn a_run_that_the_database_missed_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut life = Life::new();
        assert_eq!(missed_exit(folder.path(), &mut life), None);
        std::fs::write(folder.path().join(EXIT_FILE), serde_json::to_vec(&record(1_000)).unwrap()).unwrap();
        let found = missed_exit(folder.path(), &mut life);
        assert!(matches!(found, Some(Happening::Exited { exit_code: 33, .. })), "{found:?}");
        life.phase = Phase::Exited;
        assert_eq!(missed_exit(folder.path(), &mut life), None);
    }

    #[test]
    fn an_end_that_nobody_saw_has_a_code_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut life = Life::new();
        life.phase = Phase::Running { pid: 7 };
        life.started_at = Some(jiff::Timestamp::from_second(10).unwrap());
        // An earlier run's record.
        std::fs::write(folder.path().join(EXIT_FILE), serde_json::to_vec(&record(1_000)).unwrap()).unwrap();
        let found = missed_exit(folder.path(), &mut life);
        assert!(matches!(found, Some(Happening::Exited { exit_code: 255, .. })), "{found:?}");
    }
}
