//! The oplog moves on past those who were away too long.

use std::{sync::Arc, time::Duration};

use mongo_replica_set::{Options, ReplicaSet};
use mongodb::bson::doc;

use super::world::{World, cursor};
use crate::harness::eventually;

/// An oplog of a megabyte, and a log that does not hide what the oplog forgot.
async fn small_world() -> World {
    // The oplog is cut up to the newest checkpoint; without the flag there is one a minute.
    let extra_args = vec!["--syncdelay".into(), "1".into()];
    let options = Options { oplog_size_mb: Some(1), test_commands: true, extra_args, ..Options::default() };
    let set = ReplicaSet::start(options, |_| {}).await.expect("mongod starts");
    World::on(Arc::new(set), 1, &["--log-entries-max", "5"]).await
}

/// Writes until the oplog's oldest entry is younger than it was.
async fn roll_over(world: &World) {
    let client = world.database.client();
    let oplog = client.database("local").collection::<mongodb::bson::Document>("oplog.rs");
    let oldest = async || {
        let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap().unwrap();
        first.get_timestamp("ts").unwrap()
    };
    let begun = client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
    let begun = begun.get_document("lastWrite").unwrap().get_document("opTime").unwrap().get_timestamp("ts").unwrap();
    let filler = world.database.collection("filler");
    eventually("the oplog forgets", async || {
        let text = "x".repeat(500_000);
        filler.insert_many((0..8).map(|_| doc! { "text": &text })).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        (oldest().await > begun).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_was_away_longer_than_the_oplog_reaches_is_reset() {
    let mut world = small_world().await;
    let mut follower = world.follow(0, "room=a").await;
    world.say("seen").await;
    let left_at = cursor(&follower.expect("created").await);
    for n in 0..10 {
        world.say(&format!("missed {n}")).await;
    }
    roll_over(&world).await;
    for attempt in ["the oplog forgot", "that is known by now", "after a restart"] {
        if attempt == "after a restart" {
            world.stop_server(0).await;
            world.start_server(0).await;
        }
        let mut back = world.join(0, &format!("room=a&after={left_at}")).await;
        back.expect("reset").await;
        back.expect("ready").await;
        world.say("live").await;
        back.expect_next_content("live").await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_stood_still_longer_than_the_oplog_reaches_resets_its_clients() {
    let world = small_world().await;
    let mut follower = world.follow(0, "room=a").await;
    world.say("seen").await;
    follower.expect_next_content("seen").await;
    // The stream can neither go on nor be opened again until the oplog has moved on.
    let turn = world.fail(&["getMore", "aggregate"], 10_000, doc! { "errorCode": 91 }).await;
    eventually("the stream breaks", async || (world.reopens().await > 0).then_some(())).await;
    world.messages().insert_one(doc! { "content": "missed", "sender": "Ana", "room": "a" }).await.unwrap();
    roll_over(&world).await;
    world.heal().await;
    drop(turn);
    follower.expect("reset").await;
    follower.expect("ready").await;
    world.say("live").await;
    follower.expect_next_content("live").await;
    world.stop().await;
}
