//! Members that are killed, paused, deposed, or end by themselves.

use std::sync::Arc;
use std::time::Duration;

use mongo_replica_set::{Error, Options};

use crate::program::{Program, is_alive, mongod_of, signal};
use crate::{SOON, eventually, start, texts, timed, write};

#[tokio::test]
async fn another_member_takes_over_when_the_primary_is_killed() {
    let set = Arc::new(start(Options { members: 3, ..Options::default() }).await);
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    let first = set.primary().await.unwrap();
    assert_eq!(first, 0, "member 0 is preferred");
    set.kill(first).unwrap();
    assert_eq!(set.pid(first), None);
    let second = timed("an election after a kill", set.primary()).await.unwrap();
    assert_ne!(second, first);
    write(&uri, "after").await;
    set.restart(first).await.unwrap();
    assert_eq!(texts(&uri).await, ["before", "after"]);

    set.step_down().await.unwrap();
    let third = timed("an election after a step-down", set.primary()).await.unwrap();
    assert_ne!(third, second);
    write(&uri, "at last").await;
    Arc::into_inner(set).unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_member_answers_nothing_until_it_is_resumed() {
    let set = start(Options::default()).await;
    let uri = set.member_uri(0);
    write(&uri, "before").await;
    set.pause(0).unwrap();
    let late = tokio::time::timeout(Duration::from_millis(300), async { texts(&uri).await }).await;
    assert!(late.is_err(), "a stopped mongod answered");
    assert!(matches!(set.wait_for_primary(Duration::from_millis(100)).await, Err(Error::TimedOut { .. })));
    set.resume(0).unwrap();
    assert_eq!(set.primary().await.unwrap(), 0);
    assert_eq!(texts(&uri).await, ["before"]);
    // A paused member can be stopped, too.
    set.pause(0).unwrap();
    set.stop().await.unwrap();
}

#[tokio::test]
async fn a_single_member_is_primary_again_after_it_stepped_down_or_was_killed() {
    let set = start(Options::default()).await;
    set.step_down().await.unwrap();
    timed("a single member's return", set.primary()).await.unwrap();
    write(set.uri(), "before").await;
    set.kill(0).unwrap();
    assert!(set.pause(0).is_err());
    assert!(set.kill(1).is_err());
    set.restart(0).await.unwrap();
    set.primary().await.unwrap();
    assert_eq!(texts(set.uri()).await, ["before"]);
    set.stop().await.unwrap();
}

#[tokio::test]
async fn the_command_starts_a_member_again_that_was_killed_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut program =
        Program::start(&["--members", "3", "--oplog-size-mb", "16", "--data-dir", dir.path().to_str().unwrap()]).await;
    write(&program.uri, "before").await;
    let killed = mongod_of(dir.path());
    signal(killed, "KILL");
    let lock = dir.path().join("member-0/mongod.lock");
    eventually("another mongod has its files", || {
        let pid = std::fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some_and(|pid: u32| pid != killed && is_alive(pid))
    })
    .await;
    assert!(program.said.text().contains("starting it again"), "{}", program.said.text());
    write(&program.uri, "after").await;
    assert_eq!(texts(&program.uri).await, ["before", "after"]);
    assert!(program.terminate().await.success());
}

#[tokio::test]
async fn a_mongod_that_ends_by_itself_is_reported() {
    let set = start(Options::default()).await;
    signal(set.pid(0).unwrap(), "KILL");
    let error = tokio::time::timeout(SOON, set.unexpected_end()).await.unwrap();
    assert!(matches!(error, Error::MongodEnded { member: 0, .. }), "{error}");
    assert!(error.to_string().contains("signal: 9"), "{error}");
    set.stop().await.unwrap();
}
