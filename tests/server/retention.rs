//! What is old goes, and clients are told.

use std::collections::BTreeSet;

use clap::Parser;
use corriente::{app::App, config::Config};
use futures::TryStreamExt;
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client, Collection, IndexModel,
    bson::{DateTime, Document, doc, oid::ObjectId},
    options::IndexOptions,
};
use serde_json::{Value, json};

use crate::{
    binary::{Program, command},
    harness::{Follower, FreshDatabase, TestServer},
};

const DAY_SECS: i64 = 24 * 60 * 60;

/// An id of a moment so many days ago.
fn id_of_days_ago(days: i64) -> ObjectId {
    let secs = (DateTime::now().timestamp_millis() / 1_000 - days * DAY_SECS) as u32;
    let mut bytes: [u8; 12] = rand::random();
    bytes[..4].copy_from_slice(&secs.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn days_ago(days: i64) -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() - 1_000 * days * DAY_SECS)
}

/// The indexes that delete: their names, and after how many seconds.
async fn ttl_indexes(messages: &Collection<Document>) -> Vec<(String, u64)> {
    let indexes: Vec<IndexModel> = messages.list_indexes().await.unwrap().try_collect().await.unwrap();
    let options = indexes.into_iter().filter_map(|index| index.options);
    options.filter_map(|options| Some((options.name?, options.expire_after?.as_secs()))).collect()
}

async fn get(url: &str) -> Value {
    reqwest::get(url).await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn messages_older_than_the_days_go_and_every_client_sees_them_go() {
    let extra_args = ["--setParameter", "ttlMonitorSleepSecs=1"].map(str::to_owned).to_vec();
    let mongo = ReplicaSet::start(Options { extra_args, ..Options::default() }, |_| {}).await.expect("mongod starts");
    let start = async |flags: &[&str]| {
        let config = Config::parse_from(["corriente", "--port", "0"].iter().chain(flags));
        App::start(&config, mongo.uri()).await.expect("the server starts")
    };
    let messages: Collection<Document> =
        Client::with_uri_str(mongo.uri()).await.unwrap().database("corriente").collection("messages");

    // Kept for ever at first.
    let app = start(&[]).await;
    let old = [id_of_days_ago(9), id_of_days_ago(2)];
    let kept = [id_of_days_ago(9), id_of_days_ago(0)];
    messages
        .insert_many([
            doc! { "_id": old[0], "content": "old by its date", "sender": "Ana", "date": days_ago(2) },
            doc! { "_id": old[1], "content": "old by its id", "sender": "Ana", "room": "dev" },
            doc! { "_id": kept[0], "content": "new by its date", "sender": "Ana", "date": days_ago(0) },
            doc! { "_id": kept[1], "content": "new by its id", "sender": "Ana" },
        ])
        .await
        .unwrap();
    let cursor = get(&format!("{}/api/messages", app.url())).await["cursor"].as_str().unwrap().to_owned();
    app.stop().await;
    assert_eq!(ttl_indexes(&messages).await, []);

    let app = start(&["--keep-days", "1"]).await;
    let mut follower = Follower::join(&app.url(), &format!("all=true&after={cursor}")).await;
    let mut gone = BTreeSet::new();
    while gone.len() < old.len() {
        let frame = follower.next().await.expect("the socket stays open");
        match frame["type"].as_str() {
            Some("deleted") => gone.insert((frame["id"].to_string(), frame["topics"].to_string())),
            Some("created" | "ready" | "position") => continue,
            _ => panic!("{frame}"),
        };
    }
    let wanted = [(old[0], json!([{ "room": "general" }])), (old[1], json!([{ "room": "dev" }]))];
    let wanted = wanted.map(|(id, topics)| (json!(id.to_hex()).to_string(), topics.to_string()));
    assert_eq!(gone, BTreeSet::from(wanted));
    let history = get(&format!("{}/api/messages", app.url())).await;
    let ids: BTreeSet<&str> = history["messages"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(ids, kept.iter().map(|id| id.to_hex()).collect::<Vec<_>>().iter().map(String::as_str).collect());
    assert_eq!(ttl_indexes(&messages).await, [("corriente_ttl".to_owned(), DAY_SECS as u64)]);
    app.stop().await;

    // Another number changes the index, and none leaves it alone and says so.
    let app = start(&["--keep-days", "3"]).await;
    assert_eq!(ttl_indexes(&messages).await, [("corriente_ttl".to_owned(), 3 * DAY_SECS as u64)]);
    app.stop().await;
    let mut command = command();
    command.env("MONGODB_URI", mongo.uri());
    let mut program = Program::start(command);
    program.ready().await;
    program.signal("TERM").await;
    let ended = program.ended(std::time::Duration::from_secs(10)).await;
    for part in ["older than 3 days", "KEEP_DAYS is unset", "corriente_ttl"] {
        assert!(ended.stderr.contains(part), "{part} is not in {}", ended.stderr);
    }
    assert_eq!(ttl_indexes(&messages).await, [("corriente_ttl".to_owned(), 3 * DAY_SECS as u64)]);
    mongo.stop().await.expect("it stops");
}

#[tokio::test]
async fn an_index_by_date_of_somebody_else_is_taken_over_and_not_doubled() {
    for expire_after in [None, Some(std::time::Duration::from_secs(100_000))] {
        let fresh = FreshDatabase::with_collection().await;
        let mut options = IndexOptions::builder().name("theirs".to_owned()).build();
        options.expire_after = expire_after;
        let messages = fresh.collection::<Document>("messages");
        messages.create_index(IndexModel::builder().keys(doc! { "date": 1 }).options(options).build()).await.unwrap();
        let server = TestServer::start_on(fresh.name(), &["--keep-days", "2"]).await;
        assert_eq!(ttl_indexes(&messages).await, [("theirs".to_owned(), 2 * DAY_SECS as u64)]);
        server.stop().await;
    }
}
