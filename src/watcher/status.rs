//! What the watcher says of itself to everybody else.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::cursor::Cursor;

/// Without a moving position for so long, in seconds, the stream is stale: MongoDB's own no-op moves it every 10 s.
pub(super) const STALE_SECS: u64 = 30;

/// An open stream answers within so many seconds, if only that there is nothing new.
const ANSWER_SECS: u64 = 2;

/// What the watcher says of itself to everybody else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatcherStatus {
    state: watch::Receiver<State>,
    told: watch::Receiver<Told>,
}

/// What clients are told of the stream: less than [`Liveness`], and seldom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// What is written is told at once.
    Live,
    /// The stream is away for longer than a blink.
    CatchingUp,
    /// The stream is open, but its position stands still.
    Stale,
}

impl Told {
    /// The word in frames.
    pub fn as_str(self) -> &'static str {
        match self {
            Told::Live => "live",
            Told::CatchingUp => "catching up",
            Told::Stale => "stale",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) position: Cursor,
    pub(super) moved_at: Instant,
    pub(super) is_open: bool,
    /// When MongoDB answered last, and how old the newest of what came with that was then.
    pub(super) answered_at: Instant,
    pub(super) lag: Duration,
}

impl State {
    /// Of a stream that was just opened.
    pub(super) fn open_at(position: Cursor) -> Self {
        let now = Instant::now();
        Self { position, moved_at: now, is_open: true, answered_at: now, lag: Duration::ZERO }
    }
}

/// How live the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Open, and its position moves.
    Live,
    /// Being opened again.
    CatchingUp,
    /// Its position has not moved for this many seconds.
    Stale(u64),
}

impl WatcherStatus {
    pub(super) fn new(state: watch::Receiver<State>, told: watch::Receiver<Told>) -> Self {
        Self { state, told }
    }

    /// The place up to which everything was received. A history that is read at least as new as its time joins
    /// the stream there without a gap.
    pub fn position(&self) -> Cursor {
        self.state.borrow().position
    }

    /// What clients are told of the stream, and a way to wait for another word. Who comes while it is not live has still to
    /// be told so.
    pub fn told(&self) -> watch::Receiver<Told> {
        let mut told = self.told.clone();
        if *told.borrow_and_update() != Told::Live {
            told.mark_changed();
        }
        told
    }

    /// How live the stream is.
    pub fn liveness(&self) -> Liveness {
        let state = *self.state.borrow();
        let still_secs = state.moved_at.elapsed().as_secs();
        if still_secs >= STALE_SECS {
            Liveness::Stale(still_secs)
        } else if state.is_open {
            Liveness::Live
        } else {
            Liveness::CatchingUp
        }
    }

    /// How long the position has stood still.
    pub fn still_for(&self) -> Duration {
        self.state.borrow().moved_at.elapsed()
    }

    /// How far this server is behind MongoDB: how old the newest change was when it came, and how long MongoDB has not
    /// answered since, if it should have.
    pub fn lag(&self) -> Duration {
        let state = *self.state.borrow();
        let silence = state.answered_at.elapsed();
        let is_due = !state.is_open || silence > Duration::from_secs(ANSWER_SECS);
        if is_due { state.lag + silence } else { state.lag }
    }

    /// Waits until the position has come to `cursor`'s time. Returns `false` when it has not within `patience`.
    pub async fn reached(&self, cursor: Cursor, patience: Duration) -> bool {
        let mut states = self.state.clone();
        let reached = states.wait_for(|state| state.position.time >= cursor.time);
        matches!(timeout(patience, reached).await, Ok(Ok(_)))
    }
}
