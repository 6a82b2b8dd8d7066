//! The database: what must be known after a restart and cannot be read off a monitor.
//!
//! ```text
//! <root>/conex.db
//!   containers(id, spec, life)   spec: ContainerRecord as JSON, written once (and on rename, update); life: Life as JSON
//!   volumes(name, record)        VolumeRecord
//!   networks(id, record)         NetworkRecord
//!   execs(id, container, record) ExecRecord; gone five minutes after the exec's end
//!   image_uses(image, used_s)    when an image was used last
//! ```
//!
//! Everything is kept in memory as well and read only at open, so nobody ever waits for a read. One thread writes; what has
//! queued up meanwhile is committed together, so fifty creates at once cost one sync.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

/// How certain a write must be before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// Survives the daemon's death, not the machine's.
    Daemon,
    /// Survives the machine's death.
    Machine,
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    PutContainer { id: String, spec: String, life: String },
    PutLife { id: String, life: String },
    RemoveContainer { id: String },
    PutNetwork { id: String, record: String },
    RemoveNetwork { id: String },
    PutVolume { name: String, record: String },
    RemoveVolume { name: String },
    PutExec { id: String, container: String, record: String },
    RemoveExec { id: String },
    PutImageUse { image: String, used_s: i64 },
    RemoveImageUse { image: String },
}

/// Everything that was in the database at open.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Spec and life by id.
    pub(crate) containers: Vec<(String, String, String)>,
    /// Record by name.
    pub(crate) volumes: Vec<(String, String)>,
    /// Record by id.
    pub(crate) networks: Vec<(String, String)>,
    /// Records.
    pub(crate) execs: Vec<String>,
    /// Images and when they were used last, in seconds since 1970.
    pub(crate) image_uses: Vec<(String, i64)>,
}

/// The database cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot use the database {path}")]
    Open { path: String, source: rusqlite::Error },
    #[error("the database {path} is of version {found}, newer than this program knows ({known})")]
    TooNew { path: String, found: i64, known: i64 },
    #[error("cannot write to the database")]
    Write(#[source] rusqlite::Error),
    #[error("the database's thread has ended")]
    Gone,
}

/// A change on its way to the writer.
#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    durability: Durability,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// The handle to the writer thread.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Jobs that may wait for the writer; a sender beyond that waits, which slows down whoever makes so many.
const QUEUE_LENGTH: usize = 4096;
/// Jobs committed together.
const BATCH_LENGTH: usize = 256;

const MIGRATIONS: &[&str] = &[
    "CREATE TABLE containers(id TEXT PRIMARY KEY, spec TEXT NOT NULL, life TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE volumes(name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE execs(id TEXT PRIMARY KEY, container TEXT NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;",
    "CREATE TABLE networks(id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;",
    "CREATE TABLE image_uses(image TEXT PRIMARY KEY, used_s INTEGER NOT NULL) WITHOUT ROWID;",
];

impl Store {
    /// Opens (or makes) the database, brings it up to date and reads everything.
    pub(crate) fn open(path: &Path) -> Result<(Store, Contents), StoreError> {
        let shown = path.display().to_string();
        let wrong = |source| StoreError::Open { path: shown.clone(), source };
        let mut connection = Connection::open(path).map_err(wrong)?;
        prepare(&connection).map_err(wrong)?;
        migrate(&mut connection, &shown)?;
        let contents = read_all(&connection).map_err(wrong)?;
        let (jobs, queue) = sync_channel(QUEUE_LENGTH);
        let writer = std::thread::Builder::new().name("store".into()).stack_size(512 << 10);
        let thread = writer.spawn(move || write_all(connection, &queue)).map_err(|_| StoreError::Gone)?;
        Ok((Store { jobs: Some(jobs), thread: Some(thread) }, contents))
    }

    /// Writes and waits until it is as durable as asked.
    pub(crate) async fn write(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.send(Job { changes, durability, done: Some(done) })?;
        result.await.map_err(|_| StoreError::Gone)?
    }

    /// Writes behind the caller's back, in order with all other writes: for what a monitor could tell again.
    pub(crate) fn write_behind(&self, change: Change) {
        let job = Job { changes: vec![change], durability: Durability::Daemon, done: None };
        if let Err(error) = self.send(job) {
            tracing::error!("{error}");
        }
    }

    /// Writes what waits and ends the thread.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.as_ref().ok_or(StoreError::Gone)?.send(job).map_err(|_| StoreError::Gone)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Everything is in our own memory: SQLite needs only enough for the pages of one commit.
    connection.pragma_update(None, "cache_size", -512)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))
}

fn migrate(connection: &mut Connection, path: &str) -> Result<(), StoreError> {
    let wrong = |source| StoreError::Open { path: path.to_owned(), source };
    let known = MIGRATIONS.len() as i64;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
    if found > known {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found.max(0) as usize) {
        let transaction = connection.transaction().map_err(wrong)?;
        transaction.execute_batch(migration).map_err(wrong)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1).map_err(wrong)?;
        transaction.commit().map_err(wrong)?;
    }
    Ok(())
}

fn read_all(connection: &Connection) -> rusqlite::Result<Contents> {
    let mut contents = Contents::default();
    let mut statement = connection.prepare("SELECT id, spec, life FROM containers")?;
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
        contents.containers.push(row?);
    }
    let mut statement = connection.prepare("SELECT name, record FROM volumes")?;
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        contents.volumes.push(row?);
    }
    let mut statement = connection.prepare("SELECT id, record FROM networks")?;
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        contents.networks.push(row?);
    }
    let mut statement = connection.prepare("SELECT record FROM execs")?;
    for row in statement.query_map([], |row| row.get(0))? {
        contents.execs.push(row?);
    }
    let mut statement = connection.prepare("SELECT image, used_s FROM image_uses")?;
    for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        contents.image_uses.push(row?);
    }
    Ok(contents)
}

fn write_all(mut connection: Connection, queue: &Receiver<Job>) {
    let mut synchronous = Durability::Daemon;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(BATCH_LENGTH - 1));
        let wanted = batch.iter().map(|job| job.durability).max().unwrap_or(Durability::Daemon);
        let result =
            set_durability(&connection, &mut synchronous, wanted).and_then(|()| commit(&mut connection, &batch));
        answer(batch, result);
    }
}

/// `synchronous` cannot change inside a transaction; it is switched only when the kind of batch changes.
fn set_durability(connection: &Connection, current: &mut Durability, wanted: Durability) -> rusqlite::Result<()> {
    if *current != wanted {
        let word = if wanted == Durability::Machine { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", word)?;
        *current = wanted;
    }
    Ok(())
}

fn commit(connection: &mut Connection, batch: &[Job]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in batch.iter().flat_map(|job| &job.changes) {
        apply(&transaction, change)?;
    }
    transaction.commit()
}

fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values).map(|_| ());
    match change {
        Change::PutContainer { id, spec, life } => {
            run("INSERT OR REPLACE INTO containers VALUES(?1, ?2, ?3)", params![id, spec, life])
        }
        Change::PutLife { id, life } => run("UPDATE containers SET life = ?2 WHERE id = ?1", params![id, life]),
        Change::RemoveContainer { id } => {
            run("DELETE FROM execs WHERE container = ?1", params![id])?;
            run("DELETE FROM containers WHERE id = ?1", params![id])
        }
        Change::PutNetwork { id, record } => run("INSERT OR REPLACE INTO networks VALUES(?1, ?2)", params![id, record]),
        Change::RemoveNetwork { id } => run("DELETE FROM networks WHERE id = ?1", params![id]),
        Change::PutVolume { name, record } => {
            run("INSERT OR REPLACE INTO volumes VALUES(?1, ?2)", params![name, record])
        }
        Change::RemoveVolume { name } => run("DELETE FROM volumes WHERE name = ?1", params![name]),
        Change::PutExec { id, container, record } => {
            run("INSERT OR REPLACE INTO execs VALUES(?1, ?2, ?3)", params![id, container, record])
        }
        Change::RemoveExec { id } => run("DELETE FROM execs WHERE id = ?1", params![id]),
        Change::PutImageUse { image, used_s } => {
            run("INSERT OR REPLACE INTO image_uses VALUES(?1, ?2)", params![image, used_s])
        }
        Change::RemoveImageUse { image } => run("DELETE FROM image_uses WHERE image = ?1", params![image]),
    }
}

/// One commit is one fate: every job of the batch gets the same answer.
fn answer(batch: Vec<Job>, result: rusqlite::Result<()>) {
    let failure = result.err();
    if let Some(error) = &failure {
        tracing::error!("cannot write to the database: {error}");
    }
    let text = failure.map(|error| error.to_string());
    for job in batch {
        if let Some(done) = job.done {
            let result = match &text {
                None => Ok(()),
                Some(text) => Err(StoreError::Write(rusqlite::Error::InvalidParameterName(text.clone()))),
            };
            let _ = done.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Durability, Store, StoreError};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn what_is_written_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conex.db");
        let (store, contents) = Store::open(&path).unwrap();
        assert!(contents.containers.is_empty());
        let put = |id: &str| Change::PutContainer { id: id.into(), spec: "s".into(), life: "l".into() };
        runtime().block_on(async {
            store.write(vec![put("a"), put("b")], Durability::Machine).await.unwrap();
            store
                .write(vec![Change::PutVolume { name: "v".into(), record: "r".into() }], Durability::Daemon)
                .await
                .unwrap();
        });
        store.write_behind(Change::PutLife { id: "a".into(), life: "new".into() });
        store.write_behind(Change::RemoveContainer { id: "b".into() });
        drop(store);
        let (_store, contents) = Store::open(&path).unwrap();
        assert_eq!(contents.containers, [("a".into(), "s".into(), "new".into())]);
        assert_eq!(contents.volumes, [("v".into(), "r".into())]);
    }

    #[test]
    fn execs_go_with_their_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conex.db");
        let (store, _) = Store::open(&path).unwrap();
        store.write_behind(Change::PutExec { id: "e".into(), container: "a".into(), record: "r".into() });
        store.write_behind(Change::PutExec { id: "f".into(), container: "b".into(), record: "r2".into() });
        store.write_behind(Change::RemoveContainer { id: "a".into() });
        drop(store);
        assert_eq!(Store::open(&path).unwrap().1.execs, ["r2"]);
    }

    #[test]
    fn a_database_of_the_future_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conex.db");
        drop(Store::open(&path).unwrap());
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew { found: 99, .. })));
    }
}
