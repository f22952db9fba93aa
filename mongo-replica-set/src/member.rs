//! One mongod: its arguments, its life, its end.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::fetch::Mongod;
use crate::log::{self, Reason};
use crate::process::Process;
use crate::{Error, ports, wire};

/// From the start of the process to its first answer. 0.2 s is usual; after a crash a large
/// journal is replayed first.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// A mongod whose parent was killed dies at the same moment, but not before its files and port are
/// released; a restart that follows at once meets them still taken.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

const PORT_ATTEMPTS_MAX: usize = 8;
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What all members of a set have in common.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) mongod: Mongod,
    pub(crate) set_name: String,
    pub(crate) temporary: bool,
    pub(crate) oplog_size_mb: Option<u32>,
    pub(crate) journal_commit_interval_ms: Option<u32>,
    pub(crate) test_commands: bool,
    pub(crate) extra_args: Vec<String>,
}

impl Recipe {
    fn args(&self, port: u16, dir: &Path) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut arg = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        arg("--replSet", &self.set_name);
        arg("--port", &port.to_string());
        arg("--dbpath", &dir.to_string_lossy());
        // There is no password, so nobody but this machine may come near.
        arg("--bind_ip", "127.0.0.1");
        // On SIGTERM a member first serves on for up to 15 s, so that drivers notice. Here the
        // programs that use it are on this machine and see the connection close.
        arg("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0");
        if let Some(interval) = self.journal_commit_interval_ms {
            // A change stream shows what is in the majority's journal, and the journal is flushed
            // every 100 ms unless a writer waits for it: a writer with w:1 would see its message
            // arrive 50 ms late on average. 1 ms costs a tenth of a core.
            arg("--journalCommitInterval", &interval.to_string());
        }
        if let Some(size) = self.oplog_size_mb {
            arg("--oplogSize", &size.to_string());
        }
        if self.test_commands {
            arg("--setParameter", "enableTestCommands=1");
        }
        if self.temporary {
            // The default is half of the memory, for each of several members of several tests.
            arg("--wiredTigerCacheSizeGB", "0.25");
            // Otherwise each member allocates three journal files of 100 MB. One file must hold a
            // whole transaction record, so it is not smaller than this.
            arg("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=64MB)");
            // Nobody will study the performance history of a set that is about to be removed.
            arg("--setParameter", "diagnosticDataCollectionEnabled=false");
        }
        // A socket file in /tmp would outlive a killed mongod.
        args.push("--nounixsocket".to_owned());
        // No log line per connection: the log is for finding out why a mongod ended.
        args.push("--quiet".to_owned());
        args.extend(self.extra_args.iter().cloned());
        args
    }
}

/// One member of a set. Dropping it kills its mongod.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) port: u16,
    recipe: Arc<Recipe>,
    dir: PathBuf,
    log: PathBuf,
    // A std mutex: held for system calls that take microseconds (a kill: milliseconds), never
    // across an await.
    life: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Life {
    /// `None` after a kill.
    process: Option<Process>,
    paused: bool,
}

/// Why a launch did not lead to an answer.
enum Stillborn {
    Ended(ExitStatus, Reason),
    Error(Error),
}

impl Member {
    /// Starts a mongod on the preferred port, or on another one if that is taken, and waits until
    /// it answers.
    pub(crate) async fn start(
        index: usize,
        recipe: Arc<Recipe>,
        dir: PathBuf,
        log: PathBuf,
        preferred_port: u16,
    ) -> Result<Member, Error> {
        let mut member = Member { index, port: preferred_port, recipe, dir, log, life: Mutex::default() };
        let start = Instant::now();
        let mut attempts = 1;
        loop {
            match member.launch().await {
                Ok(()) => return Ok(member),
                Err(Stillborn::Ended(_, Reason::PortTaken)) if attempts < PORT_ATTEMPTS_MAX => {
                    attempts += 1;
                    member.port = ports::choose(None, &[]).map_err(Error::system("find a free port"))?;
                }
                Err(Stillborn::Ended(_, Reason::FilesInUse)) if start.elapsed() < RELEASED_WITHIN => {
                    tokio::time::sleep(POLL_EVERY * 5).await;
                }
                Err(stillborn) => return Err(member.failure(stillborn)),
            }
        }
    }

    /// Starts the mongod again on the same port and files, killing it first if it still runs.
    pub(crate) async fn restart(&self) -> Result<(), Error> {
        self.kill()?;
        let start = Instant::now();
        loop {
            match self.launch().await {
                Ok(()) => return Ok(()),
                Err(Stillborn::Ended(_, Reason::FilesInUse | Reason::PortTaken))
                    if start.elapsed() < RELEASED_WITHIN =>
                {
                    tokio::time::sleep(POLL_EVERY * 5).await;
                }
                Err(stillborn) => return Err(self.failure(stillborn)),
            }
        }
    }

    async fn launch(&self) -> Result<(), Stillborn> {
        let system = |what: String| |cause| Stillborn::Error(Error::System { what, cause });
        let log = log::open(&self.log).map_err(system(format!("write {}", self.log.display())))?;
        let mongod = &self.recipe.mongod.path;
        let process = Process::spawn(mongod, &self.recipe.args(self.port, &self.dir), &log)
            .map_err(system(format!("start {}", mongod.display())))?;
        *self.life() = Life { process: Some(process), paused: false };

        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            if let Some(status) = self.ended().map_err(Stillborn::Error)? {
                self.life().process = None;
                return Err(Stillborn::Ended(status, log::reason(&self.log)));
            }
            if self.answers().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Stillborn::Error(Error::TimedOut {
                    what: format!("the first answer of mongod (member {})", self.index),
                    within: ANSWERS_WITHIN,
                    last: None,
                }));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Whether our mongod, and no stranger that took the port first, answers.
    async fn answers(&self) -> bool {
        match wire::run(self.port, doc! { "getCmdLineOpts": 1 }, Duration::from_secs(1)).await {
            Ok(reply) => db_path(&reply).is_some_and(|path| Path::new(path) == self.dir),
            Err(_) => false,
        }
    }

    fn failure(&self, stillborn: Stillborn) -> Error {
        let (status, log) = match stillborn {
            Stillborn::Error(error) => return error,
            Stillborn::Ended(_, Reason::FilesInUse) => {
                let pid = std::fs::read_to_string(self.dir.join("mongod.lock")).ok();
                let pid = pid.and_then(|text| text.trim().parse().ok());
                return Error::FilesInUse { dir: self.dir.clone(), pid };
            }
            Stillborn::Ended(_, Reason::Incompatible(why)) => {
                let Mongod { path, version } = &self.recipe.mongod;
                return Error::DataIncompatible {
                    dir: self.dir.clone(),
                    mongod: path.clone(),
                    version: version.to_string(),
                    why,
                };
            }
            Stillborn::Ended(status, Reason::PortTaken) => (status, format!("port {} is taken", self.port)),
            Stillborn::Ended(status, Reason::Other(log)) => (status, log),
        };
        Error::MongodEnded { member: self.index, status: status.to_string(), log, log_file: self.log.clone() }
    }

    /// Asks the member one command on the database `admin`.
    pub(crate) async fn command(&self, command: Document, within: Duration) -> Result<Document, wire::Failure> {
        wire::run(self.port, command, within).await
    }

    /// The process id, while a mongod runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.life().process.as_ref().map(Process::id)
    }

    /// Whether the member can be expected to answer: neither killed nor paused.
    pub(crate) fn is_up(&self) -> bool {
        let life = self.life();
        life.process.is_some() && !life.paused
    }

    /// SIGKILL without waiting for the end, to end several members at once.
    pub(crate) fn kill_soon(&self) {
        if let Some(process) = &mut self.life().process {
            // Whoever drops the process kills it again, and waits.
            let _ = process.signal(Signal::KILL);
        }
    }

    /// SIGKILL, and wait until the process is reaped. Killing a dead member is no error.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        let mut life = self.life();
        if let Some(process) = &mut life.process {
            process.kill().map_err(Error::system(format!("kill mongod (member {})", self.index)))?;
        }
        *life = Life::default();
        Ok(())
    }

    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        self.life().paused = true;
        Ok(())
    }

    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)?;
        self.life().paused = false;
        Ok(())
    }

    /// SIGTERM, and wait until the process is gone; SIGKILL when it takes too long, which loses
    /// nothing, because everything acknowledged is in the journal.
    pub(crate) async fn terminate(&self, within: Duration) -> Result<(), Error> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        // A stopped process would not see the other signal.
        self.resume()?;
        let deadline = Instant::now() + within;
        while self.ended()?.is_none() && Instant::now() < deadline {
            tokio::time::sleep(POLL_EVERY).await;
        }
        self.kill()
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        match &mut self.life().process {
            Some(process) => {
                process.signal(signal).map_err(Error::system(format!("signal mongod (member {})", self.index)))
            }
            None => Err(Error::NoSuchMember { member: self.index, why: "was killed and does not run" }),
        }
    }

    /// The error to report if the mongod has ended without having been killed.
    pub(crate) fn unexpected_end(&self) -> Option<Error> {
        match self.ended() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.failure(Stillborn::Ended(status, log::reason(&self.log)))),
            Err(error) => Some(error),
        }
    }

    fn ended(&self) -> Result<Option<ExitStatus>, Error> {
        match &mut self.life().process {
            Some(process) => process.ended().map_err(Error::system(format!("watch mongod (member {})", self.index))),
            None => Ok(None),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn db_path(command_line: &Document) -> Option<&str> {
    command_line.get_document("parsed").ok()?.get_document("storage").ok()?.get_str("dbPath").ok()
}
