//! All of MongoDB is gone for good: another one, with nothing in it, answers at the same address.

use std::{path::Path, sync::Arc};

use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{Client, bson::doc};
use tempfile::TempDir;

use super::world::{World, cursor};
use crate::harness::{Follower, eventually};

/// A set with its files here, at this port. Its name is the same after every start.
async fn set_in(dir: &Path, port: Option<u16>) -> Arc<ReplicaSet> {
    let data_dir = Some(dir.to_owned());
    let options = Options { data_dir, port, test_commands: true, ..Options::default() };
    Arc::new(ReplicaSet::start(options, |_| {}).await.expect("mongod starts"))
}

/// Wipes the world's MongoDB and starts it anew at its address.
async fn wipe(world: &mut World, dir: &TempDir) {
    let uri = world.set.uri().to_owned();
    let port = uri.split(['/', ':']).find_map(|part| part.parse().ok());
    world.set.kill(0).unwrap();
    let placeholder = crate::harness::mongo().await;
    let wiped = std::mem::replace(&mut world.set, placeholder);
    // Its hold on the directory ends with it.
    drop(Arc::into_inner(wiped).expect("nobody else holds the set"));
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    world.set = set_in(dir.path(), port).await;
    assert_eq!(world.set.uri(), uri, "the same address");
    let client = Client::with_uri_str(&uri).await.unwrap();
    world.database = client.database(world.database.name());
}

async fn visit(world: &World) -> (Follower, String) {
    let mut follower = world.follow(0, "room=a").await;
    world.say("of the old one").await;
    let left_at = cursor(&follower.expect("created").await);
    (follower, left_at)
}

/// A client that comes back with a cursor of what is gone is told, and is live then.
async fn expect_reset_then_live(world: &World, left_at: &str) {
    let mut back = world.join(0, &format!("room=a&after={left_at}")).await;
    back.expect("reset").await;
    world.expect_live(&mut back).await;
}

#[tokio::test]
async fn a_mongodb_that_was_wiped_while_the_server_was_down_is_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::on(set_in(dir.path(), None).await, 1, &[]).await;
    let (follower, left_at) = visit(&world).await;
    drop(follower);
    world.stop_server(0).await;
    wipe(&mut world, &dir).await;
    world.start_server(0).await;
    expect_reset_then_live(&world, &left_at).await;
    world.stop().await;
}

#[tokio::test]
async fn a_mongodb_that_is_wiped_under_a_running_server_is_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(set_in(dir.path(), None).await, 1, &[]).await;
    expect_recovery_from_wipe(world, &dir).await;
}

/// Wipes the world's MongoDB while its server runs, and asserts that everybody is told, and that everything is live then.
async fn expect_recovery_from_wipe(mut world: World, dir: &TempDir) {
    let (mut follower, left_at) = visit(&world).await;
    wipe(&mut world, dir).await;
    // Whoever stayed connected is told, too.
    let told = async { while follower.next().await.expect("the socket stays open")["type"] != "reset" {} };
    told.await;
    eventually("the server is ready", async || (world.get(0, "/readyz").await.0 == 200).then_some(())).await;
    expect_reset_then_live(&world, &left_at).await;
    let stored = world.messages().count_documents(doc! {}).await.unwrap();
    assert_eq!(stored, 1, "what was written since");
    world.stop().await;
}

#[tokio::test]
async fn a_mongodb_that_had_more_elections_than_the_one_after_it_is_a_reset_too() {
    let dir = tempfile::tempdir().unwrap();
    let set = set_in(dir.path(), None).await;
    // One election more than the next one will have had: a driver takes that one's primary for an old one.
    set.kill(0).unwrap();
    set.restart(0).await.unwrap();
    set.primary().await.unwrap();
    let world = World::on(set, 1, &[]).await;
    expect_recovery_from_wipe(world, &dir).await;
}
