//! Everything here starts real mongods, in parallel, each test in directories of its own. Waiting
//! has a deadline everywhere; nothing asserts how long something took.
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod faults;
mod lifetime;
mod program;
mod search;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use mongo_replica_set::{Options, ReplicaSet};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};

const SOON: Duration = Duration::from_secs(30);

async fn start(options: Options) -> ReplicaSet {
    ReplicaSet::start(options, report).await.unwrap()
}

fn in_dir(dir: &Path) -> Options {
    Options { data_dir: Some(dir.to_owned()), ..Options::default() }
}

fn report(line: &str) {
    eprintln!("{line}");
}

async fn timed<T>(what: &str, future: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let value = future.await;
    eprintln!("{what} took {:.2} s", start.elapsed().as_secs_f32());
    value
}

async fn notes(uri: &str) -> Collection<Document> {
    let separator = if uri.contains('?') { '&' } else { '?' };
    let uri = format!("{uri}{separator}w=majority&readConcernLevel=majority&serverSelectionTimeoutMS=20000");
    Client::with_uri_str(uri).await.unwrap().database("test").collection("notes")
}

async fn write(uri: &str, text: &str) {
    let insert = async { notes(uri).await.insert_one(doc! { "text": text }).await };
    tokio::time::timeout(SOON, insert).await.expect("a write in time").unwrap();
}

async fn texts(uri: &str) -> Vec<String> {
    use futures::TryStreamExt;
    let cursor = notes(uri).await.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    cursor.map_ok(|note| note.get_str("text").unwrap().to_owned()).try_collect().await.unwrap()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets a stranger listen on a port until the tests end, who hangs up on everybody.
fn occupy(port: u16) {
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || stranger.incoming().for_each(drop));
}

fn ports_of(uri: &str) -> Vec<u16> {
    let hosts = uri.trim_start_matches("mongodb://").split('/').next().unwrap();
    hosts.split(',').map(|host| host.rsplit(':').next().unwrap().parse().unwrap()).collect()
}
