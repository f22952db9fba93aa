//! Every way in which this crate can fail, each as one sentence for the person at the terminal.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a replica set could not be started, or did not do what was asked.
///
/// The text of each is complete: it needs no source chain to be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable `mongod` was found, and none could be fetched.
    #[error(
        "no usable mongod: {why}; install MongoDB 6.0 or newer (or point MONGOD at its mongod), set MONGODB_URI to a \
         replica set that is already running, or use `docker compose up`"
    )]
    NoMongod {
        /// What was tried, and how it failed.
        why: String,
    },

    /// The `mongod` that was asked for by name (`MONGOD`, or [`Options::mongod`](crate::Options::mongod)) cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    MongodUnusable {
        /// The program that was named.
        path: PathBuf,
        /// It does not run, or it is too old.
        why: String,
    },

    /// Another process (or another set of this process) uses the data directory now.
    #[error("{}", held(dir, *pid, uri.as_deref()))]
    DataDirHeld {
        /// The directory that was asked for.
        dir: PathBuf,
        /// The process that holds it, when it has said so yet.
        pid: Option<u32>,
        /// Where its replica set answers; `None` while it is still starting.
        uri: Option<String>,
    },

    /// A `mongod` that nobody supervises any more still has the files open.
    #[error(
        "{} is still in use by {}, although no program holds the directory; end that process and start again",
        dir.display(),
        match pid { Some(pid) => format!("the mongod with process id {pid}"), None => "another mongod".to_owned() }
    )]
    FilesInUse {
        /// The member's directory.
        dir: PathBuf,
        /// The process id that mongod left in its lock file.
        pid: Option<u32>,
    },

    /// The data directory cannot be created or written.
    #[error("cannot write the data directory {}: {cause}", dir.display())]
    DataDirNotWritable {
        /// The directory, or the file in it that failed.
        dir: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },

    /// The data directory exists but is not one of ours, or our note in it is damaged.
    #[error("cannot use the data directory {}: {why}", dir.display())]
    DataDirUnusable {
        /// The directory that was asked for.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// The files were written by a MongoDB version that this `mongod` cannot read.
    #[error(
        "the files in {} were written by a MongoDB version that {} ({version}) cannot read: {why}; use the MongoDB that \
         wrote them, or another data directory",
        dir.display(),
        mongod.display()
    )]
    DataIncompatible {
        /// The member's directory.
        dir: PathBuf,
        /// The program that refused them.
        mongod: PathBuf,
        /// Its version, such as `6.0.5`.
        version: String,
        /// mongod's own words.
        why: String,
    },

    /// A `mongod` ended by itself.
    #[error("mongod (member {member}) ended with {status}: {log}; its log is {}", log_file.display())]
    MongodEnded {
        /// The member's number, from 0.
        member: usize,
        /// Its exit status, as the system prints it.
        status: String,
        /// The last meaningful lines of its log.
        log: String,
        /// Where the rest can be read. Gone after a temporary set.
        log_file: PathBuf,
    },

    /// Members ended again whenever they were started.
    #[error("mongod ended {times} times within a minute and is not started again; the last time: {end}")]
    EndsAgain {
        /// How often, all members together.
        times: usize,
        /// The last end.
        end: Box<Error>,
    },

    /// Something did not happen in the time that it was given.
    #[error("{what} did not happen within {} s{}", within.as_secs_f32(), last.as_deref().map(|last| format!(" (last seen: {last})")).unwrap_or_default())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// The last answer before giving up, if there was one.
        last: Option<String>,
    },

    /// A `mongod` refused an administrative command.
    #[error("mongod (member {member}) refused `{command}`: {why}")]
    Refused {
        /// The member's number, from 0.
        member: usize,
        /// The command's name.
        command: &'static str,
        /// mongod's words, or the network's.
        why: String,
    },

    /// A member was named that the set does not have, or that does not run now.
    #[error("member {member} {why}")]
    NoSuchMember {
        /// The number that was given.
        member: usize,
        /// Why it cannot be used.
        why: &'static str,
    },

    /// The options contradict each other or the files.
    #[error("{0}")]
    Options(String),

    /// The operating system refused something that should always work, such as starting a process.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was attempted, to follow "cannot".
        what: String,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl Error {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |cause| Error::System { what, cause }
    }
}

fn held(dir: &std::path::Path, pid: Option<u32>, uri: Option<&str>) -> String {
    let dir = dir.display();
    let holder = match pid {
        Some(pid) => format!("the process {pid}"),
        None => "another process".to_owned(),
    };
    match uri {
        Some(uri) => {
            format!("{dir} is held by {holder}; set MONGODB_URI={uri} to use the same database")
        }
        None => format!("{dir} is held by {holder}, which is still starting; try again in a few seconds"),
    }
}
