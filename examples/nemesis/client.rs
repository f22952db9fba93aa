//! Clients that do everything right: readers that come back with their newest cursor and reload when told to, and
//! writers that try again with the same id until they are sure.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use mongodb::{
    Collection,
    bson::{Document, doc, oid::ObjectId},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use crate::checker::{Ledger, ReaderLog, Seen, Sent, Told};

/// How long a client waits for an answer of HTTP, or a handshake, before it takes the server for dead, in seconds.
/// A server that keeps its word has answered 503 by then.
const ANSWER_SECS_MAX: u64 = 12;
/// The pause before coming back, in milliseconds, at most; drawn at random.
const BACK_MILLIS_MAX: u64 = 100;
/// Messages of one socket whose `sent` is waited for at once.
const UNDER_WAY_MAX: usize = 4;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

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

    fn begin(&self, writer: &str, room: &str, sequence: u64, connection: Option<u64>) -> Sent {
        let told = Told { room: room.to_owned(), content: format!("{writer}:{sequence}") };
        let id = ObjectId::new().to_hex();
        let sent = Sent { id, writer: writer.to_owned(), told, connection, attempts: 0, acknowledged: None };
        self.ledger().sent.push(sent.clone());
        sent
    }

    /// Changes the newest record of a message.
    fn note(&self, id: &str, change: impl FnOnce(&mut Sent)) {
        if let Some(sent) = self.ledger().sent.iter_mut().rev().find(|sent| sent.id == id) {
            change(sent);
        }
    }

    async fn pause(&self, rng: &mut StdRng) {
        let millis = self.pause_between.as_millis() as u64;
        sleep(Duration::from_millis(rng.random_range(0..=2 * millis))).await;
    }
}

async fn pause_before_coming_back(rng: &mut StdRng) {
    sleep(Duration::from_millis(rng.random_range(BACK_MILLIS_MAX / 4..=BACK_MILLIS_MAX))).await;
}

async fn dial(server: &str, query: &str) -> Option<Socket> {
    let url = format!("{}/ws?{query}", server.replacen("http", "ws", 1));
    let dialling = timeout(Duration::from_secs(ANSWER_SECS_MAX), connect_async(url));
    Some(dialling.await.ok()?.ok()?.0)
}

/// Follows `rooms` (none: everything) until reading is stopped. Starts at the server `first` and goes on at another
/// one after every disconnection, and by itself after `hop_after` frames or so.
pub async fn read(stage: Stage, log: Arc<Mutex<ReaderLog>>, first: usize, hop_after: Option<u32>, seed: u64) {
    let stop = stage.stop_reading.clone();
    let reading = Reader { stage, log, at: first, hop_after, rng: StdRng::seed_from_u64(seed) };
    stop.run_until_cancelled(reading.run()).await;
}

struct Reader {
    stage: Stage,
    log: Arc<Mutex<ReaderLog>>,
    at: usize,
    hop_after: Option<u32>,
    rng: StdRng,
}

impl Reader {
    async fn run(mut self) {
        let mut cursor: Option<String> = None;
        loop {
            let joined = match cursor {
                None => self.reload().await,
                Some(cursor) => self.follow(cursor).await,
            };
            cursor = joined;
            pause_before_coming_back(&mut self.rng).await;
        }
    }

    fn server(&self) -> &str {
        &self.stage.servers[self.at]
    }

    fn hop(&mut self) {
        self.at = self.rng.random_range(0..self.stage.servers.len());
    }

    fn record(&self, seen: Seen) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).record(seen);
    }

    fn rooms(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).rooms.clone()
    }

    /// Follows until the connection ends. Returns the newest cursor; `None` after a reset.
    async fn follow(&mut self, mut cursor: String) -> Option<String> {
        let mut query = format!("after={cursor}");
        let rooms = self.rooms();
        rooms.iter().for_each(|room| query.push_str(&format!("&room={room}")));
        if rooms.is_empty() {
            query.push_str("&all=true");
        }
        // Marked before the connection is there: a cut that comes meanwhile cuts it.
        let mut cuts = self.stage.cuts.clone();
        cuts.mark_unchanged();
        let Some(mut socket) = dial(self.server(), &query).await else {
            self.hop();
            return Some(cursor);
        };
        self.record(Seen::Joined { after: cursor.clone() });
        let mut left = self.hop_after.map(|frames| self.rng.random_range(1..=2 * frames));
        while left != Some(0) {
            let next = tokio::select! {
                next = socket.next() => next,
                // The connection is dropped without a goodbye, whatever was on its way.
                _ = cuts.changed() => break,
            };
            let frame: Value = match next {
                Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("a frame of JSON"),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                _ => break,
            };
            left = left.map(|left| left - 1);
            let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
            if let Some(newest) = frame["cursor"].as_str() {
                cursor = newest.to_owned();
            }
            match frame["type"].as_str() {
                Some("created" | "updated") => {
                    let (id, told) = told(&frame["message"]);
                    self.record(Seen::Message { cursor: cursor.clone(), id, told });
                }
                Some("deleted") => self.record(Seen::Deleted { cursor: cursor.clone(), id: text("id") }),
                Some("ready" | "position") => self.record(Seen::Moved { cursor: cursor.clone() }),
                Some("reset") => {
                    self.record(Seen::Reset { reason: text("reason") });
                    return None;
                }
                other => panic!("{other:?} is no frame for a reader: {frame}"),
            }
        }
        self.hop();
        Some(cursor)
    }

    /// Loads the whole history. The cursor is that of the first page, which was taken before anything was read.
    async fn reload(&mut self) -> Option<String> {
        let mut rooms: Vec<String> = self.rooms().iter().map(|room| format!("&room={room}")).collect();
        if rooms.is_empty() {
            rooms.push(String::new());
        }
        let (mut first, mut messages) = (None, BTreeMap::new());
        for room in rooms {
            let mut place = String::new();
            loop {
                let path = format!("/api/messages?limit=200{room}{place}");
                let Some(page) = self.get(&path).await else {
                    self.hop();
                    return None;
                };
                first = first.or_else(|| page["cursor"].as_str().map(str::to_owned));
                messages.extend(page["messages"].as_array().into_iter().flatten().map(told));
                match page["before"].as_str() {
                    Some(before) => place = format!("&before={before}"),
                    None => break,
                }
            }
        }
        self.record(Seen::Reloaded { cursor: first.clone()?, messages });
        first
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let response = self.stage.http.get(format!("{}{path}", self.server())).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }
}

fn told(message: &Value) -> (String, Told) {
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    (text("id"), Told { room: text("room"), content: text("content") })
}

/// Sends over REST, one after the other, each until it is acknowledged.
pub async fn write_over_rest(stage: Stage, writer: String, room: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for sequence in 0.. {
        if stage.stop_writing.is_cancelled() {
            return;
        }
        let sent = stage.begin(&writer, &room, sequence, None);
        let body = json!({ "id": sent.id, "room": room, "sender": writer, "content": sent.told.content });
        loop {
            stage.note(&sent.id, |sent| sent.attempts += 1);
            let server = &stage.servers[rng.random_range(0..stage.servers.len())];
            let answer = stage.http.post(format!("{server}/api/messages")).json(&body).send().await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            *stage.ledger().answers.entry(status).or_default() += 1;
            match status {
                200 | 201 => break stage.note(&sent.id, |sent| sent.acknowledged = Some(Instant::now())),
                0 | 503 => pause_before_coming_back(&mut rng).await,
                _ => {
                    let scandal = format!("POST answered {status} to {}", sent.told.content);
                    break stage.ledger().scandals.push(scandal);
                }
            }
        }
        stage.pause(&mut rng).await;
    }
}

/// Sends over WebSockets, a few at once; after a disconnection what was not acknowledged is sent again first.
pub async fn write_over_socket(stage: Stage, writer: String, room: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut sequence, mut unsettled): (u64, Vec<Sent>) = (0, Vec::new());
    while !stage.stop_writing.is_cancelled() || !unsettled.is_empty() {
        let server = rng.random_range(0..stage.servers.len());
        let mut cuts = stage.cuts.clone();
        cuts.mark_unchanged();
        if let Some(mut socket) = dial(&stage.servers[server], "").await {
            let connection = stage.connections.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = send_on(&stage, &mut socket, connection, (&writer, &room), &mut sequence, &mut unsettled, &mut rng) => {}
                _ = cuts.changed() => {}
            }
        }
        pause_before_coming_back(&mut rng).await;
    }
}

/// Sends until the connection ends, or writing does and all is settled.
async fn send_on(
    stage: &Stage,
    socket: &mut Socket,
    connection: u64,
    (writer, room): (&str, &str),
    sequence: &mut u64,
    unsettled: &mut Vec<Sent>,
    rng: &mut StdRng,
) {
    for sent in unsettled.clone() {
        if submit(stage, socket, &sent).await.is_none() {
            return;
        }
    }
    loop {
        let is_over = stage.stop_writing.is_cancelled();
        if is_over && unsettled.is_empty() {
            return;
        }
        if !is_over && unsettled.len() < UNDER_WAY_MAX {
            let sent = stage.begin(writer, room, *sequence, Some(connection));
            *sequence += 1;
            unsettled.push(sent.clone());
            if submit(stage, socket, &sent).await.is_none() {
                return;
            }
            stage.pause(rng).await;
            continue;
        }
        let Ok(Some(Ok(message))) = timeout(Duration::from_secs(ANSWER_SECS_MAX), socket.next()).await else {
            return;
        };
        let frame: Value = match message {
            Message::Text(text) => serde_json::from_str(&text).expect("a frame of JSON"),
            Message::Close(_) => return,
            _ => continue,
        };
        match frame["type"].as_str() {
            Some("sent") => {
                let id = frame["id"].as_str().unwrap_or_default();
                stage.note(id, |sent| sent.acknowledged = Some(Instant::now()));
                unsettled.retain(|sent| sent.id != id);
            }
            Some("error") if frame["problem"]["status"] == 503 => {
                let failed = unsettled.iter().find(|sent| Some(sent.id.as_str()) == frame["id"].as_str()).cloned();
                pause_before_coming_back(rng).await;
                match failed {
                    Some(sent) if submit(stage, socket, &sent).await.is_some() => {}
                    _ => return,
                }
            }
            Some("error") => {
                stage.ledger().scandals.push(format!("a socket answered {frame}"));
                unsettled.retain(|sent| Some(sent.id.as_str()) != frame["id"].as_str());
            }
            _ => {}
        }
    }
}

async fn submit(stage: &Stage, socket: &mut Socket, sent: &Sent) -> Option<()> {
    stage.note(&sent.id, |sent| sent.attempts += 1);
    let Told { room, content } = &sent.told;
    let frame = json!({ "type": "send", "id": sent.id, "room": room, "sender": sent.writer, "content": content });
    socket.send(Message::text(frame.to_string())).await.ok()
}

/// Writes past the server, as other programs do: inserts, edits, moves to the room `other` and back, deletes.
pub async fn write_by_driver(
    stage: Stage,
    messages: Collection<Document>,
    writer: String,
    (room, other): (String, String),
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut written: Vec<(ObjectId, Told)> = Vec::new();
    for sequence in 0.. {
        if stage.stop_writing.is_cancelled() {
            return;
        }
        let old = (!written.is_empty()).then(|| rng.random_range(0..written.len()));
        match (rng.random_range(0..10), old) {
            (0, Some(at)) => {
                let (id, _) = written.swap_remove(at);
                stage.ledger().deletes.insert(id.to_hex());
                while messages.delete_one(doc! { "_id": id }).await.is_err() {
                    pause_before_coming_back(&mut rng).await;
                }
            }
            (1..4, Some(at)) => {
                let (id, told) = &mut written[at];
                told.content = format!("{writer}:edit {sequence}");
                if rng.random_bool(0.3) {
                    told.room = if told.room == room { other.clone() } else { room.clone() };
                }
                stage.ledger().edits.push((id.to_hex(), told.clone()));
                let change = doc! { "$set": { "content": &told.content, "room": &told.room } };
                while messages.update_one(doc! { "_id": *id }, change.clone()).await.is_err() {
                    pause_before_coming_back(&mut rng).await;
                }
            }
            _ => {
                let sent = stage.begin(&writer, &room, sequence, None);
                let id = ObjectId::parse_str(&sent.id).expect("an ObjectId");
                let Told { content, .. } = &sent.told;
                let document = doc! { "_id": id, "content": content, "sender": &writer, "room": &room };
                loop {
                    match messages.insert_one(&document).await {
                        Ok(_) => break,
                        // Stored by an attempt whose answer was lost; only a majority's word is an acknowledgement.
                        Err(error) if error.to_string().contains("E11000") && is_stored(&messages, id).await => break,
                        Err(_) => pause_before_coming_back(&mut rng).await,
                    }
                }
                stage.note(&sent.id, |sent| (sent.attempts, sent.acknowledged) = (1, Some(Instant::now())));
                written.push((id, sent.told));
            }
        }
        stage.pause(&mut rng).await;
    }
}

async fn is_stored(messages: &Collection<Document>, id: ObjectId) -> bool {
    messages.find_one(doc! { "_id": id }).await.is_ok_and(|found| found.is_some())
}
