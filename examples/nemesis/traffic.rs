//! Writers and readers at work while faults happen, and the verdict over them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    checker::{Ledger, ReaderLog, Sent, Told, Verdict, check},
    reader::{read, remember},
    stage::Stage,
    writers::{write_by_driver, write_in_bulk, write_over_rest, write_over_socket},
};

/// How long writers may take to settle what they have sent, and readers to know everything, in seconds.
const SETTLE_SECS_MAX: u64 = 60;
/// The rooms that are written to.
pub const ROOMS: [&str; 2] = ["a", "b"];

/// How much goes on.
#[derive(Debug, Clone)]
pub struct Load {
    pub rest_writers: usize,
    pub socket_writers: usize,
    pub driver_writers: usize,
    /// Each makes a thousand messages a second.
    pub bulk_writers: usize,
    /// They follow, in turn: everything, both rooms, the first room.
    pub readers: usize,
    /// The average pause of a writer between two messages.
    pub pause_between: Duration,
    /// Readers change the server by themselves after about so many frames.
    pub hop_after: Option<u32>,
    /// How often the history is read, to be compared in the end with what followed it.
    pub remember_every: Duration,
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rest_writers: 1,
            socket_writers: 1,
            driver_writers: 1,
            bulk_writers: 0,
            readers: 3,
            pause_between: Duration::from_millis(15),
            hop_after: None,
            remember_every: Duration::from_millis(500),
            seed: 1,
        }
    }
}

/// What is going on.
pub struct Traffic {
    pub stage: Stage,
    cut: watch::Sender<u64>,
    messages: Collection<Document>,
    writers: JoinSet<()>,
    readers: JoinSet<()>,
    logs: Vec<Arc<Mutex<ReaderLog>>>,
    kinds: Vec<&'static str>,
    rememberer: tokio::task::JoinHandle<Vec<ReaderLog>>,
}

impl Traffic {
    /// Starts it. `messages` is the collection as other programs see it, with majority concerns.
    pub fn start(servers: Vec<String>, messages: Collection<Document>, load: &Load) -> Self {
        let (stage, cut) = Stage::new(servers, load.pause_between);
        let mut rng = StdRng::seed_from_u64(load.seed);
        let mut writers = JoinSet::new();
        let (here, there) = (ROOMS[0].to_owned(), ROOMS[1].to_owned());
        for n in 0..load.rest_writers {
            let room = ROOMS[n % ROOMS.len()].to_owned();
            writers.spawn(write_over_rest(stage.clone(), format!("rest{n}"), room, rng.random()));
        }
        for n in 0..load.socket_writers {
            let room = ROOMS[n % ROOMS.len()].to_owned();
            writers.spawn(write_over_socket(stage.clone(), format!("socket{n}"), room, rng.random()));
        }
        for n in 0..load.driver_writers {
            let rooms = (here.clone(), there.clone());
            let seed = rng.random();
            writers.spawn(write_by_driver(stage.clone(), messages.clone(), format!("driver{n}"), rooms, seed));
        }
        for n in 0..load.bulk_writers {
            let rooms = vec![here.clone(), there.clone()];
            writers.spawn(write_in_bulk(stage.clone(), messages.clone(), format!("bulk{n}"), rooms, rng.random()));
        }
        let (mut readers, mut logs) = (JoinSet::new(), Vec::new());
        for n in 0..load.readers {
            let log = ReaderLog { name: format!("reader {n}"), rooms: rooms_of(n), ..ReaderLog::default() };
            let log = Arc::new(Mutex::new(log));
            let first = n % stage.servers.len();
            readers.spawn(read(stage.clone(), log.clone(), first, load.hop_after, rng.random()));
            logs.push(log);
        }
        let rememberer = tokio::spawn(remember_now_and_then(stage.clone(), load.remember_every, rng));
        let used = [
            ("rest", load.rest_writers),
            ("socket", load.socket_writers),
            ("driver", load.driver_writers),
            ("bulk", load.bulk_writers),
        ];
        let kinds = used.into_iter().filter(|(_, writers)| *writers > 0).map(|(kind, _)| kind).collect();
        Self { stage, cut, messages, writers, readers, logs, kinds, rememberer }
    }

    /// Cuts all connections of the clients, without a goodbye.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Waits until `count` messages that are sent from now on by each kind of writer are acknowledged and known to every
    /// reader that follows their room. Returns `false` when that took too long.
    pub async fn flows(&self, count: usize) -> bool {
        let from = self.stage.ledger().sent.len();
        let flowing = async {
            while !self.flowed_since(from, count) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(SETTLE_SECS_MAX), flowing).await.is_ok()
    }

    fn flowed_since(&self, from: usize, count: usize) -> bool {
        let new: Vec<Sent> = {
            let ledger = self.stage.ledger();
            ledger.sent[from..].iter().filter(|sent| sent.acknowledged.is_some()).cloned().collect()
        };
        self.kinds.iter().all(|kind| {
            let of_kind: Vec<_> = new.iter().filter(|sent| sent.writer.starts_with(kind)).collect();
            of_kind.len() >= count
                && self.logs.iter().all(|log| {
                    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut mine = of_kind.iter().filter(|sent| log.follows(&sent.told.room)).peekable();
                    // One is enough: some were edited, moved or deleted since.
                    mine.peek().is_none() || mine.any(|sent| log.known.contains_key(&sent.id))
                })
        })
    }

    /// Ends the writers, waits until the readers know everything, and compares. Histories that were read meanwhile are
    /// continued from their cursors first: each must lead to the same end.
    pub async fn finish(self) -> (Verdict, Ledger, Vec<ReaderLog>) {
        let Self { stage, mut writers, mut readers, mut logs, messages, rememberer, .. } = self;
        stage.stop_writing.cancel();
        let settle = async { while writers.join_next().await.is_some() {} };
        if timeout(Duration::from_secs(SETTLE_SECS_MAX), settle).await.is_err() {
            stage.ledger().scandal(format!("a writer got no acknowledgement within {SETTLE_SECS_MAX} s"));
            writers.abort_all();
        }
        let remembered = timeout(Duration::from_secs(SETTLE_SECS_MAX), rememberer).await;
        let remembered = remembered.expect("the last history within the deadline").expect("the histories");
        for (n, log) in remembered.into_iter().enumerate() {
            let log = Arc::new(Mutex::new(log));
            readers.spawn(read(stage.clone(), log.clone(), n % stage.servers.len(), None, n as u64));
            logs.push(log);
        }
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECS_MAX);
        let stored = loop {
            let stored = stored(&messages).await;
            let knows_all = |log: &Arc<Mutex<ReaderLog>>| {
                let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = stored.iter().filter(|(_, told)| log.follows(&told.room));
                wanted.clone().count() == log.known.len()
                    && wanted.into_iter().all(|(id, told)| log.known.get(id) == Some(told))
            };
            if logs.iter().all(knows_all) || Instant::now() > deadline {
                break stored;
            }
            sleep(Duration::from_millis(50)).await;
        };
        // What must not come would come now.
        sleep(Duration::from_millis(200)).await;
        stage.stop_reading.cancel();
        while let Some(ended) = readers.join_next().await {
            if let Err(error) = ended {
                stage.ledger().scandal(format!("a reader met what it can not read: {error}"));
            }
        }
        let logs: Vec<_> = logs.iter().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
        let ledger = stage.ledger().clone();
        (check(&ledger, &stored, &logs), ledger, logs)
    }
}

fn rooms_of(n: usize) -> Vec<String> {
    ROOMS.iter().take([0, 2, 1][n % 3]).map(|room| (*room).to_owned()).collect()
}

async fn remember_now_and_then(stage: Stage, every: Duration, mut rng: StdRng) -> Vec<ReaderLog> {
    let mut remembered = Vec::new();
    for n in 0.. {
        let pause = sleep(every.mul_f64(rng.random_range(0.5..1.5)));
        if stage.stop_writing.run_until_cancelled(pause).await.is_none() {
            break;
        }
        let server = rng.random_range(0..stage.servers.len());
        remembered.extend(remember(stage.clone(), format!("history {n}"), rooms_of(n), server).await);
    }
    remembered
}

/// What the database holds, by id. Asks again until it can be read.
pub async fn stored(messages: &Collection<Document>) -> BTreeMap<String, Told> {
    loop {
        let reading = async { messages.find(doc! {}).await?.try_collect::<Vec<Document>>().await };
        if let Ok(documents) = reading.await {
            return documents.iter().filter_map(told).collect();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn told(document: &Document) -> Option<(String, Told)> {
    let text = |name: &str| document.get_str(name).map(str::to_owned).ok();
    let id = match document.get("_id")? {
        Bson::ObjectId(id) => id.to_hex(),
        _ => return None,
    };
    Some((id, Told { room: text("room")?, content: text("content")? }))
}
