//! One socket: its commands one after the other, and what there is to tell it as far as it has room.

use std::{collections::VecDeque, ops::ControlFlow, sync::Arc, time::Duration};

use futures::future::join_all;
use poem::http::StatusCode;
use serde_json::{Map, Value, json, value::RawValue};
use socketioxide::{SendError, SocketError, extract::SocketRef};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::Admission,
    command::{Answer, Command, Kind},
    following::Following,
    room::{Room, Waiting, has_left},
};
use crate::{
    cursor::Cursor,
    message::Draft,
    mongo::{InsertError, Inserted, Inserter},
    problem::Problem,
    rates::{Patience, TooMany},
    sessions::{Client, Sessions, frame::ServerFrame},
};

/// How long to wait for a client that has no room: first, and at most. Each time twice as long.
const ROOM_PAUSE_MIN: Duration = Duration::from_millis(1);
const ROOM_PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long a client may take for its last packet.
const LAST_WORD_TIME_MAX: Duration = Duration::from_millis(400);

/// The socket is closed.
struct End;

/// Messages of one socket that are being inserted; when there are more, its commands wait.
const INSERTS_MAX: usize = 32;

/// An insert under way: a task of its own, so that it goes on whatever becomes of the socket.
type Inserting = (JoinHandle<Result<Inserted, InsertError>>, Answer, Option<String>);

/// One frame, and its place.
struct Unsent {
    kind: &'static str,
    cursor: Cursor,
    json: Vec<u8>,
}

impl Unsent {
    /// Whether it will be told once more by a subscription that begins after `start`. That all is to be loaded anew is told
    /// once only.
    fn comes_after(&self, start: Cursor) -> bool {
        self.kind != "reset" && self.cursor.epoch == start.epoch && self.cursor.time > start.time
    }
}

/// One socket.
pub(super) struct Session {
    socket: SocketRef,
    waiting: Waiting,
    client: Client,
    patience: Patience,
    sessions: Arc<Sessions>,
    inserter: Inserter,
    commands: mpsc::Receiver<Command>,
    /// Cancelled when the socket is closed.
    gone: CancellationToken,
    /// Closes the WebSocket below.
    leave: CancellationToken,
    following: Following,
    /// What was read, and found no room after all.
    unsent: Option<Unsent>,
    /// In the order in which they were sent, which is that in which they join the queue of the inserter.
    inserting: VecDeque<Inserting>,
}

impl Session {
    pub(super) fn new(
        socket: SocketRef,
        admission: &Admission,
        sessions: Arc<Sessions>,
        commands: mpsc::Receiver<Command>,
        gone: CancellationToken,
        place: Option<String>,
    ) -> Self {
        Self {
            inserter: sessions.inserter.for_source("socket.io"),
            following: Following::new(sessions.sources.clone(), place),
            socket,
            waiting: Waiting::default(),
            client: admission.client.clone(),
            leave: admission.leave.clone(),
            patience: Patience::default(),
            sessions,
            commands,
            gone,
            unsent: None,
            inserting: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let sessions = self.sessions.clone();
        tokio::select! {
            // The socket is gone; there is nobody else to tell.
            End = self.serve() => {}
            () = sessions.dismissal() => {
                // The place to come back with. What waits for the client is still written after that; who polls has it with
                // the answer, and no connection that could be closed.
                let _ = timeout(LAST_WORD_TIME_MAX, self.say_position()).await;
                self.leave.cancel();
            }
        }
        self.finish_inserts().await;
    }

    async fn serve(&mut self) -> End {
        let mut told = self.sessions.status.told();
        let mut position_at = Instant::now() + self.sessions.keep_alive;
        let mut pause = ROOM_PAUSE_MIN;
        loop {
            let tells_from = self.following.tells_from;
            let is_reading = tells_from <= Instant::now();
            let (room, has_told) = if is_reading { self.tell() } else { (Room::Free, false) };
            if room == Room::Gone {
                return End;
            }
            // A client that has taken something will soon have room again.
            let is_stuck = room == Room::Full && !has_told;
            pause = if is_stuck { (pause * 2).min(ROOM_PAUSE_MAX) } else { ROOM_PAUSE_MIN };
            let gone = self.gone.clone();
            let done = tokio::select! {
                () = gone.cancelled() => Err(End),
                turned = self.following.turn(), if is_reading && room == Room::Free => {
                    if turned { Ok(()) } else { Err(End) }
                }
                // It is also looked for in vain: what the client does is not told to us.
                () = sleep(pause), if room == Room::Full => Ok(()),
                () = sleep_until(tells_from), if !is_reading => Ok(()),
                Some(command) = self.commands.recv(), if self.inserting.len() < INSERTS_MAX => self.obey(command).await,
                outcome = outcome_of(&mut self.inserting) => self.answer_insert(outcome).await,
                () = sleep_until(position_at) => {
                    position_at = Instant::now() + self.sessions.keep_alive;
                    self.say_position().await
                }
                Ok(()) = told.changed() => self.say_position().await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Tells the client what there is, as far as it has room. A client that has none holds a place in the log. Returns
    /// whether there is room for more, and whether something was told.
    fn tell(&mut self) -> (Room, bool) {
        let Some(subscription) = &mut self.following.subscription else {
            return (Room::Free, false);
        };
        let mut room = self.waiting.room(&self.socket);
        if room != Room::Free {
            return (room, false);
        }
        if let Some(unsent) = self.unsent.take() {
            room = emit(&self.socket, &mut self.waiting, unsent.kind, &unsent.json);
            if room != Room::Free {
                self.unsent = Some(unsent);
                return (room, false);
            }
        }
        let (mut has_told, mut is_reset) = (false, false);
        let (socket, waiting, unsent) = (&self.socket, &mut self.waiting, &mut self.unsent);
        subscription.tell(&self.sessions.metrics, |piece| {
            is_reset |= piece.kind == "reset";
            room = emit(socket, waiting, piece.kind, piece.json);
            if room == Room::Full {
                // There was room, and the library took it for packets of its own.
                *unsent = Some(Unsent { kind: piece.kind, cursor: piece.cursor, json: piece.json.to_vec() });
                return ControlFlow::Break(());
            }
            has_told = true;
            if room == Room::Free {
                room = waiting.room(socket);
            }
            if room == Room::Free { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if is_reset {
            self.following.forget_place();
        }
        (room, has_told)
    }

    async fn obey(&mut self, command: Command) -> Result<(), End> {
        let data = command.data();
        let Command { kind, answer, .. } = command;
        if let Err(too_many) = self.sessions.rates.request(self.client.network) {
            return self.refuse(answer, id_in(&data), too_many).await;
        }
        let fields = match data {
            Value::Object(fields) => fields,
            _ => {
                let detail = format!("`{}` takes an object", kind.event());
                return self.complain(answer, None, Problem::new(StatusCode::BAD_REQUEST, detail)).await;
            }
        };
        let done = match kind {
            Kind::Message => return self.insert(fields, answer).await,
            Kind::Subscribe => self.following.follow(&fields).map(|followed| {
                // What is told once more needs not be sent late. What lies before the new beginning is not.
                self.unsent.take_if(|unsent| followed.is_anew && unsent.comes_after(followed.cursor));
                json!({ "topic": followed.topic, "cursor": followed.cursor })
            }),
            Kind::Unsubscribe => self.following.unfollow(&fields).map(|topic| json!({ "topic": topic })),
        };
        match done {
            Ok(done) => self.acknowledge(answer, done).await,
            Err(problem) => self.complain(answer, None, problem).await,
        }
    }

    async fn insert(&mut self, fields: Map<String, Value>, answer: Answer) -> Result<(), End> {
        let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
        match self.client.message(Draft::from_json(fields)) {
            Ok(message) => {
                if let Err(too_many) = self.sessions.rates.message(self.client.network, &message.sender) {
                    return self.refuse(answer, id, too_many).await;
                }
                // It joins the queue here, and so in its order; those that wait there leave together.
                let task = self.sessions.tasks.spawn(self.inserter.begin(message));
                self.inserting.push_back((task, answer, id));
                Ok(())
            }
            Err(problem) => self.complain(answer, id, problem).await,
        }
    }

    /// A client that takes no notice of it is let go.
    async fn refuse(&mut self, answer: Answer, id: Option<String>, too_many: TooMany) -> Result<(), End> {
        if self.patience.lose().is_err() {
            let _ = self.socket.clone().disconnect();
            return Err(End);
        }
        self.complain(answer, id, too_many.into()).await
    }

    async fn answer_insert(&mut self, outcome: Option<Result<Inserted, InsertError>>) -> Result<(), End> {
        let Some((_, answer, id)) = self.inserting.pop_front() else {
            return Ok(());
        };
        match outcome {
            Some(Ok(inserted)) => self.acknowledge(answer, json!({ "message": inserted.message })).await,
            Some(Err(error)) => self.complain(answer, id, error.into()).await,
            None => {
                let problem = Problem::unavailable("the server failed; send the message again with the same id");
                self.complain(answer, id, problem).await
            }
        }
    }

    /// What the client has sent is inserted, also when it left at once or the server stops. Nobody is told any more: a
    /// client that is unsure sends again with the same id.
    async fn finish_inserts(mut self) {
        self.commands.close();
        let mut last = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            // To leave is no way around the limits: what they refuse is not stored.
            if command.kind == Kind::Message
                && self.sessions.rates.request(self.client.network).is_ok()
                && let Value::Object(fields) = command.data()
                && let Ok(message) = self.client.message(Draft::from_json(fields))
                && self.sessions.rates.message(self.client.network, &message.sender).is_ok()
            {
                last.push(self.inserter.begin(message));
            }
        }
        for (task, ..) in self.inserting {
            let _ = task.await;
        }
        // The inserter counts and logs what fails.
        join_all(last).await;
    }

    async fn acknowledge(&mut self, answer: Answer, done: Value) -> Result<(), End> {
        if answer.is_awaited {
            self.wait_for_room().await?;
            self.waiting.note(done.to_string().len());
            let _ = answer.ack.send(&done);
        }
        Ok(())
    }

    /// Without an acknowledgement to put it into, a problem is an event of its own.
    async fn complain(&mut self, answer: Answer, id: Option<String>, problem: Problem) -> Result<(), End> {
        if answer.is_awaited {
            return self.acknowledge(answer, json!({ "problem": problem })).await;
        }
        let frame = ServerFrame::Error { id: id.as_deref(), problem: &problem }.json();
        self.say("error", &frame).await
    }

    async fn say_position(&mut self) -> Result<(), End> {
        if has_left(&self.socket) {
            return Err(End);
        }
        // A client that follows nothing yet keeps the place that it came with.
        let Some(subscription) = &mut self.following.subscription else {
            return Ok(());
        };
        let stream = self.sessions.status.told().borrow().as_str();
        let frame = ServerFrame::Position { cursor: subscription.position(), stream }.json();
        if self.unsent.is_some() || self.following.tells_from > Instant::now() {
            // The position is beyond what the client has, or it is not yet known whether there is an answer to it.
            return Ok(());
        }
        self.say("position", &frame).await
    }

    async fn say(&mut self, kind: &'static str, json: &[u8]) -> Result<(), End> {
        self.wait_for_room().await?;
        match emit(&self.socket, &mut self.waiting, kind, json) {
            Room::Gone => Err(End),
            // It is said once more in a while, or it was of no use to a client that does not read.
            Room::Free | Room::Full => Ok(()),
        }
    }

    async fn wait_for_room(&mut self) -> Result<(), End> {
        let mut pause = ROOM_PAUSE_MIN;
        loop {
            match self.waiting.room(&self.socket) {
                Room::Free => return Ok(()),
                Room::Gone => return Err(End),
                Room::Full => {}
            }
            tokio::select! {
                () = self.gone.cancelled() => return Err(End),
                () = sleep(pause) => pause = (pause * 2).min(ROOM_PAUSE_MAX),
            }
        }
    }
}

/// The id of a message, as its client wrote it.
fn id_in(data: &Value) -> Option<String> {
    data.get("id").and_then(Value::as_str).map(str::to_owned)
}

/// Sends one event with the frame as its argument.
fn emit(socket: &SocketRef, waiting: &mut Waiting, kind: &'static str, json: &[u8]) -> Room {
    // It was JSON when it was written; to be looked through once more costs less than to be written once more.
    let Ok(json) = serde_json::from_slice::<&RawValue>(json) else {
        return Room::Free;
    };
    match socket.emit(kind, json) {
        Ok(()) => {
            waiting.note(json.get().len());
            Room::Free
        }
        Err(SendError::Serialize(_)) => Room::Free,
        Err(SendError::Socket(SocketError::InternalChannelFull)) => Room::Full,
        Err(SendError::Socket(_)) => Room::Gone,
    }
}

/// The outcome of the oldest insert under way; for ever pending when there is none. `None` when its task failed. May be dropped
/// and called again.
async fn outcome_of(inserting: &mut VecDeque<Inserting>) -> Option<Result<Inserted, InsertError>> {
    match inserting.front_mut() {
        Some((task, ..)) => task.await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::ClusterTime;

    fn at(seconds: u32) -> Cursor {
        Cursor { epoch: 1, time: ClusterTime { seconds, increment: 1 }, key: 7 }
    }

    #[test]
    fn what_found_no_room_is_let_go_only_when_it_will_be_told_once_more() {
        let unsent = |kind, seconds| Unsent { kind, cursor: at(seconds), json: Vec::new() };
        assert!(unsent("created", 5).comes_after(at(3)));
        assert!(!unsent("created", 5).comes_after(at(7)), "nobody would tell it");
        assert!(!unsent("created", 5).comes_after(at(5)), "better twice than never");
        assert!(!unsent("reset", 5).comes_after(at(3)));
    }
}
