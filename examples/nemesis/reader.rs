//! A reader that does everything right: it comes back with its newest cursor, and reloads the history when told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{
    checker::{ReaderLog, Seen, Told},
    stage::{Stage, dial, pause_before_coming_back},
};

/// Follows the rooms of `log` until reading is stopped. Starts at the server `first` and goes on at another one after
/// every disconnection, and by itself after `hop_after` frames or so.
pub async fn read(stage: Stage, log: Arc<Mutex<ReaderLog>>, first: usize, hop_after: Option<u32>, seed: u64) {
    let stop = stage.stop_reading.clone();
    let reading = Reader { stage, log, at: first, hop_after, rng: StdRng::seed_from_u64(seed) };
    stop.run_until_cancelled(reading.run()).await;
}

/// A log that begins with the history as it is now, for [`read`] to go on with later. `None` when it can not be read.
pub async fn remember(stage: Stage, name: String, rooms: Vec<String>, server: usize) -> Option<ReaderLog> {
    let log = Arc::new(Mutex::new(ReaderLog { name, rooms, ..ReaderLog::default() }));
    let rng = StdRng::seed_from_u64(0);
    Reader { stage, log: log.clone(), at: server, hop_after: None, rng }.reload().await?;
    let log = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Some(log)
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
        // A log that begins with a history goes on there, however long ago that was.
        let mut cursor = match self.log.lock().unwrap_or_else(PoisonError::into_inner).seen.last() {
            Some((_, Seen::Reloaded { cursor, .. })) => Some(cursor.clone()),
            _ => None,
        };
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
