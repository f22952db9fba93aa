//! What happens in memory for every message and every delivery: cursors, the log and its readers.
//!
//! `cargo bench --bench memory`

use std::{cell::RefCell, hint::black_box};

use bytes::Bytes;
use chrono::DateTime;
use corriente::{
    cursor::{ClusterTime, Cursor},
    event::{Before, Change, Event},
    feed::{Feed, FeedWriter, LogLimits, Reader, Reading, Transport, open},
    message::{Destination, Message, MessageId, RoomName, UserName},
    topic::Topic,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Changes of one batch: what a busy stream gives at once.
const BATCH: u32 = 100;
const LIMITS: LogLimits = LogLimits { entries_max: 100_000, bytes_max: 128 * 1024 * 1024 };

fn room() -> RoomName {
    RoomName::parse("general").expect("a room")
}

fn cursor(n: u32) -> Cursor {
    Cursor { epoch: 7, time: ClusterTime { seconds: 1_000 + n / 1_000, increment: 1 + n % 1_000 }, key: n + 1 }
}

fn event(n: u32) -> Event {
    let id = MessageId::from_text_form(format!("{n:024x}"));
    let message = Message {
        id: id.clone(),
        content: "a message of forty bytes, as in the load".into(),
        sender: UserName::parse("Ana").expect("a name"),
        to: Destination::Room(room()),
        date: DateTime::UNIX_EPOCH,
    };
    Event { id, before: Before::Nowhere, after: Some(message), at_millis: 0 }
}

fn batch(from: u32) -> Vec<(Cursor, Option<Event>)> {
    (from..from + BATCH).map(|n| (cursor(n), Some(event(n)))).collect()
}

/// A log and readers of one room that have read everything.
struct Stage {
    writer: FeedWriter,
    readers: Vec<Reader>,
    next: u32,
    _feed: Feed,
}

impl Stage {
    fn new(readers: usize) -> Self {
        let (writer, feed) = open(LIMITS, cursor(0));
        let reader = |_| {
            let mut reader = feed.reader_from_now();
            reader.follow(Topic::Room(room()));
            reader
        };
        Self { writer, readers: (0..readers).map(reader).collect(), next: 1, _feed: feed }
    }

    /// The next changes, which are not in the log yet.
    fn next_batch(&mut self) -> Vec<(Cursor, Option<Event>)> {
        self.next += BATCH;
        batch(self.next - BATCH)
    }

    fn append(&mut self, changes: Vec<(Cursor, Option<Event>)>) {
        self.writer.append(changes, cursor(self.next - 1));
    }

    /// Every reader takes everything that it has not read, and its ready frame.
    fn read(&mut self) -> usize {
        let frame = Bytes::from_static(&[b'x'; 250]);
        let mut read = 0;
        for reader in &mut self.readers {
            while let Reading::Entries(entries) = reader.read() {
                if entries.is_empty() {
                    break;
                }
                read += entries.len();
                for (_, entry) in entries {
                    black_box(entry.encoded(Transport::WebSocket, Change::Created, || frame.clone()));
                }
            }
        }
        read
    }
}

fn cursors(criterion: &mut Criterion) {
    let text = cursor(123_456).to_string();
    criterion.bench_function("cursor/print", |bench| bench.iter(|| black_box(cursor(123_456)).to_string()));
    criterion.bench_function("cursor/parse", |bench| bench.iter(|| black_box(&text).parse::<Cursor>()));
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let stage = RefCell::new(Stage::new(0));
    group.bench_function("append 100", |bench| {
        let changes = || stage.borrow_mut().next_batch();
        bench.iter_batched(changes, |changes| stage.borrow_mut().append(changes), BatchSize::PerIteration);
    });
    for readers in [1, 1_000] {
        let stage = RefCell::new(Stage::new(readers));
        let append = || {
            let mut stage = stage.borrow_mut();
            let changes = stage.next_batch();
            stage.append(changes);
        };
        group.throughput(Throughput::Elements(u64::from(BATCH) * readers as u64));
        group.bench_function(format!("read 100 by {readers} readers"), |bench| {
            let read = |()| assert_eq!(stage.borrow_mut().read(), BATCH as usize * readers);
            bench.iter_batched(append, read, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, cursors, log);
criterion_main!(benches);
