//! Changes that no answer of MongoDB can hold.

use mongo_replica_set::Options;
use mongodb::bson::{Bson, Document, doc};

use super::world::{World, cursor};
use crate::harness::{Follower, eventually};

/// An `_id` of megabytes breaks the contract. A change of such a document holds it several times: in the key, in the
/// document, in what the document was before, and twice as long in its own resume token.
fn poison(megabytes: usize) -> Document {
    doc! { "_id": "p".repeat(megabytes << 20), "content": "poison", "sender": "Eva", "room": "a" }
}

/// Inserts it. MongoDB refuses that as long as its cache has no room for so much at once.
async fn insert_poison(world: &World, megabytes: usize) {
    let messages = world.messages();
    let insert = async || messages.insert_one(poison(megabytes)).bypass_document_validation(true).await.ok();
    eventually("room for a document of megabytes", insert).await;
}

/// Reads until every one of `contents` is known: told, in their order and alone, or behind a reset, upon which they stand
/// in the history. Returns how many resets there were.
async fn expect_known(world: &World, follower: &mut Follower, contents: &[&str]) -> usize {
    let mut told = Vec::new();
    while told.len() < contents.len() {
        let frame = follower.next().await.expect("the socket stays open");
        match frame["type"].as_str() {
            Some("created") => told.push(frame["message"]["content"].as_str().unwrap().to_owned()),
            Some("reset") => {
                let (status, page) = world.get(0, "/api/messages?room=a").await;
                assert_eq!(status, 200, "{page:.300}");
                assert!(contents.iter().all(|content| page.contains(content)), "{contents:?} in {page:.3000}");
                assert!(!page.contains("poison"), "{page:.300}");
                return 1 + expect_live(world, follower).await;
            }
            Some("ready" | "position" | "deleted") => {}
            _ => panic!("{frame:.300}"),
        }
    }
    assert_eq!(told, contents);
    0
}

/// Sends messages until one comes through. Returns how many resets came instead.
async fn expect_live(world: &World, follower: &mut Follower) -> usize {
    let mut resets = 0;
    let mut id = world.say("live").await;
    loop {
        let frame = follower.next().await.expect("the socket stays open");
        match frame["type"].as_str() {
            Some("created") if frame["message"]["id"] == id => return resets,
            Some("reset") => {
                resets += 1;
                // The one before may lie in the gap, and is part of the history then.
                id = world.say("live").await;
            }
            Some("created" | "ready" | "position" | "deleted") => {}
            _ => panic!("{frame:.300}"),
        }
    }
}

#[tokio::test]
async fn a_change_that_no_answer_can_hold_is_one_reset_at_most_and_neighbours_are_delivered() {
    let world = World::own(Options::default(), 1).await;
    let messages = world.messages();
    let neighbour = |name: &str| doc! { "content": name, "sender": "Ana", "room": "a" };
    // What passes, and what is too big together with its token.
    for (megabytes, resets_max) in [(1, 0), (5, 1)] {
        let mut follower = world.follow(0, "room=a").await;
        let (before, after) = (format!("before {megabytes}"), format!("after {megabytes}"));
        let documents = [neighbour(&before), poison(megabytes), neighbour(&after)];
        messages.insert_many(documents).bypass_document_validation(true).await.unwrap();
        let resets = expect_known(&world, &mut follower, &[&before, &after]).await;
        assert!(resets <= resets_max, "{resets} resets for {megabytes} MB");
    }
    assert!(world.reopens().await <= 2, "each is met once");
    world.stop().await;
}

#[tokio::test]
async fn edits_and_deletes_that_no_answer_can_hold_are_one_reset_each_at_most() {
    let world = World::own(Options::default(), 1).await;
    let messages = world.messages();
    let id = doc! { "_id": "p".repeat(3 << 20) };
    insert_poison(&world, 3).await;
    let mut follower = world.follow(0, "room=a").await;
    // With what the document was before: the identity five times over.
    let edit = doc! { "$set": { "content": Bson::Int32(1) } };
    messages.update_one(id.clone(), edit).bypass_document_validation(true).await.unwrap();
    let edited = expect_live(&world, &mut follower).await;
    messages.delete_one(id).await.unwrap();
    let deleted = expect_live(&world, &mut follower).await;
    assert!(edited <= 1 && deleted <= 1, "{edited} and {deleted} resets");
    world.stop().await;
}

#[tokio::test]
async fn a_server_starts_and_clients_come_back_over_a_change_that_no_answer_can_hold() {
    let mut world = World::own(Options::default(), 1).await;
    let mut follower = world.follow(0, "room=a").await;
    world.say("seen").await;
    let left_at = cursor(&follower.expect("created").await);
    drop(follower);
    world.stop_server(0).await;
    // Within the last minute of the stream, which a server reads before it listens.
    insert_poison(&world, 5).await;
    world.start_server(0).await;
    world.say("missed").await;
    let mut back = world.join(0, &format!("room=a&after={left_at}")).await;
    let resets = expect_known(&world, &mut back, &["missed"]).await;
    assert!(resets <= 1, "{resets} resets");
    world.stop().await;
}
