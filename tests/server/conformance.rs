//! The protocols as others understand them: suites that test any server, run against this one.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio::net::TcpListener;

use crate::{
    harness::TestServer,
    programs::{SOURCES, Tool},
};

#[path = "../../examples/websocket_echo.rs"]
#[allow(dead_code)] // It is a program, too.
mod websocket_echo;

/// The parts of Autobahn's suite but for those of compression, which is not offered, and of speed.
const PARTS: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
/// How many cases they have.
const CASES: usize = 247;
/// How long they may take all together, in seconds.
const AUTOBAHN_SECS_MAX: u64 = 60;

/// For how many seconds requests are made up, and how long the whole may take.
const SCHEMATHESIS_SECS: u64 = 45;
const SCHEMATHESIS_SECS_MAX: u64 = 120;

/// What is said of one case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    behavior: String,
    behavior_close: String,
}

#[tokio::test]
async fn our_websocket_passes_every_case_of_autobahn() {
    let Some(suite) = Tool::of_python("kosoku").await else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echo = tokio::spawn(websocket_echo::run(listener));
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["--parallelism", "8", "--outdir", "report", &address];
    args.extend(PARTS.iter().flat_map(|part| ["--include", part]));
    suite.run(folder.path(), &args, AUTOBAHN_SECS_MAX).await.unwrap_or_else(|why| panic!("kosoku {why}"));
    echo.abort();

    let report = std::fs::read_to_string(folder.path().join("report/index.json")).expect("a report");
    let report: BTreeMap<String, BTreeMap<String, Case>> = serde_json::from_str(&report).expect("a report of JSON");
    let cases: Vec<(&String, &Case)> = report.values().flatten().collect();
    assert_eq!(cases.len(), CASES);
    let is_passed = |word: &str| ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&word);
    let failed: Vec<String> = cases
        .into_iter()
        .filter(|(_, case)| !is_passed(&case.behavior) || !is_passed(&case.behavior_close))
        .map(|(name, case)| format!("{name}: {}, and {} when it closed", case.behavior, case.behavior_close))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn whatever_the_specification_allows_is_answered_as_it_says() {
    let Some(schemathesis) = Tool::of_python("schemathesis").await else {
        return;
    };
    let rates = ["--rate-per-address", "0", "--rate-per-sender", "0", "--rate-requests-per-address", "0"];
    let server = TestServer::start_with(&rates).await;
    // Something to be found.
    for room in ["general", "dev"] {
        server.say(room, "hola").await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, url) = (format!("{SOURCES}/schemathesis.toml"), format!("{}/openapi.json", server.url));
    // Each time other requests; the tool prints the seed, and how to repeat what failed.
    let (seed, secs) = (rand::random_range(0..1_000_000).to_string(), SCHEMATHESIS_SECS.to_string());
    let args = ["--config-file", &config, "run", &url, "--seed", &seed, "--max-time", &secs, "--checks", "all"];
    let phases = ["--phases", "examples,coverage,fuzzing,stateful", "--request-timeout", "20", "--continue-on-failure"];
    let args = [&args[..], &phases].concat();
    let ran = schemathesis.run(folder.path(), &args, SCHEMATHESIS_SECS_MAX).await;
    ran.unwrap_or_else(|why| panic!("schemathesis with the seed {seed} {why}"));
    server.stop().await;
}
