//! MongoDB is gone for a while: clients stay connected, senders are told, and nothing is missing in the end.

use std::time::Duration;

use futures::future::join_all;
use mongo_replica_set::Options;
use mongodb::bson::oid::ObjectId;
use tokio::time::{Instant, sleep_until};

use super::{
    checker::{ReaderLog, Seen},
    traffic::Load,
    world::{World, expect_kept},
};
use crate::harness::eventually;

#[tokio::test]
async fn a_mongod_that_was_killed_and_comes_back_leaves_no_gap_and_no_duplicate() {
    let world = World::own(Options::default(), 1).await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);
    let mut idle = world.follow(0, "room=z").await;

    world.set.kill(0).unwrap();
    let (status, answer) = world.post("while it is down", &ObjectId::new().to_hex()).await;
    assert_eq!(status, 503, "{answer}");
    world.set.restart(0).await.unwrap();
    world.set.primary().await.unwrap();
    assert!(traffic.flows(2).await);

    let (verdict, ledger, logs) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    assert!(!ledger.answers.contains_key(&0), "every POST is answered: {:?}", ledger.answers);
    assert!(ledger.answers.contains_key(&503), "{:?}", ledger.answers);
    for log in logs.iter().filter(|log| log.name.starts_with("reader")) {
        let connections = log.seen.iter().filter(|(_, seen)| matches!(seen, Seen::Joined { .. })).count();
        assert_eq!(connections, 1, "{} was disconnected", log.name);
    }
    idle.send(serde_json::json!({ "type": "unsubscribe", "room": "z" })).await;
    idle.expect("unsubscribed").await;
    world.stop().await;
}

/// How long MongoDB stands still, in seconds: longer than anybody waits for it.
const STILL_SECS: u64 = 30;
/// What a server may come to hold meanwhile, in KiB, and how many descriptors more it may have afterwards: what is asked
/// of it is refused, not kept.
const GROWTH_KIB_MAX: u64 = 48 * 1_024;
const DESCRIPTORS_MAX: usize = 20;

#[tokio::test]
async fn a_mongod_that_stands_still_longer_than_anybody_waits_leaves_no_gap_no_duplicate_and_no_growth() {
    let mut world = World::own(Options::default(), 0).await;
    let program = world.start_program().await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);
    let (resident_before, descriptors_before) = (program.resident_kib(), program.descriptors());

    world.set.pause(0).unwrap();
    let paused_at = Instant::now();
    // A process of many threads does not stand still at once: what still gets through is a message like another.
    let mut id = ObjectId::new().to_hex();
    for _ in 0..20 {
        if world.post("late", &id).await.0 == 503 {
            break;
        }
        id = ObjectId::new().to_hex();
    }
    let ids: Vec<String> = (0..200).map(|_| ObjectId::new().to_hex()).collect();
    for (status, answer) in join_all(ids.iter().map(|id| world.post("one of many", id))).await {
        assert_eq!(status, 503, "{answer}");
    }
    sleep_until(paused_at + Duration::from_secs(STILL_SECS)).await;
    let grown = program.resident_kib().saturating_sub(resident_before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more while MongoDB stood still");

    world.set.resume(0).unwrap();
    // The first attempts may be carried out now. They and the retries are one message each.
    let retry = async |content: &str, id: &str| {
        eventually("the retry is confirmed", async || match world.post(content, id).await {
            (200 | 201, answer) => Some(answer),
            (503, _) => None,
            other => panic!("{other:?}"),
        })
        .await
    };
    assert_eq!(retry("late", &id).await["id"], id);
    for id in &ids {
        retry("one of many", id).await;
    }
    assert!(traffic.flows(2).await);
    let (verdict, _, logs) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    for log in logs.iter().filter(|log| log.name.starts_with("reader")) {
        for id in ids.iter().chain([&id]) {
            assert_eq!(times_told(log, id), 1, "{} was told {id} once", log.name);
        }
    }
    world.let_go_of_connections();
    eventually("the descriptors return", async || {
        (program.descriptors() <= descriptors_before + DESCRIPTORS_MAX).then_some(())
    })
    .await;
}

fn times_told(log: &ReaderLog, id: &str) -> usize {
    log.seen.iter().filter(|(_, seen)| matches!(seen, Seen::Message { id: seen, .. } if seen == id)).count()
}

#[tokio::test]
async fn a_server_whose_mongod_is_gone_stops_within_ten_seconds() {
    let world = World::own(Options::default(), 1).await;
    let mut follower = world.follow(0, "room=a").await;
    world.set.pause(0).unwrap();
    let stop = tokio::time::timeout(Duration::from_secs(10), world.stop());
    let closed = async { while follower.next().await.is_some() {} };
    let (stopped, ()) = tokio::join!(stop, closed);
    assert!(stopped.is_ok(), "it did not stop");
}
