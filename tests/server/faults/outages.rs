//! MongoDB is gone for a while: clients stay connected, senders are told, and nothing is missing in the end.

use std::time::Duration;

use mongo_replica_set::Options;
use mongodb::bson::oid::ObjectId;
use tokio::time::sleep;

use super::{
    traffic::Load,
    world::{World, expect_kept},
};

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
        let connections =
            log.seen.iter().filter(|(_, seen)| matches!(seen, super::checker::Seen::Joined { .. })).count();
        assert_eq!(connections, 1, "{} was disconnected", log.name);
    }
    idle.send(serde_json::json!({ "type": "unsubscribe", "room": "z" })).await;
    idle.expect("unsubscribed").await;
    world.stop().await;
}

#[tokio::test]
async fn a_mongod_that_stands_still_longer_than_anybody_waits_leaves_no_gap_and_no_duplicate() {
    let world = World::own(Options::default(), 1).await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);

    world.set.pause(0).unwrap();
    // A process of many threads does not stand still at once: what still gets through is a message like another.
    let mut id = ObjectId::new().to_hex();
    for _ in 0..20 {
        if world.post("late", &id).await.0 == 503 {
            break;
        }
        id = ObjectId::new().to_hex();
    }
    // Longer than the watcher waits for an answer.
    sleep(Duration::from_secs(7)).await;
    world.set.resume(0).unwrap();
    // The first attempt may be carried out now. It and the retry are one message.
    let retry = async || match world.post("late", &id).await {
        (200 | 201, answer) => Some(answer),
        (503, _) => None,
        other => panic!("{other:?}"),
    };
    let stored = crate::harness::eventually("the retry is confirmed", retry).await;
    assert_eq!(stored["id"], id);
    assert!(traffic.flows(2).await);
    let (verdict, ..) = finish_with(traffic, &id).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    world.stop().await;
}

/// The message `id` was written besides the traffic; the checker finds it in the database and so among what was seen.
async fn finish_with(
    traffic: super::traffic::Traffic,
    id: &str,
) -> (super::checker::Verdict, super::checker::Ledger, Vec<super::checker::ReaderLog>) {
    let finished = expect_kept(traffic).await;
    let told = |log: &&super::checker::ReaderLog| {
        log.seen
            .iter()
            .filter(|(_, seen)| matches!(seen, super::checker::Seen::Message { id: seen, .. } if seen == id))
            .count()
    };
    for log in finished.2.iter().filter(|log| log.name.starts_with("reader")) {
        assert_eq!(told(&log), 1, "{} was told {id} once", log.name);
    }
    finished
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
