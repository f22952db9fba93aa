//! Three members: primaries come and go, and what no majority has is never shown.

use mongo_replica_set::Options;
use mongodb::{
    Client,
    bson::{Document, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};

use super::{
    traffic::Load,
    world::{World, expect_kept, expect_unnoticed},
};

#[tokio::test]
async fn elections_are_noticed_by_nobody_and_lose_nothing() {
    let world = World::own(Options { members: 3, ..Options::default() }, 2).await;
    let traffic = world.traffic(&Load { hop_after: Some(60), ..Load::default() });
    assert!(traffic.flows(2).await);

    let first = world.set.primary().await.unwrap();
    world.set.kill(first).unwrap();
    let second = world.set.primary().await.unwrap();
    assert_ne!(first, second);
    assert!(traffic.flows(2).await);
    world.set.restart(first).await.unwrap();
    world.set.step_down().await.unwrap();
    world.set.primary().await.unwrap();
    assert!(traffic.flows(2).await);

    expect_unnoticed(traffic).await;
    world.stop().await;
}

#[tokio::test]
async fn a_write_that_is_rolled_back_is_never_seen() {
    let world = World::own(Options { members: 3, ..Options::default() }, 1).await;
    let traffic = world.traffic(&Load::default());
    assert!(traffic.flows(2).await);

    // Killed rather than paused: a paused member would find the write in its socket when it goes on.
    let primary = world.set.primary().await.unwrap();
    let others: Vec<usize> = (0..3).filter(|member| *member != primary).collect();
    others.iter().for_each(|member| world.set.kill(*member).unwrap());
    let alone = Client::with_uri_str(world.set.member_uri(primary)).await.unwrap();
    let on_one = WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(true).build();
    let messages = alone
        .database(world.database.name())
        .collection_with_options::<Document>("messages", CollectionOptions::builder().write_concern(on_one).build());
    messages.insert_one(doc! { "content": "never happened", "sender": "Eva", "room": "a" }).await.unwrap();
    world.set.kill(primary).unwrap();

    for member in others {
        world.set.restart(member).await.unwrap();
    }
    world.set.primary().await.unwrap();
    assert!(traffic.flows(2).await);
    world.set.restart(primary).await.unwrap();
    assert!(traffic.flows(2).await);

    // A phantom is what is seen and not stored.
    let (verdict, _, logs) = expect_kept(traffic).await;
    assert!(verdict.resets.is_empty(), "{verdict}");
    let rolled_back = doc! { "content": "never happened" };
    assert_eq!(world.messages().count_documents(rolled_back).await.unwrap(), 0, "it was to be rolled back");
    let told = logs.iter().flat_map(|log| &log.seen).any(|(_, seen)| format!("{seen:?}").contains("never happened"));
    assert!(!told);
    world.stop().await;
}
