//! The clients of `examples/`: each is run as it stands there, and speaks with the others.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    process::Command,
    time::timeout,
};

use crate::{
    harness::{Follower, PATIENCE_SECS, TestServer},
    programs::{Language, Running, example, own_example},
    relay::Relay,
};

/// The URI of a server's own database, as its line `mongodb: …` names it.
fn uri_of(server: &TestServer) -> String {
    server.mongo.uri().replacen("/?", &format!("/{}?", server.database.name()), 1)
}

/// A program must say something that everybody hears, and hear what others say.
async fn expect_talk(server: &TestServer, mut follower: Follower, mut program: Running, sender: &str, own: &str) {
    let shown = |line: Option<String>| {
        let line = line.expect("the program runs on");
        match serde_json::from_str::<Value>(&line) {
            Ok(frame) => {
                let text = |field: &str| frame["message"][field].as_str().expect("a text").to_owned();
                format!("{}: {}", text("sender"), text("content"))
            }
            Err(_) => line,
        }
    };
    let created = follower.expect("created").await;
    assert_eq!((&created["message"]["sender"], &created["message"]["content"]), (&json!(sender), &json!(own)));
    assert_eq!(shown(program.line().await), format!("{sender}: {own}"));
    server.say("general", "an answer").await;
    assert_eq!(shown(program.line().await), "Ana: an answer");
    // What could steer a terminal is not printed as it is.
    server.say("general", "\u{1b}]0;title\u{7}").await;
    let line = program.line().await.expect("the program runs on");
    assert!(!line.contains(['\u{1b}', '\u{7}']) && line.contains("]0;title"), "{line:?}");
    // A burst is shown in the order in which it was written.
    let date = mongodb::bson::DateTime::now();
    let burst = (0..50).map(|n| {
        mongodb::bson::doc! { "content": n.to_string(), "sender": "robot", "room": "general", "date": date }
    });
    server.messages().insert_many(burst).await.unwrap();
    for n in 0..50 {
        assert_eq!(shown(program.line().await), format!("robot: {n}"));
    }
}

#[tokio::test]
async fn mongosh_writes_and_mends_and_everybody_is_told() {
    let Some(mongosh) = Language::mongosh().await else {
        return;
    };
    let server = TestServer::start().await;
    server.say("general", "be\u{1b}[2Jfore").await;
    let mut follower = server.follow("room=general").await;
    let home = TempDir::new().unwrap();
    let shell = mongosh.folder.join("node_modules/mongosh/bin/mongosh.js");
    let program = example("mongosh_chat.js");
    let args = ["--quiet", &uri_of(&server), program.to_str().unwrap()];
    let printed = mongosh.attempt(&shell, &args, home.path()).await.expect("mongosh succeeds");
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["Marta: Hola desde mongosh, corregido", "Ana: be\u{FFFD}[2Jfore"]);
    assert_eq!(follower.expect("created").await["message"]["content"], "Hola desde mongosh");
    assert_eq!(follower.expect("updated").await["message"]["content"], "Hola desde mongosh, corregido");
    server.stop().await;
}

#[tokio::test]
async fn pymongo_writes_and_reads() {
    let Some(python) = Language::python().await else {
        return;
    };
    let server = TestServer::start().await;
    let follower = server.follow("room=general").await;
    let program = python.start_example("pymongo_chat.py", ("URI", &uri_of(&server)));
    expect_talk(&server, follower, program, "Pablo", "Hola desde pymongo").await;
    server.stop().await;
}

#[tokio::test]
async fn mongoose_writes_and_reads() {
    let Some(node) = Language::node().await else {
        return;
    };
    let server = TestServer::start().await;
    let follower = server.follow("room=general").await;
    let program = node.start_example("mongoose_chat.mjs", ("URI", &uri_of(&server)));
    expect_talk(&server, follower, program, "Nora", "Hola desde Mongoose").await;
    server.stop().await;
}

#[tokio::test]
async fn the_official_socket_io_client_writes_and_reads() {
    let Some(node) = Language::node().await else {
        return;
    };
    let server = TestServer::start().await;
    let follower = server.follow("room=general").await;
    let program = node.start_example("socket_io_chat.mjs", ("SERVER", &server.url));
    expect_talk(&server, follower, program, "Sofía", "Hola desde Socket.IO").await;
    server.stop().await;
}

#[tokio::test]
async fn python_socketio_writes_and_reads() {
    let Some(python) = Language::python().await else {
        return;
    };
    let server = TestServer::start().await;
    let follower = server.follow("room=general").await;
    let program = python.start_example("socket_io_chat.py", ("SERVER", &server.url));
    expect_talk(&server, follower, program, "Pía", "Hola desde Python").await;
    server.stop().await;
}

#[tokio::test]
async fn curl_writes_and_reads() {
    let server = TestServer::start().await;
    let follower = server.follow("room=general").await;
    let mut shell = Command::new("sh");
    shell.arg(example("curl.sh")).env("SERVER", &server.url);
    expect_talk(&server, follower, Running::start(shell), "Carla", "Hola desde curl").await;
    server.stop().await;
}

/// The chat in the terminal, with these flags.
async fn chat(url: &str, flags: &[&str]) -> Running {
    let mut command = Command::new(own_example("chat").await);
    command.args(["--url", url]).args(flags).env("TZ", "UTC").stderr(Stdio::null());
    Running::start(command)
}

/// A line without the time at its beginning, and without the day, which stands there from midnight on.
async fn told(chat: &mut Running) -> String {
    let line = chat.line().await.expect("the chat runs on");
    let (time, rest) = line.split_once(' ').expect("a time");
    let (time, rest) = if time.contains('-') { rest.split_once(' ').expect("a day and a time") } else { (time, rest) };
    assert_eq!((time.len(), time.find(':')), (5, Some(2)), "{line}");
    rest.to_owned()
}

#[tokio::test]
async fn the_chat_in_the_terminal_shows_the_history_and_what_happens_and_sends_what_is_typed() {
    let server = TestServer::start().await;
    let date = mongodb::bson::DateTime::from_millis(1_577_934_240_000);
    let old = mongodb::bson::doc! { "content": "long ago", "sender": "Ana", "room": "dev", "date": date };
    server.messages().insert_one(old).await.unwrap();
    server.say("dev", "before").await;
    let mut chat = chat(&server.url, &["--room", "dev", "--name", "Luis"]).await;
    assert_eq!(chat.line().await.as_deref(), Some("2020-01-02 03:04 Ana: long ago"));
    assert_eq!(told(&mut chat).await, "Ana: before");
    let mut follower = server.follow("room=dev").await;
    chat.type_line("¿qué tal?").await;
    let message = follower.expect("created").await["message"].clone();
    assert_eq!((&message["sender"], &message["content"]), (&json!("Luis"), &json!("¿qué tal?")));
    assert_eq!(told(&mut chat).await, "Luis: ¿qué tal?");
    // What could play tricks with a terminal is shown as what it is.
    let content = "one\u{1b}[2J\u{202E}\ntwo";
    let id = server.say("dev", content).await["id"].as_str().unwrap().to_owned();
    assert_eq!(told(&mut chat).await, "Ana: one\u{FFFD}[2J\u{FFFD}");
    assert_eq!(chat.line().await.as_deref(), Some("      two"));
    let id = mongodb::bson::oid::ObjectId::parse_str(id).unwrap();
    let messages = server.messages();
    let edit = mongodb::bson::doc! { "$set": { "content": "mended" } };
    messages.update_one(mongodb::bson::doc! { "_id": id }, edit).await.unwrap();
    assert_eq!(told(&mut chat).await, "Ana: mended (edited)");
    messages.delete_one(mongodb::bson::doc! { "_id": id }).await.unwrap();
    assert_eq!(told(&mut chat).await, "Ana: deleted: mended");
    // What it can not send it says, and goes on.
    chat.type_line(&"x".repeat(4_001)).await;
    chat.type_bytes(b"caf\xE9\n").await;
    chat.type_line("the last words").await;
    let rest = chat.end().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].ends_with("Luis: the last words"), "{rest:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_chat_in_the_terminal_writes_direct_messages() {
    let server = TestServer::start().await;
    let mut chat = chat(&server.url, &["--inbox", "Ana", "--name", "Ana"]).await;
    let mut follower = server.follow("inbox=Luis").await;
    chat.type_line("to nobody").await;
    chat.type_line("@Luis psst").await;
    assert_eq!(follower.expect("created").await["message"]["content"], "psst");
    assert_eq!(told(&mut chat).await, "Ana to Luis: psst");
    assert_eq!(chat.end().await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn the_chat_in_the_terminal_comes_back_when_it_is_asked_to_and_ends_when_it_is_refused_for_good() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut command = Command::new(own_example("chat").await);
    command.args(["--url", &url, "--name", "Ana"]).stdin(Stdio::null()).kill_on_drop(true);
    let answer_all = async {
        for (head, detail) in [
            ("429 Too Many Requests\r\nRetry-After: 1", "later"),
            ("408 Request Timeout", "slow"),
            ("503 Service Unavailable", "away"),
            ("422 Unprocessable Content", "never\u{1b}[2J"),
        ] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0, "the request ends early");
            }
            let body = json!({ "status": 0, "detail": detail }).to_string();
            let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    };
    let deadline = Duration::from_secs(PATIENCE_SECS);
    let ended = timeout(deadline, async { tokio::join!(command.output(), answer_all).0 }).await;
    let ended = ended.expect("it asks four times").unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("429") && said.contains("408") && said.ends_with("never\u{FFFD}[2J\n"), "{said:?}");
}

#[tokio::test]
async fn the_chat_in_the_terminal_gives_up_in_the_end_and_says_what_it_could_not_send() {
    // Kept, and never listened on: nobody else gets the port.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = deaf.local_addr().unwrap();
    for (typed, said) in [("hola\n", "perhaps not stored: 1 of what was typed"), ("", "could not be reached")] {
        let mut command = Command::new(own_example("chat").await);
        command.args(["--url", &format!("http://{nobody}"), "--name", "Ana", "--give-up-secs", "1"]);
        let mut chat = command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        chat.stdin.take().unwrap().write_all(typed.as_bytes()).await.unwrap();
        let ended = timeout(Duration::from_secs(PATIENCE_SECS), chat.wait_with_output()).await;
        let ended = ended.expect("it ends").unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains(said), "{told}");
        assert_eq!(told.matches("offline, trying again").count(), 1, "{told}");
    }
}

#[tokio::test]
async fn the_chat_in_the_terminal_comes_back_after_breaks_and_resets_with_nothing_lost() {
    let server = TestServer::start().await;
    let relay = Relay::to(&server.url, 2, 6_000).await;
    let mut chat = chat(&relay.url, &["--name", "Luis"]).await;
    chat.type_line("first").await;
    assert_eq!(told(&mut chat).await, "Luis: first");
    for n in 0..60 {
        server.say("general", &n.to_string()).await;
        if n % 10 == 5 {
            chat.type_line(&format!("typed {n}")).await;
        }
    }
    let mut seen = Vec::new();
    while seen.len() < 66 {
        seen.push(told(&mut chat).await);
    }
    let others: Vec<&String> = seen.iter().filter(|line| line.starts_with("Ana: ")).collect();
    assert_eq!(others, (0..60).map(|n| format!("Ana: {n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let own: Vec<&String> = seen.iter().filter(|line| line.starts_with("Luis: ")).collect();
    assert_eq!(own.len(), 6, "{own:?}");
    assert_eq!(relay.cut(), 2);
    // What follows its cursor can not be told any more.
    server.messages().drop().await.unwrap();
    server.messages().insert_one(mongodb::bson::doc! { "content": "of the new one", "sender": "robot" }).await.unwrap();
    assert_eq!(told(&mut chat).await, "robot: of the new one");
    server.say("general", "and live again").await;
    assert_eq!(told(&mut chat).await, "Ana: and live again");
    server.stop().await;
}
