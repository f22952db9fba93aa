//! Opens a MongoDB deployment, and says in one sentence what is wrong with it and what to do.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Client, ClusterTime, Collection, Database,
    bson::{Document, RawDocumentBuf, Timestamp, doc},
    error::{Error, ErrorKind},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};
use tokio::time::timeout;

use super::{
    diagnosis::{diagnose, fault_in},
    schema::SchemaOptions,
};

/// How long the driver looks for a server that can take an operation. Longer than an election (about 2 s on
/// a set with MongoDB's defaults takes up to 12 s; requests then answer 503 and are retried by their clients).
const SERVER_SELECTION_SECS: u64 = 5;
/// How long one TCP (and TLS) connection may take to open.
const CONNECT_SECS: u64 = 5;
/// The most connections that each of our clients opens to a server, unless the URI says otherwise. More requests than that
/// wait for one.
const CONNECTIONS_MAX: u32 = 64;
/// The first MongoDB that has what we use: `changeStreamPreAndPostImages`, and `$in` in partial indexes.
const OLDEST_MAJOR: u32 = 6;

/// A deployment that was found to have what we need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deployment {
    options: Arc<ClientOptions>,
    clients: Arc<RwLock<Clients>>,
    /// Whether this one reads the past.
    is_for_replays: bool,
    database: Arc<str>,
    /// The name of the collection of messages.
    pub(super) collection: Arc<str>,
    /// What may be done to it.
    pub(super) schema: SchemaOptions,
    /// The newest signed cluster time that the streams have seen. The clients do not share what they learn, and a node
    /// refuses to wait for a time of which it has no signed word.
    newest: Arc<RwLock<Option<SignedTime>>>,
    /// The collection was seen to keep images and not to have one.
    images_are_missing: Arc<AtomicBool>,
    /// Which of the collection's lives this is: see [`Self::with_epoch`].
    epoch_word: Arc<str>,
    /// The hosts, for log lines: never credentials.
    pub hosts: Arc<str>,
    /// MongoDB's version, for the log.
    pub version: Arc<str>,
}

#[derive(Debug)]
struct Clients {
    /// For requests: inserts and reads.
    requests: Client,
    /// For the stream: a client of its own, so that inserts never queue behind a `getMore` that waits.
    streams: Client,
    /// For streams over the past, which come and go, so that they never disturb the one that everything hangs on.
    replays: Client,
}

impl Clients {
    fn new(options: &ClientOptions) -> Result<Self, Error> {
        let client = || Client::with_options(options.clone());
        Ok(Self { requests: client()?, streams: client()?, replays: client()? })
    }
}

/// Why a deployment can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URI does not parse, or its `mongodb+srv` name does not resolve.
    #[error(
        "MONGODB_URI can not be used: {reason}. It should look like mongodb://host1,host2/?replicaSet=rs0 or mongodb+srv://cluster.example.net/"
    )]
    Uri {
        /// The driver's words, without what was in the URI.
        reason: String,
    },
    /// Nothing answers there.
    #[error(
        "MongoDB at {hosts} can not be reached ({reason}). Check that it runs and that this machine may connect, or leave MONGODB_URI unset to use the embedded one"
    )]
    Unreachable {
        /// Where.
        hosts: String,
        /// The driver's words.
        reason: String,
    },
    /// Wrong name or password, or a name that may not do what we need.
    #[error(
        "MongoDB at {hosts} refuses the credentials of MONGODB_URI ({reason}). Check user, password and authSource"
    )]
    Credentials {
        /// Where.
        hosts: String,
        /// The server's words.
        reason: String,
    },
    /// Change streams read the oplog, which a standalone server has not.
    #[error(
        "MongoDB at {hosts} is a standalone server; change streams need a replica set. Start it with --replSet rs0 and run rs.initiate() once in mongosh, or leave MONGODB_URI unset to use the embedded one"
    )]
    Standalone {
        /// Where.
        hosts: String,
    },
    /// A member of a set that nobody has made yet.
    #[error(
        "MongoDB at {hosts} was started for a replica set that is not initiated yet. Run rs.initiate() once in mongosh there, or leave MONGODB_URI unset to use the embedded one"
    )]
    NotInitiated {
        /// Where.
        hosts: String,
    },
    /// Older than 6.0.
    #[error(
        "MongoDB at {hosts} is version {version}; 6.0 or newer is needed. Upgrade it, or leave MONGODB_URI unset to use the embedded one"
    )]
    TooOld {
        /// Where.
        hosts: String,
        /// What it says it is.
        version: String,
    },
    /// Anything else that it answered.
    #[error("MongoDB at {hosts} could not be asked what it is: {reason}")]
    Other {
        /// Where.
        hosts: String,
        /// Its words.
        reason: String,
    },
}

/// MongoDB's newest time, and the same time as the driver passes it on, signed.
#[derive(Debug, Clone)]
pub(super) struct SignedTime {
    pub(super) time: Timestamp,
    pub(super) signed: ClusterTime,
}

impl Deployment {
    /// The same deployment, whose cursors are of another epoch for each `word`: a collection that was restored from a
    /// snapshot has its old UUID, and what followed the snapshot never was.
    #[must_use]
    pub fn with_epoch(self, word: &str) -> Self {
        Self { epoch_word: word.into(), ..self }
    }

    pub(super) fn epoch_word(&self) -> &str {
        &self.epoch_word
    }

    /// The same deployment, whose streams are those over the past.
    pub(super) fn for_replays(&self) -> Self {
        Self { is_for_replays: true, ..self.clone() }
    }

    /// Where inserts and reads go. To be asked for anew each time: see [`Self::renew`].
    pub(super) fn requests(&self) -> Database {
        self.clients().requests.database(&self.database)
    }

    /// The collection, for those.
    pub(super) fn messages(&self) -> Collection<RawDocumentBuf> {
        self.requests().collection(&self.collection)
    }

    /// Where the stream comes from.
    pub(super) fn streams(&self) -> Database {
        let clients = self.clients();
        let client = if self.is_for_replays { &clients.replays } else { &clients.streams };
        client.database(&self.database)
    }

    fn clients(&self) -> RwLockReadGuard<'_, Clients> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Connects anew, if MongoDB can be reached that way and no longer as it was. The driver remembers how many elections there were and takes a
    /// primary that has seen fewer for an old one, for ever: a deployment that was wiped or restored from a backup is only
    /// seen by clients that have not seen the one before it. Returns whether everything goes through new clients now, after
    /// ten seconds at most.
    pub async fn renew(&self) -> bool {
        timeout(Duration::from_secs(2 * CONNECT_SECS), self.renew_now()).await.unwrap_or(false)
    }

    /// Asks MongoDB for a sign of life where messages are written.
    ///
    /// # Errors
    /// When it gives none: why, in one sentence. There is no deadline but the driver's.
    pub async fn ping(&self) -> Result<(), String> {
        self.requests().run_command(doc! { "ping": 1 }).await.map(drop).map_err(|error| sentence_of(&error))
    }

    async fn renew_now(&self) -> bool {
        if self.ping().await.is_ok() {
            return false;
        }
        let Ok(clients) = Clients::new(&self.options) else {
            return false;
        };
        if check(&clients.requests, &self.hosts).await.is_err() {
            return false;
        }
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        // Another deployment does not know the signature.
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }

    pub(super) fn trusts_images(&self) -> bool {
        !self.images_are_missing.load(Ordering::Relaxed)
    }

    pub(super) fn distrust_images(&self) {
        self.images_are_missing.store(true, Ordering::Relaxed);
    }

    pub(super) fn saw(&self, time: SignedTime) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        // A replay may read from a node that lags behind; what is known does not become older by that.
        if newest.as_ref().is_none_or(|newest| newest.time < time.time) {
            *newest = Some(time);
        }
    }

    pub(super) fn newest_time(&self) -> Option<SignedTime> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which collection of which deployment, and what may be done to it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Where MongoDB is. Its `appName` and `maxPoolSize` are kept.
    pub uri: &'a str,
    /// The database. Without one it is that of the URI, or else `corriente`.
    pub database: Option<&'a str>,
    /// The collection of messages.
    pub collection: &'a str,
    /// What may be done to it.
    pub schema: SchemaOptions,
}

/// Connects, and checks that the deployment is a replica set or sharded cluster of version 6.0 or newer.
///
/// # Errors
/// When the deployment can not be used; see [`ConnectError`]. Takes about 5 s to say that nothing answers.
pub async fn connect(target: Target<'_>) -> Result<Deployment, ConnectError> {
    let Target { uri, database, collection, schema } = target;
    let mut options =
        ClientOptions::parse(uri).await.map_err(|error| ConnectError::Uri { reason: uri_fault(uri, &error) })?;
    options.app_name.get_or_insert_with(|| "corriente".into());
    options.server_selection_timeout = Some(Duration::from_secs(SERVER_SELECTION_SECS));
    options.connect_timeout.get_or_insert(Duration::from_secs(CONNECT_SECS));
    // The promise is made here, whatever the URI says: an acknowledged insert is on the disks of a majority, and
    // what is read is on a majority too. Retries are the driver's, and are safe for inserts (it numbers them).
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.read_concern = Some(ReadConcern::majority());
    // Everything is read where it is written: cursors, epochs and pages are compared with each other.
    options.selection_criteria = None;
    options.max_pool_size.get_or_insert(CONNECTIONS_MAX);
    options.retry_writes = Some(true);
    options.retry_reads = Some(true);

    let hosts = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let name = database.or(options.default_database.as_deref()).unwrap_or("corriente").to_owned();
    let clients = Clients::new(&options).map_err(|error| ConnectError::Uri { reason: uri_fault(uri, &error) })?;
    let version = match check(&clients.requests, &hosts).await {
        Err(unreachable @ ConnectError::Unreachable { .. }) => {
            return Err(diagnose(&options, &hosts).await.unwrap_or(unreachable));
        }
        checked => checked?,
    };
    Ok(Deployment {
        options: Arc::new(options),
        clients: Arc::new(RwLock::new(clients)),
        is_for_replays: false,
        database: name.into(),
        collection: collection.into(),
        schema,
        newest: Arc::default(),
        images_are_missing: Arc::default(),
        epoch_word: "".into(),
        hosts: hosts.into(),
        version: version.into(),
    })
}

/// Asks the deployment what it is. Returns its version.
async fn check(client: &Client, hosts: &str) -> Result<String, ConnectError> {
    let admin = client.database("admin");
    let ask = |command: Document| {
        let (admin, hosts) = (&admin, hosts.to_owned());
        async move { admin.run_command(command).await.map_err(|error| refused(hosts, &error)) }
    };
    let hello = ask(doc! { "hello": 1 }).await?;
    let version = ask(doc! { "buildInfo": 1 }).await?.get_str("version").unwrap_or("unknown").to_owned();
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major| major < OLDEST_MAJOR) {
        return Err(ConnectError::TooOld { hosts: hosts.to_owned(), version });
    }
    if let Some(fault) = fault_in(&hello, hosts) {
        return Err(fault);
    }
    // The first command that needs a right: wrong credentials show here at the latest.
    ask(doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": true }).await?;
    Ok(version)
}

fn refused(hosts: String, error: &Error) -> ConnectError {
    let reason = sentence_of(error);
    match &*error.kind {
        ErrorKind::Authentication { .. } => ConnectError::Credentials { hosts, reason },
        // 13 Unauthorized, 18 AuthenticationFailed; Atlas answers 8000.
        ErrorKind::Command(command) if matches!(command.code, 13 | 18 | 8000) => {
            ConnectError::Credentials { hosts, reason }
        }
        // The driver reports a failed handshake as a server that could not be selected.
        ErrorKind::ServerSelection { .. } if reason.contains("uthentication") => {
            ConnectError::Credentials { hosts, reason }
        }
        ErrorKind::ServerSelection { .. } | ErrorKind::Io(_) | ErrorKind::DnsResolve { .. } => {
            ConnectError::Unreachable { hosts, reason }
        }
        _ => ConnectError::Other { hosts, reason },
    }
}

/// What is wrong with a URI. The driver's sentence may quote parts of it, and a URI holds the password, so
/// only sentences that quote nothing but hosts are passed on.
fn uri_fault(uri: &str, error: &Error) -> String {
    match &*error.kind {
        ErrorKind::DnsResolve { .. } => "its host name could not be looked up in the DNS as mongodb+srv asks".into(),
        ErrorKind::InvalidArgument { message, .. } if !quotes_a_secret(message, uri) => message.clone(),
        _ => "it does not parse as a MongoDB connection string".into(),
    }
}

/// Whether `message` has a word of what may be secret in `uri`: of anything before the last `@`, which is where the
/// password is also when it should have been escaped, and of the values of options.
fn quotes_a_secret(message: &str, uri: &str) -> bool {
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
    }
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    let values = options.split('&').filter_map(|option| option.split_once('=')).flat_map(|(_, value)| words(value));
    let secrets: Vec<&str> = words(credentials).chain(values).collect();
    // A password without its `@` is read as a port, and quoted as one.
    message.contains("port") || words(message).any(|word| secrets.contains(&word))
}

/// The driver's error as one line. Its `Display` is a dump of structures; the parts that a person needs are
/// picked here.
pub(super) fn sentence_of(error: &Error) -> String {
    let text = match &*error.kind {
        ErrorKind::Command(command) => {
            // 13 Unauthorized goes on with the whole command.
            let message = command.message.split(" to execute command").next().unwrap_or_default();
            format!("{message} (code {})", command.code)
        }
        ErrorKind::Authentication { message, .. } => message.clone(),
        ErrorKind::ServerSelection { message, .. } => innermost(message),
        ErrorKind::Io(io) => io.to_string(),
        kind => kind.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A failed server selection lists every server with its error. The first of them says enough; without one, no
/// server has said anything, or the driver has sorted out all of them as not being of the set.
fn innermost(message: &str) -> String {
    let until = |text: &str, end: &[char]| text[..text.find(end).unwrap_or(text.len())].trim().to_owned();
    if let Some((_, rest)) = message.split_once("Error: ") {
        return until(rest, &[',', '}', ']']).trim_start_matches("Kind: ").to_owned();
    }
    match message.split_once("Set Name: ") {
        Some((_, rest)) => format!("no member of the replica set {} answers there", until(rest, &[',', '}'])),
        None => "nothing answers there".into(),
    }
}
