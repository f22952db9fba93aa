//! What there is to tell one client, piece by piece: for transports that put it into envelopes of their own.

use std::ops::ControlFlow;

use super::{
    frame::{ServerFrame, event_json},
    subscription::{Output, Subscription},
};
use crate::{
    cursor::Cursor,
    telemetry::{Metrics, ReasonLabels},
};

/// How much is joined for one write, in bytes. More than that brings nothing, and is held for a client that does not read.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// One frame, without an envelope.
pub(super) struct Piece<'a> {
    /// Its `type`.
    pub(super) kind: &'static str,
    /// Its place.
    pub(super) cursor: Cursor,
    /// The frame as on the WebSocket, on one line.
    pub(super) json: &'a [u8],
}

impl Subscription {
    /// Gives `put` what there is to tell, in order, until that is all or `put` breaks off. What was not put is told the next
    /// time: a client that has no room for more holds a place in the log, and nothing of the log.
    pub(super) fn tell(&mut self, metrics: &Metrics, mut put: impl FnMut(Piece<'_>) -> ControlFlow<()>) {
        while let Some(output) = self.take() {
            let flow = match output {
                Output::Events(events) => {
                    let broke_at = events.iter().position(|told| {
                        let json = event_json(&told.entry, told.change);
                        put(Piece { kind: told.change.as_str(), cursor: told.entry.cursor, json }).is_break()
                    });
                    let count = broke_at.map_or(events.len(), |at| at + 1);
                    metrics.deliveries.note(count, self.written_millis(&events));
                    match broke_at {
                        // The last one needs no way back: the place behind all of them may be further on.
                        Some(at) if at + 1 < events.len() => {
                            self.go_back_to(&events[at]);
                            return;
                        }
                        Some(_) => return,
                        None => ControlFlow::Continue(()),
                    }
                }
                Output::Ready(cursor) => {
                    put(Piece { kind: "ready", cursor, json: &ServerFrame::Ready { cursor }.json() })
                }
                Output::Reset(cursor, reason) => {
                    metrics.resets.get_or_create(&ReasonLabels { reason }).inc();
                    put(Piece { kind: "reset", cursor, json: &ServerFrame::Reset { cursor, reason }.json() })
                }
            };
            if flow.is_break() || !self.has_more() {
                return;
            }
        }
    }
}
