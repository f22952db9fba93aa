//! What all clients of one run share: where the servers are, the ledger of what was sent, and when to end.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mongodb::bson::oid::ObjectId;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use super::checker::{Ledger, Sent, Told};

/// How long a client waits for an answer of HTTP, or a handshake, before it takes the server for dead, in seconds.
/// A server that keeps its word has answered 503 by then.
pub const ANSWER_SECS_MAX: u64 = 12;
/// The pause before coming back, in milliseconds, at most; drawn at random.
const BACK_MILLIS_MAX: u64 = 100;

/// A client's WebSocket.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all clients of one run share.
#[derive(Clone)]
pub struct Stage {
    /// `http://...` of each server. Servers come and go; their addresses stay.
    pub servers: Arc<Vec<String>>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub http: reqwest::Client,
    /// Writers end when it is cancelled, after having settled what they have sent.
    pub stop_writing: CancellationToken,
    pub stop_reading: CancellationToken,
    /// Changes when all connections are to be cut.
    pub cuts: watch::Receiver<u64>,
    pub pause_between: Duration,
    connections: Arc<AtomicU64>,
}

impl Stage {
    pub fn new(servers: Vec<String>, pause_between: Duration) -> (Self, watch::Sender<u64>) {
        let (cut, cuts) = watch::channel(0);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(ANSWER_SECS_MAX)).build();
        let stage = Self {
            servers: Arc::new(servers),
            ledger: Arc::default(),
            http: http.expect("an HTTP client"),
            stop_writing: CancellationToken::new(),
            stop_reading: CancellationToken::new(),
            cuts,
            pause_between,
            connections: Arc::default(),
        };
        (stage, cut)
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new message in the ledger, before anything of it is sent.
    pub fn begin(&self, writer: &str, room: &str, sequence: u64, connection: Option<u64>) -> Sent {
        let told = Told { room: room.to_owned(), content: format!("{writer}:{sequence}") };
        let id = ObjectId::new().to_hex();
        let sent = Sent { id, writer: writer.to_owned(), told, connection, attempts: 0, acknowledged: None };
        self.ledger().sent.push(sent.clone());
        sent
    }

    /// A number for a connection over which messages are sent.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Changes the newest record of a message.
    pub fn note(&self, id: &str, change: impl FnOnce(&mut Sent)) {
        if let Some(sent) = self.ledger().sent.iter_mut().rev().find(|sent| sent.id == id) {
            change(sent);
        }
    }

    /// The pause between two messages of a writer.
    pub async fn pause(&self, rng: &mut StdRng) {
        let millis = self.pause_between.as_millis() as u64;
        sleep(Duration::from_millis(rng.random_range(0..=2 * millis))).await;
    }
}

/// A short pause of random length, as a client that lost its server makes.
pub async fn pause_before_coming_back(rng: &mut StdRng) {
    sleep(Duration::from_millis(rng.random_range(BACK_MILLIS_MAX / 4..=BACK_MILLIS_MAX))).await;
}

/// Opens a WebSocket; `None` when that fails.
pub async fn dial(server: &str, query: &str) -> Option<Socket> {
    let url = format!("{}/ws?{query}", server.replacen("http", "ws", 1));
    let dialling = timeout(Duration::from_secs(ANSWER_SECS_MAX), connect_async(url));
    Some(dialling.await.ok()?.ok()?.0)
}
