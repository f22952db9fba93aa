//! Writers that try again with the same id until they are sure: over REST, over WebSockets, and past the server.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use mongodb::{
    Collection,
    bson::{Document, doc, oid::ObjectId},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    checker::{Sent, Told},
    stage::{ANSWER_SECS_MAX, Socket, Stage, dial, pause_before_coming_back},
};

/// Messages of an importer's batch, and how often one comes.
const BATCH: u64 = 50;
const BATCH_EVERY: Duration = Duration::from_millis(50);
/// Messages of one socket whose `sent` is waited for at once.
const UNDER_WAY_MAX: usize = 4;

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
            let asked_at = Instant::now();
            let answer = stage.http.post(format!("{server}/api/messages")).json(&body).send().await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            stage.ledger().answered(status, asked_at.elapsed());
            match status {
                200 | 201 => break stage.note(&sent.id, |sent| sent.acknowledged = Some(Instant::now())),
                0 | 503 => pause_before_coming_back(&mut rng).await,
                _ => {
                    let scandal = format!("POST answered {status} to {}", sent.told.content);
                    break stage.ledger().scandal(scandal);
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
            let connection = stage.next_connection();
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
                stage.ledger().scandal(format!("a socket answered {frame}"));
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

/// Writes past the server in batches of [`BATCH`], as an importer does: one every [`BATCH_EVERY`], so that one writer
/// alone makes a thousand messages a second. `rooms` in turn.
pub async fn write_in_bulk(
    stage: Stage,
    messages: Collection<Document>,
    writer: String,
    rooms: Vec<String>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut batches = interval(BATCH_EVERY);
    for batch in 0.. {
        if stage.stop_writing.run_until_cancelled(batches.tick()).await.is_none() {
            return;
        }
        let sent: Vec<Sent> = (0..BATCH)
            .map(|n| stage.begin(&writer, &rooms[n as usize % rooms.len()], batch * BATCH + n, None))
            .collect();
        let ids: Vec<_> = sent.iter().map(|sent| ObjectId::parse_str(&sent.id).expect("an ObjectId")).collect();
        let documents: Vec<_> = sent
            .iter()
            .zip(&ids)
            .map(|(Sent { told, .. }, id)| {
                doc! { "_id": id, "content": &told.content, "sender": &writer, "room": &told.room }
            })
            .collect();
        // A retry finds there already what was stored of a batch that broke.
        while messages.insert_many(&documents).ordered(false).await.is_err() && !are_stored(&messages, &ids).await {
            pause_before_coming_back(&mut rng).await;
        }
        let now = Instant::now();
        for sent in &sent {
            stage.note(&sent.id, |sent| (sent.attempts, sent.acknowledged) = (1, Some(now)));
        }
    }
}

async fn are_stored(messages: &Collection<Document>, ids: &[ObjectId]) -> bool {
    let stored = messages.count_documents(doc! { "_id": { "$in": ids } }).await;
    stored.is_ok_and(|stored| stored == ids.len() as u64)
}

async fn is_stored(messages: &Collection<Document>, id: ObjectId) -> bool {
    messages.find_one(doc! { "_id": id }).await.is_ok_and(|found| found.is_some())
}
