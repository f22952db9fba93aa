//! The collection goes, comes back, or is filled with what nobody should write.

use std::time::Duration;

use mongo_replica_set::Options;
use mongodb::bson::{Bson, doc};

use super::{
    traffic::Load,
    world::{World, cursor, expect_kept},
};

#[tokio::test]
async fn a_collection_that_is_dropped_or_renamed_is_a_reset_and_the_next_one_is_live() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    let from = format!("{}.messages", world.database.name());
    let rename = doc! { "renameCollection": from, "to": format!("{}.old", world.database.name()) };
    for fault in ["drop", "rename", "dropDatabase"] {
        let before = world.expect_live(&mut follower).await;
        match fault {
            "drop" => world.messages().drop().await.unwrap(),
            "rename" => drop(world.database.client().database("admin").run_command(rename.clone()).await.unwrap()),
            _ => world.database.drop().await.unwrap(),
        }
        let reset = loop {
            let frame = follower.next().await.expect("the socket stays open");
            if frame["type"] == "reset" {
                break frame;
            }
        };
        assert_eq!(reset["reason"], "the collection was dropped or made anew", "after {fault}");
        world.expect_live(&mut follower).await;
        let mut late = world.join(0, &format!("room=a&after={before}")).await;
        late.expect("reset").await;
        // What the reset asks for must be possible.
        for path in ["/api/messages?room=a", "/api/messages", "/api/rooms"] {
            assert_eq!(world.get(0, path).await.0, 200, "GET {path} after {fault}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn traffic_goes_on_over_a_drop() {
    let world = World::shared().await;
    // Without edits: those of messages that were dropped would write nothing.
    let traffic = world.traffic(&Load { driver_writers: 0, ..Load::default() });
    assert!(traffic.flows(2).await);
    world.messages().drop().await.unwrap();
    assert!(traffic.flows(2).await);
    let (verdict, ..) = traffic.finish().await;
    // What was acknowledged before the drop is lost, as was asked for; everything else holds.
    let others = [&verdict.unseen, &verdict.diverged, &verdict.phantoms, &verdict.reordered, &verdict.scandals];
    assert!(others.iter().all(|list| list.is_empty()), "{verdict}");
    assert!(!verdict.resets.is_empty(), "{verdict}");
    world.stop().await;
}

#[tokio::test]
async fn a_collection_that_was_dropped_and_made_anew_while_the_server_was_down_is_a_reset() {
    let mut world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    world.say("of the old one").await;
    let left_at = cursor(&follower.expect("created").await);
    world.stop_server(0).await;
    world.messages().drop().await.unwrap();
    world.messages().insert_one(doc! { "content": "of the new one", "sender": "Ana", "room": "a" }).await.unwrap();
    world.start_server(0).await;
    let mut back = world.join(0, &format!("room=a&after={left_at}")).await;
    back.expect("reset").await;
    back.expect("ready").await;
    world.say("live").await;
    back.expect_next_content("live").await;
    world.stop().await;
}

#[tokio::test]
async fn a_cursor_of_another_cluster_is_a_reset_never_silence() {
    let (here, elsewhere) = tokio::join!(World::shared(), World::own(Options::default(), 1));
    let mut follower = elsewhere.follow(0, "room=a").await;
    elsewhere.say("elsewhere").await;
    let foreign = cursor(&follower.expect("created").await);
    let mut lost = here.join(0, &format!("room=a&after={foreign}")).await;
    lost.expect("reset").await;
    lost.expect("ready").await;
    here.say("here").await;
    lost.expect_next_content("here").await;
    elsewhere.stop().await;
    here.stop().await;
}

#[tokio::test]
async fn an_external_update_of_sixteen_megabytes_is_skipped_and_its_neighbours_are_delivered() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    let messages = world.messages();
    // An extra field is allowed, and no client is told of it: the message is updated like any other.
    let id = world.say("small").await;
    follower.expect_next_content("small").await;
    let this = doc! { "_id": mongodb::bson::oid::ObjectId::parse_str(&id).unwrap() };
    for letter in ["x", "y"] {
        let attachment = letter.repeat(15 << 20);
        messages.update_one(this.clone(), doc! { "$set": { "attachment": attachment } }).await.unwrap();
        assert_eq!(follower.expect("updated").await["message"]["content"], "small");
    }
    // A content of that size breaks the contract; the validator of our own collection has to be circumvented for that.
    let content = doc! { "$set": { "content": "z".repeat(15 << 20), "attachment": Bson::Null } };
    messages.update_one(this.clone(), content).bypass_document_validation(true).await.unwrap();
    world.say("neighbour").await;
    assert_eq!(follower.expect("deleted").await["id"], id);
    follower.expect_next_content("neighbour").await;
    assert_eq!(world.reopens().await, 0, "the stream went through");
    world.stop().await;
}

#[tokio::test]
async fn two_servers_and_clients_that_hop_between_them_tell_one_story() {
    let world = World::shared_by(2).await;
    let load = Load { hop_after: Some(20), readers: 6, rest_writers: 2, socket_writers: 2, ..Load::default() };
    let traffic = world.traffic(&load);
    for _ in 0..4 {
        assert!(traffic.flows(4).await);
        traffic.cut();
    }
    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    world.stop().await;
}

#[tokio::test]
async fn the_history_and_what_follows_it_are_what_is_stored_wherever_one_begins() {
    let world = World::shared_by(2).await;
    // Imports of two thousand messages a second besides what people and programs write, edit, move and delete.
    let load = Load {
        rest_writers: 1,
        socket_writers: 2,
        driver_writers: 3,
        bulk_writers: 2,
        pause_between: Duration::from_millis(4),
        remember_every: Duration::from_millis(40),
        ..Load::default()
    };
    let traffic = world.traffic(&load);
    assert!(traffic.flows(60).await);
    let (verdict, _, logs) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    let histories = logs.iter().filter(|log| log.name.starts_with("history")).count();
    assert!(histories >= 3, "only {histories} histories were read");
    world.stop().await;
}
