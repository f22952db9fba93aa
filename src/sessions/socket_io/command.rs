//! What a client can ask for.

use serde_json::{Value, json};
use socketioxide::extract::AckSender;
use tokio::sync::OwnedSemaphorePermit;

use crate::problem::Problem;

/// A command, by the name of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe,
    Unsubscribe,
    Message,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Subscribe, Kind::Unsubscribe, Kind::Message];

    pub(super) fn event(self) -> &'static str {
        match self {
            Kind::Subscribe => "subscribe",
            Kind::Unsubscribe => "unsubscribe",
            Kind::Message => "message",
        }
    }
}

/// One event of the client.
pub(super) struct Command {
    pub(super) kind: Kind,
    /// Its first argument, as JSON: a value in memory may be many times larger than its text.
    pub(super) text: Box<str>,
    /// The room of the text among those that wait.
    pub(super) _room: OwnedSemaphorePermit,
    pub(super) answer: Answer,
}

impl Command {
    /// The first argument.
    pub(super) fn data(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Where the answer to a command goes.
pub(super) struct Answer {
    pub(super) ack: AckSender,
    pub(super) is_awaited: bool,
}

impl Answer {
    /// Says that the command was not taken, if there is room to say it.
    pub(super) fn refuse(self) {
        let problem = Problem::unavailable("too many of your messages wait; send it again with the same id");
        let _ = self.ack.send(&json!({ "problem": problem }));
    }
}
