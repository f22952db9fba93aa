//! The program as it is started and stopped by people, by other programs and by the system.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use clap::CommandFactory;
use corriente::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    harness::{Follower, PATIENCE_SECS, eventually},
    mongod::{Mongod, SET},
};

const PATIENCE: Duration = Duration::from_secs(PATIENCE_SECS);
/// What the design promises for a stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// The first start of an embedded MongoDB may have to fetch it.
const START_WITHIN: Duration = Duration::from_secs(120);

/// The program, running. Dropping it kills it, and its MongoDB with it.
pub struct Program {
    pub child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
}

/// What the program did when it has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// The program with nothing in its environment that configures it.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corriente"));
    for argument in Config::command().get_arguments() {
        argument.get_env().map(|name| command.env_remove(name));
    }
    command.env("PORT", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pipe = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut text = Vec::new();
            // Whatever came before the pipe broke is what there is to look at.
            let _ = pipe.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, stdout, stderr }
    }

    /// Over an embedded MongoDB with its files here.
    fn in_dir(dir: &Path) -> Self {
        let mut command = command();
        command.env("DATA_DIR", dir);
        Self::start(command)
    }

    /// The two lines for other programs: the URI of MongoDB, and the URL of the server.
    pub async fn ready(&mut self) -> (String, String) {
        let mut lines = Vec::new();
        for start in ["mongodb: ", "listening on "] {
            let line = timeout(START_WITHIN, self.stdout.next_line()).await.expect("a line in time").unwrap();
            match line.as_deref().and_then(|line| line.strip_prefix(start)) {
                Some(rest) => lines.push(rest.to_owned()),
                None => {
                    let said = timeout(PATIENCE, &mut self.stderr).await;
                    panic!("{line:?} instead of {start}; {said:?}");
                }
            }
        }
        let [uri, url] = lines.try_into().unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        (uri, url)
    }

    pub async fn signal(&self, name: &str) {
        signal(self.child.id().expect("it runs"), name).await;
    }

    pub async fn ended(mut self, within: Duration) -> Ended {
        let status = timeout(within, self.child.wait()).await.unwrap_or_else(|_| panic!("not ended in {within:?}"));
        let mut stdout = String::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            stdout += &line;
            stdout.push('\n');
        }
        Ended { status: status.unwrap(), stdout, stderr: self.stderr.await.unwrap() }
    }
}

/// Where an embedded MongoDB keeps its files.
struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // When a test ends with the program still running, mongod is killed with it, and may be writing for a moment
        // into what is about to be removed.
        let text = std::fs::read_to_string(self.path().join("member-0/mongod.lock")).unwrap_or_default();
        let start = std::time::Instant::now();
        while text.trim().parse().is_ok_and(is_alive) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn signal(pid: u32, name: &str) {
    let killed = Command::new("kill").args(["-s", name, &pid.to_string()]).status().await.unwrap();
    assert!(killed.success());
}

/// The process id that the embedded mongod has written beside its files.
fn mongod_of(dir: &Path) -> u32 {
    let text = std::fs::read_to_string(dir.join("member-0/mongod.lock")).expect("mongod has begun");
    text.trim().parse().expect("a process id")
}

/// Whether a process runs. A zombie does not: it waits for whoever inherited it.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

async fn expect_gone(pid: u32) {
    eventually("mongod is gone", async || (!is_alive(pid)).then_some(())).await;
}

async fn get(url: &str) -> Value {
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{url}");
    answer.json().await.expect("JSON")
}

async fn say(url: &str, content: &str) -> String {
    let body = json!({ "sender": "Ana", "content": content });
    let answer = reqwest::Client::new().post(format!("{url}/api/messages")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.headers()["location"].to_str().unwrap().to_owned()
}

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
async fn a_host_that_is_none_of_this_machine_is_refused_before_mongodb_is_started() {
    for host in ["nowhere.invalid", "192.0.2.1"] {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("data");
        let mut command = command();
        command.env("HOST", host).env("DATA_DIR", &files);
        let ended = Program::start(command).ended(PATIENCE).await;
        let sentence = ended.expect_failure(&[]);
        assert!(sentence.contains(host) && sentence.contains("HOST"), "{sentence}");
        assert!(!files.exists(), "MongoDB was started for {host}");
    }
}

#[tokio::test]
async fn a_second_program_on_the_same_files_says_who_has_them_and_what_to_do() {
    let dir = DataDir::new();
    let mut first = Program::in_dir(dir.path());
    let (uri, url) = first.ready().await;
    let holder = first.child.id().unwrap().to_string();
    let uri_of_holder = uri.replace("/corriente?", "/?");
    // On another port, and on the same one: that it is taken would be the smaller part of the story.
    for port in ["0", url.rsplit(':').next().unwrap()] {
        let mut second = command();
        second.env("DATA_DIR", dir.path()).env("PORT", port);
        let second = Program::start(second).ended(PATIENCE).await;
        let sentence = second.expect_failure(&[]);
        for part in [holder.as_str(), &format!("MONGODB_URI={uri_of_holder}"), dir.path().to_str().unwrap()] {
            assert!(sentence.contains(part), "{part} is not in {sentence}");
        }
    }
    // What it says to do works.
    let mut command = command();
    command.env("MONGODB_URI", &uri);
    let mut third = Program::start(command);
    let (_, other_url) = third.ready().await;
    let mut follower = Follower::join(&other_url, "room=general").await;
    follower.expect("ready").await;
    say(&url, "through the first").await;
    follower.expect_next_content("through the first").await;
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

#[tokio::test]
async fn whoever_reads_only_the_first_line_does_not_end_it() {
    let dir = DataDir::new();
    let mut command = command();
    command.env("DATA_DIR", dir.path());
    let port = free_port();
    command.env("PORT", port.to_string());
    let mut program = Program::start(command);
    let first = timeout(START_WITHIN, program.stdout.next_line()).await.unwrap().unwrap();
    assert!(first.unwrap().starts_with("mongodb: "));
    let Program { child, stdout, .. } = program;
    drop(stdout);
    let url = format!("http://127.0.0.1:{port}/livez");
    eventually("it listens", async || reqwest::get(&url).await.ok().filter(|answer| answer.status() == 200)).await;
    drop(child);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Ended {
    /// Asserts that it failed with one sentence for a person, and returns the sentence. `secrets` stand nowhere.
    fn expect_failure(&self, secrets: &[&str]) -> &str {
        let Self { status, stdout, stderr } = self;
        assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(!stdout.contains("listening"), "{stdout}");
        assert!(!stderr.contains("INFO stopped"), "nothing ran that could have been stopped: {stderr}");
        for secret in secrets {
            assert!(!stderr.contains(secret) && !stdout.contains(secret), "{secret} is told: {stdout}{stderr}");
        }
        // Log lines begin with the time.
        let is_log = |line: &&str| line.starts_with("20") && line.contains("Z ");
        let rest: Vec<&str> = stderr.lines().filter(|line| !is_log(line)).collect();
        let about_mongod = |line: &&str| line.starts_with("MongoDB ") && line.contains(" is ready after ");
        let sentences: Vec<&str> = rest.into_iter().filter(|line| !about_mongod(line)).collect();
        let [sentence] = sentences[..] else {
            panic!("{} lines instead of one sentence: {stderr}", sentences.len());
        };
        let sentence = sentence.strip_prefix("corriente: ").unwrap_or_else(|| panic!("who says that? {sentence}"));
        for debris in ["Error {", "Kind:", "ErrorKind", "Some(", "source:", "labels:", "{", "  "] {
            assert!(!sentence.contains(debris), "that is no sentence for a person: {sentence}");
        }
        sentence
    }
}

/// Runs the program with this MONGODB_URI, which must fail, and returns its sentence.
async fn refusal(uri: &str, secrets: &[&str]) -> String {
    let mut command = command();
    command.env("MONGODB_URI", uri);
    let ended = Program::start(command).ended(PATIENCE).await;
    ended.expect_failure(secrets).to_owned()
}

#[tokio::test]
async fn a_uri_that_is_none_is_refused_in_one_sentence_that_keeps_the_password() {
    for uri in [
        "nonsense",
        "http://example.net/",
        "mongodb://",
        "mongodb:///",
        "mongodb://user:hunter2@",
        "mongodb://user:hunter2@/",
        "mongodb://user:hunter2@host:port/",
        "mongodb://user:hunter2@host1,host2:99999/?replicaSet=rs0",
        "mongodb://user:hunter2:more@127.0.0.1/",
        "mongodb://user:hun@ter2@127.0.0.1/",
        "mongodb://user:hunter2%zz@127.0.0.1/",
        "mongodb://user:hunter2/more@127.0.0.1/",
        "mongodb://user:hunter2?more@127.0.0.1/",
        "mongodb://user:hunter2?tls=more@127.0.0.1/",
        "mongodb://user:more#hunter2@127.0.0.1/?tls=perhaps",
        "mongodb://127.0.0.1/?authMechanismProperties=AWS_SESSION_TOKEN:hun,hunter2",
        "mongodb://127.0.0.1/?tls=true&tlsCertificateKeyFilePassword=hunter2",
        "mongodb://user:hunter2@127.0.0.1/?tls=perhaps",
        "mongodb://user:hunter2@127.0.0.1/?authMechanism=hunter2",
        "mongodb://user:hunter2@127.0.0.1/?readPreference=hunter2",
        "mongodb://user:hunter2@127.0.0.1/?w=-5",
        "mongodb+srv://user:hunter2@127.0.0.1/",
        "mongodb+srv://user:hunter2@nowhere.invalid/",
        "mongodb+srv://user:hunter2@nowhere.invalid:27017/",
        "mongodb://é:hunter2@ñ/",
    ] {
        let sentence = refusal(uri, &["hunter2", "ter2", "user:"]).await;
        assert!(sentence.contains("MONGODB_URI") || sentence.contains("MongoDB"), "{uri}: {sentence}");
    }
}

#[tokio::test]
async fn a_mongodb_that_does_not_answer_is_named_in_one_sentence() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let port = free_port();
    for (uri, host) in [
        (format!("mongodb://user:hunter2@127.0.0.1:{port}/?replicaSet=rs0"), format!("127.0.0.1:{port}")),
        (format!("mongodb://127.0.0.1:{port}/"), format!("127.0.0.1:{port}")),
        // It accepts, and then says nothing.
        (format!("mongodb://user:hunter2@127.0.0.1:{silent_port}/"), format!("127.0.0.1:{silent_port}")),
        ("mongodb://user:hunter2@nowhere.invalid/?replicaSet=rs0".into(), "nowhere.invalid".into()),
    ] {
        let sentence = refusal(&uri, &["hunter2", "user:"]).await;
        assert!(sentence.contains(&host) && sentence.contains("reached"), "{sentence}");
    }
}

#[tokio::test]
async fn a_standalone_mongod_is_told_what_it_lacks() {
    let mongod = Mongod::start(&[]).await;
    // Where a set is named, the driver finds none of that name and tells nothing of who answered.
    for query in ["", "?directConnection=true", "?replicaSet=rs0"] {
        let sentence = refusal(&format!("mongodb://127.0.0.1:{}/{query}", mongod.port()), &[]).await;
        for part in ["standalone", "--replSet", "rs.initiate()", &mongod.port().to_string()] {
            assert!(sentence.contains(part), "{part} is not in {sentence}");
        }
    }
}

#[tokio::test]
async fn a_set_that_is_not_initiated_is_told_what_it_lacks() {
    let mongod = Mongod::start(&["--replSet", "rs0"]).await;
    for (user, query) in [("", ""), ("", "?directConnection=true"), ("user:hunter2@", "?replicaSet=rs0")] {
        let uri = format!("mongodb://{user}127.0.0.1:{}/{query}", mongod.port());
        let sentence = refusal(&uri, &["hunter2", "user:"]).await;
        for part in ["not initiated", "rs.initiate()", &mongod.port().to_string()] {
            assert!(sentence.contains(part), "{part} is not in {sentence}");
        }
    }
}

#[tokio::test]
async fn credentials_are_used_and_never_told() {
    let mongod = Mongod::with_users().await;
    let host = mongod.host();
    let secrets = ["hunter2", "wrong-password"];
    let uri = |user: &str, password: &str| mongod.uri(user, password);

    for (user, password) in [("root", "wrong-password"), ("nosuchuser", "hunter2%2F%40")] {
        let sentence = refusal(&uri(user, password), &secrets).await;
        assert!(sentence.contains("refuses the credentials") && sentence.contains(&host), "{sentence}");
    }
    let sentence = refusal(&format!("mongodb://{host}/?replicaSet={SET}"), &secrets).await;
    assert!(sentence.contains("credentials") || sentence.contains("role"), "{sentence}");
    for user in ["nobody", "reader"] {
        let sentence = refusal(&uri(user, "hunter2%2F%40"), &secrets).await;
        assert!(sentence.contains("role"), "{user}: {sentence}");
    }

    for user in ["writer", "root"] {
        let mut command = command();
        command.env("MONGODB_URI", uri(user, "hunter2%2F%40")).env("RUST_LOG", "debug");
        let mut program = Program::start(command);
        let (printed, url) = program.ready().await;
        assert_eq!(printed, format!("mongodb://{host}/corriente?replicaSet={SET}&authSource=admin"));
        let mut follower = Follower::join(&url, "room=general").await;
        follower.expect("ready").await;
        say(&url, user).await;
        follower.expect_next_content(user).await;
        drop(follower);
        program.signal("TERM").await;
        let ended = program.ended(STOP_WITHIN).await;
        assert!(ended.status.success(), "{user}: {}", ended.stderr);
        assert!(ended.stderr.contains(" settings: MONGODB_URI=mongodb://"), "{}", ended.stderr);
        for secret in secrets {
            assert!(!ended.stderr.contains(secret), "{secret} is in the log of {user}, at the level debug");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_before_mongodb_is_started() {
    let dir = DataDir::new();
    let files = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut command = command();
    command.env("DATA_DIR", &files).env("PORT", address.port().to_string());
    let ended = Program::start(command).ended(PATIENCE).await;
    let sentence = ended.expect_failure(&[]);
    for part in [address.to_string().as_str(), "HOST", "PORT", "another Corriente", "in use"] {
        assert!(sentence.contains(part), "{part} is not in {sentence}");
    }
    assert!(!files.exists(), "MongoDB was started");
}

#[tokio::test]
async fn a_data_dir_that_can_not_be_used_is_named() {
    let dir = DataDir::new();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ended = Program::in_dir(&file).ended(PATIENCE).await;
    assert!(ended.expect_failure(&[]).contains(file.to_str().unwrap()), "{}", ended.stderr);
}

#[tokio::test]
async fn help_names_every_flag_with_its_variable() {
    let mut program = command();
    program.arg("--help").env("MONGODB_URI", "mongodb://user:hunter2@host/");
    let ended = Program::start(program).ended(PATIENCE).await;
    assert!(ended.status.success());
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
    let mut named = BTreeSet::new();
    for argument in Config::command().get_arguments() {
        let flag = argument.get_long().expect("a long flag");
        if ["help", "version"].contains(&flag) {
            continue;
        }
        let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable")).to_str().unwrap();
        assert_eq!(variable, flag.to_uppercase().replace('-', "_"), "one name in two spellings");
        let text = ended.stdout.split(&format!("--{flag} ")).chain(ended.stdout.split(&format!("--{flag}\n"))).nth(1);
        assert!(text.is_some() && ended.stdout.contains(&format!("--{flag}")), "--{flag} is not in {}", ended.stdout);
        assert!(ended.stdout.contains(&format!("[env: {variable}")), "{variable} is not in {}", ended.stdout);
        named.insert(flag.to_owned());
    }
    for flag in ["mongodb-uri", "host", "port", "collection", "data-dir", "log-format"] {
        assert!(named.contains(flag), "--{flag}");
    }
}

#[tokio::test]
async fn it_says_its_version_and_refuses_what_it_does_not_know() {
    let mut version = command();
    version.arg("--version");
    let ended = Program::start(version).ended(PATIENCE).await;
    assert!(ended.status.success());
    assert_eq!(ended.stdout, format!("corriente {}\n", env!("CARGO_PKG_VERSION")));
    for (name, value) in [("PORT", "port"), ("PORT", "65536"), ("KEEP_ALIVE_SECS", "31"), ("LOG_FORMAT", "xml")] {
        let mut wrong = command();
        wrong.env(name, value);
        let ended = Program::start(wrong).ended(PATIENCE).await;
        assert_eq!(ended.status.code(), Some(2), "{name}={value}: {}", ended.stderr);
        assert!(ended.stderr.contains(value) && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let mut unknown = command();
    unknown.arg("--log-entrys-max=5");
    let ended = Program::start(unknown).ended(PATIENCE).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("'--log-entries-max'"), "it says what was meant: {}", ended.stderr);
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_before_anything_is_started() {
    let dir = DataDir::new();
    let mut contradictory = command();
    contradictory.env("DATA_DIR", dir.path()).env("READ_ONLY", "true").env("KEEP_DAYS", "7");
    contradictory.args(["--connections-max", "5", "--connections-per-address-max", "6"]);
    let ended = Program::start(contradictory).ended(PATIENCE).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 2, "{}", ended.stderr);
    assert!(errors[0].contains("CONNECTIONS_PER_ADDRESS_MAX (6)") && errors[1].contains("KEEP_DAYS"), "{errors:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no MongoDB was begun");
}

#[tokio::test]
async fn log_lines_are_json_when_asked_for() {
    let dir = DataDir::new();
    let mut command = command();
    command.env("DATA_DIR", dir.path()).env("LOG_FORMAT", "json");
    let mut program = Program::start(command);
    let (_, url) = program.ready().await;
    say(&url, "x").await;
    program.signal("TERM").await;
    let ended = program.ended(STOP_WITHIN).await;
    assert!(ended.stderr.lines().count() > 1, "{}", ended.stderr);
    for line in ended.stderr.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(parsed["message"].is_string() && parsed["level"].is_string(), "{line}");
    }
}
