//! What starts, stays, moves and stops.

use std::fs;
use std::process::Command;

use mongo_replica_set::{Error, Options, ReplicaSet, find_or_fetch};
use mongodb::Client;
use mongodb::bson::doc;

use crate::program::{Program, Said, is_alive, mongod_of, process_group};
use crate::{eventually, in_dir, occupy, ports_of, report, start, texts, timed, write};

#[tokio::test]
async fn documents_and_the_port_survive_a_stop_and_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let set = start(in_dir(dir.path())).await;
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    timed("a clean stop", set.stop()).await.unwrap();

    let set = timed("a second start", start(in_dir(dir.path()))).await;
    assert_eq!(set.uri(), uri);
    assert_eq!(texts(&uri).await, ["before"]);
    write(&uri, "after").await;
    set.stop().await.unwrap();
}

#[tokio::test]
async fn documents_survive_kill_9_of_the_program_and_its_mongod() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--data-dir", dir.path().to_str().unwrap()]).await;
    let mongod = mongod_of(dir.path());
    write(&program.uri, "acknowledged").await;
    program.child.kill().unwrap();
    // At once, while the old mongod may still be dying.
    let set = timed("a start after kill -9", start(in_dir(dir.path()))).await;
    assert!(!is_alive(mongod));
    assert_eq!(set.uri(), program.uri);
    assert_eq!(texts(set.uri()).await, ["acknowledged"]);
    set.stop().await.unwrap();
}

#[tokio::test]
async fn kill_9_of_the_program_kills_its_mongod() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--data-dir", dir.path().to_str().unwrap()]).await;
    let mongod = mongod_of(dir.path());
    assert!(is_alive(mongod));
    program.child.kill().unwrap();
    eventually("the mongod is gone", || !is_alive(mongod)).await;
}

#[tokio::test]
async fn kill_9_of_the_program_kills_its_mongod_also_without_setpriv() {
    let dir = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let mongod = find_or_fetch(report).await.unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let without_setpriv = |command: &mut Command| {
        command.env("PATH", empty.path()).env("MONGOD", &mongod);
    };
    let mut program = Program::start_with(&["--data-dir", data_dir], without_setpriv).await;
    let mongod = mongod_of(dir.path());
    assert!(is_alive(mongod));
    program.child.kill().unwrap();
    eventually("the mongod is gone", || !is_alive(mongod)).await;

    // The other way of starting is stopped like the usual one.
    let mut program = Program::start_with(&["--data-dir", data_dir], without_setpriv).await;
    assert!(program.terminate().await.success());
}

#[tokio::test]
async fn the_command_stops_its_mongod_cleanly_and_shields_it_from_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--data-dir", dir.path().to_str().unwrap()]).await;
    let mongod = mongod_of(dir.path());
    assert_eq!(process_group(mongod), mongod, "mongod is not in a process group of its own");
    assert!(program.terminate().await.success());
    assert!(!is_alive(mongod));
    let log = fs::read_to_string(dir.path().join("member-0.log")).unwrap();
    assert!(log.contains(r#""exitCode":0"#), "mongod did not shut down cleanly");
}

#[tokio::test]
async fn a_second_process_on_a_directory_learns_who_holds_it_and_where_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&["--data-dir", dir.path().to_str().unwrap()]).await;
    let error = ReplicaSet::start(in_dir(dir.path()), report).await.unwrap_err();
    let said = error.to_string();
    match error {
        Error::DataDirHeld { dir: held, pid, uri } => {
            assert_eq!(held, dir.path().canonicalize().unwrap());
            assert_eq!(pid, Some(program.child.id()));
            assert_eq!(uri.as_deref(), Some(program.uri.as_str()));
        }
        other => panic!("{other}"),
    }
    assert!(said.contains(&format!("set MONGODB_URI={} to use the same database", program.uri)), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_replaced_and_the_documents_stay() {
    let dir = tempfile::tempdir().unwrap();
    let set = start(in_dir(dir.path())).await;
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    set.stop().await.unwrap();

    occupy(ports_of(&uri)[0]);
    let said = Said::default();
    let set = ReplicaSet::start(in_dir(dir.path()), said.listener()).await.unwrap();
    assert_ne!(set.uri(), uri);
    assert!(said.text().contains("is taken"), "{}", said.text());
    assert_eq!(texts(set.uri()).await, ["before"]);
    write(set.uri(), "after").await;
    set.stop().await.unwrap();
}

#[tokio::test]
async fn three_members_find_each_other_again_on_other_ports() {
    let dir = tempfile::tempdir().unwrap();
    let three = || Options { members: 3, oplog_size_mb: Some(16), ..in_dir(dir.path()) };
    let set = start(three()).await;
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    set.stop().await.unwrap();

    ports_of(&uri).into_iter().for_each(occupy);
    let set = start(three()).await;
    assert!(ports_of(set.uri()).iter().all(|port| !ports_of(&uri).contains(port)));
    assert_eq!(texts(set.uri()).await, ["before"]);
    set.stop().await.unwrap();

    let wrong = ReplicaSet::start(in_dir(dir.path()), report).await.unwrap_err().to_string();
    assert!(wrong.contains("holds a replica set of 3 members, not of 1"), "{wrong}");
    let set = timed("a third start of three members", start(three())).await;
    assert_eq!(texts(set.uri()).await, ["before"]);
    set.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_set_leaves_no_process_and_no_file() {
    let set = start(Options::default()).await;
    let (mongod, dir) = (set.pid(0).unwrap(), set.data_dir().to_owned());
    assert!(is_alive(mongod) && dir.exists());
    drop(set);
    assert!(!is_alive(mongod) && !dir.exists());
}

#[tokio::test]
async fn a_mongod_that_ends_at_once_is_quoted() {
    let options = Options { extra_args: vec!["--nonsense".to_owned()], ..Options::default() };
    let error = ReplicaSet::start(options, report).await.unwrap_err().to_string();
    assert!(error.contains("unrecognised option '--nonsense'"), "{error}");
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_one_sentence() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ReplicaSet::start(in_dir(file.path()), report).await.unwrap_err();
    assert!(matches!(error, Error::DataDirNotWritable { .. }), "{error}");
}

#[tokio::test]
async fn test_commands_and_oplog_size_reach_the_mongod() {
    let set = start(Options { test_commands: true, oplog_size_mb: Some(1), ..Options::default() }).await;
    let client = Client::with_uri_str(set.uri()).await.unwrap();
    let admin = client.database("admin");
    admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    let oplog = client.database("local").run_command(doc! { "collStats": "oplog.rs" }).await.unwrap();
    assert_eq!(oplog.get("maxSize").and_then(|size| size.as_i64().or(size.as_i32().map(i64::from))), Some(1 << 20));
    set.stop().await.unwrap();
}
