//! Starts that fail, each with one sentence for a person that says what to do and no secrets.

use std::net::TcpListener;

use super::{DataDir, Ended, PATIENCE, Program, STOP_WITHIN, command, free_port, say};
use crate::{
    harness::Follower,
    mongod::{Mongod, SET},
};

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
