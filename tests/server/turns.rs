//! Reads of one address take turns, so that a flood of them keeps those of nobody else waiting.

use mongodb::bson::doc;
use tokio::task::JoinSet;

use crate::{
    faults::{World, program::Program},
    harness::{Answer, eventually},
};

/// How long MongoDB takes for each read here, in milliseconds: less than a read may take, and for three turns one after the
/// other more than one may wait.
const READ_MILLIS: i32 = 3_500;
/// Three times as many as have their turn at once.
const READS: usize = 24;

fn client(last: u8) -> reqwest::Client {
    reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, last])).build().unwrap()
}

#[tokio::test]
async fn a_flood_of_reads_waits_for_itself_and_is_told_so_while_others_are_answered() {
    let world = World::shared_by(0).await;
    let program = Program::start_limited(&world, &[]).await;
    let url = format!("{}/api/rooms", program.url);
    let slow = doc! { "blockConnection": true, "blockTimeMS": READ_MILLIS };
    let turn = world.fail(&["find"], 1_000, slow).await;
    let flood = client(2);
    let mut reads = JoinSet::new();
    for _ in 0..READS {
        reads.spawn(Answer::to(flood.get(&url)));
    }
    // It comes last, and is not behind all of them.
    let other = Answer::to(client(3).get(&url)).await;
    assert!(other.status != 429, "{}", other.text);
    let answers = reads.join_all().await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() <= READS - 8, "{} of {READS} were refused", refused.len());
    for answer in refused {
        let problem = answer.expect_problem(429, "too-many");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|secs| secs > 0), "{problem}");
    }
    world.heal().await;
    drop(turn);
    eventually("its reads are answered again", async || {
        (Answer::to(flood.get(&url)).await.status == 200).then_some(())
    })
    .await;
}
