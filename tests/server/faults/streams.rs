//! The change stream breaks, in every way that MongoDB has a code for.

use mongodb::bson::doc;

use super::{
    traffic::Load,
    world::{World, cursor, expect_kept, expect_unnoticed},
};
use crate::harness::eventually;

#[tokio::test]
async fn no_error_of_a_running_stream_is_noticed_by_a_client() {
    let world = World::shared().await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);
    // Host unreachable, not found; not primary; shutting down; cursors killed, failed over or gone; interrupted;
    // too slow; the collection is busy; overtaken.
    for code in [43, 189, 10107, 11600, 11602, 91, 11601, 237, 50, 262, 136, 6, 7, 89, 9001, 133] {
        world.break_stream(&["getMore"], 1, doc! { "errorCode": code }).await;
    }
    world.break_stream(&["getMore"], 1, doc! { "closeConnection": true }).await;
    assert!(traffic.flows(2).await);
    expect_unnoticed(traffic).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stream_that_can_not_be_opened_again_at_first_goes_on_when_it_can() {
    let world = World::shared().await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);
    for (times, fault) in [
        (4, doc! { "errorCode": 13 }),
        (3, doc! { "errorCode": 91 }),
        (3, doc! { "errorCode": 11600 }),
        (4, doc! { "closeConnection": true }),
    ] {
        world.break_stream(&["getMore", "aggregate"], times, fault).await;
    }
    assert!(traffic.flows(2).await);
    expect_unnoticed(traffic).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stream_that_takes_long_to_open_is_given_more_time_from_try_to_try() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    // As when other programs have written much meanwhile: MongoDB looks through all of it before it answers.
    let slow = doc! { "blockConnection": true, "blockTimeMS": 6_000 };
    let turn = world.fail(&["aggregate"], 10_000, slow).await;
    world.kill_stream().await;
    world.say("meanwhile").await;
    follower.expect_next_content("meanwhile").await;
    world.heal().await;
    drop(turn);
    world.stop().await;
}

#[tokio::test]
async fn without_the_right_to_watch_the_server_is_not_ready_and_recovers_by_itself() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    let turn = world.fail(&["getMore", "aggregate"], 10_000, doc! { "errorCode": 13 }).await;
    eventually("the server says that it is not ready", async || (world.get(0, "/readyz").await.0 == 503).then_some(()))
        .await;
    // Inserts go on: they do not depend on the stream.
    world.say("unseen for a while").await;
    world.heal().await;
    drop(turn);
    follower.expect_next_content("unseen for a while").await;
    world.expect_ready().await;
    world.stop().await;
}

#[tokio::test]
async fn nobody_notices_that_a_resume_token_was_refused() {
    let world = World::shared().await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);
    // In the running stream.
    world.break_stream(&["getMore"], 1, doc! { "errorCode": 280 }).await;
    // When it is resumed after something else.
    let before = world.reopens().await;
    let turn = world.fail(&["aggregate"], 1, doc! { "errorCode": 280 }).await;
    world.kill_stream().await;
    eventually("the killed stream is noticed", async || (world.reopens().await > before).then_some(())).await;
    world.expect_ready().await;
    drop(turn);
    assert!(traffic.flows(2).await);
    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty(), "somebody noticed\n{verdict}");
    world.stop().await;
}

#[tokio::test]
async fn after_a_lost_history_every_client_is_told_to_reload_or_misses_nothing() {
    let world = World::shared().await;
    let load = Load::default();
    let mut connected = world.follow(0, "room=quiet").await;
    let traffic = world.traffic(&load);
    assert!(traffic.flows(2).await);
    for (commands, times) in [(&["getMore"][..], 1), (&["getMore", "aggregate"][..], 2)] {
        world.break_stream(commands, times, doc! { "errorCode": 286 }).await;
        assert!(traffic.flows(2).await);
        // Who is connected all the time gets exactly one.
        connected.expect("reset").await;
        connected.expect("ready").await;
        let document = doc! { "content": "live", "sender": "Ana", "room": "quiet" };
        world.messages().insert_one(document).await.unwrap();
        connected.expect_next_content("live").await;
    }
    let (verdict, _, logs) = expect_kept(traffic).await;
    // The oplog was there all the time, so that a client may also have got exactly what it missed.
    let at_most = 2 * logs.len();
    assert!(verdict.resets.len() <= at_most, "{verdict}");
    world.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_opened_again_does_not_take_the_position_back() {
    let world = World::shared().await;
    let mut follower = world.follow(0, "room=a").await;
    // While MongoDB is idle: until its next no-op the position stands at the last message.
    for round in 0..2 {
        let id = world.say(&format!("round {round}")).await;
        let frame = follower.expect("created").await;
        assert_eq!(frame["message"]["id"], id);
        world.break_stream(&["getMore"], 1, doc! { "errorCode": 91 }).await;
        // Back with the newest cursor, told `ready`, cut, and back with the cursor of that.
        let mut back = world.join(0, &format!("room=a&after={}", cursor(&frame))).await;
        let ready = back.expect("ready").await;
        let mut again = world.join(0, &format!("room=a&after={}", cursor(&ready))).await;
        let first = again.next().await.expect("a frame");
        assert_eq!(first["type"], "ready", "told again what came before {}: {first}", cursor(&ready));
    }
    world.stop().await;
}
