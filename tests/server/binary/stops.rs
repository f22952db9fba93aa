//! How it stops, and what the next start finds.

use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{DataDir, PATIENCE, Program, STOP_WITHIN, expect_gone, get, is_alive, mongod_of, say};
use crate::harness::{Follower, eventually};

#[tokio::test]
async fn messages_and_cursors_survive_a_restart() {
    let dir = DataDir::new();
    let mut program = Program::in_dir(dir.path());
    let (uri, url) = program.ready().await;
    assert!(uri.starts_with("mongodb://127.0.0.1:") && uri.ends_with("/corriente?replicaSet=rs0"), "{uri}");
    let location = say(&url, "before").await;
    let cursor = get(&format!("{url}/api/messages")).await["cursor"].as_str().unwrap().to_owned();
    say(&url, "while a client was away").await;
    let before = get(&format!("{url}/api/messages")).await;
    program.signal("TERM").await;
    let ended = program.ended(PATIENCE).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "two lines and no more");

    let mut program = Program::in_dir(dir.path());
    let (uri_again, url) = program.ready().await;
    assert_eq!(uri_again, uri, "other writers keep their URI");
    assert_eq!(get(&format!("{url}{location}")).await["content"], "before");
    assert_eq!(get(&format!("{url}/api/messages")).await["messages"], before["messages"]);
    let mut back = Follower::join(&url, &format!("room=general&after={cursor}")).await;
    back.expect_next_content("while a client was away").await;
    say(&url, "after").await;
    assert_eq!(back.expect_contents(1).await, ["after"]);
    program.signal("TERM").await;
    assert!(program.ended(PATIENCE).await.status.success());
}

#[tokio::test]
async fn a_signal_stops_it_in_time_and_in_order() {
    for name in ["TERM", "INT"] {
        let dir = DataDir::new();
        let mut program = Program::in_dir(dir.path());
        let (_, url) = program.ready().await;
        let mongod = mongod_of(dir.path());
        let mut followers = Vec::new();
        for query in ["room=general", "all=true", ""] {
            let mut follower = Follower::join(&url, query).await;
            follower.expect("ready").await;
            followers.push(follower);
        }
        program.signal(name).await;
        let ended = program.ended(STOP_WITHIN).await;
        assert_eq!(ended.status.code(), Some(0), "SIG{name}: {}", ended.stderr);
        assert!(!is_alive(mongod), "SIG{name} leaves mongod behind");
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("ERROR"), "{}", ended.stderr);
        for follower in &mut followers {
            let close = loop {
                match futures::StreamExt::next(&mut follower.socket).await {
                    Some(Ok(Message::Close(close))) => break close,
                    Some(Ok(Message::Text(_) | Message::Ping(_))) => {}
                    other => panic!("SIG{name}: {other:?}"),
                }
            };
            assert_eq!(close.map(|close| close.code), Some(CloseCode::Restart), "SIG{name}");
        }
        let log = std::fs::read_to_string(dir.path().join("member-0.log")).unwrap();
        assert!(log.contains(r#""exitCode":0"#), "mongod was not shut down cleanly");
    }
}

#[tokio::test]
async fn a_signal_while_it_starts_stops_it_too() {
    let dir = DataDir::new();
    let program = Program::in_dir(dir.path());
    // By now it listens to signals, and mongod is on its way.
    let lock = dir.path().join("member-0/mongod.lock");
    eventually("mongod has begun", async || std::fs::read_to_string(&lock).ok().filter(|text| !text.trim().is_empty()))
        .await;
    let mongod = mongod_of(dir.path());
    program.signal("TERM").await;
    let ended = program.ended(STOP_WITHIN).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    expect_gone(mongod).await;
}

#[tokio::test]
async fn a_program_that_is_killed_leaves_no_mongod_behind() {
    let dir = DataDir::new();
    let mut program = Program::in_dir(dir.path());
    let (_, url) = program.ready().await;
    let location = say(&url, "acknowledged").await;
    let mongod = mongod_of(dir.path());
    assert!(is_alive(mongod));
    program.child.kill().await.unwrap();
    expect_gone(mongod).await;
    // And the next one finds everything.
    let mut program = Program::in_dir(dir.path());
    let (_, url) = program.ready().await;
    assert_eq!(get(&format!("{url}{location}")).await["content"], "acknowledged");
}
