//! The change stream can not be opened again for long: the server goes on trying, and costs next to nothing meanwhile.

use std::time::Duration;

use mongo_replica_set::Options;
use mongodb::bson::{Document, doc};
use tokio::time::{Instant, sleep};

use super::{program::Program, world::World};
use crate::harness::Follower;

/// How many tries are counted.
const TRIES: u64 = 20;
/// The first pauses are short, as most streams are away for a moment only; so many tries may come at once.
const QUICK_TRIES_MAX: u64 = 6;
/// And then so many a second.
const TRIES_PER_SEC_MAX: u64 = 2;

/// How often the fail point of the world's mongod was met.
async fn met(world: &World) -> u64 {
    let admin = world.database.client().database("admin");
    let found = admin.run_command(doc! { "getParameter": 1, "failpoint.failCommand": 1 }).await.unwrap();
    let fail_point: &Document = found.get_document("failpoint.failCommand").unwrap();
    fail_point.get_i64("timesEntered").or_else(|_| fail_point.get_i32("timesEntered").map(i64::from)).unwrap() as u64
}

/// Lets `commands` fail with `error_code` until they have failed [`TRIES`] times, and asserts that the server was in no hurry and used less
/// than half a processor.
async fn expect_patience(commands: &[&str], error_code: i32) -> (World, Program, Follower) {
    let mut world = World::own(Options::default(), 0).await;
    let program = world.start_program().await;
    let follower = world.follow(0, "room=a").await;
    world.fail(commands, 100_000, doc! { "errorCode": error_code }).await;
    let (began, used_before) = (Instant::now(), program.processor_time());
    // At one try a second, which is the longest pause, this takes as many seconds as there are tries.
    let deadline = began + Duration::from_secs(2 * TRIES);
    while met(&world).await < TRIES {
        assert!(Instant::now() < deadline, "it has almost given up: {} tries", met(&world).await);
        sleep(Duration::from_millis(50)).await;
    }
    let (tries, took) = (met(&world).await, began.elapsed());
    let used = program.processor_time() - used_before;
    assert!(
        tries <= QUICK_TRIES_MAX + (took.as_secs_f64() * TRIES_PER_SEC_MAX as f64).ceil() as u64,
        "{tries} tries in {took:?}"
    );
    assert!(used < took / 2, "{used:?} of processor time in {took:?}");
    (world, program, follower)
}

/// Ends the fault, and asserts that `follower` misses nothing. Returns what it was told of the stream.
async fn expect_recovery(world: &World, follower: &mut Follower) -> Vec<String> {
    world.say("unseen for a while").await;
    world.heal().await;
    let mut told = Vec::new();
    loop {
        let frame = follower.next().await.expect("the socket stays open");
        match frame["type"].as_str() {
            Some("position") => told.push(frame["stream"].as_str().unwrap_or_default().to_owned()),
            Some("created") if frame["message"]["content"] == "unseen for a while" => return told,
            _ => panic!("{frame}"),
        }
    }
}

#[tokio::test]
async fn a_stream_that_can_not_be_opened_for_long_is_tried_twice_a_second_at_most() {
    // The first failure is the one that breaks the running stream.
    let (world, mut program, mut follower) = expect_patience(&["getMore", "aggregate"], 91).await;
    let told = expect_recovery(&world, &mut follower).await;
    assert!(told.iter().any(|word| word == "catching up"), "{told:?}");
    program.kill().await;
}

#[tokio::test]
async fn a_stream_that_opens_but_breaks_at_every_read_is_opened_twice_a_second_at_most() {
    // Not a code upon which the driver itself waits for the next heartbeat.
    let (world, mut program, mut follower) = expect_patience(&["getMore"], 136).await;
    expect_recovery(&world, &mut follower).await;
    program.kill().await;
}
