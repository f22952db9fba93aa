//! Was the promise kept? Compares what writers were told, what readers saw and what the database holds. Pure: the
//! faults and the clients are elsewhere, so that a broken promise found in a long run can be replayed in a unit test.
//!
//! Readers are correct clients: they apply whole messages by id, come back with their newest cursor, and load the
//! history again when a `reset` says so. What a reader then knows must be what the database holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

/// A cursor, taken apart. Clients must not do that; a checker must, as it judges the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub epoch: u32,
    /// (T, I) as one number.
    pub time: u64,
    pub key: u32,
}

impl Place {
    /// Reads `epoch-TI-k`. Panics on anything else: a server that sends something else has broken its promise.
    pub fn parse(text: &str) -> Self {
        let parts: Vec<_> = text.split('-').map(|part| u64::from_str_radix(part, 16)).collect();
        match parts[..] {
            [Ok(epoch), Ok(time), Ok(key)] => Self { epoch: epoch as u32, time, key: key as u32 },
            _ => panic!("the server sent {text:?} as a cursor"),
        }
    }
}

/// A message as the checker compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub room: String,
    pub content: String,
}

/// What a reader met, in order.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A connection was opened with this cursor.
    Joined { after: String },
    /// `created` or `updated`.
    Message { cursor: String, id: String, told: Told },
    /// `deleted`.
    Deleted { cursor: String, id: String },
    /// `ready` or `position`.
    Moved { cursor: String },
    /// A gap that was announced.
    Reset { reason: String },
    /// The history was loaded, as at the start and after a reset.
    Reloaded { cursor: String, messages: BTreeMap<String, Told> },
}

/// Everything that one reader met, and what it knows now.
#[derive(Debug, Clone, Default)]
pub struct ReaderLog {
    pub name: String,
    /// The rooms that it follows; none is all.
    pub rooms: Vec<String>,
    pub seen: Vec<(Instant, Seen)>,
    /// The fold of what it saw.
    pub known: BTreeMap<String, Told>,
}

impl ReaderLog {
    pub fn record(&mut self, seen: Seen) {
        match &seen {
            Seen::Message { id, told, .. } => {
                self.known.insert(id.clone(), told.clone());
            }
            Seen::Deleted { id, .. } => {
                self.known.remove(id);
            }
            Seen::Reloaded { messages, .. } => self.known.clone_from(messages),
            Seen::Joined { .. } | Seen::Moved { .. } | Seen::Reset { .. } => {}
        }
        self.seen.push((Instant::now(), seen));
    }

    pub fn follows(&self, room: &str) -> bool {
        self.rooms.is_empty() || self.rooms.iter().any(|followed| followed == room)
    }
}

/// One message that a writer tried to send.
#[derive(Debug, Clone)]
pub struct Sent {
    pub id: String,
    pub writer: String,
    pub told: Told,
    /// Which connection of the writer carried its first attempt; `None` when there is no order to expect.
    pub connection: Option<u64>,
    pub attempts: u32,
    pub acknowledged: Option<Instant>,
}

/// What writers did.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub sent: Vec<Sent>,
    /// What was written over messages, tried or done: (id, message).
    pub edits: Vec<(String, Told)>,
    /// Ids whose deletion was tried.
    pub deletes: BTreeSet<String>,
    /// How often each HTTP status was answered; 0 = no answer at all.
    pub answers: BTreeMap<u16, u64>,
    /// How long the slowest of them took.
    pub slowest: BTreeMap<u16, Duration>,
    /// Answers that must not be, in words.
    pub scandals: Vec<Finding>,
}

impl Ledger {
    pub fn answered(&mut self, status: u16, time: Duration) {
        *self.answers.entry(status).or_default() += 1;
        let slowest = self.slowest.entry(status).or_default();
        *slowest = time.max(*slowest);
    }

    pub fn scandal(&mut self, words: String) {
        found(&mut self.scandals, Instant::now(), words);
    }
}

/// Something that was found, and when what it is about happened.
#[derive(Debug, Clone)]
pub struct Finding {
    pub at: Instant,
    pub words: String,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    /// Acknowledged, and not in the database.
    pub lost: Vec<Finding>,
    /// In the database, and not seen by a reader that should have.
    pub unseen: Vec<Finding>,
    /// Seen, and never written or rolled back.
    pub phantoms: Vec<Finding>,
    /// Out of order: within a reader, between readers, or of one writer's connection.
    pub reordered: Vec<Finding>,
    /// What a reader knows in the end is not what the database holds.
    pub diverged: Vec<Finding>,
    /// Answers that must not be.
    pub scandals: Vec<Finding>,
    /// Events that were told again, although nothing that the promise names explains it.
    pub repeated: Vec<Finding>,
    /// Events told again that the reader had asked for: after a reload, or at the very time of its cursor.
    pub repeated_as_allowed: usize,
    pub resets: Vec<Finding>,
    pub reloads: usize,
    pub events: usize,
}

impl Verdict {
    /// Resets that have none of the reasons in `allowed`.
    pub fn resets_besides(&self, allowed: &[&str]) -> Vec<&Finding> {
        self.resets.iter().filter(|reset| !allowed.iter().any(|reason| reset.words.ends_with(reason))).collect()
    }

    /// Whether nothing but repeats, which a replay's seam allows, went wrong.
    pub fn is_kept(&self) -> bool {
        let broken = [&self.lost, &self.unseen, &self.phantoms, &self.reordered, &self.diverged, &self.scandals];
        broken.iter().all(|list| list.is_empty())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} acknowledged, {} events seen, {} reloads", self.acknowledged, self.events, self.reloads)?;
        for (word, list) in [
            ("lost", &self.lost),
            ("unseen", &self.unseen),
            ("phantoms", &self.phantoms),
            ("reordered", &self.reordered),
            ("diverged", &self.diverged),
            ("scandals", &self.scandals),
            ("repeated", &self.repeated),
            ("resets", &self.resets),
        ] {
            writeln!(f, "{word}: {}", list.len())?;
            // The first few say what kind of fault it is.
            for finding in list.iter().take(8) {
                writeln!(f, "    {}", finding.words)?;
            }
        }
        write!(f, "repeated as allowed: {}", self.repeated_as_allowed)
    }
}

/// Compares everything with everything. `stored` is what the database holds after the last write.
pub fn check(ledger: &Ledger, stored: &BTreeMap<String, Told>, readers: &[ReaderLog]) -> Verdict {
    let mut verdict = Verdict { scandals: ledger.scandals.clone(), ..Verdict::default() };
    check_ledger(&mut verdict, ledger, stored);
    // Made once: a run of minutes has dozens of readers, each of which met most of the messages.
    let (written, order) = (everything_written(ledger, stored), order_of_sending(ledger));
    for reader in readers {
        check_reader(&mut verdict, &written, reader);
        check_knowledge(&mut verdict, ledger, stored, reader);
        check_writers_order(&mut verdict, ledger, &order, reader);
    }
    check_one_order(&mut verdict, readers);
    check_one_story(&mut verdict, readers);
    verdict
}

fn found(list: &mut Vec<Finding>, at: Instant, words: String) {
    list.push(Finding { at, words });
}

fn check_ledger(verdict: &mut Verdict, ledger: &Ledger, stored: &BTreeMap<String, Told>) {
    for sent in &ledger.sent {
        let Some(at) = sent.acknowledged else { continue };
        verdict.acknowledged += 1;
        if !stored.contains_key(&sent.id) && !ledger.deletes.contains(&sent.id) {
            found(&mut verdict.lost, at, format!("{} ({}) was acknowledged", sent.told.content, sent.id));
        }
    }
}

/// Each message as it ever was, by id.
type Written<'a> = HashMap<&'a str, Vec<&'a Told>>;

fn everything_written<'a>(ledger: &'a Ledger, stored: &'a BTreeMap<String, Told>) -> Written<'a> {
    let mut written = Written::new();
    let sent = ledger.sent.iter().map(|sent| (&sent.id, &sent.told));
    for (id, told) in sent.chain(ledger.edits.iter().map(|(id, told)| (id, told))).chain(stored) {
        written.entry(id).or_default().push(told);
    }
    written
}

/// Order, repeats and phantoms of one reader.
fn check_reader(verdict: &mut Verdict, written: &Written<'_>, reader: &ReaderLog) {
    let name = &reader.name;
    // The newest place of this connection, and the newest first-seen event since the last reload.
    let (mut connection, mut newest): (Option<Place>, Option<Place>) = (None, None);
    let mut joined_at: Option<Place> = None;
    // Cursors of all events, with the number of the reload after which they were seen last.
    let mut told_after: HashMap<&str, usize> = HashMap::new();
    let mut reloads = 0;
    for (at, seen) in &reader.seen {
        let at = *at;
        match seen {
            Seen::Joined { after } => {
                joined_at = Some(Place::parse(after));
                connection = joined_at;
            }
            Seen::Reset { reason } => {
                found(&mut verdict.resets, at, format!("{name}: {reason}"));
                connection = None;
            }
            Seen::Reloaded { messages, .. } => {
                reloads += 1;
                verdict.reloads += 1;
                newest = None;
                for (id, told) in messages {
                    expect_written(verdict, written, (name, at), id, told);
                }
            }
            Seen::Moved { cursor } => expect_rise(verdict, (name, at), &mut connection, cursor),
            Seen::Message { cursor, .. } | Seen::Deleted { cursor, .. } => {
                verdict.events += 1;
                expect_rise(verdict, (name, at), &mut connection, cursor);
                if let Seen::Message { id, told, .. } = seen {
                    expect_written(verdict, written, (name, at), id, told);
                }
                let place = Place::parse(cursor);
                match told_after.insert(cursor, reloads) {
                    None => match newest {
                        Some(newest) if newest.epoch == place.epoch && newest.time > place.time => {
                            found(&mut verdict.reordered, at, format!("{name}: {cursor} came after a later event"));
                        }
                        _ => newest = Some(place),
                    },
                    Some(before) if before < reloads => verdict.repeated_as_allowed += 1,
                    Some(_) if joined_at.is_some_and(|joined| joined.key != 0 && joined.time == place.time) => {
                        verdict.repeated_as_allowed += 1;
                    }
                    Some(_) => found(&mut verdict.repeated, at, format!("{name}: {cursor}, joined at {joined_at:x?}")),
                }
            }
        }
    }
}

fn expect_written(verdict: &mut Verdict, written: &Written<'_>, (name, at): (&str, Instant), id: &str, told: &Told) {
    if !written.get(id).is_some_and(|versions| versions.contains(&told)) {
        found(&mut verdict.phantoms, at, format!("{name}: {id} as {:?}, which nobody wrote", told.content));
    }
}

/// (T, I) never falls within a connection, nor below the cursor that it was opened with.
fn expect_rise(verdict: &mut Verdict, (name, at): (&str, Instant), connection: &mut Option<Place>, cursor: &str) {
    let place = Place::parse(cursor);
    if let Some(before) = connection.filter(|before| before.epoch == place.epoch && before.time > place.time) {
        found(&mut verdict.reordered, at, format!("{name}: the cursor fell from {before:x?} to {cursor}"));
    }
    *connection = Some(place);
}

/// The fold of what a reader saw is what the database holds.
fn check_knowledge(verdict: &mut Verdict, ledger: &Ledger, stored: &BTreeMap<String, Told>, reader: &ReaderLog) {
    let name = &reader.name;
    let now = Instant::now();
    let sent_at =
        |id: &str| ledger.sent.iter().find(|sent| sent.id == id).and_then(|sent| sent.acknowledged).unwrap_or(now);
    for (id, told) in stored.iter().filter(|(_, told)| reader.follows(&told.room)) {
        match reader.known.get(id) {
            None => found(&mut verdict.unseen, sent_at(id), format!("{name}: {} ({id})", told.content)),
            Some(known) if known != told => {
                found(
                    &mut verdict.diverged,
                    sent_at(id),
                    format!("{name}: {id} is {:?}, not {:?}", known.content, told.content),
                );
            }
            Some(_) => {}
        }
    }
    for (id, known) in &reader.known {
        if !stored.get(id).is_some_and(|told| reader.follows(&told.room)) {
            found(
                &mut verdict.diverged,
                sent_at(id),
                format!("{name}: knows {id} ({:?}), which is not there", known.content),
            );
        }
    }
}

/// Writer, connection and number of what one connection sent, each once, by id.
type Order<'a> = HashMap<&'a str, (&'a str, u64, usize)>;

fn order_of_sending(ledger: &Ledger) -> Order<'_> {
    let sent_once = ledger.sent.iter().enumerate().filter(|(_, sent)| sent.attempts == 1);
    let ordered = sent_once.filter_map(|(number, sent)| {
        sent.connection.map(|connection| (sent.id.as_str(), (sent.writer.as_str(), connection, number)))
    });
    ordered.collect()
}

/// Messages that one connection of a writer sent, each once, come in the order in which they were sent.
fn check_writers_order(verdict: &mut Verdict, ledger: &Ledger, order: &Order<'_>, reader: &ReaderLog) {
    let mut newest: HashMap<(&str, u64), usize> = HashMap::new();
    let mut met: HashSet<&str> = HashSet::new();
    for (at, seen) in &reader.seen {
        let Seen::Message { id, .. } = seen else { continue };
        if !met.insert(id) {
            continue;
        }
        if let Some((writer, connection, number)) = order.get(id.as_str()) {
            let newest = newest.entry((writer, *connection)).or_default();
            if *newest > *number {
                let content = &ledger.sent[*number].told.content;
                found(
                    &mut verdict.reordered,
                    *at,
                    format!("{}: {content} came after a later one of its sender", reader.name),
                );
            }
            *newest = (*newest).max(*number);
        }
    }
}

/// Events of one cluster time stand in the same order at all readers; those of different times do because no reader
/// ever goes back.
fn check_one_order(verdict: &mut Verdict, readers: &[ReaderLog]) {
    let mut orders: HashMap<(u32, u64), Vec<Vec<u32>>> = HashMap::new();
    for reader in readers {
        let mut of_reader: HashMap<(u32, u64), Vec<u32>> = HashMap::new();
        for (_, seen) in &reader.seen {
            if let Seen::Message { cursor, .. } | Seen::Deleted { cursor, .. } = seen {
                let place = Place::parse(cursor);
                let keys = of_reader.entry((place.epoch, place.time)).or_default();
                if !keys.contains(&place.key) {
                    keys.push(place.key);
                }
            }
        }
        for (time, keys) in of_reader.into_iter().filter(|(_, keys)| keys.len() > 1) {
            orders.entry(time).or_default().push(keys);
        }
    }
    for (time, lists) in orders {
        for (n, one) in lists.iter().enumerate() {
            for other in &lists[n + 1..] {
                let common = |list: &[u32], of: &[u32]| -> Vec<u32> {
                    list.iter().copied().filter(|key| of.contains(key)).collect()
                };
                if common(one, other) != common(other, one) {
                    found(
                        &mut verdict.reordered,
                        Instant::now(),
                        format!("two readers saw {time:x?} in different orders"),
                    );
                }
            }
        }
    }
}

/// What one reader was told from a history to its next one, or to the end: it came back by cursor, so nothing may be
/// missing in between.
struct Stretch<'a> {
    reader: &'a ReaderLog,
    epoch: u32,
    /// Everything strictly between these times.
    from: u64,
    to: u64,
    told: HashSet<(u64, u32)>,
}

fn stretches(reader: &ReaderLog) -> Vec<Stretch<'_>> {
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    for (_, seen) in &reader.seen {
        match seen {
            Seen::Reloaded { cursor, .. } => {
                let Place { epoch, time, .. } = Place::parse(cursor);
                stretches.push(Stretch { reader, epoch, from: time, to: time, told: HashSet::new() });
            }
            Seen::Message { cursor, .. } | Seen::Deleted { cursor, .. } | Seen::Moved { cursor } => {
                let place = Place::parse(cursor);
                if let Some(stretch) = stretches.last_mut().filter(|stretch| stretch.epoch == place.epoch) {
                    stretch.to = stretch.to.max(place.time);
                    if !matches!(seen, Seen::Moved { .. }) {
                        stretch.told.insert((place.time, place.key));
                    }
                }
            }
            Seen::Joined { .. } | Seen::Reset { .. } => {}
        }
    }
    stretches
}

/// Readers of the same rooms are told the same events wherever both were told anything: also those which a later one
/// covers, so that what they know in the end does not show that they were lost.
fn check_one_story(verdict: &mut Verdict, readers: &[ReaderLog]) {
    let mut of_rooms: BTreeMap<BTreeSet<&String>, Vec<Stretch<'_>>> = BTreeMap::new();
    for reader in readers {
        of_rooms.entry(reader.rooms.iter().collect()).or_default().extend(stretches(reader));
    }
    for stretches in of_rooms.values() {
        let all: BTreeSet<(u32, (u64, u32))> =
            stretches.iter().flat_map(|stretch| stretch.told.iter().map(|event| (stretch.epoch, *event))).collect();
        for Stretch { reader, epoch, from, to, told } in stretches {
            // Whoever was told nothing since has nothing in between.
            let inner = all.range((*epoch, (from + 1, 0))..(*epoch, ((*to).max(from + 1), 0)));
            for (_, event) in inner.filter(|(_, event)| !told.contains(event)) {
                let words = format!("{}: was not told of {event:x?}, which another reader was", reader.name);
                found(&mut verdict.unseen, Instant::now(), words);
            }
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
