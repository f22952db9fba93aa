//! What was typed: each line becomes a message with an id of its own, and is repeated under that id until the server has
//! answered it. The id makes that harmless.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    connection::{Place, Problem, send_frame},
    screen::Screen,
};

/// Messages that may wait for their answers; when there are more, the next line waits.
const UNANSWERED_MAX: usize = 32;
/// A message that was answered "later" is repeated after half of this at least, and at most all of it.
const REPEAT_AFTER: Duration = Duration::from_secs(4);
/// How long to wait, at the end, for stored messages to be shown too: one may have been deleted at once.
const ECHO_MAX: Duration = Duration::from_secs(3);

pub struct Outbox {
    name: String,
    lines: mpsc::Receiver<String>,
    unanswered: VecDeque<Waiting>,
    /// Stored, and not shown yet.
    unseen: HashSet<String>,
    /// Shown, and not said to be stored yet.
    seen_before: HashSet<String>,
    ended_at: Option<Instant>,
    answered_at: Instant,
}

struct Waiting {
    id: String,
    frame: String,
    /// `None`: it was sent and waits for its answer.
    send_at: Option<Instant>,
}

impl Outbox {
    pub fn new(name: String, lines: mpsc::Receiver<String>) -> Self {
        Self {
            name,
            lines,
            unanswered: VecDeque::new(),
            unseen: HashSet::new(),
            seen_before: HashSet::new(),
            ended_at: None,
            answered_at: Instant::now(),
        }
    }

    /// When the input ended.
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended_at
    }

    /// How many messages are not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether there is nothing more to send or to show.
    pub fn is_done(&self) -> bool {
        let is_shown = self.unseen.is_empty() || self.answered_at.elapsed() > ECHO_MAX;
        self.ended_at.is_some() && self.unanswered.is_empty() && is_shown
    }

    /// After a break nobody knows which answers were lost.
    pub fn repeat_all(&mut self) {
        self.seen_before.clear();
        for waiting in &mut self.unanswered {
            waiting.send_at = Some(Instant::now());
        }
    }

    /// Takes what is typed while there is no connection, for so long.
    pub async fn listen(&mut self, length: Duration, place: &Place, screen: &Screen) {
        let end = Instant::now() + length;
        while timeout_at(end, self.read_line(place, screen)).await.is_ok() {}
    }

    /// Waits for the next frame to send. `None`: there may be something else to do. May be dropped and called again.
    pub async fn next(&mut self, place: &Place, screen: &Screen) -> Option<String> {
        let due = self.unanswered.iter().enumerate().filter_map(|(at, waiting)| Some((waiting.send_at?, at))).min();
        // While the last messages are not shown, somebody must look at the clock.
        let (wake_at, due) = match due {
            Some((send_at, at)) => (send_at, Some(at)),
            None => (Instant::now() + ECHO_MAX, None),
        };
        tokio::select! {
            () = sleep_until(wake_at) => {
                let waiting = self.unanswered.get_mut(due?)?;
                waiting.send_at = None;
                Some(waiting.frame.clone())
            }
            () = self.read_line(place, screen) => None,
        }
    }

    /// Takes the next line, or the end of the input. May be dropped and called again.
    async fn read_line(&mut self, place: &Place, screen: &Screen) {
        if self.ended_at.is_some() || self.unanswered.len() >= UNANSWERED_MAX {
            return std::future::pending().await;
        }
        match self.lines.recv().await {
            Some(line) => self.take(&line, place, screen),
            None => self.ended_at = Some(Instant::now()),
        }
    }

    fn take(&mut self, line: &str, place: &Place, screen: &Screen) {
        if line.trim().is_empty() {
            return;
        }
        let (to, content) = match place {
            Place::Room(room) => (("room", room.as_str()), line),
            Place::Inbox(_) => match line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                Some((recipient, content)) => (("recipient", recipient), content),
                None => return screen.note("not sent: say to whom it is, as in `@Luis hola`"),
            },
        };
        let id = new_id();
        let frame = send_frame(&id, &self.name, to, content);
        self.unanswered.push_back(Waiting { id, frame, send_at: Some(Instant::now()) });
    }

    /// A message was told; it may be one of ours.
    pub fn seen(&mut self, id: &str) {
        if self.unseen.remove(id) {
            return;
        }
        if self.forget(id) {
            // Its `sent` may still come.
            self.seen_before.insert(id.to_owned());
        }
    }

    /// A message of ours is on the disks of a majority.
    pub fn stored(&mut self, id: &str) {
        if !self.seen_before.remove(id) {
            self.unseen.insert(id.to_owned());
        }
        self.forget(id);
    }

    /// The server did not take something of ours: never, or not now.
    pub fn refused(&mut self, id: Option<&str>, problem: &Problem, screen: &Screen) {
        let is_later = matches!(problem.status, 429 | 503);
        let waiting = self.unanswered.iter_mut().find(|waiting| Some(waiting.id.as_str()) == id);
        match (waiting, is_later) {
            (Some(waiting), true) => {
                waiting.send_at = Some(Instant::now() + REPEAT_AFTER.mul_f64(0.5 + rand::random::<f64>() / 2.0));
                screen.note(&format!("not stored yet, it is sent again: {}", problem.detail));
            }
            _ => {
                self.forget(id.unwrap_or_default());
                screen.note(&format!("not sent: {}", problem.detail));
            }
        }
    }

    fn forget(&mut self, id: &str) -> bool {
        let before = self.unanswered.len();
        self.unanswered.retain(|waiting| waiting.id != id);
        self.answered_at = Instant::now();
        self.unanswered.len() < before
    }
}

/// An ObjectId: four bytes of seconds since 1970, and eight random ones.
fn new_id() -> String {
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:08x}{:016x}", secs & 0xFFFF_FFFF, rand::random::<u64>())
}
