//! The server itself ends: by force, or because it was asked to.

use std::time::Duration;

use mongo_replica_set::Options;
use mongodb::bson::doc;

use super::{
    ports::lasting_port,
    program::Program,
    traffic::Load,
    world::{World, expect_kept},
};
use crate::harness::Follower;

fn busy() -> Load {
    Load {
        rest_writers: 4,
        socket_writers: 4,
        driver_writers: 1,
        pause_between: Duration::from_millis(2),
        ..Load::default()
    }
}

#[tokio::test]
async fn a_program_that_is_killed_in_a_burst_has_lost_nothing_that_it_acknowledged() {
    let world = World::own(Options::default(), 0).await;
    let mut program = Program::start(&world, lasting_port().unwrap()).await;
    let traffic = super::traffic::Traffic::start(vec![program.url.clone()], world.messages(), &busy());
    for _ in 0..2 {
        assert!(traffic.flows(10).await);
        program.kill().await;
        program.start_again(&world).await;
    }
    assert!(traffic.flows(10).await);
    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    program.kill().await;
}

#[tokio::test]
async fn a_program_that_is_told_to_stop_under_load_ends_in_time_and_has_lost_nothing() {
    let world = World::own(Options::default(), 0).await;
    let mut program = Program::start(&world, lasting_port().unwrap()).await;
    let traffic = super::traffic::Traffic::start(vec![program.url.clone()], world.messages(), &busy());
    for _ in 0..2 {
        assert!(traffic.flows(10).await);
        program.stop().await;
        program.start_again(&world).await;
    }
    assert!(traffic.flows(10).await);
    let (verdict, ..) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty() && verdict.repeated.is_empty(), "{verdict}");
    program.kill().await;
}

#[tokio::test]
async fn a_slow_reader_misses_nothing_when_the_server_stops_in_the_middle_of_what_it_is_told() {
    let mut world = World::own(Options::default(), 1).await;
    let mut slow = world.follow(0, "room=a").await;
    // Far more than the socket's buffers hold, so that the session is in the middle of telling it.
    const COUNT: usize = 4_000;
    let documents = (0..COUNT).map(|n| {
        let content = format!("{n} {}", "x".repeat(3_900));
        doc! { "content": content, "sender": "Ana", "room": "a" }
    });
    world.messages().insert_many(documents).await.unwrap();
    crate::harness::eventually("the server knows them all", async || {
        (world.metric("corriente_log_entries").await >= COUNT as u64).then_some(())
    })
    .await;

    let mut seen: Vec<String> = Vec::new();
    let mut newest = String::new();
    let mut listen = async |follower: &mut Follower| {
        while seen.last().is_none_or(|last| last != "last")
            && let Some(frame) = follower.next().await
        {
            newest = frame["cursor"].as_str().map_or(newest.clone(), str::to_owned);
            if let Some(content) = frame["message"]["content"].as_str() {
                seen.push(content.split(' ').next().unwrap_or_default().to_owned());
            }
        }
        newest.clone()
    };
    let (_, left_at) = tokio::join!(world.stop_server(0), listen(&mut slow));
    world.start_server(0).await;
    world.say("last").await;
    let mut back = world.join(0, &format!("room=a&after={left_at}")).await;
    listen(&mut back).await;
    let wanted: Vec<String> = (0..COUNT).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    let first_wrong = seen.iter().zip(&wanted).find(|(seen, wanted)| seen != wanted);
    assert!(seen == wanted, "{} of {} were told; the first wrong one: {first_wrong:?}", seen.len(), wanted.len());
    world.stop().await;
}
