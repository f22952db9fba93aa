//! Messages that are inserted together: each has an outcome of its own, and a slow database does not fill the memory.

use futures::future::join_all;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;

use super::world::World;
use crate::harness::eventually;

/// Sends one message, whose insert MongoDB answers late, and does `rest` while that is on its way.
async fn with_a_slow_insert<T>(world: &World, rest: impl Future<Output = T>) -> T {
    let before = world.metric(BATCHES).await;
    let slow = doc! { "blockConnection": true, "blockTimeMS": 1_500 };
    let turn = world.fail(&["insert"], 1, slow).await;
    let first = ObjectId::new().to_hex();
    let rest = async {
        let is_away = async || (world.metric(BATCHES).await > before).then_some(());
        eventually("the first message is on its way", is_away).await;
        rest.await
    };
    let ((status, answer), rest) = tokio::join!(world.post("the first", &first), rest);
    assert_eq!(status, 201, "{answer}");
    world.heal().await;
    drop(turn);
    rest
}

const BATCHES: &str = "corriente_insert_batch_size_count";

#[tokio::test]
async fn what_comes_while_an_insert_is_under_way_leaves_together() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    let before = world.metric(BATCHES).await;
    let ids: Vec<String> = (0..40).map(|_| ObjectId::new().to_hex()).collect();
    let answers = with_a_slow_insert(&world, join_all(ids.iter().map(|id| world.post("one of many", id)))).await;
    for (id, (status, answer)) in ids.iter().zip(answers) {
        assert_eq!((status, &answer["id"]), (201, &(id.as_str().into())), "{answer}");
    }
    // The first, and all the others: some of them may have come a little later.
    let batches = world.metric(BATCHES).await - before;
    assert!((2..=4).contains(&batches), "{batches} batches for 41 messages");
    assert_eq!(follower.expect_contents(41).await.len(), 41);
    world.stop().await;
}

#[tokio::test]
async fn only_the_messages_at_fault_fail_in_a_batch() {
    let world = World::shared().await;
    let strict = doc! { "collMod": "messages", "validator": { "content": { "$ne": "forbidden" } } };
    world.database.run_command(strict).await.unwrap();
    let unique = doc! { "key": { "content": 1 }, "name": "theirs", "unique": true };
    world.database.run_command(doc! { "createIndexes": "messages", "indexes": [unique] }).await.unwrap();
    let mut follower = world.follow(0, "room=a").await;
    let taken = world.say("taken").await;
    assert_eq!(follower.expect_contents(1).await, ["taken"]);

    let new = || ObjectId::new().to_hex();
    let batch = [
        ("two", new(), 201),
        ("taken", taken.clone(), 200),
        ("other words", taken.clone(), 409),
        ("forbidden", new(), 422),
        ("taken", new(), 422),
        ("three", new(), 201),
    ];
    let sent = batch.iter().map(|(content, id, _)| world.post(content, id));
    let answers = with_a_slow_insert(&world, join_all(sent)).await;
    for ((content, _, expected), (status, answer)) in batch.iter().zip(answers) {
        assert_eq!(status, *expected, "{content}: {answer}");
    }
    let mut told = follower.expect_contents(3).await;
    told.sort();
    assert_eq!(told, ["the first", "three", "two"]);
    assert_eq!(world.messages().count_documents(doc! {}).await.unwrap(), 4);
    world.stop().await;
}

#[tokio::test]
async fn when_mongodb_is_slower_than_the_input_the_rest_is_refused_and_not_stored() {
    for (flag, bound) in [("--inserts-waiting-max", "4"), ("--inserts-waiting-bytes-max", "2000")] {
        let world = World::shared_with(1, &[flag, bound]).await;
        let ids: Vec<String> = (0..30).map(|_| ObjectId::new().to_hex()).collect();
        let answers = with_a_slow_insert(&world, join_all(ids.iter().map(|id| world.post("one of many", id)))).await;
        let (mut stored, mut refused) = (1, Vec::new());
        for (id, (status, answer)) in ids.iter().zip(answers) {
            match status {
                201 => stored += 1,
                503 => {
                    assert!(answer["detail"].as_str().unwrap().contains("was not stored"), "{answer}");
                    refused.push(id);
                }
                _ => panic!("{status} {answer}"),
            }
        }
        // Those that waited, and not one more.
        assert!((2..=9).contains(&stored), "{flag}: {stored} stored");
        assert_eq!(world.messages().count_documents(doc! {}).await.unwrap(), stored, "{flag}");
        let (_, metrics) = world.get(0, "/metrics").await;
        let overloaded = format!("corriente_inserts_total{{source=\"rest\",outcome=\"overloaded\"}} {}", refused.len());
        assert!(metrics.contains(&overloaded), "{metrics}");
        // As soon as it has caught up, they are welcome.
        for id in refused {
            assert_eq!(world.post("one of many", id).await.0, 201, "{flag}");
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn what_one_socket_sends_without_waiting_leaves_together_and_in_order() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    let mut sender = world.follow(0, "").await;
    let before = world.metric(BATCHES).await;
    with_a_slow_insert(&world, async {
        for n in 0..100 {
            let frame = json!({ "type": "send", "room": "a", "sender": "Ana", "content": n.to_string() });
            sender.send(frame).await;
        }
    })
    .await;
    let mut expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    expected.insert(0, "the first".into());
    assert_eq!(follower.expect_contents(101).await, expected);
    for _ in 0..100 {
        sender.expect("sent").await;
    }
    // What one socket may have under way bounds a batch.
    let batches = world.metric(BATCHES).await - before;
    assert!(batches <= 20, "{batches} batches for 101 messages");
    world.stop().await;
}
