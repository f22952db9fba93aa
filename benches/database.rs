//! What MongoDB takes part in, on a real one: pages of history, and the change stream from the oplog to events.
//!
//! `cargo bench --bench database`

use std::time::{Duration, Instant};

use corriente::{
    cursor::ClusterTime,
    message::{DEFAULT_ROOM, RoomName},
    mongo::{Changes, Deployment, History, ResumePoint, SchemaOptions, Scope, Target, connect},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client, Collection,
    bson::{DateTime, Document, doc},
};
use tokio::runtime::Runtime;

const STORED: usize = 100_000;
/// How many documents one insert writes.
const INSERTED_AT_ONCE: usize = 1_000;
const EVENTS: u64 = 20_000;
/// A time that every node has come to, so that no read waits.
const LONG_AGO: ClusterTime = ClusterTime { seconds: 1, increment: 1 };

struct Stage {
    deployment: Deployment,
    messages: Collection<Document>,
    _mongo: ReplicaSet,
}

impl Stage {
    async fn new() -> anyhow::Result<Self> {
        let mongo = ReplicaSet::start(Options::default(), |sentence| eprintln!("{sentence}")).await?;
        let deployment = connect(Target {
            uri: mongo.uri(),
            database: Some("bench"),
            collection: "messages",
            schema: SchemaOptions::default(),
        })
        .await?;
        deployment.prepare_collection().await?;
        deployment.prepare_indexes().await?;
        let messages = Client::with_uri_str(mongo.uri()).await?.database("bench").collection("messages");
        let stage = Self { deployment, messages, _mongo: mongo };
        stage.write(STORED).await?;
        Ok(stage)
    }

    async fn write(&self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count / INSERTED_AT_ONCE {
            let document = |_| {
                doc! { "content": "a message of forty bytes, as in the load", "sender": "Ana", "room": DEFAULT_ROOM, "date": DateTime::now() }
            };
            self.messages.insert_many((0..INSERTED_AT_ONCE).map(document)).await?;
        }
        Ok(())
    }
}

fn history(criterion: &mut Criterion, runtime: &Runtime, stage: &Stage) {
    let history = History::new(&stage.deployment);
    let room = Scope::Room(RoomName::parse(DEFAULT_ROOM).expect("a room"));
    for limit in [50, 200] {
        criterion.bench_function(&format!("history/newest {limit} of a room of 100,000"), |bench| {
            bench.iter(|| {
                let page = runtime.block_on(history.page(&room, limit, None, LONG_AGO));
                assert_eq!(page.expect("a page").messages.len(), limit);
            });
        });
    }
}

fn changes(criterion: &mut Criterion, runtime: &Runtime, stage: &Stage) {
    let mut group = criterion.benchmark_group("changes");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("from the oplog to events", |bench| {
        bench.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations {
                taken += runtime.block_on(drain(stage)).expect("a stretch of the stream");
            }
            taken
        });
    });
    group.finish();
}

/// How long a stream takes that is open at once but read only after everything is written.
async fn drain(stage: &Stage) -> anyhow::Result<Duration> {
    let mut stream = Changes::open(&stage.deployment, &ResumePoint::Now, Duration::from_secs(5)).await?;
    stage.write(EVENTS as usize).await?;
    let begun = Instant::now();
    let mut seen = 0;
    while seen < EVENTS {
        let batch = stream.next().await?;
        assert!(batch.events.iter().all(|(_, event)| event.is_ok()));
        seen += batch.events.len() as u64;
    }
    Ok(begun.elapsed())
}

fn all(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let stage = runtime.block_on(Stage::new()).expect("a MongoDB with messages");
    history(criterion, &runtime, &stage);
    changes(criterion, &runtime, &stage);
    // Dropped within the runtime that its sockets belong to.
    runtime.block_on(async { drop(stage) });
}

criterion_group!(benches, all);
criterion_main!(benches);
