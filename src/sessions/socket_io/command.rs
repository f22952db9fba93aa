//! What a client can ask for.

use serde_json::{Value, json};
use socketioxide::extract::AckSender;

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

/// One event of the client, with its first argument.
pub(super) struct Command {
    pub(super) kind: Kind,
    pub(super) data: Value,
    pub(super) answer: Answer,
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
