//! The insert breaks: a message is never stored twice, and what was acknowledged is stored.

use mongo_replica_set::Options;
use mongodb::bson::{doc, oid::ObjectId};

use super::{
    traffic::Load,
    world::{World, expect_unnoticed},
};

#[tokio::test]
async fn a_connection_that_closes_before_the_insert_is_a_201_or_a_503_and_a_safe_retry() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    for times in [1, 2] {
        let id = ObjectId::new().to_hex();
        let turn = world.fail(&["insert"], times, doc! { "closeConnection": true }).await;
        let (status, answer) = world.post(&format!("{times} times"), &id).await;
        world.heal().await;
        drop(turn);
        if status != 201 {
            assert_eq!(status, 503, "{answer}");
            let (status, answer) = world.post(&format!("{times} times"), &id).await;
            assert!([200, 201].contains(&status), "{answer}");
        }
        assert_eq!(follower.expect("created").await["message"]["id"], id);
    }
    world.say("the end").await;
    follower.expect_next_content("the end").await;
    assert_eq!(world.messages().count_documents(doc! {}).await.unwrap(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_closes_after_the_insert_leaves_one_message() {
    let world = World::own(Options::default(), 1).await;
    let mut follower = world.follow(0, "room=a").await;
    let id = ObjectId::new().to_hex();
    // The write is done, and the connection closes instead of an answer. The driver's retry has the same number, so
    // MongoDB answers it from its record of what was done.
    let close = doc! { "configureFailPoint": "onPrimaryTransactionalWrite", "mode": { "times": 1 }, "data": { "closeConnection": true } };
    world.configure(close).await;
    let (status, answer) = world.post("once", &id).await;
    assert!([200, 201, 503].contains(&status), "{answer}");
    let (status, answer) = world.post("once", &id).await;
    assert!([200, 201].contains(&status), "{answer}");
    world.say("the end").await;
    assert_eq!(follower.expect("created").await["message"]["id"], id);
    follower.expect_next_content("the end").await;
    world.stop().await;
}

#[tokio::test]
async fn a_write_concern_error_is_a_503_and_a_safe_retry() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    for code in [64, 91, 11602, 100] {
        let id = ObjectId::new().to_hex();
        let error = doc! { "code": code, "errmsg": "waiting for replication failed" };
        let turn = world.fail(&["insert"], 3, doc! { "writeConcernError": error }).await;
        let (status, answer) = world.post(&format!("code {code}"), &id).await;
        world.heal().await;
        drop(turn);
        assert_eq!(status, 503, "a write that no majority has confirmed was answered {status}: {answer}");
        let (status, answer) = world.post(&format!("code {code}"), &id).await;
        assert!([200, 201].contains(&status), "{answer}");
        assert_eq!(follower.expect("created").await["message"]["id"], id);
    }
    world.say("the end").await;
    follower.expect_next_content("the end").await;
    world.stop().await;
}

#[tokio::test]
async fn inserts_that_fail_while_many_write_store_nothing_twice() {
    let world = World::shared().await;
    let traffic = world.traffic(&Load { rest_writers: 3, socket_writers: 2, ..Load::default() });
    assert!(traffic.flows(2).await);
    for fault in [
        doc! { "closeConnection": true },
        doc! { "errorCode": 91 },
        doc! { "errorCode": 10107 },
        doc! { "errorCode": 13 },
        doc! { "writeConcernError": { "code": 64, "errmsg": "timed out" } },
    ] {
        let turn = world.fail(&["insert"], 8, fault).await;
        assert!(traffic.flows(2).await);
        world.heal().await;
        drop(turn);
    }
    expect_unnoticed(traffic).await;
    world.stop().await;
}
