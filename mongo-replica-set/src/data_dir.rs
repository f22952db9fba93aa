//! What a set keeps on disk, and the lock that lets only one process use it.
//!
//! ```text
//! DATA_DIR/
//!   lock               locked by the process that runs the set; says who it is and where it answers
//!   replica-set.json   the ports, so that the URI stays valid over restarts
//!   member-0/          mongod's files
//!   member-0.log       this run's log; member-0.previous.log is that of the run before
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::Error;

const TEMPORARY_PREFIX: &str = "mongo-replica-set-";

/// A lock may be held a moment longer than its owner thinks: a child that is just being forked
/// holds all open files until it executes its program. Held for longer, it is held by somebody.
const LOCK_WITHIN: Duration = Duration::from_millis(300);

/// A temporary directory without a lock may belong to a process that is about to take it.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// The directory of one set, locked for this process until dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    // Declared before the lock, so that the files are gone before the lock is.
    temporary: Option<TempDir>,
    lock: File,
}

/// Who holds a directory, as written into its lock file.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    uri: Option<String>,
}

/// What the next start needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// One per member, in order.
    pub(crate) ports: Vec<u16>,
}

impl DataDir {
    /// Creates the directory if need be and locks it. `None` makes a temporary one.
    pub(crate) async fn open(path: Option<&Path>) -> Result<DataDir, Error> {
        let temporary = match path {
            Some(_) => None,
            None => {
                sweep_abandoned();
                let temporary = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir();
                Some(temporary.map_err(not_writable(&std::env::temp_dir()))?)
            }
        };
        let path = path.or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
        // For the owner only: these MongoDBs ask nobody for a password.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(not_writable(path))?;
        // mongod repeats the path in its answers, by which a member is told from a stranger.
        let path = path.canonicalize().map_err(not_writable(path))?;
        if path.to_str().is_none() {
            let why = "its name is not valid UTF-8".to_owned();
            return Err(Error::DataDirUnusable { dir: path, why });
        }
        let lock = lock(&path).await?;
        let dir = DataDir { path, temporary, lock };
        dir.announce(None)?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub(crate) fn member_dir(&self, index: usize) -> Result<PathBuf, Error> {
        let path = self.path.join(format!("member-{index}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(not_writable(&path))?;
        Ok(path)
    }

    pub(crate) fn member_log(&self, index: usize) -> PathBuf {
        self.path.join(format!("member-{index}.log"))
    }

    /// Tells whoever finds the directory locked where to go instead.
    pub(crate) fn announce(&self, uri: Option<&str>) -> Result<(), Error> {
        let holder = Holder { pid: std::process::id(), uri: uri.map(str::to_owned) };
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(&holder)?;
            (&self.lock).rewind()?;
            self.lock.set_len(0)?;
            (&self.lock).write_all(&text)
        };
        write().map_err(not_writable(&self.path))
    }

    /// What the last start left for this one; `None` in a new directory.
    pub(crate) fn remembered(&self) -> Result<Option<Remembered>, Error> {
        let path = self.memory();
        let unusable = |why: String| Error::DataDirUnusable { dir: self.path.clone(), why };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(unusable(format!("its replica-set.json cannot be read ({error})")));
            }
        };
        let damaged = |why: String| unusable(format!("its replica-set.json is damaged ({why}); delete that one file"));
        let remembered: Remembered = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if remembered.ports.is_empty() {
            return Err(damaged("it names no port".to_owned()));
        }
        Ok(Some(remembered))
    }

    pub(crate) fn remember(&self, remembered: &Remembered) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            // Written beside it and renamed, so that a crash leaves the old or the new one.
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(&serde_json::to_vec(remembered)?)?;
            file.persist(self.memory()).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(not_writable(&self.path))
    }

    fn memory(&self) -> PathBuf {
        self.path.join("replica-set.json")
    }

    /// Removes a temporary directory and reports if that failed; dropping does so in silence.
    pub(crate) fn close(self) -> Result<(), Error> {
        match self.temporary {
            Some(temporary) => temporary.close().map_err(Error::system(format!("remove {}", self.path.display()))),
            None => Ok(()),
        }
    }
}

/// Finds out whether a process uses this data directory now. Makes nothing: a directory that is not there is free.
///
/// # Errors
/// [`Error::DataDirHeld`] when one does, and [`Error::DataDirNotWritable`] when that can not be found out.
pub async fn check_free(dir: &Path) -> Result<(), Error> {
    match dir.canonicalize() {
        Ok(dir) if dir.join("lock").exists() => lock(&dir).await.map(drop),
        _ => Ok(()),
    }
}

async fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    // Not truncated on opening: until the lock is ours the content is somebody else's.
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open().map_err(not_writable(dir))?;
    let deadline = tokio::time::Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(cause)) => {
                return Err(Error::System { what: format!("lock {}", path.display()), cause });
            }
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // An unreadable or half-written note only makes the message poorer.
                let _ = file.read_to_string(&mut text);
                let holder: Option<Holder> = serde_json::from_str(&text).ok();
                return Err(Error::DataDirHeld {
                    dir: dir.to_owned(),
                    pid: holder.as_ref().map(|holder| holder.pid),
                    uri: holder.and_then(|holder| holder.uri),
                });
            }
        }
    }
}

/// Removes the temporary directories of processes that were killed before they could do so. Best
/// effort: a directory of another user stays, and so does one that is in use.
fn sweep_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    let abandoned = |path: &Path| -> io::Result<bool> {
        let lock = File::options().write(true).open(path.join("lock"))?;
        let age = SystemTime::now().duration_since(lock.metadata()?.modified()?).unwrap_or_default();
        Ok(age > ABANDONED_AFTER && lock.try_lock().is_ok())
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
        // `file_type` does not follow links, so a planted link is never swept.
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && abandoned(&entry.path()).unwrap_or(false) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn not_writable(dir: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::DataDirNotWritable { dir: dir.to_owned(), cause }
}
